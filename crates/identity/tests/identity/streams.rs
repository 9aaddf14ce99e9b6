//! Our streams against tokio-rustls on the other side, and each other: over pipes that take little at a time, and sockets.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use rustls::AlertDescription;
use rustls_pki_types::ServerName;
use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex, split,
};
use tokio::net::{TcpListener, TcpStream};
use veer_identity::{ClientAuth, HandshakeError, TlsStream};

use crate::support::*;

trait Io: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Io for T {}

type Ours = TlsStream<Box<dyn Io>>;
type Theirs = tokio_rustls::TlsStream<Box<dyn Io>>;

/// Ours as client, tokio-rustls as server.
async fn we_call(near: impl Io, far: impl Io) -> (Ours, Theirs) {
    let west = ca("west");
    let client = identity(&west, &web("west"), &[west.bundle()]);
    let server = svid(&west, &web("west"));
    let mut config = rustls::ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_no_client_auth()
        .with_single_cert(server.chain.clone(), server.key.der().clone_key())
        .unwrap();
    config.alpn_protocols = vec![ALPN[0].to_vec()];
    let (sni, expected) = (sni(), [web("west")]);
    let (near, far): (Box<dyn Io>, Box<dyn Io>) = (Box::new(near), Box::new(far));
    let (near, far) = tokio::join!(
        veer_identity::connect(near, client.client_config(ALPN), &sni, &expected),
        tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(far),
    );
    (near.unwrap().0, far.unwrap().into())
}

/// tokio-rustls as client, ours as server.
async fn they_call(near: impl Io, far: impl Io) -> (Ours, Theirs) {
    let west = ca("west");
    let server = identity(&west, &web("west"), &[west.bundle()]);
    let client = svid(&west, &web("west"));
    let mut config = rustls::ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(BelievesAll))
        .with_client_auth_cert(client.chain.clone(), client.key.der().clone_key())
        .unwrap();
    config.alpn_protocols = vec![ALPN[0].to_vec()];
    let (near, far): (Box<dyn Io>, Box<dyn Io>) = (Box::new(near), Box::new(far));
    let (near, far) = tokio::join!(
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("p80.west").unwrap(), near),
        veer_identity::accept(far, server.server_config(ALPN, ClientAuth::Workloads)),
    );
    (far.unwrap().0, near.unwrap().into())
}

/// Both roles of ours, each over a pipe of this size.
async fn both_roles(pipe: usize) -> [(Ours, Theirs); 2] {
    let (a, b) = (duplex(pipe), duplex(pipe));
    [we_call(a.0, a.1).await, they_call(b.0, b.1).await]
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

fn pattern(size: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(size as u64);
    (0..size).map(|_| rng.u8(..)).collect()
}

const SIZES: [usize; 9] = [1, 2, 100, 16_383, 16_384, 16_385, 65_536, 65_537, 1_000_003];

/// Everything comes through, in both directions at the same time.
async fn exchange(ours: Ours, theirs: Theirs) {
    let ((mut our_read, mut our_write), (mut their_read, mut their_write)) = (split(ours), split(theirs));
    let send = async {
        for size in SIZES {
            our_write.write_all(&pattern(size)).await.unwrap();
            our_write.flush().await.unwrap();
        }
    };
    let answer = async {
        for size in SIZES {
            their_write.write_all(&pattern(size + 1)).await.unwrap();
            their_write.flush().await.unwrap();
        }
    };
    let hear = async {
        for size in SIZES {
            let mut found = vec![0; size];
            their_read.read_exact(&mut found).await.unwrap();
            assert!(found == pattern(size), "{size}");
        }
    };
    let hear_answer = async {
        for size in SIZES {
            let mut found = vec![0; size + 1];
            our_read.read_exact(&mut found).await.unwrap();
            assert!(found == pattern(size + 1), "{size}");
        }
    };
    tokio::join!(send, answer, hear, hear_answer);
}

#[tokio::test]
async fn everything_comes_through_narrow_and_wide_pipes() {
    for pipe in [16 * 1024, 1 << 20] {
        for (ours, theirs) in both_roles(pipe).await {
            exchange(ours, theirs).await;
        }
    }
    for limit in [13, 1000] {
        let (a, b) = (duplex(1 << 20), duplex(1 << 20));
        let (ours, theirs) = we_call(Narrow(a.0, limit), a.1).await;
        exchange(ours, theirs).await;
        let (ours, theirs) = they_call(b.0, Narrow(b.1, limit)).await;
        exchange(ours, theirs).await;
    }
}

/// Moves at most so many bytes at a time.
struct Narrow(DuplexStream, usize);

impl AsyncRead for Narrow {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut part = into.take(self.1);
        let done = Pin::new(&mut self.0).poll_read(cx, &mut part);
        let count = part.filled().len();
        into.advance(count);
        done
    }
}

