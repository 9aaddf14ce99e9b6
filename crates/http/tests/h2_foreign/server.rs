//! Our server, and a foreign client.

use std::future::poll_fn;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, StatusCode};
use tokio::io::DuplexStream;
use veer_http::h2::{Code, Config, Connection, Event, StreamId};
use veer_http::{Fields, Name, RequestHead, ResponseHead};

use crate::wire::Wire;
use crate::{filled, pattern, run};

/// What the server still has to send on a stream.
#[derive(Default)]
struct Answer {
    chunks: std::collections::VecDeque<(Bytes, u32)>,
    end: bool,
    trailers: bool,
}

/// Serves until the client is gone: `/size/N` with so many bytes, `/trailers` with some behind its body, `/reset` with RST_STREAM,
/// `/early` before the body has come, `/informed` after an informational head, and everything else with the request's body.
async fn serve(io: DuplexStream, config: Config, mut leave_after: usize) {
    let mut wire = Wire::new(Connection::<Answer>::server(config), io);
    let mut served = 0;
    loop {
        loop {
            match wire.event() {
                Ok(Some(event)) => served += usize::from(react(&mut wire.connection, event)),
                Ok(None) => break,
                Err(fault) => panic!("{fault}"),
            }
        }
        if served >= leave_after {
            leave_after = usize::MAX;
            wire.connection.shut_down();
        }
        while let Some(id) = wire.connection.writable() {
            pump(&mut wire.connection, id);
        }
        if wire.connection.is_shut() {
            return wire.flush().await;
        }
        if !wire.turn().await {
            return;
        }
    }
}

/// Whether a request came.
fn react(connection: &mut Connection<Answer>, event: Event) -> bool {
    match event {
        Event::Request { id, head, end } => {
            request(connection, id, &head, end);
            pump(connection, id);
            return true;
        }
        Event::Data { id, data, flow, end } => {
            if let Some(answer) = connection.state(id) {
                answer.chunks.push_back((data, flow));
                answer.end |= end;
            }
            pump(connection, id);
        }
        Event::Trailers { id, fields } => {
            assert_eq!(fields.named(b"x-sum").count(), 1);
            if let Some(answer) = connection.state(id) {
                (answer.end, answer.trailers) = (true, true);
            }
            pump(connection, id);
        }
        Event::Reset { id, .. } => {
            connection.forget(id);
        }
        _ => {}
    }
    false
}

fn request(connection: &mut Connection<Answer>, id: StreamId, head: &RequestHead, end: bool) {
    assert_eq!(head.authority(), Some(&b"shop.test"[..]));
    let mut answer = Answer { end, ..Answer::default() };
    let mut response = ResponseHead::new(200);
    match head.path() {
        "/reset" => return connection.reset(id, Code::ENHANCE_YOUR_CALM),
        "/early" => {
            connection.respond(id, &ResponseHead::new(413), true);
            connection.forget(id);
            return;
        }
        "/informed" => connection.respond(id, &ResponseHead::new(103), false),
        "/trailers" => answer.trailers = true,
        path => {
            if let Some(size) = path.strip_prefix("/size/") {
                let body = filled(size.parse().expect("a size"));
                response.fields.push(Name::ContentLength, body.len().to_string().as_bytes());
                answer.chunks.push_back((body, 0));
            }
        }
    }
    for (name, value) in head.fields.iter().filter(|(name, _)| name.starts_with(b"x-")) {
        response.fields.push_other(name, value);
    }
    connection.respond(id, &response, false);
    connection.set_state(id, answer);
}

fn pump(connection: &mut Connection<Answer>, id: StreamId) {
    let Some(answer) = connection.state(id) else { return };
    let mut answer = std::mem::take(answer);
    while let Some((mut data, flow)) = answer.chunks.pop_front() {
        let all = connection.data(id, &mut data, false);
        if !all {
            answer.chunks.push_front((data, flow));
            connection.set_state(id, answer);
            return;
        }
        connection.release(id, flow);
    }
    if !answer.end {
        return connection.set_state(id, answer);
    }
    if answer.trailers {
        let mut fields = Fields::new();
        fields.push(Name::GrpcStatus, b"0");
        connection.trailers(id, &fields);
    } else {
        assert!(connection.data(id, &mut Bytes::new(), true));
    }
    connection.forget(id);
}

