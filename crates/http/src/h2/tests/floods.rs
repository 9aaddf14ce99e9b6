//! Peers that make work and want nothing: each is told to calm down, and none that wants something is.

use super::raw::{GET, POST, Raw, block, data, frame, headers, reset, settings, window_update};
use crate::ResponseHead;
use crate::h2::frame::{flag, kind};
use crate::h2::{Code, Config, Event};

/// Feeds the same again and again, takes nothing of what is written, and serves nobody; after how many times the connection ends.
fn endures(mut next: impl FnMut(u32) -> Vec<u8>) -> Option<u32> {
    let mut raw = Raw::server(Config::default());
    raw.feed(&headers(1, &POST, false)).unwrap();
    for round in 0..100_000 {
        match raw.feed(&next(round)) {
            Ok(events) => {
                for event in events {
                    if let Event::Reset { id, .. } = event {
                        raw.connection.forget(id);
                    }
                }
            }
            Err(fault) => {
                assert_eq!(fault.code, Code::ENHANCE_YOUR_CALM, "{fault}");
                return Some(round);
            }
        }
        assert!(bytes::Buf::remaining(raw.connection.output()) < 64 << 10);
    }
    None
}

#[test]
fn floods_end() {
    let id = |round: u32| 3 + 2 * round;
    let floods: [(&str, u32, Box<dyn FnMut(u32) -> Vec<u8>>); 12] = [
        ("resets", 1000, Box::new(move |n| [headers(id(n), &GET, true), reset(id(n), Code::CANCEL)].concat())),
        ("errors", 1000, Box::new(move |n| [headers(id(n), &POST, false), window_update(id(n), 0)].concat())),
        ("malformed heads", 1000, Box::new(move |n| headers(id(n), &GET[..1], true))),
        ("data on nothing", 1000, Box::new(move |n| [headers(id(n), &GET, true), data(id(n), b"x", true)].concat())),
        ("pings", 2000, Box::new(|_| frame(kind::PING, 0, 0, &[1; 8]))),
        ("settings", 2000, Box::new(|n| settings(&[(4, 1000 + n)]))),
        ("pongs", 5000, Box::new(|_| frame(kind::PING, flag::ACK, 0, &[1; 8]))),
        ("acknowledgements", 5000, Box::new(|_| frame(kind::SETTINGS, flag::ACK, 0, b""))),
        ("empty data", 5000, Box::new(|_| data(1, b"", false))),
        ("priorities", 5000, Box::new(|n| frame(kind::PRIORITY, 0, 1 + n, &[0; 5]))),
        ("window updates", 5000, Box::new(|_| window_update(0, 1))),
        ("unknown frames", 5000, Box::new(|_| frame(99, 0, 0, b"x"))),
    ];
    for (name, most, next) in floods {
        let endured = endures(next);
        assert!(endured.is_some_and(|rounds| (100..most).contains(&rounds)), "{name}: {endured:?}");
    }
}

#[test]
fn a_header_block_is_bounded() {
    for part in [&b""[..], &[0x82; 1000]] {
        let mut raw = Raw::server(Config::default());
        raw.feed(&frame(kind::HEADERS, 0, 1, b"")).unwrap();
        let next = frame(kind::CONTINUATION, 0, 1, part);
        let fault = (0..1000).find_map(|_| raw.feed(&next).err()).unwrap();
        assert_eq!(fault.code, Code::ENHANCE_YOUR_CALM);
    }
    // Many references to one large entry: decoded, and too large.
    let mut raw = Raw::server(Config::default());
    let long = "x".repeat(4000);
    let mut bytes = block(&GET);
    bytes.extend_from_slice(&[0x40, 1, b'a', 127, (4000 - 127) as u8 & 127 | 128, ((4000 - 127) >> 7) as u8]);
    bytes.extend_from_slice(long.as_bytes());
    bytes.extend_from_slice(&[0xbe; 10_000]);
    assert!(raw.feed(&frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &bytes)).unwrap().is_empty());
    assert!(matches!(raw.written()[..], [ref answer] if answer.kind == kind::HEADERS));
}

#[test]
fn a_peer_that_does_not_read_gets_no_more_answers() {
    let mut raw = Raw::server(Config::default());
    let mut head = ResponseHead::new(200);
    head.fields.push_other(b"x-long", &[b'x'; 2000]);
    let mut most = 0;
    let fault = (0..200_000).find_map(|n| {
        let events = match raw.feed(&headers(1 + 2 * n, &GET, true)) {
            Ok(events) => events,
            Err(fault) => return Some(fault),
        };
        for event in events {
            let Event::Request { id, .. } = event else { continue };
            raw.connection.respond(id, &head, true);
            raw.connection.forget(id);
        }
        most = most.max(bytes::Buf::remaining(raw.connection.output()));
        None
    });
    assert_eq!(fault.map(|fault| fault.code), Some(Code::ENHANCE_YOUR_CALM));
    assert!(most < 2 << 20, "{most}");
}

#[test]
fn who_asks_and_reads_is_served_for_ever() {
    let mut raw = Raw::server(Config::default());
    for n in 0..20_000 {
        // What a talkative client sends around each of its requests; every other is cancelled once it is answered in part.
        let id = 1 + 2 * n;
        let frames = [
            headers(id, &POST, false),
            frame(kind::PRIORITY, 0, id, &[0; 5]),
            frame(kind::PING, 0, 0, &[1; 8]),
            settings(&[]),
            data(id, b"", false),
            data(id, b"x", true),
            window_update(id, 10),
            window_update(0, 10),
        ];
        raw.feed(&frames.concat()).unwrap();
        raw.connection.respond(id, &ResponseHead::new(200), n % 2 == 0);
        if n % 2 == 1 {
            raw.feed(&reset(id, Code::CANCEL)).unwrap();
        }
        raw.connection.forget(id);
        raw.written();
    }
    // Signs of life of a connection without streams.
    for _ in 0..20_000 {
        raw.feed(&frame(kind::PING, 0, 0, &[1; 8])).unwrap();
        raw.connection.ping(1);
        raw.feed(&frame(kind::PING, flag::ACK, 0, &[1; 8])).unwrap();
        raw.written();
    }
}
