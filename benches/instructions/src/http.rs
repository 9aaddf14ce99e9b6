//! Steps of HTTP: a request and an answer with the fields that clients and applications send.

use std::hint::black_box;

use anyhow::{Context as _, ensure};
use bytes::{Buf, Bytes, BytesMut};
use veer_http::h1::{self, Body, Limits};
use veer_http::h2::{Config, Connection, Event};
use veer_http::hpack::{DEFAULT_TABLE, Decoder, Encoder, HpackFault, Pseudo};
use veer_http::{Method, Name, RequestHead, ResponseHead};

const REQUEST: &[u8] = b"GET /shop/v1/items/4711?page=2 HTTP/1.1\r\nHost: items.shop.svc.cluster.local\r\nUser-Agent: veer-bench/1.0\r\n\
    Accept: application/json\r\nAccept-Encoding: gzip, br\r\nX-Request-Id: 3f2b8c1e-9a74-4d0f-b6a2-5f1c7e0d9a34\r\n\
    traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nAuthorization: Bearer abcdefghijklmnopqrstuvwxyz\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\nDate: Sat, 01 Mar 2025 12:00:00 GMT\r\n\
    Server: shop\r\nCache-Control: no-store\r\n\r\n";
const BODY: usize = 100;

fn request() -> anyhow::Result<RequestHead> {
    let mut head = RequestHead::default();
    h1::request(REQUEST, &Limits::default(), &mut head)?.context("not whole")?;
    Ok(head)
}

fn response() -> anyhow::Result<ResponseHead> {
    let mut head = ResponseHead::default();
    h1::response(RESPONSE, Method::Get, &Limits::default(), &mut head)?.context("not whole")?;
    Ok(head)
}

/// Bytes into a request's head.
pub fn read_request(count: usize) -> anyhow::Result<()> {
    let (mut head, limits) = (RequestHead::default(), Limits::default());
    for _ in 0..count {
        head.clear();
        black_box(h1::request(black_box(REQUEST), &limits, &mut head)?).context("not whole")?;
    }
    Ok(())
}

/// Bytes into a response's head.
pub fn read_response(count: usize) -> anyhow::Result<()> {
    let (mut head, limits) = (ResponseHead::default(), Limits::default());
    for _ in 0..count {
        head.clear();
        black_box(h1::response(black_box(RESPONSE), Method::Get, &limits, &mut head)?).context("not whole")?;
    }
    Ok(())
}

/// A request's head into bytes.
pub fn write_request(count: usize) -> anyhow::Result<()> {
    let (head, mut out) = (request()?, Vec::new());
    for _ in 0..count {
        out.clear();
        h1::write_request(black_box(&head), Body::None, None, &mut out);
        black_box(&out);
    }
    Ok(())
}

/// A block of a connection on which the same was sent before, into fields.
pub fn decode(count: usize) -> anyhow::Result<()> {
    let head = request()?;
    let (mut encoder, mut decoder) = (Encoder::new(DEFAULT_TABLE), Decoder::new(DEFAULT_TABLE));
    let mut block = Vec::new();
    // Until the table has what it is going to have.
    for n in 0..count + 3 {
        if n < 3 {
            block.clear();
            put(&mut encoder, &head, &mut block);
        }
        decoder.decode::<HpackFault>(black_box(&block), |name, value, _| {
            black_box((name, value));
            Ok(())
        })?;
    }
    Ok(())
}

/// Fields into a block of a connection on which the same was sent before.
pub fn encode(count: usize) -> anyhow::Result<()> {
    let (head, mut encoder, mut block) = (request()?, Encoder::new(DEFAULT_TABLE), Vec::new());
    for _ in 0..count + 3 {
        block.clear();
        put(&mut encoder, black_box(&head), &mut block);
        black_box(&block);
    }
    Ok(())
}

fn put(encoder: &mut Encoder, head: &RequestHead, block: &mut Vec<u8>) {
    encoder.begin(block);
    encoder.pseudo(Pseudo::Method, b"GET", block);
    encoder.pseudo(Pseudo::Scheme, b"http", block);
    encoder.pseudo(Pseudo::Path, head.target(), block);
    for (known, name, value, sensitive) in head.fields.entries().filter(|(known, ..)| *known != Name::Host) {
        encoder.field(known, name, value, sensitive, block);
    }
}

/// A request and its answer of 100 bytes, through both ends of an HTTP/2 connection.
pub fn exchange(count: usize) -> anyhow::Result<()> {
    let (request, response) = (request()?, response()?);
    let (mut client, mut server) =
        (Connection::<()>::client(Config::default()), Connection::<()>::server(Config::default()));
    let (mut up, mut down) = (BytesMut::new(), BytesMut::new());
    let body = Bytes::from_static(&[b'x'; BODY]);
    for _ in 0..count {
        let id = client.request(&request, true, ()).ok().context("refused")?;
        carry(&mut client, &mut up);
        while let Some(event) = server.receive(&mut up)? {
            if let Event::Request { id, .. } = event {
                server.respond(id, &response, false);
                ensure!(server.data(id, &mut body.clone(), true), "blocked");
                server.forget(id);
            }
        }
        carry(&mut server, &mut down);
        let mut ended = false;
        while let Some(event) = client.receive(&mut down)? {
            match event {
                Event::Response { head, .. } => drop(head),
                Event::Data { id, flow, end, .. } => {
                    client.release(id, flow);
                    ended |= end;
                }
                _ => {}
            }
        }
        ensure!(ended, "no answer");
        client.forget(id);
    }
    Ok(())
}

fn carry(from: &mut Connection<()>, to: &mut BytesMut) {
    let output = from.output();
    while output.has_remaining() {
        let chunk = output.chunk();
        to.extend_from_slice(chunk);
        let n = chunk.len();
        output.advance(n);
    }
}
