//! The same seed, the same run.

use std::process::{Command, Stdio};
use std::time::Duration;

use veer_sim::{ClusterSpec, Fleet, FleetSpec, entropy};

const SECOND: Duration = Duration::from_secs(1);
/// Seed of the run that a child process of this test makes.
const SEED: &str = "VEER_SIM_SEED";
const BEGIN: &str = "-- journal";
const END: &str = "-- end";

/// A run in which much happens, and its journal: who served which request and when, what control planes believe of their
/// peers, how proxies see endpoints and gateways.
fn run(seed: u64) -> String {
    let spec = FleetSpec::new(seed)
        .with(ClusterSpec::new("west").copies("echo", ["echo-1"]).caller("visitor", "echo"))
        .with(ClusterSpec::new("east").gateways(2).copies("echo", ["echo-1", "echo-2"]))
        .with(ClusterSpec::new("north").copies("echo", ["echo-1"]));
    let mut fleet = Fleet::start(spec);
    fleet.call("west/visitor", Some(SECOND / 50));
    fleet.run(3 * SECOND);
    fleet.fail("west/echo-1", true);
    fleet.run(5 * SECOND);
    fleet.cut_off("east");
    fleet.run(12 * SECOND);
    fleet.fail("west/echo-1", false);
    fleet.mend();
    fleet.run(10 * SECOND);
    fleet.crash("east/gateway-1");
    fleet.run(3 * SECOND);
    fleet.journal().text()
}

/// The child's part.
#[test]
#[ignore = "run by the test below"]
fn one_run() {
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or(6);
    // A thread that has asked for no randomness yet.
    let running = std::thread::spawn(move || {
        entropy::follow(seed);
        run(seed)
    });
    println!("\n{BEGIN}\n{}{END}", running.join().unwrap());
}

/// Starts a run in a process of its own: what a process counts from its start, others do not disturb.
fn begin(seed: u64) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["repeat::one_run", "--exact", "--ignored", "--nocapture"])
        .env(SEED, seed.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn journal(child: std::process::Child) -> String {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the run failed");
    let text = String::from_utf8(output.stdout).unwrap();
    let (_, text) = text.split_once(BEGIN).unwrap();
    text.split_once(END).unwrap().0.to_owned()
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    let (first, second) = (begin(6), begin(6));
    let (first, second) = (journal(first), journal(second));
    for word in ["served by east", "served by north", "failed", "peer east Silent", "ejections_total"] {
        assert!(first.contains(word), "much happens, also: {word}");
    }
    if let Some((line, (a, b))) = first.lines().zip(second.lines()).enumerate().find(|(_, (a, b))| a != b) {
        panic!("line {line} differs:\n{a}\n{b}");
    }
    assert_eq!(first, second);
    assert_ne!(first, journal(begin(7)));
}
