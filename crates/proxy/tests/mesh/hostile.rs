//! Attacks over real sockets: each is mounted, bounded and counted, and somebody else on another connection notices nothing.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;
use veer_core::names::{SpiffeId, TrustDomain};
use veer_core::sni::Sni;
use veer_identity::{ALPN_H2, Ca, Identity, KeyRequest, Svid, clock};

use crate::harness::frames::{self, Frames, block, frame, get, request};
use crate::harness::raw::{Ends, Log, Speaks, Text, http1_app};
use crate::harness::{App, Control, Pair, TARGET_PORT, Workload, run, until};

/// Somebody else, whose connection stands before the attack and is used again behind it.
struct Bystander(Text);

impl Bystander {
    async fn new(ends: &Ends) -> Self {
        let mut bystander = Self(Text::connect(ends.client.outbound()).await);
        bystander.is_served().await;
        bystander
    }

    async fn is_served(&mut self) {
        let begun = Instant::now();
        self.0.send("GET /bystander HTTP/1.1\r\nhost: cart\r\n\r\n").await;
        assert_eq!(self.0.answer("GET").await.text(), "hello");
        assert!(begun.elapsed() < Duration::from_secs(5), "others wait");
    }
}

async fn refused(ends: &Ends, reason: &str) -> f64 {
    let reason = format!("reason=\"{reason}\"");
    ends.client.metric("veer_refused_connections_total", &["outbound", &reason]).await
}

