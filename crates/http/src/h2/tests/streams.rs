//! How streams and connections come to their end.

use bytes::Bytes;

use super::peers::{Pair, get, post};
use super::raw::{GET, POST, Raw, data, frame, headers, reset, settings, window_update};
use crate::ResponseHead;
use crate::h2::frame::{flag, kind};
use crate::h2::{Code, Config, Event, Refused};

fn go_away(last: u32, code: Code) -> Vec<u8> {
    frame(kind::GOAWAY, 0, 0, &[last.to_be_bytes(), code.0.to_be_bytes()].concat())
}

#[test]
fn a_forgotten_stream_is_reset_with_what_fits() {
    let mut raw = Raw::server(Config::default());
    let frames = [headers(1, &POST, false), headers(3, &POST, false), headers(5, &GET, true), headers(7, &GET, true)];
    raw.feed(&frames.concat()).unwrap();
    // Answered while the request still comes; not answered; answered in part; answered.
    raw.connection.respond(1, &ResponseHead::new(200), true);
    raw.connection.respond(5, &ResponseHead::new(200), false);
    raw.connection.respond(7, &ResponseHead::new(200), true);
    for id in [1, 3, 5, 7, 7, 9] {
        raw.connection.forget(id);
    }
    assert_eq!(raw.resets(), [(1, Code::NO_ERROR), (3, Code::CANCEL), (5, Code::CANCEL)]);
    assert_eq!(raw.connection.open_streams(), 0);
    // What the client had sent before it knew.
    assert!(raw.feed(&[data(1, &[0; 1000], false), data(3, b"", true)].concat()).unwrap().is_empty());
    assert!(raw.resets().is_empty());
}

#[test]
fn what_is_not_released_is_when_a_stream_is_forgotten() {
    let mut raw = Raw::server(Config { connection_window: 65_535, ..Config::default() });
    for id in (1..100).step_by(2) {
        raw.feed(&[headers(id, &POST, false), data(id, &[0; 16_384], false)].concat()).unwrap();
        raw.connection.forget(id);
    }
    let updates = raw.written().into_iter().filter(|frame| frame.kind == kind::WINDOW_UPDATE && frame.id == 0).count();
    assert!((15..=30).contains(&updates), "{updates}");
}

#[test]
fn windows_are_given_back_in_halves() {
    let mut raw = Raw::server(Config { stream_window: 100_000, ..Config::default() });
    raw.feed(&headers(1, &POST, false)).unwrap();
    let mut updates = 0;
    for _ in 0..100 {
        raw.feed(&data(1, &[0; 10_000], false)).unwrap();
        raw.connection.release(1, 10_000);
        let written = raw.written();
        assert!(written.iter().all(|frame| frame.payload == 50_000u32.to_be_bytes()));
        updates += written.len();
    }
    assert_eq!(updates, 20);
    // More than was handed out cannot be given back, nor can anything after the end.
    raw.feed(&data(1, &[0; 10], true)).unwrap();
    raw.connection.release(1, 10_000_000);
    raw.connection.release(1, 10_000_000);
    assert!(raw.written().is_empty());
}

#[test]
fn a_client_is_told_what_a_server_that_leaves_has_not_touched() {
    let mut raw = Raw::client(Config::default());
    for stream in 0..3 {
        raw.connection.request(&get("/"), true, stream).unwrap();
    }
    raw.written();
    assert!(raw.connection.can_open());
    let events = raw.feed(&go_away(u32::MAX, Code::NO_ERROR)).unwrap();
    assert!(matches!(events[..], [Event::GoAway { last: 0x7fff_ffff, .. }]), "{events:?}");
    assert!(raw.connection.going_away() && !raw.connection.can_open() && !raw.connection.is_shut());
    assert_eq!(raw.connection.request(&get("/"), true, 9), Err(Refused::GoingAway));
    let events = raw.feed(&go_away(3, Code::NO_ERROR)).unwrap();
    let [Event::Reset { id: 5, code: Code::REFUSED_STREAM, untouched: true }, Event::GoAway { last: 3, .. }] =
        events[..]
    else {
        panic!("{events:?}")
    };
    raw.feed(&[headers(1, &[(":status", "200")], true), headers(3, &[(":status", "200")], true)].concat()).unwrap();
    assert_eq!([1, 3, 5].map(|id| raw.connection.forget(id)), [Some(0), Some(1), Some(2)]);
    assert!(raw.connection.is_shut() && raw.resets().is_empty());
}