impl AsyncWrite for Narrow {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let part = bytes.len().min(self.1);
        Pin::new(&mut self.0).poll_write(cx, &bytes[..part])
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn everything_comes_through_sockets() {
    let (near, far) = sockets().await;
    let (ours, theirs) = we_call(near, far).await;
    exchange(ours, theirs).await;
    let (near, far) = sockets().await;
    let (ours, theirs) = they_call(near, far).await;
    exchange(ours, theirs).await;
}

#[tokio::test]
async fn plaintext_is_read_where_it_lies() {
    for (mut ours, mut theirs) in both_roles(1 << 20).await {
        for size in SIZES {
            theirs.write_all(&pattern(size)).await.unwrap();
            theirs.flush().await.unwrap();
            let mut found = Vec::new();
            while found.len() < size {
                let there = ours.fill_buf().await.unwrap();
                assert!(!there.is_empty() && there.len() <= 16_384);
                // In two bites, to leave something.
                let bite = there.len().div_ceil(2);
                found.extend_from_slice(&there[..bite]);
                ours.consume(bite);
            }
            assert!(found == pattern(size));
        }
    }
}

/// Counts what is given to the pipe below.
struct Counting(DuplexStream, Arc<AtomicUsize>);

impl AsyncRead for Counting {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn small_writes_are_one_record_and_one_send() {
    let sends = Arc::new(AtomicUsize::new(0));
    let (near, far) = duplex(1 << 20);
    let (mut ours, mut theirs) = we_call(Counting(near, sends.clone()), far).await;
    let before = sends.load(Ordering::Relaxed);
    for n in 0..100u8 {
        ours.write_all(&[n; 3]).await.unwrap();
        assert_eq!(ours.write_vectored(&[IoSlice::new(b""), IoSlice::new(&[n]), IoSlice::new(&[n])]).await.unwrap(), 2);
    }
    assert_eq!(sends.load(Ordering::Relaxed), before, "nothing leaves before it is told to");
    assert!(!ours.is_flushed());
    ours.flush().await.unwrap();
    assert_eq!(sends.load(Ordering::Relaxed), before + 1);
    assert!(ours.is_flushed());
    // One record: one read of rustls gives all of it.
    let mut found = [0; 1000];
    assert_eq!(theirs.read(&mut found).await.unwrap(), 500);
    assert_eq!(found[495..500], [99; 5]);
    // 64 KiB: four records, one send.
    ours.write_all(&pattern(65_536)).await.unwrap();
    ours.flush().await.unwrap();
    assert_eq!(sends.load(Ordering::Relaxed), before + 2);
}

#[tokio::test]
async fn who_reads_has_said_everything() {
    for (mut ours, mut theirs) in both_roles(1 << 20).await {
        // No flush: the read sends it.
        ours.write_all(b"question").await.unwrap();
        let mut answer = [0; 6];
        let peer = async {
            let mut question = [0; 8];
            theirs.read_exact(&mut question).await.unwrap();
            theirs.write_all(b"answer").await.unwrap();
            theirs.flush().await.unwrap();
        };
        let (read, ()) = tokio::join!(ours.read_exact(&mut answer), peer);
        read.unwrap();
        assert_eq!(&answer, b"answer");
    }
}

#[tokio::test]
async fn each_direction_is_closed_for_itself() {
    for (mut ours, mut theirs) in both_roles(1 << 20).await {
        ours.write_all(b"all that we say").await.unwrap();
        ours.shutdown().await.unwrap();
        assert_eq!(ours.write(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        let mut heard = String::new();
        theirs.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "all that we say");
        theirs.write_all(b"all that they say").await.unwrap();
        theirs.shutdown().await.unwrap();
        heard.clear();
        ours.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "all that they say");
        assert_eq!(ours.read(&mut [0; 10]).await.unwrap(), 0);
        assert!(ours.fill_buf().await.unwrap().is_empty());
    }
    for (mut ours, mut theirs) in both_roles(1 << 20).await {
        theirs.shutdown().await.unwrap();
        assert_eq!(ours.read(&mut [0; 10]).await.unwrap(), 0);
        ours.write_all(b"still here").await.unwrap();
        ours.shutdown().await.unwrap();
        let mut heard = String::new();
        theirs.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "still here");
    }
}

#[tokio::test]
async fn an_end_without_a_word_is_an_error() {
    for (mut ours, mut theirs) in both_roles(1 << 20).await {
        theirs.write_all(b"half of").await.unwrap();
        theirs.flush().await.unwrap();
        drop(theirs);
        let mut heard = [0; 7];
        ours.read_exact(&mut heard).await.unwrap();
        assert_eq!(ours.read(&mut heard).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        let error = async {
            ours.write_all(b"anybody?").await?;
            ours.flush().await
        };
        assert_eq!(error.await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}

#[tokio::test]
async fn writers_wait_for_slow_readers() {
    for (mut ours, mut theirs) in both_roles(10_000).await {
        let mut taken = 0;
        let all = pattern(1_000_000);
        // As much as the buffer and the pipe hold, then no more.
        while let Ok(count) = tokio::time::timeout(std::time::Duration::ZERO, ours.write(&all[taken..])).await {
            taken += count.unwrap();
        }
        assert!((60_000..200_000).contains(&taken), "{taken}");
        let mut found = vec![0; all.len()];
        let rest = async {
            ours.write_all(&all[taken..]).await.unwrap();
            ours.flush().await.unwrap();
        };
        tokio::join!(async { theirs.read_exact(&mut found).await.unwrap() }, rest);
        assert!(found == all);
    }
}

#[tokio::test]
async fn a_reader_does_not_take_the_writers_wake() {
    let (near, far) = duplex(5000);
    let (ours, theirs) = we_call(near, far).await;
    let ((mut our_read, mut our_write), (mut their_read, mut their_write)) = (split(ours), split(theirs));
    let writer = tokio::spawn(async move {
        our_write.write_all(&pattern(300_000)).await.unwrap();
        our_write.flush().await.unwrap();
        our_write
    });
    let reader = tokio::spawn(async move {
        let mut byte = [0; 1];
        our_read.read_exact(&mut byte).await.unwrap();
        our_read
    });
    let mut found = vec![0; 300_000];
    their_read.read_exact(&mut found).await.unwrap();
    their_write.write_all(b"x").await.unwrap();
    their_write.flush().await.unwrap();
    let limit = std::time::Duration::from_secs(10);
    tokio::time::timeout(limit, writer).await.unwrap().unwrap();
    tokio::time::timeout(limit, reader).await.unwrap().unwrap();
    assert!(found == pattern(300_000));
}

#[tokio::test]
async fn keys_are_changed_under_way() {
    for (mut ours, mut theirs) in both_roles(1 << 20).await {
        for round in 0..5 {
            match &mut theirs {
                tokio_rustls::TlsStream::Client(theirs) => theirs.get_mut().1.refresh_traffic_keys().unwrap(),
                tokio_rustls::TlsStream::Server(theirs) => theirs.get_mut().1.refresh_traffic_keys().unwrap(),
            }
            theirs.write_all(&pattern(20_000 + round)).await.unwrap();
            theirs.flush().await.unwrap();
            let mut found = vec![0; 20_000 + round];
            ours.read_exact(&mut found).await.unwrap();
            assert!(found == pattern(20_000 + round));
            // Ours follows before the next data, as it was asked to.
            ours.write_all(b"answer").await.unwrap();
            ours.flush().await.unwrap();
            let mut answer = [0; 6];
            theirs.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"answer");
        }
    }
}

/// Lets everything through but changes one byte on the way to one side.
fn spoil(mut from: DuplexStream, mut to: DuplexStream, spoilt: Arc<AtomicUsize>) {
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            tokio::select! {
                count = from.read(&mut buffer) => match count {
                    Ok(count @ 1..) => {
                        if spoilt.swap(0, Ordering::Relaxed) == 1 {
                            buffer[count - 1] ^= 1;
                        }
                        if to.write_all(&buffer[..count]).await.is_err() { return; }
                    }
                    _ => return,
                },
            }
        }
    });
}

