//! Which heads are malformed (RFC 9113 §8.1.1 to §8.5, RFC 8441 §4), and what becomes of good ones.

use super::raw::{GET, POST, Raw, block, data, frame, headers};
use crate::h2::frame::{flag, kind};
use crate::h2::{Code, Config, Event};
use crate::{Method, Name, RequestHead, ResponseHead, Scheme, Version};

type Fields = Vec<(&'static str, &'static str)>;

/// A request with these fields after, and without those pseudo-fields.
fn with(more: &[(&'static str, &'static str)]) -> Fields {
    [&GET[..], more].concat()
}

fn instead(name: &'static str, value: &'static str) -> Fields {
    GET.iter().map(|field| if field.0 == name { (name, value) } else { *field }).collect()
}

fn without(name: &'static str) -> Fields {
    GET.into_iter().filter(|field| field.0 != name).collect()
}

fn config() -> Config {
    Config { connect_protocol: true, ..Config::default() }
}

/// The head of a request without a body; None: refused as malformed.
fn request(config: Config, fields: &[(&str, &str)]) -> Option<RequestHead> {
    let mut raw = Raw::server(config);
    let mut events = raw.feed(&headers(1, fields, true)).unwrap();
    match events.pop() {
        None => {
            assert_eq!(raw.resets(), [(1, Code::PROTOCOL_ERROR)]);
            None
        }
        Some(Event::Request { id: 1, head, end: true }) => Some(head),
        other => panic!("{other:?}"),
    }
}

