//! What the standard calls an error, frame by frame (RFC 9113 §3.4 to §8).

use bytes::Bytes;

use super::raw::{GET, POST, Raw, block, data, frame, headers, reset, settings, window_update};
use crate::h2::frame::{PREFACE, flag, kind};
use crate::h2::{Code, Config, Connection, Event};
use crate::{RequestHead, ResponseHead};

/// What a peer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// GOAWAY.
    Gone(Code),
    /// RST_STREAM.
    Reset(u32, Code),
    Nothing,
}
use Told::{Gone, Nothing, Reset};

/// Feeds a connection, in one piece and byte by byte, and compares what the peer is told.
fn check(section: &str, make: impl Fn() -> Raw, bytes: &[u8], expected: Told) {
    for step in [bytes.len(), 1] {
        let mut raw = make();
        let mut outcome = Ok(());
        for piece in bytes.chunks(step) {
            outcome = raw.feed(piece).map(|_| ());
            if outcome.is_err() {
                break;
            }
        }
        let written = raw.written();
        let told = written.iter().rev().find_map(|frame| match frame.kind {
            kind::GOAWAY => Some(Gone(Code(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap())))),
            kind::RST_STREAM => Some(Reset(frame.id, frame.code())),
            _ => None,
        });
        assert_eq!(told.unwrap_or(Nothing), expected, "{section}: {outcome:?}");
        assert_eq!(
            outcome.err().map(|fault| Gone(fault.code)),
            matches!(expected, Gone(_)).then_some(expected),
            "{section}"
        );
    }
}

fn server() -> Raw {
    Raw::server(Config::default())
}

/// A server whose stream 1 is open in both directions.
fn open() -> Raw {
    let mut raw = server();
    raw.feed(&headers(1, &POST, false)).unwrap();
    raw
}

/// A server whose stream 1 has had its whole request.
fn half_closed() -> Raw {
    let mut raw = server();
    raw.feed(&headers(1, &GET, true)).unwrap();
    raw
}

/// A server whose stream 1 was answered and forgotten.
fn closed() -> Raw {
    let mut raw = half_closed();
    raw.connection.respond(1, &ResponseHead::new(204), true);
    raw.connection.forget(1);
    raw.written();
    raw
}

/// A server that has reset stream 1 while it was open.
fn reset_here() -> Raw {
    let mut raw = open();
    raw.connection.reset(1, Code::CANCEL);
    raw.connection.forget(1);
    raw.written();
    raw
}

/// A client that has sent a request on stream 1.
fn client() -> Raw {
    let mut raw = Raw::client(Config::default());
    let mut head = RequestHead::default();
    head.set_method(b"POST");
    head.set_target(b"/");
    raw.connection.request(&head, false, 0).unwrap();
    raw.written();
    raw
}

const PROTOCOL: Told = Gone(Code::PROTOCOL_ERROR);
const SIZE: Told = Gone(Code::FRAME_SIZE_ERROR);
const FLOW: Told = Gone(Code::FLOW_CONTROL_ERROR);

