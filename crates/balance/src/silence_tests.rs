use proptest::prelude::*;

use super::*;

const MS: Micros = 1000;

fn usual(latency_ms: u64) -> Silence {
    let silence = Silence::default();
    silence.set_usual(Some((latency_ms * MS) as f64));
    silence
}

#[test]
fn who_answers_in_its_usual_time_is_welcome() {
    let silence = usual(2000);
    silence.asked(1);
    for ms in (0..10_000).step_by(100) {
        assert_eq!(silence.turns_away(1 + ms * MS), Turn::Welcome, "after {ms} ms");
    }
}

#[test]
fn silence_is_found_once_and_probed_each_time_it_has_doubled_up_to_five_seconds() {
    let silence = usual(10);
    silence.asked(1);
    let mut found = Vec::new();
    let mut asked = Vec::new();
    for ms in 0..40_000 {
        match silence.turns_away(1 + ms * MS) {
            Turn::FoundSilent => found.push(ms),
            Turn::Welcome if ms > 150 => asked.push(ms),
            Turn::Welcome | Turn::Away => {}
        }
    }
    assert_eq!(found, [151]);
    assert_eq!(asked, [302, 604, 1208, 2416, 4832, 9664, 14_664, 19_664, 24_664, 29_664, 34_664, 39_664]);
    assert!(silence.answered(), "it had been silent");
    assert!(!silence.answered());
    assert_eq!(silence.turns_away(40_000 * MS), Turn::Welcome);
}

#[test]
fn nothing_is_silent_while_no_latency_is_known() {
    let silence = Silence::default();
    silence.set_usual(None);
    silence.asked(1);
    assert_eq!(silence.turns_away(3_600_000 * MS), Turn::Welcome);
}

#[test]
fn what_was_given_up_before_anybody_looked_says_nothing_later() {
    let silence = usual(1);
    silence.asked(1);
    silence.given_up(1);
    assert_eq!(silence.turns_away(60_000 * MS), Turn::Welcome);
    silence.asked(60_000 * MS);
    assert_eq!(silence.turns_away(60_050 * MS), Turn::Welcome);
}

#[test]
fn silence_that_was_found_outlives_those_who_gave_up() {
    let silence = usual(1);
    silence.asked(1);
    assert_eq!(silence.turns_away(200 * MS), Turn::FoundSilent);
    silence.given_up(1);
    assert_eq!(silence.turns_away(201 * MS), Turn::Away);
    assert_eq!(silence.lasts(1 + 201 * MS), Some(201 * MS));
}

proptest! {
    /// Whatever is asked, answered and given up in whatever order: an endpoint that has answered within its patience is welcome, and of
    /// requests that come to a silent one all the time, few are let through.
    #[test]
    fn nobody_who_answers_is_avoided(
        latency in 1_u64..5000,
        events in proptest::collection::vec((0_u8..4, 1_u64..2000), 1..200),
    ) {
        let silence = usual(latency);
        let patience = (100 + 5 * latency) * MS;
        let (mut now, mut answered, mut asked) = (1, 0, Vec::new());
        for (event, pause) in events {
            now += pause * MS;
            match event {
                0 => {
                    silence.answered();
                    answered = now;
                }
                1 => if let Some(started) = asked.pop() {
                    silence.given_up(started);
                },
                _ => {
                    let turn = silence.turns_away(now);
                    if now - answered <= patience {
                        prop_assert_eq!(turn, Turn::Welcome);
                    }
                    if turn == Turn::Welcome {
                        silence.asked(now);
                        asked.push(now);
                    }
                }
            }
        }
        // And then silence, with a request every millisecond.
        silence.answered();
        silence.asked(now);
        let let_in = (1..60_000).filter(|ms| now + ms * MS > now + patience && silence.turns_away(now + ms * MS) == Turn::Welcome);
        prop_assert!(let_in.count() <= 10 + 12, "more than the doublings and one in five seconds");
    }
}
