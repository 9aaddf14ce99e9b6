//! Bodies that are large enough to go through the kernel alone: not a byte is lost, changed, or anybody else's.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::app::App;
use crate::harness::{Pair, TARGET_PORT, address, run};

const SIZE: usize = 3 << 20;

/// What the byte at a place of a body is.
fn content(seed: u8, from: usize, length: usize) -> Vec<u8> {
    (from..from + length).map(|at| (at / 251 + at) as u8 ^ seed).collect()
}

/// A request as this file's origin reads them: whose body, and how many bytes are told and sent.
struct Asked {
    seed: u8,
    told: usize,
    sent: usize,
    body: Vec<u8>,
}

/// Reads a head: the numbers in its target, and its content-length.
async fn head(io: &mut BufReader<TcpStream>) -> Option<(Vec<usize>, usize)> {
    let (mut first, mut length) = (String::new(), 0);
    io.read_line(&mut first).await.ok().filter(|count| *count > 0)?;
    loop {
        let mut line = String::new();
        io.read_line(&mut line).await.ok()?;
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(told) = line.strip_prefix("content-length:") {
            length = told.trim().parse().unwrap();
        }
    }
    let numbers = first.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect();
    Some((numbers, length))
}

/// An application outside of the mesh that answers `/seed/told/sent` with so much content, after reading the request's.
async fn origin() -> SocketAddr {
    let listener = TcpListener::bind((address(), TARGET_PORT)).await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::task::spawn_local(async move {
                let mut io = BufReader::new(stream);
                while let Some((numbers, length)) = head(&mut io).await {
                    let mut body = vec![0; length];
                    io.read_exact(&mut body).await.unwrap();
                    let asked = Asked { seed: numbers[0] as u8, told: numbers[1], sent: numbers[2], body };
                    assert!(asked.body == content(asked.seed, 0, length), "what was uploaded has changed");
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", asked.told);
                    io.write_all(head.as_bytes()).await.unwrap();
                    let _ = io.write_all(&content(asked.seed, 0, asked.sent)).await;
                    if asked.sent < asked.told {
                        return;
                    }
                }
            });
        }
    });
    at
}

/// A pair whose client reaches the origin as the service `old`.
async fn outside() -> Pair {
    let pair = Pair::new(App::text("meshed")).await;
    let at = origin().await;
    let mut endpoint = pair.server.endpoint();
    (endpoint.identity, endpoint.mesh_port, endpoint.address) = (None, 0, at.ip());
    pair.control.service("old").endpoint(endpoint).put();
    pair
}

async fn connect(pair: &Pair) -> BufReader<TcpStream> {
    BufReader::new(TcpStream::connect(pair.client.outbound()).await.unwrap())
}

async fn ask(io: &mut BufReader<TcpStream>, seed: u8, told: usize, sent: usize, upload: usize) {
    let head = format!("POST /{seed}/{told}/{sent} HTTP/1.1\r\nhost: old\r\ncontent-length: {upload}\r\n\r\n");
    io.write_all(head.as_bytes()).await.unwrap();
    io.write_all(&content(seed, 0, upload)).await.unwrap();
}

#[test]
fn large_bodies_arrive_whole_both_ways_and_the_connection_goes_on() {
    run(async {
        let pair = outside().await;
        let mut io = connect(&pair).await;
        for (seed, (told, upload)) in
            [(SIZE, 0), (100, SIZE), (SIZE, SIZE), (70_000, 70_000), (3, 5)].into_iter().enumerate()
        {
            ask(&mut io, seed as u8, told, told, upload).await;
            let (numbers, length) = head(&mut io).await.expect("an answer");
            assert_eq!((numbers[2], length), (200, told));
            let mut body = vec![0; length];
            io.read_exact(&mut body).await.unwrap();
            assert!(body == content(seed as u8, 0, length), "what was downloaded has changed");
        }
    });
}

#[test]
fn a_large_body_that_breaks_off_never_looks_whole() {
    run(async {
        let pair = outside().await;
        let mut io = connect(&pair).await;
        ask(&mut io, 1, SIZE, SIZE / 2, 0).await;
        assert_eq!(head(&mut io).await.unwrap().1, SIZE);
        let mut body = Vec::new();
        let _ = io.read_to_end(&mut body).await;
        assert!(body == content(1, 0, SIZE / 2), "{} bytes", body.len());
    });
}

#[test]
fn who_reads_slowly_gets_nothing_of_who_comes_next_on_the_same_connection() {
    run(async {
        let pair = outside().await;
        let mut slow = connect(&pair).await;
        ask(&mut slow, 1, SIZE, SIZE, 0).await;
        assert_eq!(head(&mut slow).await.unwrap().1, SIZE);
        // What the slow one has not taken yet lies in the kernel, while others use the connections to the origin.
        for seed in 2..6 {
            let mut quick = connect(&pair).await;
            ask(&mut quick, seed, SIZE, SIZE, 0).await;
            assert_eq!(head(&mut quick).await.unwrap().1, SIZE);
            let mut body = vec![0; SIZE];
            quick.read_exact(&mut body).await.unwrap();
            assert!(body == content(seed, 0, SIZE), "seed {seed}");
        }
        let mut body = vec![0; SIZE];
        slow.read_exact(&mut body).await.unwrap();
        assert!(body == content(1, 0, SIZE));
    });
}
