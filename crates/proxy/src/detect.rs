//! What does this connection speak? Decided from its first bytes, within a bounded wait.
//!
//! The bytes are read ahead into a [`Prefixed`] stream and read again by whoever serves the connection, on real sockets
//! and simulated ones alike. Peeking at the socket was rejected: a peek returns at once when *any* byte is there, so it
//! cannot wait for the second half of a request line without spinning.

use std::io;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::time::{Instant, timeout_at};
use veer_net::Prefixed;

/// How long the first bytes may take, unless told otherwise.
///
/// A client that speaks first sends within the round trip that opened the connection: over loopback at once, between
/// clusters of a flat network within some tens of milliseconds. 300 ms is above a lost first segment's retransmission
/// (initial RTO is at least 200 ms on Linux once the round trip is known), and it is the price, once per connection, of
/// a server-first protocol on a port whose protocol nobody declared. Declaring `appProtocol` costs nothing.
pub const DEFAULT_WAIT: Duration = Duration::from_millis(300);

/// Bytes that are looked at. A request line longer than this is still recognised by its beginning.
pub const MAX_BYTES: usize = 4096;

/// The bytes with which every HTTP/2 connection of a client begins (RFC 9113 §3.4).
pub const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.0 or 1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// A TLS handshake.
    Tls,
    /// Anything else, and clients that wait for the server to speak first.
    Opaque,
}

/// Reads ahead until the protocol is known; after `wait` the best guess is taken. A stream that ends early is judged by
/// what came. May be dropped at any time without losing a byte.
///
/// # Errors
/// When the connection is lost.
pub async fn detect<S: AsyncRead + Unpin>(stream: &mut Prefixed<S>, wait: Duration) -> io::Result<Protocol> {
    let deadline = Instant::now() + wait;
    loop {
        if let Some(protocol) = classify(stream.seen()) {
            return Ok(protocol);
        }
        match timeout_at(deadline, stream.fill(MAX_BYTES)).await {
            Ok(Ok(0)) | Err(_) => return Ok(best_guess(stream.seen())),
            Ok(read) => read?,
        };
    }
}

/// What the first bytes say; `None` while more could change the answer.
pub fn classify(bytes: &[u8]) -> Option<Protocol> {
    if bytes.is_empty() {
        return None;
    }
    if begins_alike(bytes, HTTP2_PREFACE) {
        return (bytes.len() >= HTTP2_PREFACE.len()).then_some(Protocol::Http2);
    }
    // A handshake record of any TLS version (RFC 8446 §5.1).
    if begins_alike(bytes, &[22, 3]) {
        return (bytes.len() >= 2).then_some(Protocol::Tls);
    }
    match request_line(bytes) {
        Line::Is => Some(Protocol::Http1),
        Line::IsNot => Some(Protocol::Opaque),
        Line::MayBe { .. } if bytes.len() >= MAX_BYTES => Some(best_guess(bytes)),
        Line::MayBe { .. } => None,
    }
}

fn best_guess(bytes: &[u8]) -> Protocol {
    match (classify_short(bytes), request_line(bytes)) {
        (Some(protocol), _) => protocol,
        (None, Line::Is | Line::MayBe { surely_http: true }) => Protocol::Http1,
        (None, _) => Protocol::Opaque,
    }
}

/// A preface cut off after its first line is still no protocol but HTTP/2; the HTTP/2 engine waits for the rest with
/// its own limit.
fn classify_short(bytes: &[u8]) -> Option<Protocol> {
    (bytes.len() >= 16 && begins_alike(bytes, HTTP2_PREFACE)).then_some(Protocol::Http2)
}

fn begins_alike(bytes: &[u8], pattern: &[u8]) -> bool {
    let common = bytes.len().min(pattern.len());
    bytes[..common] == pattern[..common]
}

enum Line {
    Is,
    IsNot,
    MayBe {
        /// The line is not whole, but no text protocol other than HTTP begins so.
        surely_http: bool,
    },
}

