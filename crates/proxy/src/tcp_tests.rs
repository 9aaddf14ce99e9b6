use std::hash::Hasher;
use std::net::SocketAddr;
use std::task::Waker;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};
use veer_net::Network;

use super::*;

const SOON: Duration = Duration::from_secs(20);

/// Two connected sockets of the kernel.
async fn pair() -> (Stream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = Network::Tcp.connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _): (_, SocketAddr) = listener.accept().await.unwrap();
    (near, Stream::Tcp(far))
}

fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async { timeout(SOON, future).await.expect("ended in time") })
}

/// Bytes that repeat nowhere near the size of a buffer, and the hash of them.
async fn send(stream: &mut (impl AsyncWrite + Unpin), size: usize, seed: u64) -> u64 {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut hash = std::hash::DefaultHasher::new();
    let mut left = size;
    while left > 0 {
        let mut chunk = vec![0; rng.usize(1..100_000).min(left)];
        rng.fill(&mut chunk);
        hash.write(&chunk);
        stream.write_all(&chunk).await.unwrap();
        left -= chunk.len();
    }
    stream.shutdown().await.unwrap();
    hash.finish()
}

async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> (usize, u64) {
    let mut hash = std::hash::DefaultHasher::new();
    let mut buffer = vec![0; 40_000];
    let mut size = 0;
    loop {
        match stream.read(&mut buffer).await.unwrap() {
            0 => return (size, hash.finish()),
            count => {
                hash.write(&buffer[..count]);
                size += count;
            }
        }
    }
}

/// Sends both ways at once through a relay; everything must come out as it went in.
async fn large_transfer(splice: bool, up_size: usize, down_size: usize) {
    let (mut caller, mut first) = pair().await;
    let (mut second, mut callee) = pair().await;
    let mut counted = (0, 0);
    let mut meter = |direction, bytes| match direction {
        Direction::Up => counted.0 += bytes,
        Direction::Down => counted.1 += bytes,
    };
    let options = RelayOptions { splice, ..Default::default() };
    let (caller_half, callee_half) = (
        async {
            let (mut read, mut write) = tokio::io::split(&mut caller);
            tokio::join!(send(&mut write, up_size, 1), receive(&mut read))
        },
        async {
            let (mut read, mut write) = tokio::io::split(&mut callee);
            tokio::join!(send(&mut write, down_size, 2), receive(&mut read))
        },
    );
    let relaying = relay(&mut first, &mut second, options, &mut meter);
    let (report, (sent_up, got_down), (sent_down, got_up)) = tokio::join!(relaying, caller_half, callee_half);
    assert!(matches!(report.end, End::Closed), "{report:?}");
    assert_eq!(got_up, (up_size, sent_up));
    assert_eq!(got_down, (down_size, sent_down));
    assert_eq!((report.up, report.down), (up_size as u64, down_size as u64));
    assert_eq!(counted, (report.up, report.down));
}

#[test]
fn large_transfers_come_out_as_they_went_in() {
    run(async {
        large_transfer(true, 24 << 20, 16 << 20).await;
        assert!(crate::splice::kept_pipes() > 0, "bulk went through pipes, and they were given back");
        large_transfer(false, 5 << 20, 7 << 20).await;
        large_transfer(true, 0, 3 << 20).await;
    });
}

#[test]
fn a_half_closed_connection_still_gets_its_answer() {
    run(async {
        let (mut caller, mut first) = pair().await;
        let (mut second, mut callee) = pair().await;
        let relaying =
            tokio::task::spawn_local(
                async move { relay(&mut first, &mut second, RelayOptions::default(), &mut ()).await },
            );
        caller.write_all(b"question").await.unwrap();
        caller.shutdown().await.unwrap();
        let mut question = String::new();
        callee.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "question", "the end of the stream was passed on");
        callee.write_all(b"answer").await.unwrap();
        drop(callee);
        let mut answer = String::new();
        caller.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
        let report = relaying.await.unwrap();
        assert!(matches!(report, Report { up: 8, down: 6, end: End::Closed }), "{report:?}");
    });
}

#[test]
fn the_first_bytes_read_ahead_are_relayed_too() {
    run(async {
        let (mut caller, first) = pair().await;
        let (mut second, mut callee) = pair().await;
        let mut first = Prefixed::new(first);
        caller.write_all(b"hello ").await.unwrap();
        while first.seen().len() < 6 {
            first.fill(100).await.unwrap();
        }
        let relaying =
            tokio::task::spawn_local(
                async move { relay(&mut first, &mut second, RelayOptions::default(), &mut ()).await },
            );
        let sent = send(&mut caller, 3 << 20, 3).await;
        let mut head = [0; 6];
        callee.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"hello ");
        assert_eq!(receive(&mut callee).await, (3 << 20, sent));
        drop(callee);
        assert_eq!(relaying.await.unwrap().up, (3 << 20) + 6);
    });
}

#[test]
fn a_reset_is_passed_on_as_a_reset() {
    run(async {
        let (mut caller, mut first) = pair().await;
        let (mut second, mut callee) = pair().await;
        let relaying =
            tokio::task::spawn_local(
                async move { relay(&mut first, &mut second, RelayOptions::default(), &mut ()).await },
            );
        callee.write_all(b"x").await.unwrap();
        caller.read_u8().await.unwrap();
        callee.reset();
        let error = caller.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let report = relaying.await.unwrap();
        assert!(matches!(report.end, End::Failed { side: Side::Second, .. }), "{report:?}");
    });
}

