//! Bytes that come back.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::BUFFER;

/// A read of so much was of a long message: what follows is not copied out of the kernel, and as many bytes are sent back.
const LONG: usize = 4 * 1024;

pub(super) async fn run(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![b'x'; BUFFER];
    let mut is_long = false;
    loop {
        let n = if is_long {
            veer_load::throw_away(&stream, BUFFER, &mut buffer).await?
        } else {
            stream.read(&mut buffer).await?
        };
        if n == 0 {
            return Ok(());
        }
        is_long |= n >= LONG;
        stream.write_all(&buffer[..n]).await?;
    }
}
