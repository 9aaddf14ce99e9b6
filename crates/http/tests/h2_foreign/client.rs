//! Our client, and a foreign server.

use std::collections::BTreeMap;
use std::future::poll_fn;

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use tokio::io::DuplexStream;
use veer_http::h2::{Code, Config, Connection, Event, StreamId};
use veer_http::{Fields, Name, RequestHead};

use crate::wire::Wire;
use crate::{filled, pattern, run};

/// Answers until the client is gone: `/size/N`, `/trailers`, `/reset`, `/refuse`, and everything else with the request's body.
async fn serve(io: DuplexStream, builder: h2::server::Builder, leave_after: usize) {
    let mut connection = builder.handshake::<_, Bytes>(io).await.expect("a handshake");
    let mut served = 0;
    while let Some(accepted) = connection.accept().await {
        let Ok((request, respond)) = accepted else { return };
        tokio::task::spawn_local(answer(request, respond));
        served += 1;
        if served == leave_after {
            connection.graceful_shutdown();
        }
    }
}

async fn answer(request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>) {
    let path = request.uri().path().to_owned();
    match &path[..] {
        "/reset" => return respond.send_reset(Reason::INTERNAL_ERROR),
        "/refuse" => return respond.send_reset(Reason::REFUSED_STREAM),
        _ => {}
    }
    let mut response = Response::new(());
    let mine = request.headers().iter().filter(|(name, _)| name.as_str().starts_with("x-"));
    response.headers_mut().extend(mine.map(|(name, value)| (name.clone(), value.clone())));
    let Ok(mut stream) = respond.send_response(response, false) else { return };
    let mut body = request.into_body();
    let mut send = async |mut data: Bytes| {
        while !data.is_empty() {
            stream.reserve_capacity(data.len());
            let Some(Ok(room)) = poll_fn(|context| stream.poll_capacity(context)).await else { return false };
            if stream.send_data(data.split_to(room.min(data.len())), false).is_err() {
                return false;
            }
        }
        true
    };
    if let Some(size) = path.strip_prefix("/size/") {
        if !send(filled(size.parse().expect("a size"))).await {
            return;
        }
    } else {
        while let Some(Ok(data)) = body.data().await {
            let length = data.len();
            if !send(data).await {
                return;
            }
            let _ = body.flow_control().release_capacity(length);
        }
    }
    let came = body.trailers().await.ok().flatten();
    if path == "/trailers" || came.is_some() {
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
        let _ = stream.send_trailers(trailers);
    } else {
        let _ = stream.send_data(Bytes::new(), true);
    }
}

/// A request that is under way, and what came of it.
#[derive(Default)]
struct Call {
    left: Bytes,
    sum: bool,
    status: u16,
    got: usize,
    trailers: bool,
    reset: Option<(Code, bool)>,
}

struct Client {
    wire: Wire<Call>,
    done: BTreeMap<StreamId, Call>,
    /// The server has said how many streams it takes.
    settled: bool,
}

impl Client {
    fn new(config: Config, builder: h2::server::Builder, leave_after: usize) -> Self {
        let (near, far) = tokio::io::duplex(10_000);
        tokio::task::spawn_local(serve(far, builder, leave_after));
        Self { wire: Wire::new(Connection::client(config), near), done: BTreeMap::new(), settled: false }
    }

    /// Opens a stream as soon as one can be opened; None: the server leaves.
    async fn call(&mut self, path: &str, body: Bytes, sum: bool) -> Option<StreamId> {
        let mut head = RequestHead::default();
        head.set_method(if body.is_empty() { b"GET" } else { b"POST" });
        head.set_authority(b"shop.test");
        head.set_target(path.as_bytes());
        head.fields.push_other(b"x-mine", b"a b c");
        while !self.settled || !self.wire.connection.can_open() {
            if self.wire.connection.going_away() || !self.turn().await {
                return None;
            }
        }
        let end = body.is_empty() && !sum;
        let call = Call { left: body, sum, ..Call::default() };
        let id = self.wire.connection.request(&head, end, call).ok()?;
        if !end {
            self.pump(id);
        }
        Some(id)
    }

    fn pump(&mut self, id: StreamId) {
        let Some(call) = self.wire.connection.state(id) else { return };
        let (mut left, sum) = (std::mem::take(&mut call.left), call.sum);
        if !self.wire.connection.data(id, &mut left, !sum) {
            self.wire.connection.state(id).expect("open").left = left;
        } else if sum {
            let mut fields = Fields::new();
            fields.push_other(b"x-sum", b"1");
            self.wire.connection.trailers(id, &fields);
        }
    }

    /// One round of reading and writing; false: the server is gone.
    async fn turn(&mut self) -> bool {
        let alive = self.wire.turn().await;
        while let Some(event) = self.wire.event().expect("a peer that keeps to the protocol") {
            self.react(event);
        }
        while let Some(id) = self.wire.connection.writable() {
            self.pump(id);
        }
        alive
    }

