//! Heads of HTTP/1.1 out of bytes: what is understood, what is refused, and that no cut changes a verdict.

use veer_http::h1::{self, Body, Fault, Limits, Parsed};
use veer_http::{Method, Name, RequestHead, ResponseHead, Scheme, Version};

fn request_within(text: &[u8], limits: &Limits) -> Result<Option<(RequestHead, Parsed)>, Fault> {
    let mut head = RequestHead::default();
    head.fields.push(Name::Via, b"from the message before");
    let parsed = h1::request(text, limits, &mut head)?;
    Ok(parsed.map(|parsed| (head, parsed)))
}

fn response_to(to: Method, text: &[u8]) -> Result<Option<(ResponseHead, Parsed)>, Fault> {
    let mut head = ResponseHead::default();
    let parsed = h1::response(text, to, &Limits::default(), &mut head)?;
    Ok(parsed.map(|parsed| (head, parsed)))
}

/// The verdict on the whole text. Every shorter text is either not whole or gets a fault as well; longer text changes nothing.
fn request(text: &str) -> Result<(RequestHead, Parsed), Fault> {
    let limits = Limits::default();
    let text = text.as_bytes();
    let verdict = request_within(text, &limits);
    for cut in 0..text.len() {
        match (request_within(&text[..cut], &limits), &verdict) {
            (Ok(None), _) => {}
            (Err(early), Err(late)) => assert_eq!(early, *late, "{cut} of {}", text.escape_ascii()),
            (early, late) => panic!("{early:?} {late:?} {cut} of {}", text.escape_ascii()),
        }
    }
    let mut longer = text.to_vec();
    longer.extend_from_slice(b"GET / HTTP/1.1\r\n");
    match (request_within(&longer, &limits), &verdict) {
        (Ok(Some((_, longer))), Ok(Some((_, parsed)))) => assert_eq!(longer, *parsed),
        (Err(longer), Err(fault)) => assert_eq!(longer, *fault),
        both => panic!("{both:?} {}", text.escape_ascii()),
    }
    Ok(verdict?.expect("a whole head or none that can become one"))
}

fn response(to: Method, text: &str) -> Result<(ResponseHead, Parsed), Fault> {
    let text = text.as_bytes();
    let verdict = response_to(to, text);
    for cut in 0..text.len() {
        match (response_to(to, &text[..cut]), &verdict) {
            (Ok(None), _) => {}
            (Err(early), Err(late)) => assert_eq!(early, *late, "{cut} of {}", text.escape_ascii()),
            (early, late) => panic!("{early:?} {late:?} {cut} of {}", text.escape_ascii()),
        }
    }
    Ok(verdict?.expect("a whole head or none that can become one"))
}

/// A request with these fields behind `Host`.
fn with(fields: &str) -> Result<Parsed, Fault> {
    Ok(request(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))?.1)
}

#[test]
fn a_request_is_understood() {
    let text = "\r\n\r\nPUT /a/b?c=d HTTP/1.1\r\nHost: shop:80\r\nX-EMPTY:\r\nContent-LENGTH:5\r\nAccept: \t a, b \t\r\n\
                x-obs: gr\u{fc}n\r\nConnection: Keep-Alive\r\n\r\n";
    let (head, parsed) = request(text).unwrap();
    assert_eq!(
        (head.method(), head.target(), head.path(), head.query()),
        (Method::Put, &b"/a/b?c=d"[..], "/a/b", Some("c=d"))
    );
    assert_eq!((head.version, head.scheme, head.authority()), (Version::Http11, Scheme::Http, None));
    let fields: Vec<_> = head.fields.iter().map(|(n, v)| (std::str::from_utf8(n).unwrap(), v)).collect();
    assert_eq!(
        fields,
        [
            ("host", &b"shop:80"[..]),
            ("x-empty", b""),
            ("content-length", b"5"),
            ("accept", b"a, b"),
            ("x-obs", "gr\u{fc}n".as_bytes()),
            ("connection", b"Keep-Alive")
        ]
    );
    assert_eq!(head.fields.get(Name::Accept), Some(&b"a, b"[..]));
    assert_eq!(
        parsed,
        Parsed {
            consumed: text.len(),
            body: Body::Length(5),
            keep_alive: true,
            expect_continue: false,
            upgrade: false
        }
    );
}

