//! What the HTTP/2 state machine costs: batches of 16 small unary requests between a client's and a server's end, without I/O.
//!
//! Prints the least and the median of all batches.
//!
//! `cargo run --release -p veer-http --example h2_cost [batches]`

use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use veer_http::h2::{Config, Connection, Event};
use veer_http::{Name, RequestHead, ResponseHead};

const BATCH: usize = 16;

fn main() {
    let batches = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(20_000);
    run(2000, "warm-up", unary);
    run(batches, "unary, GET, 100 bytes back", unary);
    run(batches, "unary, gRPC, 100 bytes each way, trailers", grpc);
    run(batches, "the same, each with a trace of its own", traced);
    run(batches / 100, "256 KiB back", large);
}

fn run(batches: usize, name: &str, batch: fn(&mut Ends)) {
    let mut ends = Ends::new();
    let (mut server, mut client) = (Vec::with_capacity(batches), Vec::with_capacity(batches));
    for _ in 0..batches {
        (ends.server_time, ends.client_time) = (Duration::ZERO, Duration::ZERO);
        batch(&mut ends);
        server.push(ends.server_time);
        client.push(ends.client_time);
    }
    let (server, client) = (least_and_median(server), least_and_median(client));
    println!("{name}: server {server}, client {client} per request");
}

fn least_and_median(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let each = |time: Duration| time.as_nanos() / BATCH as u128;
    format!("{} ns ({} ns)", each(times[0]), each(times[times.len() / 2]))
}

struct Ends {
    client: Connection<u64>,
    server: Connection<u64>,
    to_server: BytesMut,
    to_client: BytesMut,
    get: RequestHead,
    post: RequestHead,
    ok: ResponseHead,
    body: Bytes,
    large: Bytes,
    server_time: Duration,
    client_time: Duration,
    count: u64,
}

impl Ends {
    fn new() -> Self {
        let mut get = RequestHead::default();
        get.set_method(b"GET");
        get.set_authority(b"shop.example.test:8080");
        get.set_target(b"/products/1234");
        get.fields.push(Name::UserAgent, b"load/1.0");
        get.fields.push(Name::Accept, b"*/*");
        let mut post = get.clone();
        post.set_method(b"POST");
        post.set_target(b"/shop.v1.Products/List");
        post.fields.push(Name::Te, b"trailers");
        post.fields.push(Name::ContentType, b"application/grpc");
        let mut ok = ResponseHead::new(200);
        ok.fields.push(Name::ContentType, b"application/grpc");
        ok.fields.push(Name::Server, b"shop");
        Self {
            client: Connection::client(Config::default()),
            server: Connection::server(Config::default()),
            to_server: BytesMut::with_capacity(64 << 10),
            to_client: BytesMut::with_capacity(64 << 10),
            get,
            post,
            ok,
            body: Bytes::from(vec![7; 100]),
            large: Bytes::from(vec![7; 256 << 10]),
            server_time: Duration::ZERO,
            client_time: Duration::ZERO,
            count: 0,
        }
    }

    /// What a read does: the peer's bytes are copied into the buffer.
    fn carry(from: &mut Connection<u64>, to: &mut BytesMut) {
        let output = from.output();
        to.reserve(output.remaining().max(32 << 10));
        while output.has_remaining() {
            let chunk = output.chunk();
            to.extend_from_slice(chunk);
            let length = chunk.len();
            output.advance(length);
        }
    }
}

fn unary(ends: &mut Ends) {
    exchange(ends, false, false);
}

fn grpc(ends: &mut Ends) {
    exchange(ends, true, false);
}

fn traced(ends: &mut Ends) {
    exchange(ends, true, true);
}