#[test]
fn a_connection_begins_as_it_must() {
    let fresh = || Raw::new(Connection::server(Config::default()));
    check("3.4 no preface", fresh, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", PROTOCOL);
    check("3.4 a wrong end", fresh, b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", PROTOCOL);
    check("3.4 a part of it", fresh, &PREFACE[..20], Nothing);
    let then = |frames: &[u8]| [&PREFACE[..], frames].concat();
    check("3.4 then settings", fresh, &then(&settings(&[])), Nothing);
    check("3.4 then a ping", fresh, &then(&frame(kind::PING, 0, 0, &[0; 8])), PROTOCOL);
    check("3.4 then an acknowledgement", fresh, &then(&frame(kind::SETTINGS, flag::ACK, 0, b"")), PROTOCOL);
    let fresh = || Raw::new(Connection::client(Config::default()));
    check("3.4 a server that begins otherwise", fresh, &frame(kind::PING, 0, 0, &[0; 8]), PROTOCOL);
    check("3.4 a server of HTTP/1.1", fresh, b"HTTP/1.1 400 Bad Request\r\n\r\n", SIZE);
}

#[test]
fn frames_have_their_size_and_their_stream() {
    let long = vec![0; 16_385];
    for kind in 0..=20 {
        check(&format!("4.2 kind {kind}"), open, &frame(kind, 0, 1, &long), SIZE);
    }
    check("6.1 DATA on no stream", open, &data(0, b"x", false), PROTOCOL);
    check("6.2 HEADERS on no stream", open, &headers(0, &GET, true), PROTOCOL);
    check("6.3 PRIORITY on no stream", open, &frame(kind::PRIORITY, 0, 0, &[0; 5]), PROTOCOL);
    check("6.3 PRIORITY too short", open, &frame(kind::PRIORITY, 0, 1, &[0; 4]), Reset(1, Code::FRAME_SIZE_ERROR));
    check("6.3 PRIORITY too short, idle", open, &frame(kind::PRIORITY, 0, 3, &[0; 4]), SIZE);
    check("6.3 PRIORITY", open, &frame(kind::PRIORITY, 0, 77, &[0; 5]), Nothing);
    check("6.4 RST_STREAM on no stream", open, &reset(0, Code::CANCEL), PROTOCOL);
    check("6.4 RST_STREAM, idle", open, &reset(3, Code::CANCEL), PROTOCOL);
    check("6.4 RST_STREAM of another length", open, &frame(kind::RST_STREAM, 0, 1, &[0; 5]), SIZE);
    check("6.5 SETTINGS on a stream", open, &frame(kind::SETTINGS, 0, 1, b""), PROTOCOL);
    check("6.5 SETTINGS of 5 bytes", open, &frame(kind::SETTINGS, 0, 0, &[0; 5]), SIZE);
    check("6.5 an acknowledgement with payload", open, &frame(kind::SETTINGS, flag::ACK, 0, &[0; 6]), SIZE);
    check("6.6 PUSH_PROMISE to a server", open, &frame(kind::PUSH_PROMISE, 4, 1, &[0, 0, 0, 2]), PROTOCOL);
    check("6.6 PUSH_PROMISE to a client", client, &frame(kind::PUSH_PROMISE, 4, 1, &[0, 0, 0, 2]), PROTOCOL);
    check("6.7 PING on a stream", open, &frame(kind::PING, 0, 1, &[0; 8]), PROTOCOL);
    check("6.7 PING of 7 bytes", open, &frame(kind::PING, 0, 0, &[0; 7]), SIZE);
    check("6.8 GOAWAY on a stream", open, &frame(kind::GOAWAY, 0, 1, &[0; 8]), PROTOCOL);
    check("6.8 GOAWAY of 7 bytes", open, &frame(kind::GOAWAY, 0, 0, &[0; 7]), SIZE);
    check("6.9 WINDOW_UPDATE of 3 bytes", open, &frame(kind::WINDOW_UPDATE, 0, 1, &[0; 3]), SIZE);
    check("5.5 a frame of no known kind", open, &frame(0xbb, 0xff, 1, b"anything"), Nothing);
    check("9218 7.1 PRIORITY_UPDATE", open, &frame(kind::PRIORITY_UPDATE, 0, 0, b"\0\0\0\x01u=1"), Nothing);
    check("9218 7.1 of no stream", open, &frame(kind::PRIORITY_UPDATE, 0, 0, b"\0\0\0\0u=1"), PROTOCOL);
    check("9218 7.1 on a stream", open, &frame(kind::PRIORITY_UPDATE, 0, 1, b"\0\0\0\x01u=1"), PROTOCOL);
    check("9218 7.1 to a client", client, &frame(kind::PRIORITY_UPDATE, 0, 0, b"\0\0\0\x01u=1"), PROTOCOL);
    check("9218 7.1 too short", open, &frame(kind::PRIORITY_UPDATE, 0, 0, b"\0\0\0"), SIZE);
}

#[test]
fn padding_lies_within_its_frame() {
    let padded = flag::PADDED;
    check("6.1", open, &frame(kind::DATA, padded, 1, b"\x03abc\0\0\0"), Nothing);
    check("6.1 all of it", open, &frame(kind::DATA, padded, 1, b"\x03\0\0\0"), Nothing);
    check("6.1 too much", open, &frame(kind::DATA, padded, 1, b"\x04\0\0\0"), PROTOCOL);
    check("6.1 none said", open, &frame(kind::DATA, padded, 1, b""), SIZE);
    let head = block(&GET);
    let whole = [&[2][..], &[0; 5], &head, &[0; 2]].concat();
    let flags = flag::PADDED | flag::PRIORITY | flag::END_HEADERS | flag::END_STREAM;
    check("6.2", server, &frame(kind::HEADERS, flags, 1, &whole), Nothing);
    check("6.2 too much", server, &frame(kind::HEADERS, flags, 1, b"\x02\0\0\0\0\0\0"), PROTOCOL);
    check("6.2 none said", server, &frame(kind::HEADERS, padded | flag::END_HEADERS, 1, b""), SIZE);
    check("6.2 no room", server, &frame(kind::HEADERS, flags, 1, b"\0\0\0\0\0"), SIZE);
}

#[test]
fn settings_are_within_their_bounds() {
    let with = |id, value| settings(&[(id, value)]);
    check("6.5.2 ENABLE_PUSH", server, &with(2, 2), PROTOCOL);
    check("6.5.2 ENABLE_PUSH of a client", server, &with(2, 1), Nothing);
    check("6.5.2 ENABLE_PUSH of a server", client, &with(2, 1), PROTOCOL);
    check("6.5.2 INITIAL_WINDOW_SIZE", server, &with(4, 1 << 31), FLOW);
    check("6.5.2 the largest INITIAL_WINDOW_SIZE", server, &with(4, (1 << 31) - 1), Nothing);
    check("6.5.2 MAX_FRAME_SIZE, small", server, &with(5, 16_383), PROTOCOL);
    check("6.5.2 MAX_FRAME_SIZE, large", server, &with(5, 1 << 24), PROTOCOL);
    check("6.5.2 MAX_FRAME_SIZE", server, &with(5, (1 << 24) - 1), Nothing);
    check("6.5.2 an unknown one", server, &with(0xf00, 7), Nothing);
    check("8441 3", client, &with(8, 2), PROTOCOL);
    check("8441 3 taken back", client, &[with(8, 1), with(8, 0)].concat(), PROTOCOL);
    check("9218 2.1", server, &with(9, 2), PROTOCOL);
    // A window that becomes too large by new settings (6.9.2).
    let grown = [window_update(1, 100), with(4, (1 << 31) - 1)].concat();
    check("6.9.2", open, &grown, FLOW);
}

#[test]
fn windows_are_kept() {
    check("6.9 of nothing", open, &window_update(0, 0), PROTOCOL);
    check("6.9 of nothing, on a stream", open, &window_update(1, 0), Reset(1, Code::PROTOCOL_ERROR));
    check("6.9 idle", open, &window_update(3, 1), PROTOCOL);
    check("6.9 closed", closed, &window_update(1, 1), Nothing);
    check("6.9.1 too large", open, &window_update(0, (1 << 31) - 1), FLOW);
    check("6.9.1 too large, on a stream", open, &window_update(1, (1 << 31) - 1), Reset(1, Code::FLOW_CONTROL_ERROR));
    let narrow = || {
        let mut raw = Raw::server(Config { stream_window: 10, ..Config::default() });
        raw.feed(&headers(1, &POST, false)).unwrap();
        raw
    };
    check("6.9.1 as much as permitted", narrow, &data(1, b"0123456789", false), Nothing);
    check("6.9.1 more on a stream", narrow, &data(1, b"0123456789a", false), Reset(1, Code::FLOW_CONTROL_ERROR));
    let padded = frame(kind::DATA, flag::PADDED, 1, b"\x0901\0\0\0\0\0\0\0\0\0");
    check("6.9.1 padding counts", narrow, &padded, Reset(1, Code::FLOW_CONTROL_ERROR));
    let small = || {
        let mut raw = Raw::server(Config { connection_window: 0, ..Config::default() });
        raw.feed(&headers(1, &POST, false)).unwrap();
        raw
    };
    let most = [[data(1, &[0; 16_384], false).repeat(3)].concat(), data(1, &[0; 16_383], false)].concat();
    check("6.9.1 as much as permitted on the connection", small, &most, Nothing);
    check("6.9.1 more on the connection", small, &[most, data(1, b"x", false)].concat(), FLOW);
}

#[test]
fn frames_fit_the_state_of_their_stream() {
    let stream_closed = Gone(Code::STREAM_CLOSED);
    check("5.1 idle: DATA", server, &data(1, b"x", false), PROTOCOL);
    check("5.1 half-closed: DATA", half_closed, &data(1, b"x", false), Reset(1, Code::STREAM_CLOSED));
    check("5.1 half-closed: HEADERS", half_closed, &headers(1, &[("a", "b")], true), Reset(1, Code::STREAM_CLOSED));
    check("5.1 half-closed: WINDOW_UPDATE", half_closed, &window_update(1, 1), Nothing);
    check("5.1 half-closed: RST_STREAM", half_closed, &reset(1, Code::CANCEL), Nothing);
    check("5.1 closed: DATA", closed, &data(1, b"x", false), Reset(1, Code::STREAM_CLOSED));
    check("5.1 closed: HEADERS", closed, &headers(1, &GET, true), stream_closed);
    check("5.1 closed: RST_STREAM", closed, &reset(1, Code::CANCEL), Nothing);
    check("5.1 closed: PRIORITY", closed, &frame(kind::PRIORITY, 0, 1, &[0; 5]), Nothing);
    check("5.1 reset here: DATA", reset_here, &data(1, b"x", false), Nothing);
    check("5.1 reset here: trailers", reset_here, &headers(1, &[("a", "b")], true), Nothing);
    check("5.1 reset here: WINDOW_UPDATE", reset_here, &window_update(1, 1), Nothing);
    check("5.1 reset here: RST_STREAM", reset_here, &reset(1, Code::CANCEL), Nothing);
    check("5.1.1 an even id", server, &headers(2, &GET, true), PROTOCOL);
    let backwards = [headers(5, &GET, true), headers(3, &GET, true)].concat();
    check("5.1.1 an id that was passed over", server, &backwards, PROTOCOL);
    check("5.1.1 DATA on an id of a server's", client, &data(2, b"x", false), PROTOCOL);
    check("5.1.1 HEADERS on an id of a server's", client, &headers(2, &[(":status", "200")], false), PROTOCOL);
    check("5.1.1 a response to nothing", client, &headers(3, &[(":status", "200")], false), PROTOCOL);
    check("8.1 DATA before a response", client, &data(1, b"x", false), Reset(1, Code::PROTOCOL_ERROR));
    check("8.1 trailers that end nothing", open, &headers(1, &[("a", "b")], false), Reset(1, Code::PROTOCOL_ERROR));
    check(
        "8.1 trailers with a pseudo-field",
        open,
        &headers(1, &[(":path", "/")], true),
        Reset(1, Code::PROTOCOL_ERROR),
    );
    check("8.1 trailers", open, &headers(1, &[("a", "b")], true), Nothing);
}

#[test]
fn streams_beyond_the_limit_are_refused() {
    let one = || {
        let mut raw = Raw::server(Config { streams: 1, ..Config::default() });
        raw.feed(&headers(1, &GET, true)).unwrap();
        raw
    };
    check("5.1.2", one, &headers(3, &GET, true), Reset(3, Code::REFUSED_STREAM));
    let mut raw = one();
    raw.feed(&headers(3, &GET, true)).unwrap();
    raw.connection.respond(1, &ResponseHead::new(204), true);
    raw.connection.forget(1);
    let events = raw.feed(&headers(5, &GET, true)).unwrap();
    assert!(matches!(events[..], [Event::Request { id: 5, .. }]), "{events:?}");
}

#[test]
fn header_blocks_are_contiguous_and_decodable() {
    let start = frame(kind::HEADERS, flag::END_STREAM, 1, &block(&GET[..2]));
    let rest = |id| frame(kind::CONTINUATION, flag::END_HEADERS, id, &block(&GET[2..]));
    check("6.10", server, &[start.clone(), rest(1)].concat(), Nothing);
    check("6.10 of another stream", server, &[start.clone(), rest(3)].concat(), PROTOCOL);
    check("6.10 of no stream", server, &[start.clone(), rest(0)].concat(), PROTOCOL);
    check("6.10 alone", server, &rest(1), PROTOCOL);
    check("6.10 after the end", server, &[headers(1, &GET, true), rest(1)].concat(), PROTOCOL);
    for between in [frame(kind::PING, 0, 0, &[0; 8]), frame(0xbb, 0, 0, b""), headers(3, &GET, true)] {
        check("4.3 another frame between", server, &[start.clone(), between, rest(1)].concat(), PROTOCOL);
    }
    let broken = frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, b"\xff\xff\xff\xff\xff\xff\xff");
    check("4.3 no HPACK", server, &broken, Gone(Code::COMPRESSION_ERROR));
    // Also where nobody wants it.
    let broken = frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, b"\x80");
    check("4.3 no HPACK, reset", reset_here, &broken, Gone(Code::COMPRESSION_ERROR));
}