/// A pipe whose ends are `near` and `far`; setting the counter to 1 spoils the next bytes toward `far`, or `near`.
fn spoilable() -> ((Joined, Joined), Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (to_far, to_near) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (near_out, a) = duplex(1 << 16);
    let (b, far_in) = duplex(1 << 16);
    spoil(a, b, to_far.clone());
    let (far_out, c) = duplex(1 << 16);
    let (d, near_in) = duplex(1 << 16);
    spoil(c, d, to_near.clone());
    ((Joined(near_in, near_out), Joined(far_in, far_out)), to_far, to_near)
}

struct Joined(DuplexStream, DuplexStream);

impl AsyncRead for Joined {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Joined {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.1).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.1).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.1).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn what_was_changed_on_the_way_is_refused_and_told() {
    let ((near, far), to_far, _) = spoilable();
    let (mut ours, mut theirs) = we_call(near, far).await;
    to_far.store(1, Ordering::Relaxed);
    ours.write_all(b"spoilt").await.unwrap();
    ours.flush().await.unwrap();
    theirs.read(&mut [0; 10]).await.unwrap_err();
    // rustls' alert comes with its next write or flush.
    let _ = theirs.flush().await;
    let told = HandshakeError::from_io(ours.read(&mut [0; 10]).await.unwrap_err());
    assert!(matches!(told, HandshakeError::Refused(AlertDescription::BadRecordMac)), "{told}");
    let again = HandshakeError::from_io(ours.write(b"more").await.unwrap_err());
    assert!(matches!(again, HandshakeError::Refused(AlertDescription::BadRecordMac)), "{again}");

