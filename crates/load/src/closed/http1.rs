//! HTTP/1.1, one request at a time.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{Counter, broken};

const BUFFER: usize = 32 * 1024;

/// Until the connection breaks.
pub(super) async fn run(stream: &mut TcpStream, host: &str, path: &str, counter: &Counter) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: veer-load\r\nAccept: */*\r\n\r\n");
    let mut buffer = vec![0; BUFFER];
    loop {
        let begun = Instant::now();
        if let Err(error) = stream.write_all(request.as_bytes()).await {
            return counter.failed(begun, broken(Err(error)));
        }
        match answer(stream, &mut buffer).await {
            Ok(200) => counter.served(begun),
            Ok(status) => counter.failed(begun, format!("status {status}")),
            Err(reason) => return counter.failed(begun, reason),
        }
    }
}

/// Reads a whole answer; its status.
async fn answer(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<u16, String> {
    let mut filled = 0;
    let (head, end) = loop {
        match stream.read(&mut buffer[filled..]).await {
            Ok(n) if n > 0 => filled += n,
            ended => return Err(broken(ended)),
        }
        if let Some(end) = buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n") {
            break (Head::read(&buffer[..end])?, end + 4);
        }
    };
    let mut missing = (end + head.length).checked_sub(filled).ok_or("more than one answer")?;
    while missing > 0 {
        let most = missing.min(buffer.len());
        match stream.read(&mut buffer[..most]).await {
            Ok(n) if n > 0 => missing -= n,
            ended => return Err(broken(ended)),
        }
    }
    Ok(head.status)
}

#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    length: usize,
}

impl Head {
    fn read(head: &[u8]) -> Result<Self, String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let status = head.get(9..12).and_then(|status| text(status).parse().ok());
        let status = status.ok_or_else(|| format!("no status in {:?}", text(head)))?;
        for line in head.split(|byte| *byte == b'\n') {
            const NAME: &[u8] = b"content-length:";
            if line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)) {
                let length = text(&line[NAME.len()..]).parse();
                return Ok(Self { status, length: length.map_err(|error| format!("content-length: {error}"))? });
            }
        }
        Err(format!("an answer without content-length: {:?}", text(head)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_tell_status_and_length() {
        let head = Head::read(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nserver: x");
        assert_eq!(head, Ok(Head { status: 200, length: 100 }));
        assert!(Head::read(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked").is_err());
        assert!(Head::read(b"HTTP/1").is_err());
    }
}