#[test]
fn targets_have_four_forms() {
    let cases = [
        ("GET / ", Some(("/", None, Scheme::Http))),
        ("GET //x?? ", Some(("//x??", None, Scheme::Http))),
        ("GET /%2e|{}\"<>^`\\ ", Some(("/%2e|{}\"<>^`\\", None, Scheme::Http))),
        ("GET http://a.b:8/c?d ", Some(("/c?d", Some("a.b:8"), Scheme::Http))),
        ("GET HTTPS://[::1]:8/c ", Some(("/c", Some("[::1]:8"), Scheme::Https))),
        ("GET http://a ", Some(("/", Some("a"), Scheme::Http))),
        ("GET http://a?x ", Some(("/?x", Some("a"), Scheme::Http))),
        ("OPTIONS http://a ", Some(("*", Some("a"), Scheme::Http))),
        ("OPTIONS http://a/ ", Some(("/", Some("a"), Scheme::Http))),
        ("OPTIONS * ", Some(("*", None, Scheme::Http))),
        ("CONNECT a:443 ", Some(("", Some("a:443"), Scheme::Http))),
        ("CONNECT [fe80::1]:443 ", Some(("", Some("[fe80::1]:443"), Scheme::Http))),
        ("GET * ", None),
        ("GET a ", None),
        ("GET a/b ", None),
        ("GET /a#b ", None),
        ("GET http://a/#b ", None),
        ("GET http:// ", None),
        ("GET http:///x ", None),
        ("GET http://:80/x ", None),
        ("GET http://u@a/ ", None),
        ("GET http://a:b/ ", None),
        ("GET http://a\\b/ ", None),
        ("GET ftp://a/ ", None),
        ("GET http:/a ", None),
        ("GET a:443 ", None),
        ("GET /\u{fc} ", None),
        ("CONNECT /a ", None),
        ("CONNECT a ", None),
        ("CONNECT a: ", None),
        ("CONNECT :443 ", None),
        ("CONNECT [::1] ", None),
        ("CONNECT http://a:1 ", None),
        ("CONNECT [::1:443 ", None),
        ("CONNECT []:443 ", None),
        ("CONNECT a]:443 ", None),
    ];
    for (line, expected) in cases {
        let found = request(&format!("{line}HTTP/1.1\r\nHost: h\r\n\r\n"));
        match (&found, expected) {
            (Ok((head, _)), Some((target, authority, scheme))) => {
                assert_eq!(head.target(), target.as_bytes(), "{line}");
                assert_eq!(head.authority(), authority.map(str::as_bytes), "{line}");
                assert_eq!(head.scheme, scheme, "{line}");
            }
            (Err(Fault::Target), None) => {}
            _ => panic!("{line} {found:?}"),
        }
    }
    let (head, _) = request("GET /a?b HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert_eq!((head.path(), head.query()), ("/a", Some("b")));
    let (head, _) = request("GET http://a?b HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert_eq!((head.path(), head.query()), ("/", Some("b")));
}

#[test]
fn nasty_requests_are_refused() {
    let cases = [
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Fault::StartLine),
        ("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", Fault::StartLine),
        (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", Fault::StartLine),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Fault::StartLine),
        ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", Fault::StartLine),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", Fault::LineEnd),
        ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", Fault::StartLine),
        ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", Fault::StartLine),
        ("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", Fault::StartLine),
        ("GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", Fault::StartLine),
        ("GET /\r\nHost: a\r\n\r\n", Fault::StartLine),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Fault::Version),
        ("GET / HTTP/2.1\r\nHost: a\r\n\r\n", Fault::Version),
        ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", Fault::Version),
        ("GET / http/1.1\r\nHost: a\r\n\r\n", Fault::StartLine),
        ("GET / HTTPS/1.1\r\nHost: a\r\n\r\n", Fault::StartLine),
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", Fault::LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", Fault::LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", Fault::LineEnd),
        ("GET / HTTP/1.1\r\nX: b\nHost: a\r\n\r\n", Fault::LineEnd),
        ("GET / HTTP/1.1\r\nX:\nHost: a\r\n\r\n", Fault::LineEnd),
        ("GET / HTTP/1.0\n\n", Fault::LineEnd),
        ("GET / HTTP/1.0\r\n\n", Fault::LineEnd),
        ("GET / HTTP/1.0\n\r\n", Fault::LineEnd),
        ("GET / HTTP/1.1\rHost: a\r\n\r\n", Fault::LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", Fault::FieldValue),
        ("GET / HTTP/1.1\r\nHost: a\r\tX: b\r\n\r\n", Fault::FieldValue),
        ("GET / HTTP/1.1\r\nHost: a\r\n\rX", Fault::LineEnd),
        ("GET / HTTP/1.1\r\nX: a\0\r\nHost: a\r\n\r\n", Fault::FieldValue),
        ("GET / HTTP/1.1\r\nX: a\x0b\r\nHost: a\r\n\r\n", Fault::FieldValue),
        ("GET / HTTP/1.1\r\nX: a\x7f\r\nHost: a\r\n\r\n", Fault::FieldValue),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", Fault::FieldName),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Fault::FieldName),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", Fault::FieldName),
        ("GET / HTTP/1.1\r\nHost\t: a\r\n\r\n", Fault::FieldName),
        ("GET / HTTP/1.1\r\n: a\r\n\r\n", Fault::FieldName),
        ("GET / HTTP/1.1\r\nHost\r\n\r\n", Fault::FieldName),
        ("GET / HTTP/1.1\r\nH\u{f6}st: a\r\n\r\n", Fault::FieldName),
        ("GET / HTTP/1.1\r\n\r\n", Fault::Host),
        ("GET http://a/ HTTP/1.1\r\n\r\n", Fault::Host),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Fault::Host),
        ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", Fault::Host),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Fault::Host),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Fault::Host),
        ("GET / HTTP/1.1\r\nHost: u@b\r\n\r\n", Fault::Host),
        ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", Fault::Host),
        ("GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n", Fault::Host),
        ("GET / HTTP/1.1\r\nHost: \u{fc}\r\n\r\n", Fault::Host),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", Fault::ConnectContent),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", Fault::ConnectContent),
    ];
    for (text, fault) in cases {
        assert_eq!(request(text).map(|_| ()), Err(fault), "{}", text.escape_debug());
    }
}

