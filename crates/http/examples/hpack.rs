//! How long HPACK takes: `cargo run --release -p veer-http --example hpack`. Prints nanoseconds per block, the least of several rounds.

use std::hint::black_box;
use std::time::Instant;

use veer_http::hpack::{Decoder, Encoder, HpackFault, Pseudo};
use veer_http::{Fields, Name};

type Field = (&'static str, &'static str);

const CALL: [Field; 8] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/shop.Cart/Add"),
    (":authority", "cart.shop.svc:8080"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
    ("user-agent", "grpc-go/1.64.0"),
    ("grpc-accept-encoding", "gzip"),
];

const REPLY: [Field; 5] = [
    (":status", "200"),
    ("content-type", "application/json; charset=utf-8"),
    ("content-length", "100"),
    ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
    ("server", "veer"),
];

const TRACED: [Field; 8] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":path", "/search?q=lighthouse&page=3"),
    (":authority", "shop.example.com"),
    ("accept", "text/html,application/xhtml+xml"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("x-request-id", "7f2a9c1e-5b7d-4b39-9d5e-3f1f8f0a2b44"),
];

fn main() {
    println!("{:28} {:>5} {:>8} {:>8} {:>9}", "block", "bytes", "encode", "decode", "to fields");
    for (what, fields) in
        [("call, 8 fields known", &CALL[..]), ("reply, 2 of 5 new", &REPLY), ("traced, 3 of 8 new", &TRACED)]
    {
        let fields = named(fields);
        let (mut encoder, mut decoder, mut block) = (Encoder::new(4096), Decoder::new(4096), Vec::new());
        for _ in 0..3 {
            encode(&mut encoder, &fields, &mut block);
            decode(&mut decoder, &block);
        }
        let encoding = time(|| encode(&mut encoder, &fields, &mut block));
        let decoding = time(|| decode(&mut decoder, &block));
        let mut head = Fields::with_capacity(1024, 16);
        let filling = time(|| fill(&mut decoder, &block, &mut head));
        println!("{what:28} {:5} {encoding:6.1}ns {decoding:6.1}ns {filling:7.1}ns", block.len());
    }
    let fields = named(&TRACED);
    let mut first = Vec::new();
    let encoding = time(|| encode(&mut Encoder::new(4096), &fields, &mut first));
    let decoding = time(|| decode(&mut Decoder::new(4096), &first));
    println!("{:28} {:5} {encoding:6.1}ns {decoding:6.1}ns", "first of a connection, 8 new", first.len());
    let mut turn = 0u64;
    let (mut encoder, mut decoder, mut block) = (Encoder::new(4096), Decoder::new(4096), Vec::new());
    let both = time(|| {
        // 64 clients whose agents differ, over one connection.
        turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let agent = format!("client/{}", turn >> 58);
        block.clear();
        encoder.begin(&mut block);
        encoder.field(Name::UserAgent, b"user-agent", agent.as_bytes(), false, &mut block);
        decode(&mut decoder, &block);
    });
    println!("{:28} {:5} {both:6.1}ns for both, with making the text", "one of 64 values", block.len());
}

fn named(fields: &[Field]) -> Vec<(Name, Option<Pseudo>, Field)> {
    fields.iter().map(|field| (Name::of(field.0.as_bytes()), Pseudo::of(field.0.as_bytes()), *field)).collect()
}

fn encode(encoder: &mut Encoder, fields: &[(Name, Option<Pseudo>, Field)], out: &mut Vec<u8>) {
    out.clear();
    encoder.begin(out);
    for (known, pseudo, (name, value)) in black_box(fields) {
        match pseudo {
            Some(pseudo) => encoder.pseudo(*pseudo, value.as_bytes(), out),
            None => encoder.field(*known, name.as_bytes(), value.as_bytes(), false, out),
        }
    }
}

fn decode(decoder: &mut Decoder, block: &[u8]) {
    let sum = decoder.decode(black_box(block), |name, value, _| {
        black_box((name, value));
        Ok::<_, HpackFault>(())
    });
    black_box(sum).unwrap();
}

/// As the engine of HTTP/2 does it.
fn fill(decoder: &mut Decoder, block: &[u8], head: &mut Fields) {
    use veer_http::hpack::Known;
    head.clear();
    let done = decoder.decode_lines(black_box(block), |line| {
        match line.known {
            Known::Field(name) if line.fit => head.push_as(name, line.name, line.value, line.sensitive),
            _ => drop(black_box(line.value)),
        }
        Ok::<_, HpackFault>(())
    });
    black_box(done).unwrap();
}

/// Nanoseconds for one run: the least mean of 200 short rounds, since others may use the machine.
fn time(mut run: impl FnMut()) -> f64 {
    const RUNS: u32 = 2000;
    let round = |_| {
        let start = now();
        for _ in 0..RUNS {
            run();
        }
        start.elapsed().as_nanos() as f64 / f64::from(RUNS)
    };
    (0..200).map(round).fold(f64::MAX, f64::min)
}

#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}
