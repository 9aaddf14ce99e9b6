//! HTTP/1.1.

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What is said to every request.
pub(super) fn answer(body: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {body}\r\n\r\n");
    let mut answer = head.into_bytes();
    answer.resize(answer.len() + body, b'x');
    answer
}

pub(super) async fn run(
    mut stream: TcpStream,
    mut buffer: Vec<u8>,
    mut filled: usize,
    answer: &[u8],
) -> std::io::Result<()> {
    loop {
        // Several may have arrived.
        let mut taken = 0;
        let mut answers = 0;
        while let Some(end) = buffer[taken..filled].windows(4).position(|four| four == b"\r\n\r\n") {
            let body = body(&buffer[taken..taken + end])?;
            taken += end + 4;
            let here = body.min(filled - taken);
            taken += here;
            answers += 1;
            let mut missing = body - here;
            while missing > 0 {
                let n = veer_load::throw_away(&stream, missing, &mut buffer).await?;
                if n == 0 {
                    return Ok(());
                }
                missing -= n;
            }
        }
        buffer.copy_within(taken..filled, 0);
        filled -= taken;
        match answers {
            0 => {}
            1 => stream.write_all(answer).await?,
            many => stream.write_all(&answer.repeat(many)).await?,
        }
        let n = stream.read(&mut buffer[filled..]).await?;
        if n == 0 {
            return Ok(());
        }
        filled += n;
    }
}

/// Length of the body that follows a head.
fn body(head: &[u8]) -> std::io::Result<usize> {
    // A GET has none.
    if head.starts_with(b"G") {
        return Ok(0);
    }
    const NAME: &[u8] = b"content-length:";
    let mut lines = head.split(|byte| *byte == b'\n');
    let line = lines.find(|line| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)));
    let value = line.and_then(|line| std::str::from_utf8(&line[NAME.len()..]).ok());
    // Chunks would be none: the load says how much it sends, and a proxy has no reason to forget it.
    value.and_then(|value| value.trim().parse().ok()).ok_or_else(|| ErrorKind::InvalidData.into())
}