#[test]
fn a_server_that_leaves_takes_what_is_under_way() {
    let mut pair = Pair::new(Config::default(), Config::default());
    pair.client.request(&get("/1"), true, 1).unwrap();
    pair.carry_to_server().unwrap();
    pair.carry_to_client().unwrap();
    pair.server.shut_down();
    pair.server.shut_down();
    // On its way before the client hears of it.
    pair.client.request(&get("/2"), true, 2).unwrap();
    let events = pair.carry_to_server().unwrap();
    assert!(matches!(events[..], [Event::Request { id: 3, .. }]), "{events:?}");
    assert!(matches!(pair.carry_to_client().unwrap()[..], [Event::GoAway { .. }]));
    assert!(!pair.server.is_shut());
    assert!(pair.carry_to_server().unwrap().is_empty());
    assert!(matches!(pair.carry_to_client().unwrap()[..], [Event::GoAway { last: 3, .. }]));
    for id in [1, 3] {
        pair.server.respond(id, &ResponseHead::new(204), true);
        pair.server.forget(id);
    }
    assert!(pair.server.is_shut());
    assert_eq!(pair.carry_to_client().unwrap().len(), 2);
}

#[test]
fn a_server_that_has_left_ignores_new_streams() {
    let mut raw = Raw::server(Config::default());
    raw.feed(&headers(1, &POST, false)).unwrap();
    raw.connection.go_away(Code::NO_ERROR);
    // Its head still changes the compression state.
    assert!(raw.feed(&headers(3, &GET, true)).unwrap().is_empty());
    assert!(matches!(raw.feed(&data(1, b"x", true)).unwrap()[..], [Event::Data { end: true, .. }]));
    let written = raw.written();
    assert!(matches!(&written[..], [frame] if frame.kind == kind::GOAWAY && frame.payload[..4] == [0, 0, 0, 1]));
}

