//! What was written is read again as it was meant, and heads that somebody bends are understood as another reader understands them.

use bytes::BytesMut;
use httparse::Status;
use proptest::collection::vec;
use proptest::prelude::*;
use veer_http::h1::{self, Body, Chunked, Fault, Limits, Parsed, Persist, Piece};
use veer_http::{Fields, Method, Name, RequestHead, ResponseHead, Version};

/// Whole heads that every kind of line is in.
const HEADS: [&str; 7] = [
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /a?b=c HTTP/1.1\r\nHost: shop:80\r\nContent-Length: 12\r\nX-Empty:\r\nx_a.b:  c \t\r\nAccept: a,\tb\r\n\r\n",
    "PUT http://a:1/x?y HTTP/1.1\r\nhost: b\r\ntransfer-encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
    "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\nKeep-Alive: 5\r\n\r\n",
    "OPTIONS * HTTP/1.0\r\nContent-Length: 0\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n",
    "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nX-A-Name-Of-Many-Bytes-And-More: gr\u{fc}n\r\n\r\n",
    "\r\nDELETE /0123456789012345678901234567890123456789 HTTP/1.1\r\nHost: a\r\nUser-Agent: x/1 (y; z) w\r\n\r\nnext",
];

const ANSWERS: [&str; 5] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 12\r\nContent-Type: text/plain\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 12\r\nX-Empty:\r\nx_a:  c \t\r\n\r\n",
    "HTTP/1.0 404 Not\tf\u{fc}und\r\nConnection: keep-alive\r\nVary: a,\tb\r\n\r\n",
    "HTTP/1.1 304\r\nETag: \"x\"\r\nContent-Length: 7\r\n\r\n",
    "HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
];

/// Bytes that mean something.
const BYTES: [u8; 26] = *b"\r\n\t :,?#/\0\x7f\x80\xff@[]*_aZ109-.\x0b";

fn bent(heads: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => prop::sample::select(&BYTES[..]), 1 => any::<u8>()];
    let edit = (any::<prop::sample::Index>(), 0..4u8, byte);
    (prop::sample::select(heads), vec(edit, 0..5)).prop_map(|(head, edits)| {
        let mut text = head.as_bytes().to_vec();
        for (at, kind, byte) in edits {
            let at = at.index(text.len());
            match kind {
                0 => text.insert(at, byte),
                1 if text.len() > 1 => drop(text.remove(at)),
                2 => text.truncate(at + 1),
                _ => text[at] = byte,
            }
        }
        text
    })
}

fn read(text: &[u8]) -> Result<Option<(RequestHead, Parsed)>, Fault> {
    let mut head = RequestHead::default();
    Ok(h1::request(text, &Limits::default(), &mut head)?.map(|parsed| (head, parsed)))
}

fn read_answer(text: &[u8], to: Method) -> Result<Option<(ResponseHead, Parsed)>, Fault> {
    let mut head = ResponseHead::default();
    Ok(h1::response(text, to, &Limits::default(), &mut head)?.map(|parsed| (head, parsed)))
}

/// What the other reader is given: it knows no later minor version, which RFC 9110 2.5 has read as HTTP/1.1.
fn as_current(text: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    for at in 8..=text.len() {
        if let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ b'2'..=b'9'] = &mut text[at - 8..at] {
            *minor = b'1';
        }
    }
    text
}

fn same_fields(fields: &Fields, others: &[httparse::Header<'_>]) -> Result<(), TestCaseError> {
    let others = others.iter().map(|header| (header.name.to_ascii_lowercase().into_bytes(), header.value.to_vec()));
    // A length that is told again is dropped.
    let mut length = false;
    let others: Vec<_> =
        others.filter(|(name, _)| name != b"content-length" || !std::mem::replace(&mut length, true)).collect();
    let fields: Vec<_> = fields.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
    prop_assert_eq!(fields, others);
    Ok(())
}

/// Whether a line ends without CR.
fn has_bare_line_feed(text: &[u8]) -> bool {
    (0..text.len()).any(|at| text[at] == b'\n' && (at == 0 || text[at - 1] != b'\r'))
}

/// Whether the other reader may have been too lenient to see it.
fn about_meaning(fault: Fault, text: &[u8]) -> bool {
    let bare = has_bare_line_feed(text);
    match fault {
        Fault::LineEnd => bare,
        Fault::StartLine => bare || text.starts_with(b"\r"),
        Fault::FieldName | Fault::FieldValue => false,
        _ => true,
    }
}

/// What passes through without its connection's fields.
fn lasting(fields: &Fields) -> Vec<(String, Vec<u8>)> {
    let own =
        ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "content-length", "host"];
    let text = |name: &[u8]| String::from_utf8(name.to_vec()).unwrap();
    fields.iter().map(|(n, v)| (text(n), v.to_vec())).filter(|(name, _)| !own.contains(&name.as_str())).collect()
}

