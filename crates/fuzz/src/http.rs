//! HTTP/1.1, HPACK and HTTP/2.

use bytes::{Buf, Bytes, BytesMut};
use veer_http::h1::{self, Chunked, Limits, Persist, Piece};
use veer_http::h2::{Config, Connection, Event};
use veer_http::hpack::{Decoder, HpackFault};
use veer_http::{Method, RequestHead, ResponseHead, Version};

/// A head that is understood means the same when it is written and read again: nobody behind us reads another request.
pub(crate) fn request(bytes: &[u8]) {
    let limits = Limits::default();
    let mut head = RequestHead::default();
    let Ok(Some(parsed)) = h1::request(bytes, &limits, &mut head) else { return };
    assert!(parsed.consumed <= bytes.len());
    let mut written = Vec::new();
    let upgrade = parsed.upgrade.then_some(&b"x"[..]);
    head.take_host();
    h1::write_request(&head, parsed.body, upgrade, &mut written);
    let mut again = RequestHead::default();
    let reread = h1::request(&written, &Limits { head: 1 << 20, fields: 1000 }, &mut again);
    let reread = match reread {
        Ok(Some(reread)) => reread,
        // Of HTTP/1.0 without a host, which nobody is asked for.
        _ if head.authority().is_none_or(<[u8]>::is_empty) => return,
        other => panic!("{other:?} of {:?}", String::from_utf8_lossy(&written)),
    };
    assert_eq!(reread.consumed, written.len(), "one head is written");
    assert_eq!(reread.body.is_empty(), parsed.body.is_empty());
    if !parsed.body.is_empty() {
        assert_eq!(reread.body, parsed.body, "the body ends where it ended");
    }
    assert_eq!((again.method(), again.method_str()), (head.method(), head.method_str()));
    if head.method() != Method::Connect {
        assert_eq!(again.target(), head.target());
    }
}

/// The same for responses.
pub(crate) fn response(bytes: &[u8]) {
    let (Some(first), bytes) = (bytes.first(), bytes.get(1..).unwrap_or_default()) else { return };
    let to = [Method::Get, Method::Head, Method::Connect, Method::Post][usize::from(first & 3)];
    let mut head = ResponseHead::default();
    let Ok(Some(parsed)) = h1::response(bytes, to, &Limits::default(), &mut head) else { return };
    assert!(parsed.consumed <= bytes.len());
    let mut written = Vec::new();
    h1::write_response(&head, parsed.body, Persist::Keep, Version::Http11, &mut written);
    let mut again = ResponseHead::default();
    let reread = h1::response(&written, to, &Limits { head: 1 << 20, fields: 1000 }, &mut again);
    let Ok(Some(reread)) = reread else { panic!("{reread:?} of {:?}", String::from_utf8_lossy(&written)) };
    assert_eq!((reread.consumed, again.status), (written.len(), head.status));
    assert_eq!(reread.body, parsed.body);
}

/// However the bytes are cut, the same content comes out.
pub(crate) fn chunks(bytes: &[u8]) {
    let (Some(first), bytes) = (bytes.first(), bytes.get(1..).unwrap_or_default()) else { return };
    let whole = decode(bytes, bytes.len().max(1));
    let pieces = decode(bytes, usize::from(first % 16) + 1);
    assert_eq!(whole, pieces);
}

fn decode(bytes: &[u8], step: usize) -> (Vec<u8>, Option<bool>) {
    let (mut chunked, mut input, mut content) = (Chunked::default(), BytesMut::new(), Vec::new());
    for part in bytes.chunks(step) {
        input.extend_from_slice(part);
        loop {
            match chunked.decode(&mut input) {
                Ok(Some(Piece::Data(data))) => content.extend_from_slice(&data),
                Ok(Some(Piece::End(_))) => return (content, Some(true)),
                Ok(None) => break,
                Err(_) => return (content, Some(false)),
            }
        }
    }
    (content, None)
}

/// Blocks, each behind its length; what comes out is in proportion to what the table holds.
pub(crate) fn hpack(mut bytes: &[u8]) {
    let mut decoder = Decoder::new(4096);
    while let Some((length, rest)) = bytes.split_first() {
        let (block, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        bytes = rest;
        let mut count = 0usize;
        let decoded = decoder.decode::<HpackFault>(block, |name, value, _| {
            count += 1;
            assert!(name.len() + value.len() <= 4096 + 2 * 255);
            Ok(())
        });
        assert!(count <= block.len());
        if decoded.is_err() {
            return;
        }
    }
}

/// A server that answers everything; its output stays bounded though nobody reads it.
pub(crate) fn server(bytes: &[u8]) {
    let mut connection: Connection<()> = Connection::server(Config::default());
    let mut input = BytesMut::from(&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..]);
    input.extend_from_slice(bytes);
    drive(&mut connection, input);
}

/// A client with two requests under way.
pub(crate) fn client(bytes: &[u8]) {
    let mut connection: Connection<()> = Connection::client(Config::default());
    let mut head = RequestHead::default();
    head.set_target(b"/");
    head.set_authority(b"cart");
    for end in [true, false] {
        let opened = connection.request(&head, end, ());
        assert!(opened.is_ok());
    }
    let mut input = BytesMut::from(&b"\0\0\0\x04\0\0\0\0\0"[..]);
    input.extend_from_slice(bytes);
    drive(&mut connection, input);
}

fn drive(connection: &mut Connection<()>, mut input: BytesMut) {
    while let Ok(Some(event)) = connection.receive(&mut input) {
        match event {
            Event::Request { id, head, end } => {
                assert!(!head.method_str().is_empty());
                connection.set_state(id, ());
                connection.respond(id, &ResponseHead::new(200), false);
                connection.data(id, &mut Bytes::from_static(b"hello"), true);
                if end {
                    connection.forget(id);
                }
            }
            Event::Data { id, flow, end, .. } => {
                connection.release(id, flow);
                if end {
                    connection.forget(id);
                }
            }
            Event::Trailers { id, .. } | Event::Reset { id, .. } => drop(connection.forget(id)),
            Event::Response { .. } | Event::GoAway { .. } | Event::Pong(_) | Event::Settings => {}
        }
        assert!(connection.output().remaining() < 8 << 20);
    }
}