#[test]
fn data_on_a_stream_that_was_ignored_after_leaving_break_nothing() {
    let mut raw = Raw::server(Config::default());
    raw.connection.go_away(Code::NO_ERROR);
    assert!(
        raw.feed(&[headers(1, &POST, false), data(1, b"x", false), reset(1, Code::CANCEL)].concat())
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_peers_reset_says_whether_anything_was_done() {
    for (code, untouched) in [(Code::REFUSED_STREAM, true), (Code::CANCEL, false), (Code(77), false)] {
        let mut raw = Raw::client(Config::default());
        raw.connection.request(&post("/"), false, 0).unwrap();
        let events = raw.feed(&reset(1, code)).unwrap();
        let [Event::Reset { id: 1, code: told, untouched: said }] = events[..] else { panic!("{events:?}") };
        assert_eq!((told, said), (code, untouched));
        assert!(raw.feed(&reset(1, code)).unwrap().is_empty());
        raw.written();
        raw.connection.forget(1);
        assert!(raw.written().is_empty());
    }
}

#[test]
fn a_server_may_answer_and_stop_the_request() {
    let mut raw = Raw::client(Config::default());
    raw.connection.request(&post("/"), false, 0).unwrap();
    let frames = [headers(1, &[(":status", "413")], true), reset(1, Code::NO_ERROR)];
    let events = raw.feed(&frames.concat()).unwrap();
    let [Event::Response { end: true, .. }, Event::Reset { code: Code::NO_ERROR, untouched: false, .. }] = events[..]
    else {
        panic!("{events:?}")
    };
}

#[test]
fn a_client_opens_as_many_streams_as_the_server_takes() {
    let mut raw = Raw::client(Config::default());
    raw.feed(&settings(&[(3, 2)])).unwrap();
    assert!(raw.connection.request(&get("/"), true, 0).is_ok() && raw.connection.request(&get("/"), true, 0).is_ok());
    assert_eq!(raw.connection.request(&get("/"), true, 0), Err(Refused::TooMany));
    raw.feed(&headers(1, &[(":status", "204")], true)).unwrap();
    assert!(raw.connection.can_open(), "closed on the wire, though not forgotten");
    // Before it has said anything, 100.
    let mut fresh = Raw::new(crate::h2::Connection::client(Config::default()));
    let opened = (0..200).take_while(|_| fresh.connection.request(&get("/"), true, 0).is_ok()).count();
    assert_eq!(opened, 100);
    fresh.feed(&settings(&[])).unwrap();
    assert!(fresh.connection.can_open());
}

#[test]
fn a_window_below_zero_blocks_until_it_has_recovered() {
    let mut raw = Raw::client(Config::default());
    let id = raw.connection.request(&post("/"), false, 0).unwrap();
    let mut body = Bytes::from(vec![0; 70_000]);
    raw.feed(&window_update(0, 1 << 20)).unwrap();
    assert!(!raw.connection.data(id, &mut body, true));
    assert_eq!(body.len(), 70_000 - 65_535);
    raw.feed(&settings(&[(4, 0)])).unwrap();
    raw.feed(&window_update(id, 65_535)).unwrap();
    assert_eq!(raw.connection.writable(), None, "the window is 0");
    raw.feed(&window_update(id, 1)).unwrap();
    assert_eq!(raw.connection.writable(), Some(id));
    assert!(!raw.connection.data(id, &mut body, true));
    assert_eq!(body.len(), 70_000 - 65_536);
    raw.feed(&settings(&[(4, 100_000)])).unwrap();
    assert_eq!(raw.connection.writable(), Some(id));
    assert!(raw.connection.data(id, &mut body, true));
    assert_eq!(raw.connection.writable(), None);
    let ends =
        raw.written().iter().filter(|frame| frame.kind == kind::DATA && frame.flags & flag::END_STREAM != 0).count();
    assert_eq!(ends, 1);
}

#[test]
fn blocked_streams_take_turns() {
    let mut raw = Raw::client(Config::default());
    raw.feed(&settings(&[(4, 1 << 20)])).unwrap();
    let ids: Vec<_> = (0..4).map(|_| raw.connection.request(&post("/"), false, 0).unwrap()).collect();
    raw.feed(&window_update(0, 200_000 * 4 - 65_535)).unwrap();
    let mut bodies = vec![Bytes::from(vec![0; 200_000]); 4];
    let mut order = Vec::new();
    for (id, body) in ids.iter().zip(&mut bodies) {
        raw.connection.data(*id, body, true);
    }
    for _ in 0..100 {
        raw.written();
        while let Some(id) = raw.connection.writable() {
            order.push(id);
            raw.connection.data(id, &mut bodies[id as usize / 2], true);
        }
    }
    assert!(bodies.iter().all(Bytes::is_empty));
    // Nobody is served a second time before the others that wait.
    let first: std::collections::BTreeSet<_> = order[..3].iter().collect();
    assert_eq!(first.len(), 3, "{order:?}");
}

#[test]
fn the_output_bounds_what_is_taken() {
    let mut raw = Raw::client(Config::default());
    raw.feed(&[settings(&[(4, 1 << 30)]), window_update(0, 1 << 30)].concat()).unwrap();
    let id = raw.connection.request(&post("/"), false, 0).unwrap();
    let mut body = Bytes::from(vec![0; 10 << 20]);
    assert!(!raw.connection.data(id, &mut body, true));
    let taken = (10 << 20) - body.len();
    assert!((crate::h2::HIGH_WATER..crate::h2::HIGH_WATER + 20_000).contains(&taken), "{taken}");
    assert_eq!(raw.connection.writable(), None);
    raw.written();
    assert_eq!(raw.connection.writable(), Some(id));
}

#[test]
fn a_lost_connection_gives_its_streams_back() {
    let mut raw = Raw::client(Config::default());
    for state in [5, 6] {
        raw.connection.request(&get("/"), true, state).unwrap();
    }
    let mut streams = raw.connection.take_streams();
    streams.sort_unstable();
    assert_eq!(streams, [(1, 5), (3, 6)]);
    assert_eq!(raw.connection.open_streams(), 0);
}

#[test]
fn pings_are_answered() {
    let mut pair = Pair::new(Config::default(), Config::default());
    pair.client.ping(42);
    pair.carry_to_server().unwrap();
    let events = pair.carry_to_client().unwrap();
    assert!(matches!(events[..], [Event::Settings, Event::Pong(42)]), "{events:?}");
}

#[test]
fn a_connection_at_rest_holds_little() {
    let mut pair = Pair::new(Config::default(), Config::default());
    for _ in 0..3 {
        for state in 0..100 {
            pair.client.request(&get("/"), true, state).unwrap();
        }
        for event in pair.carry_to_server().unwrap() {
            let Event::Request { id, .. } = event else { continue };
            pair.server.respond(id, &ResponseHead::new(204), true);
            pair.server.forget(id);
        }
        for event in pair.carry_to_client().unwrap() {
            let Event::Response { id, .. } = event else { continue };
            pair.client.forget(id);
        }
        pair.carry_to_server().unwrap();
        pair.client.rest();
        pair.server.rest();
        assert_eq!(pair.client.buffers() + pair.server.buffers(), 0);
    }
}