fn field() -> impl Strategy<Value = (String, String)> {
    let names = prop::sample::select(
        &["host", "connection", "transfer-encoding", "content-length", "upgrade", "keep-alive"][..],
    );
    let name = prop_oneof![8 => "[a-z0-9!#$%&'*+.^_`|~-]{1,24}", 1 => names.prop_map(String::from)];
    (name, "([!-~\u{80}-\u{ff}]([ \t!-~\u{80}-\u{ff}]{0,40}[!-~\u{80}-\u{ff}])?)?")
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(debug_assertions) { 1000 } else { 20_000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Against httparse, whose leniency is known.
    #[test]
    fn bent_requests_are_understood_as_another_reader_does(text in bent(&HEADS)) {
        let mut slots = [httparse::EMPTY_HEADER; 100];
        let mut other = httparse::Request::new(&mut slots);
        let current = as_current(&text);
        let verdict = other.parse(&current);
        match (read(&text), verdict) {
            (Ok(Some((head, parsed))), Ok(Status::Complete(length))) => {
                prop_assert_eq!(parsed.consumed, length);
                prop_assert!(!has_bare_line_feed(&text[..length]));
                prop_assert_eq!(Some(head.method_str()), other.method);
                prop_assert_eq!(head.version == Version::Http11, other.version == Some(1));
                prop_assert!(head.method() == Method::Connect || other.path.unwrap().as_bytes().ends_with(head.target())
                    || other.path.unwrap().contains("://"));
                same_fields(&head.fields, other.headers)?;
            }
            (Ok(None), Ok(Status::Partial)) => {}
            (Err(fault), Ok(_)) => prop_assert!(about_meaning(fault, &text), "{fault:?} {}", text.escape_ascii()),
            (Err(_), Err(_)) => {}
            both => prop_assert!(false, "{both:?} {}", text.escape_ascii()),
        }
    }

    #[test]
    fn bent_responses_are_understood_as_another_reader_does(text in bent(&ANSWERS)) {
        let mut slots = [httparse::EMPTY_HEADER; 100];
        let mut other = httparse::Response::new(&mut slots);
        let current = as_current(&text);
        let verdict = other.parse(&current);
        match (read_answer(&text, Method::Get), verdict) {
            (Ok(Some((head, parsed))), Ok(Status::Complete(length))) => {
                prop_assert_eq!((parsed.consumed, Some(head.status)), (length, other.code));
                prop_assert!(!has_bare_line_feed(&text[..length]));
                if head.fields.has(Name::TransferEncoding) {
                    prop_assert!(!head.fields.has(Name::ContentLength));
                } else {
                    same_fields(&head.fields, other.headers)?;
                }
            }
            (Ok(None), Ok(Status::Partial)) => {}
            (Err(fault), Ok(_)) => {
                let small = text.get(9) == Some(&b'0');
                prop_assert!(small || about_meaning(fault, &text), "{fault:?} {}", text.escape_ascii());
            }
            (Err(_), Err(_)) => {}
            both => prop_assert!(false, "{both:?} {}", text.escape_ascii()),
        }
    }

    /// What a proxy passes on means to the next what it meant to the proxy: in framing above all.
    #[test]
    fn what_was_read_is_written_with_the_same_meaning(text in bent(&HEADS)) {
        let Ok(Some((mut head, parsed))) = read(&text) else { return Ok(()) };
        head.take_host();
        let mut out = Vec::new();
        let upgrade = parsed.upgrade.then(|| head.fields.get(Name::Upgrade).unwrap_or_default());
        h1::write_request(&head, parsed.body, upgrade, &mut out);
        let (mut again, second) = read(&out).unwrap().unwrap();
        again.take_host();
        prop_assert_eq!((second.consumed, second.body, second.upgrade), (out.len(), parsed.body, parsed.upgrade));
        prop_assert_eq!((again.method_str(), again.target()), (head.method_str(), head.target()));
        prop_assert_eq!(again.authority().unwrap_or_default(), head.authority().unwrap_or_default());
        prop_assert_eq!(lasting(&again.fields), lasting(&head.fields));
        let mut lengths = Vec::new();
        again.fields.all(Name::ContentLength).for_each(|length| lengths.push(length.to_vec()));
        prop_assert_eq!(lengths.len(), usize::from(matches!(parsed.body, Body::Length(_))));
    }

    #[test]
    fn what_was_answered_is_written_with_the_same_meaning(text in bent(&ANSWERS), keep: bool) {
        let Ok(Some((head, parsed))) = read_answer(&text, Method::Get) else { return Ok(()) };
        let mut out = Vec::new();
        let persist = if keep && parsed.body != Body::UntilClose { Persist::Keep } else { Persist::Close };
        h1::write_response(&head, parsed.body, persist, Version::Http11, &mut out);
        let (again, second) = read_answer(&out, Method::Get).unwrap().unwrap();
        prop_assert_eq!((second.consumed, second.body), (out.len(), parsed.body));
        prop_assert_eq!((again.status, second.keep_alive), (head.status, persist == Persist::Keep));
        prop_assert_eq!(lasting(&again.fields), lasting(&head.fields));
    }

    #[test]
    fn any_request_can_be_written_and_read(
        method in "[A-Z]{1,9}|[!#$%&'*+.^_`|~0-9a-zA-Z-]{1,20}",
        target in "/[!-\"$-~]{0,60}",
        authority in "[a-z0-9.-]{1,30}(:[0-9]{1,5})?",
        list in vec(field(), 0..12),
        length in prop_oneof![Just(Body::None), Just(Body::Chunked), any::<u64>().prop_map(Body::Length)],
    ) {
        prop_assume!(method != "CONNECT");
        let mut head = RequestHead::default();
        head.set_method(method.as_bytes());
        head.set_authority(authority.as_bytes());
        head.set_target(target.as_bytes());
        for (name, value) in &list {
            head.fields.push_checked(name.as_bytes(), value.as_bytes()).unwrap();
        }
        let mut out = b"before".to_vec();
        h1::write_request(&head, length, None, &mut out);
        let out = &out[6..];
        for cut in 0..out.len() {
            prop_assert_eq!(read(&out[..cut]).map(|found| found.is_none()), Ok(true));
        }
        let (again, parsed) = read(out).unwrap().unwrap();
        prop_assert_eq!((parsed.consumed, parsed.body, parsed.upgrade, parsed.keep_alive), (out.len(), length, false, true));
        prop_assert_eq!((again.method_str(), again.target()), (method.as_str(), target.as_bytes()));
        prop_assert_eq!(again.fields.all(Name::Host).collect::<Vec<_>>(), vec![authority.as_bytes()]);
        prop_assert_eq!(lasting(&again.fields), lasting(&head.fields));
    }

    #[test]
    fn any_response_can_be_written_and_read(
        status in 200..=999u16,
        list in vec(field(), 0..12),
        length in prop_oneof![Just(Body::UntilClose), Just(Body::Chunked), any::<u64>().prop_map(Body::Length)],
        old: bool,
    ) {
        prop_assume!(!matches!(status, 204 | 304));
        let mut head = ResponseHead::new(status);
        for (name, value) in &list {
            head.fields.push_checked(name.as_bytes(), value.as_bytes()).unwrap();
        }
        let version = if old { Version::Http10 } else { Version::Http11 };
        let mut out = Vec::new();
        h1::write_response(&head, length, Persist::Keep, version, &mut out);
        let (again, parsed) = read_answer(&out, Method::Post).unwrap().unwrap();
        prop_assert_eq!((parsed.consumed, parsed.body, again.status), (out.len(), length, status));
        prop_assert_eq!(again.fields.get(Name::Connection), old.then_some(&b"keep-alive"[..]));
        prop_assert_eq!(lasting(&again.fields), lasting(&head.fields));
    }

    #[test]
    fn any_content_goes_through_chunks(
        parts in vec(vec(any::<u8>(), 1..300), 0..8),
        trailers in vec(("x-[a-z]{1,8}", "[!-~]{0,20}"), 0..4),
        cuts in vec(1..100usize, 1..20),
    ) {
        let mut fields = Fields::new();
        for (name, value) in &trailers {
            fields.push_checked(name.as_bytes(), value.as_bytes()).unwrap();
        }
        let mut wire = Vec::new();
        for part in &parts {
            h1::write_chunk_start(part.len(), &mut wire);
            wire.extend_from_slice(part);
            wire.extend_from_slice(b"\r\n");
        }
        h1::write_end(Some(&fields), &mut wire);
        wire.extend_from_slice(b"next");

        let (mut chunked, mut input, mut content, mut end) = (Chunked::default(), BytesMut::new(), Vec::new(), None);
        let mut wire = &wire[..];
        for cut in cuts.iter().cycle() {
            let (now, later) = wire.split_at((*cut).min(wire.len()));
            wire = later;
            input.extend_from_slice(now);
            while let Some(piece) = chunked.decode(&mut input).unwrap() {
                match piece {
                    Piece::Data(data) => content.extend_from_slice(&data),
                    Piece::End(trailers) => end = Some(trailers),
                }
            }
            if wire.is_empty() {
                break;
            }
        }
        prop_assert_eq!(content, parts.concat());
        prop_assert_eq!(end, Some((!trailers.is_empty()).then_some(fields)));
        prop_assert_eq!(&input[..], b"next");
    }
}