/// Bodies that take several rounds through the output's room.
fn large(ends: &mut Ends) {
    let mut body = ends.large.clone();
    for _ in 0..BATCH {
        let start = now();
        let id = ends.client.request(&ends.get, true, 0).expect("the peer takes a stream");
        ends.client_time += start.elapsed();
        Ends::carry(&mut ends.client, &mut ends.to_server);
        let start = now();
        while let Some(event) = ends.server.receive(&mut ends.to_server).expect("a peer of our own") {
            if let Event::Request { id, .. } = event {
                ends.server.respond(id, &ends.ok, false);
                body = ends.large.clone();
                ends.server.data(id, &mut body, true);
            }
        }
        ends.server_time += start.elapsed();
        while ends.client.state(id).is_some() {
            Ends::carry(&mut ends.server, &mut ends.to_client);
            let start = now();
            while let Some(event) = ends.client.receive(&mut ends.to_client).expect("a peer of our own") {
                match event {
                    Event::Response { head, .. } => drop(head),
                    Event::Data { id, flow, end, .. } => {
                        ends.client.release(id, flow);
                        if end {
                            ends.client.forget(id);
                        }
                    }
                    _ => {}
                }
            }
            ends.client_time += start.elapsed();
            Ends::carry(&mut ends.client, &mut ends.to_server);
            let start = now();
            while ends.server.receive(&mut ends.to_server).expect("a peer of our own").is_some() {}
            while let Some(id) = ends.server.writable() {
                ends.server.data(id, &mut body, true);
            }
            ends.server_time += start.elapsed();
        }
        ends.server.forget(id);
    }
}

fn exchange(ends: &mut Ends, grpc: bool, traced: bool) {
    let mut trailers = veer_http::Fields::new();
    trailers.push(Name::GrpcStatus, b"0");
    let heads: Vec<_> = (0..BATCH as u64)
        .map(|n| {
            let mut head = if grpc { ends.post.clone() } else { ends.get.clone() };
            if traced {
                let trace = format!("00-{:032x}-{:016x}-01", (ends.count + n) * 0x9E37_79B9_7F4A_7C15, ends.count + n);
                head.fields.push(Name::Traceparent, trace.as_bytes());
            }
            head
        })
        .collect();
    let start = now();
    for head in &heads {
        ends.count += 1;
        let id = ends.client.request(head, !grpc, ends.count).expect("the peer takes 16 streams");
        if grpc {
            assert!(ends.client.data(id, &mut ends.body.clone(), true));
        }
    }
    ends.client_time += start.elapsed();
    Ends::carry(&mut ends.client, &mut ends.to_server);
    let start = now();
    let mut served = 0;
    while let Some(event) = ends.server.receive(&mut ends.to_server).expect("a peer of our own") {
        let id = match event {
            Event::Request { id, end, .. } => {
                ends.server.set_state(id, 1);
                if !end {
                    continue;
                }
                id
            }
            Event::Data { id, flow, end: true, .. } => {
                ends.server.release(id, flow);
                id
            }
            _ => continue,
        };
        ends.server.respond(id, &ends.ok, false);
        assert!(ends.server.data(id, &mut ends.body.clone(), !grpc));
        if grpc {
            ends.server.trailers(id, &trailers);
        }
        ends.server.forget(id);
        served += 1;
    }
    assert_eq!(served, BATCH);
    ends.server_time += start.elapsed();
    Ends::carry(&mut ends.server, &mut ends.to_client);
    let start = now();
    let mut answered = 0;
    while let Some(event) = ends.client.receive(&mut ends.to_client).expect("a peer of our own") {
        let done = match event {
            Event::Response { .. } => {
                continue;
            }
            Event::Data { id, flow, end, .. } => {
                ends.client.release(id, flow);
                if !end {
                    continue;
                }
                id
            }
            Event::Trailers { id, .. } => id,
            _ => continue,
        };
        assert!(ends.client.forget(done).is_some());
        answered += 1;
    }
    assert_eq!(answered, BATCH);
    ends.client_time += start.elapsed();
}

#[allow(clippy::disallowed_methods, reason = "measures the real time that passes")]
fn now() -> Instant {
    Instant::now()
}
