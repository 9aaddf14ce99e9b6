//! Bytes that come back.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{Counter, broken};

/// Until the connection breaks.
pub(super) async fn run(stream: &mut TcpStream, bytes: usize, counter: &Counter) {
    let message = vec![b'x'; bytes];
    let mut buffer = vec![0; bytes.max(1)];
    let (mut reading, mut writing) = stream.split();
    loop {
        let begun = Instant::now();
        // Both ways at once: a long message may come back before it has all been sent.
        let sent = async { writing.write_all(&message).await.map(|()| 0) };
        let back = async {
            let mut read = 0;
            while read < bytes {
                match reading.read(&mut buffer).await {
                    Ok(n) if n > 0 => read += n,
                    ended => return Err(broken(ended)),
                }
            }
            Ok(())
        };
        match tokio::join!(sent, back) {
            (Ok(_), Ok(())) => counter.served(begun),
            (Err(error), _) => return counter.failed(begun, broken(Err(error))),
            (_, Err(reason)) => return counter.failed(begun, reason),
        }
    }
}