#[test]
fn a_failed_connection_stays_failed_and_says_so_once() {
    let mut raw = server();
    let first = raw.feed(&frame(kind::PING, 0, 1, &[0; 8])).unwrap_err();
    assert_eq!(raw.feed(&settings(&[])).unwrap_err(), first);
    assert_eq!(raw.written().iter().filter(|frame| frame.kind == kind::GOAWAY).count(), 1);
    assert!(raw.connection.is_shut() && raw.connection.going_away());
}

#[test]
fn what_is_wrong_with_a_stream_ends_only_that() {
    let mut raw = open();
    raw.connection.set_state(1, 11);
    let events = raw.feed(&window_update(1, 0)).unwrap();
    let [Event::Reset { id: 1, code: Code::PROTOCOL_ERROR, untouched: false }] = events[..] else {
        panic!("{events:?}")
    };
    // Told once.
    assert!(raw.feed(&window_update(1, 0)).unwrap().is_empty() && raw.feed(&data(1, b"x", true)).unwrap().is_empty());
    assert_eq!(raw.resets(), [(1, Code::PROTOCOL_ERROR)]);
    assert!(raw.connection.data(1, &mut Bytes::from_static(b"dropped"), true));
    assert_eq!(raw.connection.forget(1), Some(11));
    assert!(raw.written().is_empty());
    assert!(matches!(raw.feed(&headers(3, &GET, true)).unwrap()[..], [Event::Request { id: 3, .. }]));
}