    fn react(&mut self, event: Event) {
        let connection = &mut self.wire.connection;
        let (id, over) = match event {
            Event::Response { id, head, end } => {
                assert_eq!(head.fields.named(b"x-mine").collect::<Vec<_>>(), [b"a b c"]);
                connection.state(id).expect("open").status = head.status;
                (id, end)
            }
            Event::Data { id, data, flow, end } => {
                let call = connection.state(id).expect("open");
                assert!(data.iter().enumerate().all(|(at, byte)| *byte == pattern(call.got + at)));
                call.got += data.len();
                connection.release(id, flow);
                (id, end)
            }
            Event::Trailers { id, fields } => {
                assert_eq!(fields.get(Name::GrpcStatus), Some(&b"0"[..]));
                connection.state(id).expect("open").trailers = true;
                (id, true)
            }
            Event::Reset { id, code, untouched } => {
                connection.state(id).expect("open").reset = Some((code, untouched));
                (id, true)
            }
            Event::Settings => return self.settled = true,
            _ => return,
        };
        if over {
            let call = connection.forget(id).expect("open");
            self.done.insert(id, call);
        }
    }

    async fn finish(&mut self, id: StreamId) -> Call {
        while !self.done.contains_key(&id) {
            assert!(self.turn().await, "the server is gone");
        }
        self.done.remove(&id).expect("done")
    }
}

async fn local(test: impl Future<Output = ()>) {
    tokio::task::LocalSet::new().run_until(test).await;
}

#[test]
fn unary_requests_of_all_sizes() {
    run(local(async {
        let mut client = Client::new(Config::default(), h2::server::Builder::new(), usize::MAX);
        for size in [0, 1, 100, 4095, 4096, 16_384, 16_385, 65_535, 65_536, 3_000_000] {
            let id = client.call(&format!("/size/{size}"), Bytes::new(), false).await.expect("open");
            let call = client.finish(id).await;
            assert_eq!((call.status, call.got, call.reset), (200, size, None));
        }
    }));
}

#[test]
fn many_streams_at_once() {
    run(local(async {
        for (ours, theirs, streams) in [(1 << 20, 65_535, 1000), (1000, 100, 7), (65_535, 1 << 20, 50)] {
            let config = Config { stream_window: ours, connection_window: 65_535, ..Config::default() };
            let mut builder = h2::server::Builder::new();
            builder.initial_window_size(theirs).max_concurrent_streams(streams);
            let mut client = Client::new(config, builder, usize::MAX);
            let mut ids = Vec::new();
            for n in 0..200 {
                ids.push((n * 300, client.call("/echo", filled(n * 300), false).await.expect("open")));
            }
            for (size, id) in ids {
                assert_eq!(client.finish(id).await.got, size);
            }
        }
    }));
}

#[test]
fn trailers_both_ways() {
    run(local(async {
        let mut client = Client::new(Config::default(), h2::server::Builder::new(), usize::MAX);
        for (path, size) in [("/echo", 100_000), ("/trailers", 0), ("/echo", 0)] {
            let id = client.call(path, filled(size), true).await.expect("open");
            let call = client.finish(id).await;
            assert_eq!((call.got, call.trailers), (size, true), "{path}");
        }
    }));
}

#[test]
fn resets_both_ways() {
    run(local(async {
        let mut client = Client::new(Config::default(), h2::server::Builder::new(), usize::MAX);
        for (path, expected) in [("/reset", (Code::INTERNAL_ERROR, false)), ("/refuse", (Code::REFUSED_STREAM, true))] {
            let id = client.call(path, Bytes::new(), false).await.expect("open");
            assert_eq!(client.finish(id).await.reset, Some(expected));
        }
        // Cancelled in the middle; what is under way disturbs nobody.
        for _ in 0..20 {
            let id = client.call("/size/200000", Bytes::new(), false).await.expect("open");
            while client.wire.connection.state(id).is_some_and(|call| call.got == 0) {
                assert!(client.turn().await);
            }
            client.wire.connection.forget(id);
        }
        let id = client.call("/size/300000", Bytes::new(), false).await.expect("open");
        assert_eq!(client.finish(id).await.got, 300_000);
    }));
}

#[test]
fn a_server_that_leaves() {
    run(local(async {
        let mut client = Client::new(Config::default(), h2::server::Builder::new(), 3);
        let mut ids = Vec::new();
        while let Some(id) = client.call("/size/1000", Bytes::new(), false).await {
            ids.push(id);
            if ids.len() >= 3 {
                client.finish(id).await;
            }
        }
        assert!(client.wire.connection.going_away());
        let mut served = 0;
        for id in ids {
            if let Some(call) = client.done.remove(&id) {
                assert!(call.got == 1000 || call.reset.is_some_and(|(_, untouched)| untouched));
            }
            served += 1;
        }
        assert!(served >= 3);
    }));
}