/// Messages of which two readers could make different requests. What stands behind the first is what an attacker wants to be taken
/// for a request of its own.
const SMUGGLED: &[(&str, &str, &str)] = &[
    (
        "a length and a coding",
        "POST / HTTP/1.1\r\nhost: cart\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "400",
    ),
    (
        "a coding and a length",
        "POST / HTTP/1.1\r\nhost: cart\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
        "400",
    ),
    ("two lengths", "POST / HTTP/1.1\r\nhost: cart\r\ncontent-length: 0\r\ncontent-length: 44\r\n\r\n", "400"),
    ("a list of lengths", "POST / HTTP/1.1\r\nhost: cart\r\ncontent-length: 0, 44\r\n\r\n", "400"),
    ("a length with a sign", "POST / HTTP/1.1\r\nhost: cart\r\ncontent-length: +0\r\n\r\n", "400"),
    ("a negative length", "POST / HTTP/1.1\r\nhost: cart\r\ncontent-length: -1\r\n\r\n", "400"),
    ("a hexadecimal length", "POST / HTTP/1.1\r\nhost: cart\r\ncontent-length: 0x0\r\n\r\n", "400"),
    ("a length beyond 64 bits", "POST / HTTP/1.1\r\nhost: cart\r\ncontent-length: 18446744073709551616\r\n\r\n", "400"),
    ("an empty length", "POST / HTTP/1.1\r\nhost: cart\r\ncontent-length:\r\n\r\n", "400"),
    (
        "a coding that only looks like chunked",
        "POST / HTTP/1.1\r\nhost: cart\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "400",
    ),
    (
        "chunked, and then another coding",
        "POST / HTTP/1.1\r\nhost: cart\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "400",
    ),
    (
        "another coding, and then chunked",
        "POST / HTTP/1.1\r\nhost: cart\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "501",
    ),
    (
        "chunked twice",
        "POST / HTTP/1.1\r\nhost: cart\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "400",
    ),
    (
        "a vertical tab before the coding",
        "POST / HTTP/1.1\r\nhost: cart\r\ntransfer-encoding: \u{b}chunked\r\n\r\n0\r\n\r\n",
        "400",
    ),
    (
        "a space before the colon",
        "POST / HTTP/1.1\r\nhost: cart\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        "400",
    ),
    ("a folded line", "POST / HTTP/1.1\r\nhost: cart\r\ntransfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n", "400"),
    ("a line that begins with a space", "POST / HTTP/1.1\r\n host: cart\r\nhost: cart\r\n\r\n", "400"),
    ("a bare line feed", "POST / HTTP/1.1\r\nhost: cart\nx: y\r\n\r\n", "400"),
    ("a bare carriage return", "POST / HTTP/1.1\r\nhost: cart\r\nx: y\rcontent-length: 44\r\n\r\n", "400"),
    ("a zero byte in a name", "POST / HTTP/1.1\r\nhost: cart\r\ncontent-\0length: 44\r\n\r\n", "400"),
    ("a coding in HTTP/1.0", "POST / HTTP/1.0\r\nhost: cart\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "400"),
    ("two hosts", "GET / HTTP/1.1\r\nhost: cart\r\nhost: other\r\n\r\n", "400"),
    ("a tab in the request line", "GET\t/ HTTP/1.1\r\nhost: cart\r\n\r\n", "400"),
    ("two versions", "GET / HTTP/1.1 HTTP/1.1\r\nhost: cart\r\n\r\n", "400"),
    ("another version", "GET / HTTP/2.1\r\nhost: cart\r\n\r\n", "505"),
    ("a connection with content", "CONNECT cart:80 HTTP/1.1\r\nhost: cart\r\ncontent-length: 44\r\n\r\n", "400"),
    (
        "a chunk's size with a prefix",
        "POST / HTTP/1.1\r\nhost: cart\r\ntransfer-encoding: chunked\r\n\r\n0x0\r\n\r\n",
        "400",
    ),
    (
        "a chunk's size with a sign",
        "POST / HTTP/1.1\r\nhost: cart\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n\r\n",
        "400",
    ),
    (
        "a chunk's size beyond 64 bits",
        "POST / HTTP/1.1\r\nhost: cart\r\ntransfer-encoding: chunked\r\n\r\n10000000000000000\r\n\r\n",
        "400",
    ),
    (
        "a chunk longer than its size",
        "POST / HTTP/1.1\r\nhost: cart\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
        "400",
    ),
    (
        "a bare line feed behind a chunk's size",
        "POST / HTTP/1.1\r\nhost: cart\r\ntransfer-encoding: chunked\r\n\r\n0\n\n",
        "400",
    ),
    (
        "a bare line feed in a chunk's extension",
        "POST / HTTP/1.1\r\nhost: cart\r\ntransfer-encoding: chunked\r\n\r\n1;a\nb\r\nx\r\n0\r\n\r\n",
        "400",
    ),
    (
        "a bare line feed in trailers",
        "POST / HTTP/1.1\r\nhost: cart\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: y\n\r\n",
        "400",
    ),
];

#[test]
fn nothing_is_smuggled_over_http1() {
    run(async {
        let ends = Ends::new(Speaks::Http1).await;
        let mut bystander = Bystander::new(&ends).await;
        for (what, text, status) in SMUGGLED {
            let mut attacker = Text::connect(ends.client.outbound()).await;
            attacker.send(format!("{text}GET /smuggled HTTP/1.1\r\nhost: cart\r\n\r\n")).await;
            let answer = tokio::time::timeout(Duration::from_secs(10), attacker.rest()).await;
            let answer =
                answer.unwrap_or_else(|_| panic!("{what}: no end; {:?}", String::from_utf8_lossy(&attacker.unread)));
            assert_eq!(answer.split(' ').nth(1), Some(*status), "{what}: {answer}");
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{what}: one answer, and the connection ends: {answer}");
            assert!(ends.seen.borrow().iter().all(|seen| seen.path() != "/smuggled"), "{what} reached the application");
        }
        bystander.is_served().await;
        // All but those that show in the body, which are requests that failed.
        until("they are counted", async || refused(&ends, "broken_http").await >= 20.0).await;
        // What only looks like it: the text is a body, and stays one.
        let mut honest = Text::connect(ends.client.outbound()).await;
        let inner = "GET /smuggled HTTP/1.1\r\nhost: cart\r\n\r\n";
        for lengths in ["content-length: 38\r\n", "content-length: 38\r\ncontent-length: 38\r\n"] {
            honest.send(format!("POST /honest HTTP/1.1\r\nhost: cart\r\n{lengths}\r\n{inner}")).await;
            assert_eq!(honest.answer("POST").await.status, 200);
            assert_eq!((ends.last().path(), ends.last().body.as_slice()), ("/honest", inner.as_bytes()));
        }
        honest.send("GET / HTTP/1.1\r\nhost: cart\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n").await;
        assert_eq!(honest.answer("GET").await.status, 200, "h2c is not offered");
        assert_eq!((ends.last().field("upgrade"), ends.last().field("http2-settings")), (None, None));
    });
}

#[test]
fn nothing_is_smuggled_over_http2() {
    run(async {
        let ends = Ends::new(Speaks::Http1).await;
        let mut bystander = Bystander::new(&ends).await;
        let base = |path| vec![(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "cart")];
        let with = |more: &[(&'static str, &'static str)]| [base("/smuggled"), more.to_vec()].concat();
        let heads = [
            ("a line end in a value", with(&[("x", "y\r\ncontent-length: 0")])),
            ("a line end in a name", with(&[("x: y\r\nz", "1")])),
            ("a zero byte", with(&[("x", "\0")])),
            ("a space around a value", with(&[("x", " y")])),
            ("capitals", with(&[("Content-Length", "0")])),
            ("a colon in a name", with(&[("x:y", "z")])),
            ("an empty name", with(&[("", "z")])),
            ("a coding", with(&[("transfer-encoding", "chunked")])),
            ("connection", with(&[("connection", "close")])),
            ("upgrade", with(&[("upgrade", "h2c")])),
            ("keep-alive", with(&[("keep-alive", "5")])),
            ("te", with(&[("te", "gzip")])),
            ("two lengths", with(&[("content-length", "1"), ("content-length", "2")])),
            ("another host", with(&[("host", "other")])),
            ("a pseudo-field behind a field", with(&[("x", "y"), (":path", "/other")])),
            ("two paths", with(&[(":path", "/other")])),
            ("an unknown pseudo-field", with(&[(":x", "y")])),
            ("a path with a line end", base("/smuggled HTTP/1.1\r\nx: y")),
            ("a path with a space", base("/smuggled x")),
            ("no path", base("")),
            (
                "a method with a line end",
                vec![(":method", "GET /smuggled HTTP/1.1\r\n"), (":scheme", "http"), (":path", "/")],
            ),
            (
                "user information",
                vec![(":method", "GET"), (":scheme", "http"), (":path", "/smuggled"), (":authority", "a@cart")],
            ),
        ];
        let mut attacker = Frames::connect(ends.client.outbound()).await;
        let count = heads.len();
        for (number, (what, fields)) in heads.into_iter().enumerate() {
            let id = 1 + 2 * number as u32;
            let head = frame(frames::HEADERS, frames::END_HEADERS | frames::END_STREAM, id, &block(&fields));
            assert!(attacker.send(&head).await);
            let reset =
                attacker.until(frames::RST_STREAM).await.unwrap_or_else(|| panic!("{what}: the connection ended"));
            assert_eq!((reset.id, reset.code()), (id, 1), "{what}");
        }
        // A body that is not as long as was said.
        let id = 1 + 2 * count as u32;
        let head = block(&with(&[("content-length", "1")]));
        assert!(attacker.send(&frame(frames::HEADERS, frames::END_HEADERS, id, &head)).await);
        assert!(attacker.send(&frame(frames::DATA, frames::END_STREAM, id, b"more than one")).await);
        assert_eq!(attacker.until(frames::RST_STREAM).await.map(|reset| (reset.id, reset.code())), Some((id, 1)));
        assert!(ends.seen.borrow().iter().all(|seen| seen.path() != "/smuggled"));
        // Only the streams failed: the connection serves on.
        assert!(attacker.send(&request(id + 2, "/good")).await);
        assert_eq!(attacker.until(frames::DATA).await.map(|data| data.payload), Some(b"hello".to_vec()));
        bystander.is_served().await;
    });
}

#[test]
fn floods_of_frames_end_with_their_connection() {
    run(async {
        const CALM: u32 = 11;
        let ends = Ends::new(Speaks::Http1).await;
        let mut bystander = Bystander::new(&ends).await;
        let id = |n: u32| 3 + 2 * n;
        let reset = move |n| frame(frames::RST_STREAM, 0, id(n), &8u32.to_be_bytes());
        let upload = frame(frames::HEADERS, frames::END_HEADERS, 1, &get("/flood", &[]));
        type Flood = Box<dyn Fn(u32) -> Vec<u8>>;
        let floods: [(&str, Flood); 11] = [
            ("rapid reset", Box::new(move |n| [request(id(n), "/flood"), reset(n)].concat())),
            (
                "made to reset",
                Box::new(move |n| [request(id(n), "/flood"), frame(frames::WINDOW_UPDATE, 0, id(n), &[0; 4])].concat()),
            ),
            (
                "malformed heads",
                Box::new(move |n| {
                    frame(
                        frames::HEADERS,
                        frames::END_HEADERS | frames::END_STREAM,
                        id(n),
                        &block(&[(":method", "GET")]),
                    )
                }),
            ),
            ("settings", Box::new(|_| frame(frames::SETTINGS, 0, 0, &[]))),
            ("acknowledgements", Box::new(|_| frame(frames::SETTINGS, 1, 0, &[]))),
            ("pings", Box::new(|_| frame(frames::PING, 0, 0, &[7; 8]))),
            ("pongs", Box::new(|_| frame(frames::PING, 1, 0, &[7; 8]))),
            ("priorities", Box::new(|n| frame(frames::PRIORITY, 0, 3 + n, &[0, 0, 0, 0, 1]))),
            ("empty data", Box::new(|_| frame(frames::DATA, 0, 1, &[]))),
            ("windows", Box::new(|_| frame(frames::WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()))),
            (
                "continuations",
                Box::new(move |n| match n {
                    0 => frame(frames::HEADERS, 0, id(0), &[]),
                    _ => frame(frames::CONTINUATION, 0, id(0), &[]),
                }),
            ),
        ];
        let count = floods.len() as f64;
        for (what, flood) in floods {
            let mut attacker = Frames::connect(ends.client.outbound()).await;
            assert!(attacker.send(&upload).await);
            // Nothing of what comes is read, until it does not go on: also for a peer whose answers nobody reads.
            const MOST: u32 = 4_000_000;
            let (mut sent, mut taken) = (0, true);
            let sending = async {
                while sent < MOST && taken {
                    let next: Vec<u8> = (sent..sent + 256).flat_map(&flood).collect();
                    taken = attacker.send(&next).await;
                    sent += 256;
                    tokio::task::yield_now().await;
                }
            };
            let _ = tokio::time::timeout(Duration::from_secs(10), sending).await;
            assert!(sent < MOST, "{what}: all were taken");
            if let Some(farewell) = attacker.until(frames::GOAWAY).await {
                assert_eq!(farewell.code(), CALM, "{what}");
            }
            bystander.is_served().await;
        }
        until("they are counted", async || refused(&ends, "broken_http").await >= count).await;
        let reached = ends.seen.borrow().iter().filter(|seen| seen.path() == "/flood").count();
        assert!(reached <= 2 * 512, "{reached} requests of two floods reached the application");
    });
}

#[test]
fn a_small_block_that_unpacks_to_much_is_refused() {
    run(async {
        let ends = Ends::new(Speaks::Http1).await;
        let mut bystander = Bystander::new(&ends).await;
        // One entry of 4,000 bytes enters the table; 16,000 references of one byte each would be 64 MB.
        let mut bomb = get("/bomb", &[]);
        bomb.extend([0x40, 1, b'a', 127, ((4000 - 127) & 127) as u8 | 128, ((4000 - 127) >> 7) as u8]);
        bomb.extend([b'x'; 4000]);
        bomb.extend([0xbe; 12_000]);
        let mut attacker = Frames::connect(ends.client.outbound()).await;
        let begun = Instant::now();
        for id in [1, 3, 5] {
            assert!(attacker.send(&frame(frames::HEADERS, frames::END_HEADERS | frames::END_STREAM, id, &bomb)).await);
            // 431, by its number: a literal or an index of HPACK.
            assert_eq!(attacker.until(frames::HEADERS).await.map(|answer| answer.id), Some(id));
        }
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        assert!(ends.seen.borrow().iter().all(|seen| seen.path() != "/bomb"));
        bystander.is_served().await;
    });
}

#[test]
fn heads_are_bounded_in_size_and_number() {
    run(async {
        let ends = Ends::new(Speaks::Http1).await;
        let mut bystander = Bystander::new(&ends).await;
        let many: String = (0..101).map(|n| format!("x-{n}: 1\r\n")).collect();
        let long = "a".repeat(70_000);
        for (what, text, status) in [
            ("many fields", format!("GET / HTTP/1.1\r\nhost: cart\r\n{many}\r\n"), "431"),
            ("a long field", format!("GET / HTTP/1.1\r\nhost: cart\r\nx: {long}\r\n\r\n"), "431"),
            ("a long target", format!("GET /{long} HTTP/1.1\r\nhost: cart\r\n\r\n"), "414"),
            ("a field without an end", format!("GET / HTTP/1.1\r\nhost: cart\r\nx: {long}"), "431"),
            ("empty lines", "\r\n".repeat(40_000), "431"),
            (
                "trailers without an end",
                { format!("POST / HTTP/1.1\r\nhost: cart\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: {long}") },
                "400",
            ),
        ] {
            let mut attacker = Text::connect(ends.client.outbound()).await;
            let _ = attacker.io.write_all(text.as_bytes()).await;
            let answer = attacker.rest().await;
            assert_eq!(answer.split(' ').nth(1), Some(status), "{what}: {answer}");
        }
        bystander.is_served().await;
        assert!(refused(&ends, "broken_http").await >= 5.0);
    });
}

#[test]
fn a_slow_head_is_ended_and_hinders_nobody() {
    run(async {
        let ends = Ends::new(Speaks::Http1).await;
        let mut bystander = Bystander::new(&ends).await;
        let mut slow = Vec::new();
        for _ in 0..200 {
            let mut attacker = Text::connect(ends.client.outbound()).await;
            attacker.send("GET / HTTP/1.1\r\nhost: cart\r\nx: ").await;
            slow.push(attacker);
        }
        bystander.is_served().await;
        let begun = Instant::now();
        let dripping = async {
            // A byte now and then does not help.
            while begun.elapsed() < Duration::from_secs(9) {
                tokio::time::sleep(Duration::from_millis(500)).await;
                for attacker in &mut slow {
                    let _ = attacker.io.write_all(b"a").await;
                }
            }
        };
        dripping.await;
        bystander.is_served().await;
        for attacker in &mut slow {
            let answer = attacker.rest().await;
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
        }
        assert!(begun.elapsed() < Duration::from_secs(16), "ten seconds, and a sweep: {:?}", begun.elapsed());
        until("they are counted", async || refused(&ends, "slow_head").await == 200.0).await;
    });
}

#[test]
fn slow_bodies_and_readers_hold_a_bounded_amount() {
    run(async {
        // The application would send 256 MB to whoever asks.
        let sent = std::rc::Rc::new(std::cell::Cell::new(0u64));
        let counter = std::rc::Rc::clone(&sent);
        let seen = Log::default();
        let log = Log::clone(&seen);
        let serve = move |stream: TcpStream| {
            let (counter, log) = (std::rc::Rc::clone(&counter), Log::clone(&log));
            async move {
                let mut text = Text { io: stream, unread: Vec::new() };
                while let Some(mut head) = text.head().await {
                    if head.path() == "/much" {
                        text.send("HTTP/1.1 200 Much\r\ncontent-length: 268435456\r\n\r\n").await;
                        while text.io.write_all(&[b'x'; 65536]).await.is_ok() {
                            counter.set(counter.get() + 65536);
                        }
                        return;
                    }
                    text.body(&mut head).await;
                    log.borrow_mut().push(head);
                    text.send("HTTP/1.1 200 Said\r\ncontent-length: 5\r\n\r\nhello").await;
                }
            }
        };
        let ends = Ends::with(veer_core::AppProtocol::Http1, seen, serve).await;
        let mut bystander = Bystander::new(&ends).await;
        let mut slow = Vec::new();
        for _ in 0..20 {
            let mut reader = Text::connect(ends.client.outbound()).await;
            reader.send("GET /much HTTP/1.1\r\nhost: cart\r\n\r\n").await;
            slow.push(reader);
            let mut writer = Text::connect(ends.client.outbound()).await;
            writer.send("POST /slow-body HTTP/1.1\r\nhost: cart\r\ncontent-length: 1000\r\n\r\nx").await;
            slow.push(writer);
        }
        // Until nothing moves any more.
        let mut last = 0;
        until("the readers' share is full", async || {
            tokio::time::sleep(Duration::from_millis(300)).await;
            std::mem::replace(&mut last, sent.get()) == sent.get() && last > 0
        })
        .await;
        // Windows and socket buffers on the way of three connections each; of the proxies' own memory it is a small part.
        assert!(sent.get() / 20 < 24 << 20, "{} MB for each reader", (sent.get() / 20) >> 20);
        bystander.is_served().await;
    });
}

#[test]
fn storms_of_resets_leave_nothing_behind() {
    run(async {
        let mut ends = Ends::new(Speaks::Http1).await;
        let mut bystander = Bystander::new(&ends).await;
        for round in 0..600 {
            let mut attacker = Text::connect(ends.client.outbound()).await;
            attacker.send(if round % 2 == 0 { "GET /slow HTTP/1.1\r\nhost: cart\r\n\r\n" } else { "GET /sl" }).await;
            if round % 3 == 0 {
                tokio::task::yield_now().await;
            }
            // A reset instead of an end.
            attacker.io.set_zero_linger().unwrap();
            drop(attacker);
            if round % 100 == 0 {
                bystander.is_served().await;
            }
        }
        bystander.is_served().await;
        drop(bystander);
        // Nothing is open any more: the proxy ends at once, not at the drain's limit.
        let begun = Instant::now();
        ends.client.stop().await;
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    });
}

#[test]
fn a_flood_of_connections_waits_outside() {
    run(async {
        let seen = Log::default();
        let log = Log::clone(&seen);
        let mut ends = Ends::with(veer_core::AppProtocol::Http1, seen, move |io| http1_app(io, Log::clone(&log))).await;
        ends.client.stop().await;
        ends.client.config.max_connections = 16;
        ends.client.launch();
        ends.client.ready().await;
        let mut bystander = Bystander::new(&ends).await;
        let mut flood = Vec::new();
        for _ in 0..64 {
            let mut attacker = Text::connect(ends.client.outbound()).await;
            attacker.send("GET /").await;
            flood.push(attacker);
        }
        // Whoever is in is served as ever; whoever is not waits in the kernel's queue.
        bystander.is_served().await;
        let mut late = Text::connect(ends.client.outbound()).await;
        late.send("GET /late HTTP/1.1\r\nhost: cart\r\n\r\n").await;
        drop(flood);
        assert_eq!(late.answer("GET").await.status, 200);
        bystander.is_served().await;
    });
}

#[test]
fn strangers_are_refused_at_the_mesh_port() {
    run(async {
        let pair = Pair::new(App::text("in")).await;
        let web = pair.control.id("shop", "web");
        let domain = |name: &str| TrustDomain::new(name).unwrap();
        let now = clock::now();
        let hour = Duration::from_secs(3600);
        let of = |ca: &Ca, id: &SpiffeId, from| {
            let request = KeyRequest::new().unwrap();
            let chain = ca.sign(&request.csr_der, id, hour, from).unwrap();
            Svid::from_chain(request.key, chain).unwrap()
        };
        let impostor = Ca::create(&domain("west.example"), now).unwrap();
        let foreign = Ca::create(&domain("north.example"), now).unwrap();
        let stranger = SpiffeId::new(domain("north.example"), "shop", "web");
        let cases = [
            ("another authority for our own trust domain", of(&impostor, &web, now)),
            ("a trust domain that nobody linked", of(&foreign, &stranger, now)),
            ("ended an hour ago", of(&pair.control.ca.ca, &web, now - hour * 2)),
            ("begins in an hour", of(&pair.control.ca.ca, &web, now + hour)),
        ];
        let mesh = std::net::SocketAddr::new(pair.server.address, veer_core::inbound::MESH_PORT);
        let name: Sni = format!("p{TARGET_PORT}.west").parse().unwrap_or_else(|_| panic!("a server name"));
        let before = pair.server.metric("veer_tls_handshakes_total", &["inbound"]).await;
        for (what, svid) in cases {
            let identity = Identity::new(svid, [pair.control.ca.ca.bundle()]).unwrap();
            let stream = TcpStream::connect(mesh).await.unwrap();
            let connected = veer_identity::connect(
                stream,
                identity.client_config(&[ALPN_H2]),
                &name,
                std::slice::from_ref(&pair.server.inbound.identity),
            )
            .await;
            // With TLS 1.3 the refusal may come behind the client's last flight.
            if let Ok((mut stream, _)) = connected {
                use tokio::io::AsyncReadExt;
                let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
                let mut answer = Vec::new();
                let _ = stream.read_to_end(&mut answer).await;
                assert!(answer.is_empty(), "{what} was served: {answer:?}");
            }
        }
        until("they are counted", async || {
            let all = pair.server.metric("veer_tls_handshakes_total", &["inbound"]).await;
            let good = pair.server.metric("veer_tls_handshakes_total", &["inbound", "outcome=\"ok\""]).await;
            all - before >= 4.0 && good == 0.0
        })
        .await;
        assert_eq!(pair.app.count(), 0);
        let mut client = crate::harness::Client::http1(pair.client.outbound()).await.unwrap();
        assert_eq!(client.get("cart", "/").await.unwrap().text(), "in");
    });
}

#[test]
fn garbage_at_the_mesh_port_is_counted_and_forgotten() {
    run(async {
        let control = Control::start().await;
        let server = Workload::new(&control, "cart").start(&control).await;
        let mesh = std::net::SocketAddr::new(server.address, veer_core::inbound::MESH_PORT);
        let mut rng = fastrand::Rng::with_seed(7);
        for round in 0..100 {
            let mut bytes: Vec<u8> = (0..rng.usize(1..4000)).map(|_| rng.u8(..)).collect();
            if round % 2 == 0 {
                // The head of a ClientHello as long as can be said.
                bytes.splice(0..0, [22, 3, 1, 0x3f, 0xff, 1, 0xff, 0xff, 0xff, 3, 3]);
            }
            let mut attacker = Text::connect(mesh).await;
            let _ = attacker.io.write_all(&bytes).await;
            let _ = attacker.io.shutdown().await;
            let said = attacker.rest().await;
            assert!(said.len() <= 7, "nothing but one alert: {said:?}");
        }
        until("they are counted", async || server.metric("veer_tls_handshakes_total", &["inbound"]).await >= 100.0)
            .await;
        assert!(server.admin("/ready").await.starts_with("ready"));
    });
}
