//! Answers every HTTP/2 request (cleartext, with prior knowledge) with 100 bytes: for conformance tests and load of others.
//!
//! `cargo run --release -p veer-http --example h2_serve [port]`, then `h2spec -h 127.0.0.1 -p 8181` or `h2load -c 4 -m 16 …`.

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use veer_http::h2::{Config, Connection, Event, StreamId};
use veer_http::{Name, ResponseHead};

fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(8181);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(serve(stream));
        }
    })
}

/// What a stream still has to send.
type Left = Bytes;

async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut connection = Connection::<Left>::server(Config::default());
    let mut input = BytesMut::new();
    let mut failed = false;
    loop {
        while !failed {
            match connection.receive(&mut input) {
                Ok(Some(event)) => react(&mut connection, event),
                Ok(None) => break,
                Err(_) => failed = true,
            }
        }
        while let Some(id) = connection.writable() {
            send(&mut connection, id);
        }
        while connection.output().has_remaining() {
            stream.write_buf(connection.output()).await?;
        }
        if failed || connection.is_shut() {
            return stream.shutdown().await;
        }
        input.reserve(16 << 10);
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
    }
}

fn react(connection: &mut Connection<Left>, event: Event) {
    match event {
        Event::Request { id, end, .. } if end => answer(connection, id),
        Event::Data { id, flow, end, .. } => {
            connection.release(id, flow);
            if end {
                answer(connection, id);
            }
        }
        Event::Trailers { id, .. } => answer(connection, id),
        Event::Reset { id, .. } => {
            connection.forget(id);
        }
        _ => {}
    }
}

fn answer(connection: &mut Connection<Left>, id: StreamId) {
    let mut head = ResponseHead::new(200);
    head.fields.push(Name::ContentLength, b"100");
    connection.respond(id, &head, false);
    connection.set_state(id, Bytes::from_static(&[b'x'; 100]));
    send(connection, id);
}

fn send(connection: &mut Connection<Left>, id: StreamId) {
    let Some(left) = connection.state(id) else { return };
    let mut data = std::mem::take(left);
    if connection.data(id, &mut data, true) {
        connection.forget(id);
    } else {
        connection.set_state(id, data);
    }
}
