//! Cases of what backends answer.

use super::cases::{Case, HOP, LINE_END, TRAILERS, VALUE, get};

const BROKEN: &str = "a broken answer is a 502, never guessed at (RFC 9112 §6.3)";
const ANEW: &str = "the body is framed anew, so the client's connection stays";

/// All of them; the request is an ordinary one.
pub fn cases() -> Vec<Case> {
    let of = |name, answer, why| Case { answer, ..Case::new(name, get(""), why) };
    vec![
        of("answer: ends with the connection", "HTTP/1.1 200 OK\r\n\r\nhello", ANEW),
        of("answer: of HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\nhello", ANEW),
        of(
            "answer: trailers",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
            TRAILERS,
        ),
        of(
            "answer: chunk extensions",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n",
            "",
        ),
        of(
            "answer: 103 before it",
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "informational answers travel (RFC 9110 §15.2)",
        ),
        of(
            "answer: 100 that nobody asked for",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "`100` goes to clients that wait for leave: Veer may have given it already, and to others it says nothing",
        ),
        of(
            "answer: 101 that nobody asked for",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: teapot\r\n\r\n",
            BROKEN,
        ),
        of(
            "answer: 204 with a body",
            "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
            "`204` ends with its head (RFC 9112 §6.3); what is behind it is not passed on",
        ),
        of("answer: 304 with a length", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", ""),
        Case {
            answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            ..Case::new("answer: body to `HEAD`", "HEAD / HTTP/1.1\r\nHost: cart\r\n\r\n", "")
        },
        of(
            "answer: a length and a coding",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "the coding counts, and the length is not passed on (RFC 9112 §6.3)",
        ),
        of("answer: two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 3\r\n\r\nhello", BROKEN),
        of("answer: broken length", "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello", BROKEN),
        of(
            "answer: `gzip, chunked`",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "a coding beyond `chunked` is not understood, so the answer is a 502",
        ),
        of("answer: ends before its length", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", ""),
        of(
            "answer: ends before the last chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "",
        ),
        of(
            "answer: broken chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\nhello\r\n0\r\n\r\n",
            "the head was already passed on; the body is cut, so that nobody takes it for whole (RFC 9112 §8)",
        ),
        of(
            "answer: longer than its length",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\n",
            "",
        ),
        of(
            "answer: field that `Connection` names",
            "HTTP/1.1 200 OK\r\nConnection: x-secret\r\nX-Secret: 1\r\nContent-Length: 5\r\n\r\nhello",
            HOP,
        ),
        of(
            "answer: folded line",
            "HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 5\r\n\r\nhello",
            "a folded answer may be refused with 502 (RFC 9112 §5.2)",
        ),
        of("answer: space before the colon", "HTTP/1.1 200 OK\r\nX-A : 1\r\nContent-Length: 5\r\n\r\nhello", ""),
        of("answer: bare line feeds", "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", LINE_END),
        of("answer: zero byte in a value", "HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 5\r\n\r\nhello", VALUE),
        of("answer: no reason", "HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", ""),
        of("answer: status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 5\r\n\r\nhello", BROKEN),
        of("answer: status 999", "HTTP/1.1 999 OK\r\nContent-Length: 5\r\n\r\nhello", ""),
        of("answer: no HTTP", "hello\r\n\r\n", BROKEN),
        of("answer: none", "\r\n", BROKEN),
    ]
}