    let ((near, far), _, to_near) = spoilable();
    let (mut ours, mut theirs) = we_call(near, far).await;
    theirs.write_all(b"good").await.unwrap();
    theirs.flush().await.unwrap();
    let mut good = [0; 4];
    ours.read_exact(&mut good).await.unwrap();
    to_near.store(1, Ordering::Relaxed);
    theirs.write_all(b"spoilt").await.unwrap();
    theirs.flush().await.unwrap();
    let error = HandshakeError::from_io(ours.read(&mut [0; 10]).await.unwrap_err());
    assert!(matches!(error, HandshakeError::Protocol(_)), "{error}");
    assert!(ours.read(&mut [0; 10]).await.is_err() && ours.write(b"more").await.is_err());
    let told = HandshakeError::from_io(theirs.read(&mut [0; 10]).await.unwrap_err());
    assert!(matches!(told, HandshakeError::Refused(AlertDescription::BadRecordMac)), "{told}");
}

#[tokio::test]
async fn what_is_no_record_is_refused() {
    for junk in
        [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &[23, 3, 3, 0xff, 0xff, 1, 2, 3], &[21, 3, 3, 0, 2, 2, 40], &[23, 3, 3, 0, 0]]
    {
        let (near, far) = sockets().await;
        let raw = far.into_std().unwrap();
        let far = TcpStream::from_std(raw.try_clone().unwrap()).unwrap();
        let (mut ours, _theirs) = we_call(near, far).await;
        use std::io::Write;
        (&raw).write_all(junk).unwrap();
        let error = HandshakeError::from_io(ours.read(&mut [0; 10]).await.unwrap_err());
        assert!(matches!(error, HandshakeError::Protocol(_)), "{error}");
    }
}