/// RFC 9112 §3: `method SP request-target SP HTTP-version`. Text protocols with a verb and an argument (inline Redis,
/// memcached, SMTP) begin alike, so only the version at the end of the line decides.
fn request_line(bytes: &[u8]) -> Line {
    /// No registered method is longer than 18 characters (`UPDATEREDIRECTREF`); nothing that does not end here is one.
    const LONGEST_METHOD: usize = 24;
    const METHODS: [&[u8]; 9] =
        [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"];

    // RFC 9112 §2.2: an empty line before the request line is ignored.
    let bytes = match bytes {
        [b'\r', b'\n', rest @ ..] => rest,
        [b'\r'] => &[],
        _ => bytes,
    };
    let method = bytes.iter().position(|b| !is_token(*b)).unwrap_or(bytes.len());
    if method > LONGEST_METHOD || (method == 0 && !bytes.is_empty()) {
        return Line::IsNot;
    }
    let Some((b' ', rest)) = bytes[method..].split_first() else {
        return if method == bytes.len() { Line::MayBe { surely_http: false } } else { Line::IsNot };
    };
    match rest.iter().position(|b| *b == b'\n') {
        Some(end) => {
            let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
            let target = line.strip_suffix(b" HTTP/1.1").or_else(|| line.strip_suffix(b" HTTP/1.0"));
            if target.is_some_and(|target| !target.is_empty() && !stray(target)) { Line::Is } else { Line::IsNot }
        }
        None if stray(rest.strip_suffix(b"\r").unwrap_or(rest)) => Line::IsNot,
        None => {
            let target_of_http =
                rest.starts_with(b"/") || rest.starts_with(b"http://") || rest.starts_with(b"https://");
            Line::MayBe { surely_http: target_of_http && METHODS.contains(&&bytes[..method]) }
        }
    }
}

/// Whether there is a byte that no request line has, so that the verdict does not depend on how the line was cut into
/// reads.
fn stray(bytes: &[u8]) -> bool {
    bytes.iter().any(u8::is_ascii_control)
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[test]
    fn first_bytes_decide() {
        for (bytes, protocol) in [
            (&b"GET / HTTP/1.1\r\n"[..], Some(Protocol::Http1)),
            (b"\r\nGET / HTTP/1.1\r\n", Some(Protocol::Http1)),
            (b"PROPFIND /dav HTTP/1.1\r\nHost: a\r\n", Some(Protocol::Http1)),
            (b"CONNECT a:80 HTTP/1.1\n", Some(Protocol::Http1)),
            (b"GET / HTTP/1.0\r\n", Some(Protocol::Http1)),
            (HTTP2_PREFACE, Some(Protocol::Http2)),
            (b"\x16\x03\x01", Some(Protocol::Tls)),
            (b"\x16\x04", Some(Protocol::Opaque)),
            (b"\x00\x00\x00\x2a", Some(Protocol::Opaque)),
            (b"*1\r\n$4\r\nPING\r\n", Some(Protocol::Opaque)),
            (b"PING\r\n", Some(Protocol::Opaque)),
            (b"GET key\r\n", Some(Protocol::Opaque)),
            (b"get /odd/key\r\n", Some(Protocol::Opaque)),
            (b"EHLO host\r\n", Some(Protocol::Opaque)),
            (b"GET /\x00 HTTP/1.1\r\n", Some(Protocol::Opaque)),
            (b"GET /\x00", Some(Protocol::Opaque)),
            (b" GET / HTTP/1.1\r\n", Some(Protocol::Opaque)),
            (b"GET / HTTP/2.0\r\n", Some(Protocol::Opaque)),
            (b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", Some(Protocol::Opaque)),
            (b"", None),
            (b"\r", None),
            (b"G", None),
            (b"GET ", None),
            (b"GET / HTTP/1.", None),
            (b"GET / HTTP/1.1\r", None),
            (b"PRI * HTTP/2.0\r\n", None),
            (b"\x16", None),
        ] {
            assert_eq!(classify(bytes), protocol, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn what_stays_incomplete_is_guessed() {
        for (bytes, protocol) in [
            (&b""[..], Protocol::Opaque),
            (b"G", Protocol::Opaque),
            (b"GET key", Protocol::Opaque),
            (b"GET /a/long/path", Protocol::Http1),
            (b"POST http://a/", Protocol::Http1),
            (b"FETCH /a", Protocol::Opaque),
            (b"PRI * HTTP/2.0\r\n", Protocol::Http2),
            (b"PRI", Protocol::Opaque),
            (b"\x16", Protocol::Opaque),
        ] {
            assert_eq!(best_guess(bytes), protocol, "{:?}", String::from_utf8_lossy(bytes));
        }
        let mut long = b"GET /".to_vec();
        long.resize(MAX_BYTES, b'a');
        assert_eq!(classify(&long), Some(Protocol::Http1), "a long request line is the HTTP engine's to refuse");
    }

    fn run<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(future)
    }

    #[test]
    fn a_server_first_protocol_is_opaque_after_the_wait() {
        run(async {
            let (_client, server) = duplex(64);
            let started = Instant::now();
            let protocol = detect(&mut Prefixed::new(server), DEFAULT_WAIT).await.unwrap();
            assert_eq!((protocol, started.elapsed()), (Protocol::Opaque, DEFAULT_WAIT));
        });
    }

    #[test]
    fn a_slow_client_is_waited_for_and_no_byte_is_lost() {
        run(async {
            let (mut client, server) = duplex(64);
            let request = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n";
            let writing = async move {
                for byte in request {
                    client.write_all(&[*byte]).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let reading = async {
                let mut stream = Prefixed::new(server);
                assert_eq!(detect(&mut stream, DEFAULT_WAIT).await.unwrap(), Protocol::Http1);
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
                assert_eq!(all, request);
            };
            tokio::join!(writing, reading);
        });
    }

    proptest! {
        #[test]
        fn every_client_gets_an_answer_and_keeps_its_bytes(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..200),
                "(GET|POST|PRI|\\PC{0,5}) [/*a-z]{0,20}( HTTP/[12].[01]\r?\n)?\\PC{0,50}".prop_map(String::into_bytes),
            ],
            step in 1usize..50,
        ) {
            run(async {
                let (mut client, server) = duplex(4096);
                let expected = bytes.clone();
                let writing = async move {
                    for chunk in bytes.chunks(step) {
                        client.write_all(chunk).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                };
                let reading = async {
                    let mut stream = Prefixed::new(server);
                    let protocol = detect(&mut stream, DEFAULT_WAIT).await.unwrap();
                    let mut all = Vec::new();
                    stream.read_to_end(&mut all).await.unwrap();
                    (protocol, all)
                };
                let ((), (protocol, all)) = tokio::join!(writing, reading);
                assert_eq!(all, expected);
                // How the bytes were cut into reads does not matter.
                assert_eq!(protocol, classify(&expected).unwrap_or_else(|| best_guess(&expected)));
            });
        }
    }
}