#[test]
fn last_words_come_through_when_the_callee_stops_listening() {
    run(async {
        let (mut caller, mut first) = pair().await;
        let (mut second, mut callee) = pair().await;
        callee.write_all(&[7; 100_000]).await.unwrap();
        let relaying =
            tokio::task::spawn_local(
                async move { relay(&mut first, &mut second, RelayOptions::default(), &mut ()).await },
            );
        let mut got = vec![0; 100_000];
        caller.read_exact(&mut got).await.unwrap();
        drop(callee);
        // Whatever the caller still writes cannot be delivered; the relay ends and says so or not, but it ends.
        while caller.write_all(&[1; 1000]).await.is_ok() {
            tokio::task::yield_now().await;
        }
        relaying.await.unwrap();
    });
}

#[test]
fn an_idle_relay_ends_and_a_busy_one_does_not() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let (mut caller, first) = duplex(64);
        let (second, mut callee) = duplex(64);
        let options = RelayOptions { idle: Duration::from_secs(10), ..Default::default() };
        let started = Instant::now();
        let (report, ()) =
            tokio::join!(async { relay(&mut Copied(first), &mut Copied(second), options, &mut ()).await }, async {
                for _ in 0..5 {
                    tokio::time::sleep(Duration::from_secs(8)).await;
                    caller.write_all(b"x").await.unwrap();
                    callee.read_u8().await.unwrap();
                }
            });
        assert!(matches!(report, Report { up: 5, down: 0, end: End::Idle }), "{report:?}");
        assert!((50..=52).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    });
}

#[test]
fn buffers_are_bounded_when_nobody_reads() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let (mut caller, first) = duplex(1024);
        let (second, callee) = duplex(1024);
        let options = RelayOptions { idle: Duration::from_secs(10), ..Default::default() };
        let (report, accepted) =
            tokio::join!(async { relay(&mut Copied(first), &mut Copied(second), options, &mut ()).await }, async {
                let mut accepted = 0;
                while timeout(Duration::from_secs(1), caller.write_all(&[0; 512])).await.is_ok_and(|r| r.is_ok()) {
                    accepted += 512;
                }
                accepted
            });
        assert_eq!(report.up, 1024, "only what the callee's side holds was written");
        assert!(accepted <= 2048 + buffer::SIZE, "{accepted}");
        drop(callee);
    });
}

#[test]
fn what_was_moved_is_counted_when_the_relay_is_cancelled() {
    run(async {
        let (mut caller, mut first) = pair().await;
        let (mut second, mut callee) = pair().await;
        let mut up = 0;
        caller.write_all(&[1; 5000]).await.unwrap();
        let mut meter = |_: Direction, bytes: u64| up += bytes;
        tokio::select! {
            _ = relay(&mut first, &mut second, RelayOptions::default(), &mut meter) => panic!("nobody closed"),
            read = async { callee.read_exact(&mut [0; 5000]).await } => { read.unwrap(); }
        }
        assert_eq!(up, 5000);
    });
}

/// Virtual time, in-memory streams.
pub(super) fn run_paused<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, future)
}

#[test]
fn a_relay_that_changes_its_task_is_still_woken() {
    run(async {
        let (mut caller, mut first) = pair().await;
        let (mut second, mut callee) = pair().await;
        let mut relaying =
            Box::pin(async move { relay(&mut first, &mut second, RelayOptions::default(), &mut ()).await });
        assert!(relaying.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let relaying = tokio::task::spawn_local(relaying);
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        caller.write_u8(7).await.unwrap();
        assert_eq!(callee.read_u8().await.unwrap(), 7);
        drop((caller, callee));
        relaying.await.unwrap();
    });
}

#[test]
fn messages_become_bulk_and_bulk_becomes_messages() {
    run(async {
        let (mut caller, mut first) = pair().await;
        let (mut second, mut callee) = pair().await;
        let relaying =
            tokio::task::spawn_local(
                async move { relay(&mut first, &mut second, RelayOptions::default(), &mut ()).await },
            );
        let mut rng = fastrand::Rng::with_seed(5);
        for size in [1, 100, 200_000, 1, 300_000, 64 << 10, 64 << 10, 3, 3, 1 << 20, 5] {
            let mut message = vec![0; size];
            rng.fill(&mut message);
            let mut got = vec![0; size];
            let (sent, ()) = tokio::join!(caller.write_all(&message), async {
                callee.read_exact(&mut got).await.unwrap();
                callee.write_all(&got).await.unwrap();
            });
            sent.unwrap();
            let mut back = vec![0; size];
            caller.read_exact(&mut back).await.unwrap();
            assert!(back == message, "a message of {size} bytes came back as it went");
        }
        drop((caller, callee));
        assert!(matches!(relaying.await.unwrap().end, End::Closed));
    });
}

/// Gives some bytes at once, then breaks.
struct Breaking(Option<&'static [u8]>);

impl AsyncRead for Breaking {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match self.0.take() {
            Some(bytes) => {
                buffer.put_slice(bytes);
                Ok(())
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        })
    }
}

impl AsyncWrite for Breaking {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn what_came_before_a_break_is_delivered() {
    run_paused(async {
        let (second, mut callee) = duplex(64);
        let mut first = Copied(Breaking(Some(b"last words")));
        let report = relay(&mut first, &mut Copied(second), RelayOptions::default(), &mut ()).await;
        assert!(matches!(report, Report { up: 10, end: End::Failed { side: Side::First, .. }, .. }), "{report:?}");
        let mut got = String::new();
        callee.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "last words");
    });
}
