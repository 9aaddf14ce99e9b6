//! The seam with real sockets, and the parts that stand on it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use veer_net::{Backoff, BindOptions, ConnectOptions, Network, Prefixed, Stream, drain};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

async fn pair() -> io::Result<(Stream, Stream)> {
    let listener = Network::Tcp.bind(ANY, BindOptions::default()).await?;
    let (client, server) = tokio::join!(Network::Tcp.connect(listener.local_addr()?), listener.accept());
    Ok((client?, server?.0))
}

#[tokio::test]
async fn bytes_pass_both_ways_and_delay_is_off() -> io::Result<()> {
    let (mut client, mut server) = pair().await?;
    assert!(client.as_tcp().is_some_and(|tcp| tcp.nodelay().is_ok_and(|on| on)));
    assert!(server.as_tcp().is_some_and(|tcp| tcp.nodelay().is_ok_and(|on| on)));
    client.write_all(b"ping").await?;
    let mut seen = [0; 8];
    assert_eq!(server.peek(&mut seen).await?, 4);
    let (mut read, mut write) = server.into_split();
    write.write_all(b"pong").await?;
    drop(write);
    let mut answer = String::new();
    client.read_to_string(&mut answer).await?;
    assert_eq!(answer, "pong", "dropping the writing half ends the stream");
    assert_eq!(read.read(&mut seen).await?, 4);
    assert_eq!(&seen[..4], b"ping");
    Ok(())
}

#[tokio::test]
async fn two_listeners_share_a_port_only_when_both_ask() -> io::Result<()> {
    let shared = BindOptions { reuse_port: true, ..BindOptions::default() };
    let first = Network::Tcp.bind(ANY, shared).await?;
    let addr = first.local_addr()?;
    Network::Tcp.bind(addr, shared).await?;
    assert!(Network::Tcp.bind(addr, BindOptions::default()).await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_connection_comes_from_the_source_that_was_asked_for() -> io::Result<()> {
    let listener = Network::Tcp.bind(ANY, BindOptions::default()).await?;
    let options = ConnectOptions { source: Some([127, 0, 0, 2].into()), mark: None };
    let addr = listener.local_addr()?;
    let (client, server) = tokio::join!(Network::Tcp.connect_with(addr, options), listener.accept());
    let (_client, (server, peer)) = (client?, server?);
    assert_eq!(peer.ip(), std::net::IpAddr::from([127, 0, 0, 2]));
    assert_eq!(veer_net::original_dst(&server), None, "nobody redirected it");
    Ok(())
}

#[tokio::test]
async fn a_reset_is_not_an_end_of_stream() -> io::Result<()> {
    let (client, mut server) = pair().await?;
    client.reset();
    let error = server.read(&mut [0; 1]).await.expect_err("a reset");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    Ok(())
}

#[tokio::test]
async fn what_was_read_ahead_is_read_again() -> io::Result<()> {
    let (client, mut server) = tokio::io::duplex(64);
    let mut client = Prefixed::new(client);
    server.write_all(b"GET ").await?;
    assert_eq!(client.fill(6).await?, 4);
    server.write_all(b"/path").await?;
    assert_eq!(client.fill(6).await?, 2, "never beyond the limit");
    assert_eq!(client.fill(6).await?, 0);
    assert_eq!(client.seen(), b"GET /p");
    let mut first = [0; 2];
    client.read_exact(&mut first).await?;
    assert_eq!(client.seen(), b"T /p");
    drop(server);
    let mut rest = String::new();
    client.read_to_string(&mut rest).await?;
    assert_eq!(rest, "T /path");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_with_its_last_watcher_or_its_deadline() {
    let (trigger, watcher) = drain();
    assert!(!watcher.is_started());
    let task = tokio::spawn(async move {
        let deadline = watcher.started().await;
        assert_eq!(watcher.deadline(), Some(deadline));
        tokio::time::sleep(Duration::from_secs(1)).await;
    });
    assert!(trigger.finish(Duration::from_secs(5)).await);
    assert!(task.await.is_ok());

    let (trigger, watcher) = drain();
    assert!(!trigger.finish(Duration::from_secs(5)).await, "a watcher that stays does not hold the end up");
    assert!(watcher.is_started());
    assert!(!veer_net::Drain::never().is_started());
}

#[test]
fn waits_double_with_jitter_up_to_the_limit() {
    let (base, max) = (Duration::from_millis(100), Duration::from_secs(1));
    let mut backoff = Backoff::new(base, max, fastrand::Rng::with_seed(7));
    for full in [100, 200, 400, 800, 1000, 1000] {
        let wait = backoff.next_delay().as_millis();
        assert!((full / 2..=full).contains(&wait), "{wait} of {full}");
    }
    for _ in 0..100 {
        assert!(backoff.next_delay() <= max);
    }
    backoff.reset();
    assert!(backoff.next_delay() <= base);
}

#[test]
fn a_seed_repeats_a_thread_and_nothing_else_does() {
    let draw = || (veer_net::rng().u64(..), veer_net::rng().u64(..));
    assert_ne!(draw(), draw());
    veer_net::set_seed(1);
    let first = draw();
    assert_ne!(first.0, first.1);
    veer_net::set_seed(1);
    assert_eq!(draw(), first);
    veer_net::clear_seed();
    assert_ne!(draw(), first);
}