/// A client of the `h2` crate on a pipe to our server.
async fn connect(builder: &h2::client::Builder, config: Config, leave_after: usize) -> SendRequest<Bytes> {
    let (near, far) = tokio::io::duplex(10_000);
    tokio::task::spawn_local(serve(far, config, leave_after));
    let (client, connection) = builder.handshake(near).await.expect("a handshake");
    tokio::task::spawn_local(async move { connection.await.expect("a connection without fault") });
    client.ready().await.expect("ready")
}

async fn send(
    client: &mut SendRequest<Bytes>,
    method: &str,
    path: &str,
    end: bool,
) -> (ResponseFuture, SendStream<Bytes>) {
    *client = client.clone().ready().await.expect("ready");
    let request = Request::builder().method(method).uri(format!("http://shop.test{path}")).header("x-mine", "a b c");
    client.send_request(request.body(()).expect("a request"), end).expect("sent")
}

async fn read(body: &mut RecvStream) -> Result<usize, h2::Error> {
    let mut got = 0;
    while let Some(data) = body.data().await {
        let data = data?;
        assert!(data.iter().enumerate().all(|(at, byte)| *byte == pattern(got + at)));
        got += data.len();
        body.flow_control().release_capacity(data.len())?;
    }
    Ok(got)
}

async fn upload(stream: &mut SendStream<Bytes>, mut data: Bytes) {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = poll_fn(|context| stream.poll_capacity(context)).await.expect("open").expect("room");
        stream.send_data(data.split_to(room.min(data.len())), false).expect("sent");
    }
}

async fn local(test: impl Future<Output = ()>) {
    tokio::task::LocalSet::new().run_until(test).await;
}

fn builder() -> h2::client::Builder {
    h2::client::Builder::new()
}

#[test]
fn unary_requests_of_all_sizes() {
    run(local(async {
        let mut client = connect(&builder(), Config::default(), usize::MAX).await;
        for size in [0, 1, 100, 4095, 4096, 16_384, 16_385, 65_535, 65_536, 3_000_000] {
            let (response, _) = send(&mut client, "GET", &format!("/size/{size}"), true).await;
            let mut response = response.await.expect("a response");
            assert_eq!((response.status(), &response.headers()["x-mine"]), (StatusCode::OK, &"a b c".parse().unwrap()));
            assert_eq!(read(response.body_mut()).await.expect("a body"), size);
        }
    }));
}

#[test]
fn many_streams_at_once() {
    run(local(async {
        for (ours, theirs) in [(1 << 20, 65_535), (1000, 100), (65_535, 1 << 20)] {
            let config = Config { stream_window: ours, connection_window: 65_535, ..Config::default() };
            let mut client = connect(builder().initial_window_size(theirs), config, usize::MAX).await;
            let mut tasks = Vec::new();
            for n in 0..200 {
                let (response, mut stream) = send(&mut client, "POST", "/echo", false).await;
                tasks.push(tokio::task::spawn_local(async move {
                    let size = n * 300;
                    let up = tokio::task::spawn_local(async move {
                        upload(&mut stream, filled(size)).await;
                        stream.send_data(Bytes::new(), true).expect("the end");
                    });
                    let mut response = response.await.expect("a response");
                    assert_eq!(read(response.body_mut()).await.expect("a body"), size);
                    up.await.expect("all sent");
                }));
            }
            for task in tasks {
                task.await.expect("a stream");
            }
        }
    }));
}

