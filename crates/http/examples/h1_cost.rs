//! What heads of HTTP/1.1 cost: `cargo run --release -p veer-http --example h1_cost`.
//!
//! Each line is the best and the median of many rounds in nanoseconds for one head.

use std::hint::black_box;
use std::time::Instant;

use bytes::BytesMut;
use veer_http::h1::{self, Body, Chunked, Limits, Persist};
use veer_http::{Method, RequestHead, ResponseHead, Version};

const REQUEST: &[u8] =
    b"GET /api/products/4711?color=red&size=xl HTTP/1.1\r\nHost: catalog.shop.svc.cluster.local:8080\r\n\
    User-Agent: shop-frontend/2.1 (linux; x86_64)\r\nAccept: application/json\r\nAccept-Encoding: gzip, br\r\n\
    X-Request-Id: 5f0c6f0e-6c1b-4c63-9f0e-0c5a8e9b7d11\r\n\
    Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n";

const SMALL: &[u8] = b"GET / HTTP/1.1\r\nHost: catalog:8080\r\n\r\n";

const LARGE: &[u8] = b"POST /api/products/4711?color=red&size=xl HTTP/1.1\r\nHost: catalog.shop.svc.cluster.local:8080\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9,de;q=0.8\r\nCache-Control: max-age=0\r\n\
    Cookie: session=8f14e45fceea167a5a36dedd4bea2543; theme=dark; consent=yes; cart=c9f0f895fb98ab9159f51fd0297e236d\r\n\
    Content-Type: application/json\r\nContent-Length: 512\r\nOrigin: https://shop.example\r\nReferer: https://shop.example/\r\n\
    Sec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Site: same-origin\r\nUpgrade-Insecure-Requests: 1\r\n\
    X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\nX-Request-Id: 5f0c6f0e-6c1b-4c63-9f0e-0c5a8e9b7d11\r\n\
    Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 1024\r\n\
    Date: Mon, 03 Jun 2024 10:00:00 GMT\r\nServer: catalog/1.4\r\nCache-Control: no-store\r\nVary: accept-encoding\r\n\r\n";

fn main() {
    let limits = Limits::default();
    for (name, text) in [("1 field", SMALL), ("6 fields", REQUEST), ("19 fields", LARGE)] {
        let mut head = RequestHead::default();
        measure(&format!("read a request, {name}, {} bytes", text.len()), || {
            black_box(h1::request(black_box(text), &limits, &mut head).is_ok_and(|parsed| parsed.is_some()));
        });
        let mut body = Body::None;
        if let Ok(Some(parsed)) = h1::request(text, &limits, &mut head) {
            body = parsed.body;
        }
        head.take_host();
        let mut out = Vec::new();
        measure(&format!("write it, {name}"), || {
            out.clear();
            h1::write_request(black_box(&head), body, None, &mut out);
            black_box(&mut out);
        });
    }

    let mut head = ResponseHead::default();
    measure(&format!("read a response, 6 fields, {} bytes", RESPONSE.len()), || {
        black_box(
            h1::response(black_box(RESPONSE), Method::Get, &limits, &mut head).is_ok_and(|found| found.is_some()),
        );
    });
    let mut out = Vec::new();
    measure("write it, 6 fields", || {
        out.clear();
        h1::write_response(black_box(&head), Body::Length(1024), Persist::Keep, Version::Http11, &mut out);
        black_box(&mut out);
    });

    let mut chunks = Vec::new();
    for _ in 0..16 {
        h1::write_chunk_start(1024, &mut chunks);
        chunks.resize(chunks.len() + 1024, b'x');
        chunks.extend_from_slice(b"\r\n");
    }
    h1::write_end(None, &mut chunks);
    measure("copy and decode 16 chunks of 1024 bytes", || {
        let mut input = BytesMut::from(&chunks[..]);
        let mut decoder = Chunked::default();
        while let Ok(Some(piece)) = decoder.decode(&mut input) {
            black_box(piece);
        }
    });
}

/// Best and median of 200 rounds of 5000.
#[allow(clippy::disallowed_methods, reason = "this measures real time")]
fn measure(what: &str, mut once: impl FnMut()) {
    const TIMES: u32 = 5000;
    let mut rounds: Vec<f64> = (0..200)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..TIMES {
                once();
            }
            start.elapsed().as_nanos() as f64 / f64::from(TIMES)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    println!("{:>7.0} {:>7.0} ns  {what}", rounds[0], rounds[rounds.len() / 2]);
}