#[test]
fn malformed_requests_are_refused() {
    let malformed = [
        ("8.2.1 upper case", with(&[("X-Mine", "a")])),
        ("8.2.1 no name", with(&[("", "a")])),
        ("8.2.1 no token", with(&[("a b", "a")])),
        ("8.2.1 a colon", with(&[("a:", "a")])),
        ("8.2.1 LF", with(&[("a", "x\ny: z")])),
        ("8.2.1 CR", with(&[("a", "x\ry")])),
        ("8.2.1 NUL", with(&[("a", "x\0y")])),
        ("8.2.1 space before", with(&[("a", " x")])),
        ("8.2.1 tab after", with(&[("a", "x\t")])),
        ("8.2.2 connection", with(&[("connection", "close")])),
        ("8.2.2 keep-alive", with(&[("keep-alive", "1")])),
        ("8.2.2 proxy-connection", with(&[("proxy-connection", "close")])),
        ("8.2.2 transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("8.2.2 upgrade", with(&[("upgrade", "websocket")])),
        ("8.2.2 te", with(&[("te", "gzip")])),
        ("8.3 an unknown pseudo-field", with(&[(":mine", "a")])),
        ("8.3 one of a response", with(&[(":status", "200")])),
        ("8.3 one after fields", [&[("a", "b")][..], &GET].concat()),
        ("8.3 one twice", [&GET[..], &[(":path", "/")]].concat()),
        ("8.3.1 no method", without(":method")),
        ("8.3.1 no scheme", without(":scheme")),
        ("8.3.1 no path", without(":path")),
        ("8.3.1 an empty path", instead(":path", "")),
        ("8.3.1 a relative path", instead(":path", "a")),
        ("8.3.1 a star", instead(":path", "*")),
        ("8.3.1 a fragment", instead(":path", "/a#b")),
        ("8.3.1 a space in the path", instead(":path", "/a b")),
        ("8.3.1 beyond ASCII", instead(":path", "/ü")),
        ("8.3.1 an unknown scheme", instead(":scheme", "ftp")),
        ("8.3.1 a method that is no token", instead(":method", "GE T")),
        ("8.3.1 an empty method", instead(":method", "")),
        ("8.3.1 a user", instead(":authority", "me@shop.test")),
        ("8.3.1 an empty authority", instead(":authority", "")),
        ("8.3.1 a host that is another", with(&[("host", "other.test")])),
        ("8.3.1 two hosts", with(&[("host", "shop.test"), ("host", "shop.test")])),
        ("8.5 CONNECT with path and scheme", instead(":method", "CONNECT")),
        ("8.5 CONNECT without authority", vec![(":method", "CONNECT")]),
        ("8441 a protocol without CONNECT", [&GET[..], &[(":protocol", "websocket")]].concat()),
        (
            "8441 without path",
            vec![(":method", "CONNECT"), (":protocol", "websocket"), (":authority", "a"), (":scheme", "http")],
        ),
        ("8.1.1 no length", with(&[("content-length", "")])),
        ("8.1.1 no number", with(&[("content-length", "+0")])),
        ("8.1.1 a list", with(&[("content-length", "0, 0")])),
        ("8.1.1 too large", with(&[("content-length", "18446744073709551616")])),
        ("8.1.1 two", with(&[("content-length", "0"), ("content-length", "1")])),
        ("8.1.1 a body that is not there", with(&[("content-length", "1")])),
    ];
    for (section, fields) in malformed {
        assert!(request(config(), &fields).is_none(), "{section}");
    }
    let extended = instead(":method", "CONNECT").into_iter().chain([(":protocol", "websocket")]).collect::<Vec<_>>();
    assert!(request(config(), &extended).is_some());
    assert!(request(Config::default(), &extended).is_none(), "8441: not announced");
}

#[test]
fn good_requests_come_as_they_are() {
    let head = request(config(), &with(&[("te", "trailers"), ("x-mine", "a\tü"), ("content-length", "0")])).unwrap();
    assert_eq!((head.method(), head.version, head.scheme), (Method::Get, Version::Http2, Scheme::Http));
    assert_eq!((head.target(), head.authority()), (&b"/"[..], Some(&b"shop.test"[..])));
    assert_eq!(head.fields.named(b"x-mine").collect::<Vec<_>>(), ["a\tü".as_bytes()]);
    let head = request(config(), &with(&[("host", "SHOP.test")])).unwrap();
    assert!(head.fields.has(Name::Host));
    let head = request(config(), &without(":authority")).unwrap();
    assert_eq!(head.authority(), None);
    let head = request(config(), &[(":method", "OPTIONS"), (":scheme", "https"), (":path", "*")]).unwrap();
    assert_eq!((head.method(), head.target(), head.scheme), (Method::Options, &b"*"[..], Scheme::Https));
    let head = request(config(), &[(":method", "CONNECT"), (":authority", "a:443")]).unwrap();
    assert_eq!((head.target(), head.authority(), head.protocol()), (&b""[..], Some(&b"a:443"[..]), None));
    let extended: Fields = [&instead(":method", "CONNECT")[..], &[(":protocol", "websocket")]].concat();
    assert_eq!(request(config(), &extended).unwrap().protocol(), Some(&b"websocket"[..]));
}

#[test]
fn pieces_of_a_cookie_are_joined() {
    let head =
        request(config(), &with(&[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3")])).unwrap();
    assert_eq!(head.fields.all(Name::Cookie).collect::<Vec<_>>(), [b"a=1; b=2; c=3"]);
    let head = request(config(), &with(&[("cookie", "a=1")])).unwrap();
    assert_eq!(head.fields.get(Name::Cookie), Some(&b"a=1"[..]));
}

#[test]
fn a_sensitive_field_stays_one() {
    let mut raw = Raw::server(config());
    let mut bytes = block(&GET);
    // Never indexed (RFC 7541 §6.2.3).
    bytes.extend_from_slice(b"\x10\x01a\x01b");
    let events = raw.feed(&frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &bytes)).unwrap();
    let [Event::Request { head, .. }] = &events[..] else { panic!("{events:?}") };
    assert!(head.fields.entries().any(|(_, name, _, sensitive)| name == b"a" && sensitive));
}

#[test]
fn a_head_beyond_the_limits_is_answered() {
    let long = "x".repeat(9000);
    let large: Vec<_> = GET.into_iter().chain([("a", &long[..]); 2]).collect();
    let many: Vec<_> = GET.into_iter().chain([("a", "b"); 97]).collect();
    let limits = Config { max_head: 16 << 10, ..Config::default() };
    for fields in [&large, &many] {
        // In pieces, since it is longer than a frame.
        let bytes = block(fields);
        let (first, second) = bytes.split_at(bytes.len().min(10_000));
        let frames = [frame(kind::HEADERS, 0, 1, first), frame(kind::CONTINUATION, flag::END_HEADERS, 1, second)];
        let mut raw = Raw::server(limits.clone());
        assert!(raw.feed(&frames.concat()).unwrap().is_empty());
        let written = raw.written();
        // `:status: 431` as a literal with the static table's name, then the request's rest is not wanted.
        assert_eq!((written[0].kind, written[0].flags), (kind::HEADERS, flag::END_HEADERS | flag::END_STREAM));
        assert_eq!((written[1].kind, written[1].code()), (kind::RST_STREAM, Code::NO_ERROR));
        assert_eq!(raw.connection.open_streams(), 0);
        // The connection goes on.
        assert_eq!(raw.feed(&headers(3, &GET, true)).unwrap().len(), 1);
    }
    let most: Vec<_> = GET.into_iter().chain([("a", "b"); 96]).collect();
    assert!(request(limits, &most).is_some());
}

#[test]
fn a_body_has_the_length_that_was_promised() {
    let head = |length| [&POST[..], &[("content-length", length)]].concat();
    let outcome = |frames: &[Vec<u8>]| {
        let mut raw = Raw::server(Config::default());
        raw.feed(&headers(1, &head("5"), false)).unwrap();
        let events = raw.feed(&frames.concat()).unwrap();
        let whole = matches!(events.last(), Some(Event::Data { end: true, .. } | Event::Trailers { .. }));
        assert_eq!(raw.resets().is_empty(), whole);
        whole
    };
    let end = || headers(1, &[("a", "b")], true);
    assert!(outcome(&[data(1, b"12345", true)]));
    assert!(outcome(&[data(1, b"123", false), data(1, b"45", false), data(1, b"", true)]));
    assert!(outcome(&[data(1, b"12345", false), end()]));
    assert!(!outcome(&[data(1, b"1234", true)]));
    assert!(!outcome(&[data(1, b"1234", false), end()]));
    assert!(!outcome(&[data(1, b"123456", false), data(1, b"", true)]));
    assert!(!outcome(&[end()]));
}

/// What a client makes of a response to this method.
fn response(method: &str, frames: &[Vec<u8>]) -> Result<Vec<Event>, Code> {
    let mut raw = Raw::client(Config::default());
    let mut head = RequestHead::default();
    head.set_method(method.as_bytes());
    head.set_authority(b"shop.test");
    head.set_target(b"/");
    raw.connection.request(&head, method != "CONNECT", 0).unwrap();
    raw.written();
    let events = raw.feed(&frames.concat()).unwrap();
    match (&raw.resets()[..], events.last()) {
        ([], _) => Ok(events),
        ([(1, code)], Some(Event::Reset { id: 1, code: told, untouched: false })) if code == told => Err(*code),
        other => panic!("{other:?}"),
    }
}

#[test]
fn responses_are_as_they_must_be() {
    let malformed = [
        ("8.3.2 no status", vec![("a", "b")]),
        ("8.3.2 two", vec![(":status", "200"), (":status", "200")]),
        ("8.3.2 no number", vec![(":status", "2x0")]),
        ("8.3.2 too short", vec![(":status", "20")]),
        ("8.3.2 too long", vec![(":status", "2000")]),
        ("8.3.2 too small", vec![(":status", "099")]),
        ("8.3.2 one of a request", vec![(":status", "200"), (":path", "/")]),
        ("8.3 after a field", vec![("a", "b"), (":status", "200")]),
        ("8.6 switching protocols", vec![(":status", "101")]),
        ("8.1 informational, and the end", vec![(":status", "103")]),
        ("8.2.2", vec![(":status", "200"), ("transfer-encoding", "chunked")]),
        ("8.1.1", vec![(":status", "200"), ("content-length", "1")]),
    ];
    for (section, fields) in malformed {
        assert_eq!(response("GET", &[headers(1, &fields, true)]).unwrap_err(), Code::PROTOCOL_ERROR, "{section}");
    }
    let long = [(":status", "200"), ("content-length", "5")];
    assert_eq!(response("HEAD", &[headers(1, &long, true)]).unwrap().len(), 1);
    assert_eq!(response("HEAD", &[headers(1, &long, false), data(1, b"", true)]).unwrap().len(), 2);
    assert!(response("HEAD", &[headers(1, &long, false), data(1, b"12345", true)]).is_err());
    assert_eq!(response("GET", &[headers(1, &[(":status", "304"), ("content-length", "5")], true)]).unwrap().len(), 1);
    assert_eq!(response("GET", &[headers(1, &long, false), data(1, b"12345", true)]).unwrap().len(), 2);
    assert_eq!(response("CONNECT", &[headers(1, &long, false), data(1, b"123456789", false)]).unwrap().len(), 2);
}

#[test]
fn informational_responses_come_before_the_final_one() {
    let frames = [
        headers(1, &[(":status", "100")], false),
        headers(1, &[(":status", "103"), ("link", "</a>")], false),
        headers(1, &[(":status", "200")], false),
        data(1, b"x", false),
        headers(1, &[("grpc-status", "0")], true),
    ];
    let events = response("GET", &frames).unwrap();
    let status = |event: &Event| match event {
        Event::Response { head, end: false, .. } => head.status,
        Event::Data { .. } => 1,
        Event::Trailers { fields, .. } => fields.get(Name::GrpcStatus).map_or(0, |_| 2),
        other => panic!("{other:?}"),
    };
    assert_eq!(events.iter().map(status).collect::<Vec<_>>(), [100, 103, 200, 1, 2]);
}

#[test]
fn heads_are_written_without_what_belongs_to_a_connection() {
    let mut raw = Raw::client(Config::default());
    let mut head = RequestHead::default();
    head.set_method(b"GET");
    head.set_target(b"/a");
    for (name, value) in [
        ("host", "shop.test"),
        ("connection", "x-mine"),
        ("keep-alive", "1"),
        ("proxy-connection", "a"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("http2-settings", "abc"),
        ("te", "gzip, trailers"),
        ("a", "b"),
    ] {
        head.fields.push_other(name.as_bytes(), value.as_bytes());
    }
    raw.connection.request(&head, true, 0).unwrap();
    raw.connection.output();
    let written = raw.written().pop().unwrap();
    let read = request_of(&written.payload);
    assert_eq!((read.authority(), read.target()), (Some(&b"shop.test"[..]), &b"/a"[..]));
    assert_eq!(read.fields.iter().collect::<Vec<_>>(), [(&b"te"[..], &b"trailers"[..]), (b"a", b"b")]);
}

#[test]
fn a_long_head_is_written_in_several_frames() {
    let mut raw = Raw::server(Config::default());
    raw.feed(&headers(1, &GET, true)).unwrap();
    let mut head = ResponseHead::new(200);
    let long = "y".repeat(20_000);
    head.fields.push_other(b"x-long", long.as_bytes());
    head.fields.push_other(b"x-long-too", long.as_bytes());
    raw.connection.respond(1, &head, true);
    let written = raw.written();
    let (last, others) = written.split_last().unwrap();
    assert_eq!((written[0].kind, written[0].flags), (kind::HEADERS, flag::END_STREAM));
    assert!(others.iter().all(|frame| frame.payload.len() == 16_384 && frame.flags & flag::END_HEADERS == 0));
    assert_eq!((last.kind, last.flags), (kind::CONTINUATION, flag::END_HEADERS));
    let bytes: Vec<u8> = written.iter().flat_map(|frame| frame.payload.clone()).collect();
    let mut client = Raw::client(Config::default());
    client.connection.request(&RequestHead::default(), true, 0).unwrap();
    let (first, rest) = bytes.split_at(16_384);
    let frames = [
        frame(kind::HEADERS, flag::END_STREAM, 1, first),
        rest.chunks(16_384).map(|part| frame(kind::CONTINUATION, 0, 1, part)).collect::<Vec<_>>().concat(),
        frame(kind::CONTINUATION, flag::END_HEADERS, 1, b""),
    ];
    let events = client.feed(&frames.concat()).unwrap();
    let [Event::Response { head: read, end: true, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(read.fields, head.fields);
}

fn request_of(bytes: &[u8]) -> RequestHead {
    let mut raw = Raw::server(config());
    let mut events = raw.feed(&frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, bytes)).unwrap();
    let Some(Event::Request { head, .. }) = events.pop() else { panic!("{:?}", raw.written()) };
    head
}