#[test]
fn a_later_minor_version_is_taken_for_the_highest_known() {
    let (head, _) = request("GET / HTTP/1.9\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(head.version, Version::Http11);
}

#[test]
fn the_length_of_a_request_is_told_in_one_way() {
    let good = [
        ("", Body::None),
        ("Content-Length: 0\r\n", Body::Length(0)),
        ("content-length:18446744073709551615\r\n", Body::Length(u64::MAX)),
        ("Content-Length: 7\r\nA: b\r\nContent-Length: 7\r\n", Body::Length(7)),
        ("Transfer-Encoding: chunked\r\n", Body::Chunked),
        ("transfer-encoding:\t CHUNKED \r\n", Body::Chunked),
    ];
    for (fields, body) in good {
        assert_eq!(with(fields).map(|parsed| parsed.body), Ok(body), "{fields}");
    }
    let bad = [
        ("Content-Length:\r\n", Fault::ContentLength),
        ("Content-Length: -1\r\n", Fault::ContentLength),
        ("Content-Length: +1\r\n", Fault::ContentLength),
        ("Content-Length: 1 1\r\n", Fault::ContentLength),
        ("Content-Length: 0x1\r\n", Fault::ContentLength),
        ("Content-Length: 1,1\r\n", Fault::ContentLength),
        ("Content-Length: 18446744073709551616\r\n", Fault::ContentLength),
        ("Content-Length: 1\r\nContent-Length: 2\r\n", Fault::ContentLength),
        ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", Fault::LengthAndCoding),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", Fault::LengthAndCoding),
        ("Transfer-Encoding: gzip, chunked\r\n", Fault::UnknownCoding),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", Fault::UnknownCoding),
        ("Transfer-Encoding: chunked, gzip\r\n", Fault::TransferEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n", Fault::TransferEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Fault::TransferEncoding),
        ("Transfer-Encoding: chunked, chunked\r\n", Fault::TransferEncoding),
        ("Transfer-Encoding: ,chunked\r\n", Fault::TransferEncoding),
        ("Transfer-Encoding: chunked,\r\n", Fault::TransferEncoding),
        ("Transfer-Encoding: chunked;a=b\r\n", Fault::TransferEncoding),
        ("Transfer-Encoding: \"chunked\"\r\n", Fault::TransferEncoding),
        ("Transfer-Encoding: xchunked\r\n", Fault::TransferEncoding),
        ("Transfer-Encoding: identity\r\n", Fault::TransferEncoding),
        ("Transfer-Encoding:\r\n", Fault::TransferEncoding),
        ("Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n", Fault::UnknownCoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n", Fault::TransferEncoding),
    ];
    for (fields, fault) in bad {
        assert_eq!(with(fields), Err(fault), "{fields}");
    }
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(request(old).map(|_| ()), Err(Fault::TransferEncoding));
    let (head, _) = request("POST / HTTP/1.0\r\nContent-Length: 7\r\nContent-Length: 07\r\n\r\n").unwrap();
    assert_eq!(head.fields.all(Name::ContentLength).collect::<Vec<_>>(), [b"7"]);
}

#[test]
fn the_connection_goes_on_as_version_and_fields_say() {
    let cases = [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: x, CLOSE\r\n", false),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: te,keep-alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ];
    for (version, fields, keep) in cases {
        let (_, parsed) = request(&format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n")).unwrap();
        assert_eq!(parsed.keep_alive, keep, "{version} {fields}");
        let (_, parsed) = response(Method::Head, &format!("HTTP/{version} 200 OK\r\n{fields}\r\n")).unwrap();
        assert_eq!(parsed.keep_alive, keep, "{version} {fields}");
    }
}

#[test]
fn upgrades_and_expectations_are_of_http_1_1() {
    assert!(with("Connection: x, Upgrade\r\nUpgrade: websocket\r\n").unwrap().upgrade);
    assert!(!with("Connection: x\r\nUpgrade: websocket\r\n").unwrap().upgrade);
    assert!(!with("Connection: upgrade\r\n").unwrap().upgrade);
    assert!(with("Expect: 100-Continue\r\nContent-Length: 1\r\n").unwrap().expect_continue);
    assert!(with("Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n").unwrap().expect_continue);
    assert!(!with("Expect: 100-continue\r\n").unwrap().expect_continue);
    assert!(!with("Expect: more\r\nContent-Length: 1\r\n").unwrap().expect_continue);
    let fields = "Connection: upgrade\r\nUpgrade: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n";
    let (_, parsed) = request(&format!("GET / HTTP/1.0\r\n{fields}\r\n")).unwrap();
    assert!(!parsed.upgrade && !parsed.expect_continue);
    let (head, parsed) = response(Method::Get, &format!("HTTP/1.1 101 Go\r\n{fields}\r\n")).unwrap();
    assert!(parsed.upgrade && parsed.body == Body::None && !head.is_informational());
}

#[test]
fn what_follows_a_response_depends_on_status_and_request() {
    const GET: Method = Method::Get;
    let cases = [
        (GET, "200 OK\r\nContent-Length: 3\r\n", Body::Length(3), true),
        (GET, "200 OK\r\nTransfer-Encoding: chunked\r\n", Body::Chunked, true),
        (GET, "200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n", Body::Chunked, false),
        (GET, "200 OK\r\n", Body::UntilClose, false),
        (GET, "200\r\nContent-Length: 0\r\n", Body::Length(0), true),
        (GET, "299 \r\nContent-Length: 0\r\n", Body::Length(0), true),
        (GET, "999 gr\u{fc}n\t!\r\nContent-Length: 0\r\n", Body::Length(0), true),
        (GET, "200 OK\r\nHost: \u{fc}\r\nHost: b\r\nContent-Length: 3\r\n", Body::Length(3), true),
        (GET, "100 Continue\r\n", Body::None, true),
        (GET, "103 Early Hints\r\nContent-Length: 3\r\n", Body::None, true),
        (GET, "204 No Content\r\nTransfer-Encoding: chunked\r\n", Body::None, true),
        (GET, "304 Not Modified\r\nContent-Length: 3\r\n", Body::None, true),
        (Method::Head, "200 OK\r\nContent-Length: 3\r\n", Body::None, true),
        (Method::Head, "200 OK\r\n", Body::None, true),
        (Method::Connect, "200 OK\r\nContent-Length: 3\r\n", Body::None, true),
        (Method::Connect, "407 No\r\nContent-Length: 3\r\n", Body::Length(3), true),
    ];
    for (to, text, body, keep) in cases {
        let (head, parsed) = response(to, &format!("HTTP/1.1 {text}\r\n")).unwrap();
        assert_eq!((parsed.body, parsed.keep_alive), (body, keep), "{text}");
        assert_eq!(head.status.to_string(), text[..3]);
        let both = head.fields.has(Name::ContentLength) && head.fields.has(Name::TransferEncoding);
        assert!(!both);
        assert!(to != Method::Connect || head.status != 200 || !head.fields.has(Name::ContentLength));
    }
    let bad = [
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", Fault::StartLine),
        ("HTTP/1.1 20 OK\r\n\r\n", Fault::StartLine),
        ("HTTP/1.1 2000 OK\r\n\r\n", Fault::StartLine),
        ("HTTP/1.1 099 OK\r\n\r\n", Fault::StartLine),
        ("HTTP/1.1  200 OK\r\n\r\n", Fault::StartLine),
        ("HTTP/1.1 200 O\0K\r\n\r\n", Fault::StartLine),
        ("HTTP/1.1 200 OK\n\r\n", Fault::LineEnd),
        ("HTTP/1.1 200\n\r\n", Fault::LineEnd),
        ("HTTP/2 200\r\n\r\n", Fault::Version),
        ("SSH-2.0-x\r\n\r\n", Fault::StartLine),
        ("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", Fault::FieldName),
        ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", Fault::FieldName),
        ("HTTP/1.1 200 OK\r\nA: b\nB: c\r\n\r\n", Fault::LineEnd),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", Fault::ContentLength),
        ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", Fault::ContentLength),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", Fault::TransferEncoding),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Fault::UnknownCoding),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Fault::TransferEncoding),
    ];
    for (text, fault) in bad {
        assert_eq!(response(GET, text).map(|_| ()), Err(fault), "{}", text.escape_debug());
    }
}

#[test]
fn heads_are_bounded() {
    let limits = Limits { head: 64, fields: 2 };
    let fits = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(64 - 27));
    assert_eq!(fits.len(), 64);
    for cut in 0..64 {
        assert_eq!(request_within(&fits.as_bytes()[..cut], &limits).map(|found| found.is_none()), Ok(true));
    }
    assert_eq!(request_within(fits.as_bytes(), &limits).unwrap().unwrap().1.consumed, 64);
    assert!(request_within(format!("{fits}more").as_bytes(), &limits).unwrap().is_some());

    let large = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(64));
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(64));
    let many = "GET / HTTP/1.1\r\nA: b\r\nC: d\r\nE: f\r\n\r\n";
    for (text, fault, status) in [
        (&large[..], Fault::HeadTooLarge, 431),
        (&long, Fault::TargetTooLong, 414),
        (many, Fault::TooManyFields, 431),
        (&"\r\n".repeat(40), Fault::HeadTooLarge, 431),
    ] {
        let fault_at: Vec<_> =
            (0..=text.len()).map(|cut| request_within(&text.as_bytes()[..cut], &limits).err()).collect();
        assert_eq!(fault_at.last(), Some(&Some(fault)), "{text}");
        assert!(fault_at.iter().flatten().all(|early| *early == fault), "{text}");
        assert_eq!(fault.status(), status);
    }
    let all = "a: b\r\n".repeat(99);
    assert!(request(&format!("GET / HTTP/1.1\r\nHost: a\r\n{all}\r\n")).is_ok());
    assert_eq!(with(&format!("{all}a: b\r\n")), Err(Fault::TooManyFields));
}

#[test]
fn faults_have_statuses() {
    for (fault, status) in
        [(Fault::Version, 505), (Fault::UnknownCoding, 501), (Fault::Host, 400), (Fault::ChunkSize, 400)]
    {
        assert_eq!(fault.status(), status);
    }
}