#[test]
fn trailers_both_ways() {
    run(local(async {
        let mut client = connect(&builder(), Config::default(), usize::MAX).await;
        let (response, mut stream) = send(&mut client, "POST", "/echo", false).await;
        upload(&mut stream, filled(100_000)).await;
        let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "1".parse().unwrap())]);
        stream.send_trailers(trailers).expect("trailers");
        let mut response = response.await.expect("a response");
        assert_eq!(read(response.body_mut()).await.expect("a body"), 100_000);
        let trailers = response.body_mut().trailers().await.expect("trailers").expect("some");
        assert_eq!(trailers["grpc-status"], "0");
        let (response, _) = send(&mut client, "GET", "/trailers", true).await;
        let mut response = response.await.expect("a response");
        assert_eq!(read(response.body_mut()).await.expect("a body"), 0);
        assert!(response.body_mut().trailers().await.expect("trailers").is_some());
    }));
}

#[test]
fn resets_both_ways() {
    run(local(async {
        let mut client = connect(&builder(), Config::default(), usize::MAX).await;
        let (response, _) = send(&mut client, "GET", "/reset", true).await;
        assert_eq!(response.await.expect_err("a reset").reason(), Some(Reason::ENHANCE_YOUR_CALM));
        for _ in 0..100 {
            let (response, mut stream) = send(&mut client, "POST", "/echo", false).await;
            response.await.expect("a response");
            stream.send_reset(Reason::CANCEL);
        }
        let (response, _stream) = send(&mut client, "POST", "/early", false).await;
        assert_eq!(response.await.expect("a response").status(), StatusCode::PAYLOAD_TOO_LARGE);
        let (response, _) = send(&mut client, "GET", "/informed", true).await;
        assert_eq!(response.await.expect("a response").status(), StatusCode::OK);
    }));
}

#[test]
fn a_server_that_leaves() {
    run(local(async {
        let mut client = connect(&builder(), Config::default(), 3).await;
        for _ in 0..3 {
            let (response, _) = send(&mut client, "GET", "/size/100", true).await;
            assert_eq!(read(response.await.expect("a response").body_mut()).await.expect("a body"), 100);
        }
        let ready = std::future::poll_fn(|context| client.poll_ready(context)).await;
        let gone = match ready {
            Err(_) => true,
            // The news may not have come yet.
            Ok(()) => match client.send_request(Request::get("http://shop.test/size/1").body(()).unwrap(), true) {
                Ok((response, _)) => response.await.is_ok() || client.clone().ready().await.is_err(),
                Err(_) => true,
            },
        };
        assert!(gone);
    }));
}

#[test]
fn large_heads_and_a_table_that_changes() {
    run(local(async {
        for table in [0, 100, 4096, 65_536] {
            let config = Config { table: 200, ..Config::default() };
            let mut client = connect(builder().header_table_size(table), config, usize::MAX).await;
            for n in 0..20 {
                let mut request = Request::get("http://shop.test/size/10");
                for field in 0..30 {
                    let value = "v".repeat(n * field);
                    request = request.header(format!("x-{field}"), value);
                }
                client = client.ready().await.expect("ready");
                let (response, _) = client.send_request(request.body(()).unwrap(), true).expect("sent");
                let response = response.await.expect("a response");
                for field in 0..30 {
                    assert_eq!(response.headers()[format!("x-{field}")].len(), n * field);
                }
            }
        }
    }));
}

/// Bytes of a recorded conversation have the same meaning however they are cut.
#[test]
fn one_byte_at_a_time() {
    run(local(async {
        let (near, far) = tokio::io::duplex(1);
        tokio::task::spawn_local(serve(far, Config::default(), usize::MAX));
        let (mut client, connection) = builder().handshake::<_, Bytes>(near).await.expect("a handshake");
        tokio::task::spawn_local(async move { connection.await.expect("a connection without fault") });
        let (response, mut stream) = send(&mut client, "POST", "/echo", false).await;
        stream.send_data(filled(3000), true).expect("sent");
        assert_eq!(read(response.await.expect("a response").body_mut()).await.expect("a body"), 3000);
    }));
}
