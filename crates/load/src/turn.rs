//! One request at a time on a connection: over HTTP/1.1, or bytes that come back.
//!
//! The generator must cost less than what it measures: requests are bytes that were written once, answers are read only as far
//! as their status and their end, and what is long is thrown away without being copied out of the kernel.

use std::io::ErrorKind;
use std::sync::Arc;

use rustix::net::RecvFlags;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::ReadHalf;

use crate::Failure;

const BUFFER: usize = 32 * 1024;
/// From this length on, what comes back is not copied.
const LONG: usize = 4 * 1024;

/// What one connection asks again and again.
pub(crate) struct Turn {
    message: Arc<[u8]>,
    answer: Answer,
    buffer: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Answer {
    Http1,
    Echo,
}

/// Why a request was not served.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Answered, but not well; the connection goes on.
    Refused(String),
    /// The connection is over.
    Broken(String),
}

/// What all connections of a load send.
#[derive(Clone)]
pub(crate) struct Message {
    bytes: Arc<[u8]>,
    answer: Answer,
}

impl Message {
    /// A GET, or a POST with a body of `upload` bytes; `last` asks for the end of the connection.
    pub(crate) fn http1(host: &str, path: &str, upload: usize, last: bool) -> Self {
        let method = if upload > 0 { "POST" } else { "GET" };
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: veer-load\r\nAccept: */*\r\n");
        if upload > 0 {
            text += &format!("Content-Type: application/octet-stream\r\nContent-Length: {upload}\r\n");
        }
        text += if last { "Connection: close\r\n\r\n" } else { "\r\n" };
        let mut bytes = text.into_bytes();
        bytes.resize(bytes.len() + upload, b'x');
        Self { bytes: bytes.into(), answer: Answer::Http1 }
    }

    /// So many bytes, which must all come back.
    pub(crate) fn echo(bytes: usize) -> Self {
        Self { bytes: vec![b'x'; bytes].into(), answer: Answer::Echo }
    }

    /// For one connection.
    pub(crate) fn turn(&self) -> Turn {
        Turn { message: Arc::clone(&self.bytes), answer: self.answer, buffer: vec![0; BUFFER] }
    }
}

impl Turn {
    /// Sends the message and reads its answer.
    pub(crate) async fn take(&mut self, stream: &mut TcpStream) -> Result<(), Fault> {
        let (mut reading, mut writing) = stream.split();
        if self.message.len() < LONG {
            writing.write_all(&self.message).await.map_err(|error| broken(Err(error)))?;
            return self.hear(&mut reading).await;
        }
        // Both ways at once: a long message may come back before it has all been sent.
        let message = Arc::clone(&self.message);
        let sent = async { writing.write_all(&message).await.map_err(|error| broken(Err(error))) };
        let (sent, heard) = tokio::join!(sent, self.hear(&mut reading));
        sent.and(heard)
    }

    async fn hear(&mut self, stream: &mut ReadHalf<'_>) -> Result<(), Fault> {
        let (missing, status) = match self.answer {
            Answer::Echo => (self.message.len(), 200),
            Answer::Http1 => {
                let head = self.head(stream).await?;
                (head.length, head.status)
            }
        };
        discard(stream, missing, &mut self.buffer).await.map_err(|error| broken(Err(error)))?;
        if status == 200 { Ok(()) } else { Err(Fault::Refused(format!("status {status}"))) }
    }

    /// Reads a head, and what came with it; `length` is what is missing then.
    async fn head(&mut self, stream: &mut ReadHalf<'_>) -> Result<Head, Fault> {
        let mut filled = 0;
        loop {
            match stream.read(&mut self.buffer[filled..]).await {
                Ok(n) if n > 0 => filled += n,
                ended => return Err(broken(ended)),
            }
            if let Some(end) = self.buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n") {
                let head = Head::read(&self.buffer[..end]).map_err(Fault::Broken)?;
                let missing = (end + 4 + head.length).checked_sub(filled);
                let length = missing.ok_or_else(|| Fault::Broken("more than one answer".to_owned()))?;
                return Ok(Head { length, ..head });
            }
        }
    }
}

/// Reads so many bytes and forgets them.
async fn discard(stream: &mut ReadHalf<'_>, mut missing: usize, buffer: &mut [u8]) -> std::io::Result<()> {
    while missing > 0 {
        let read = if missing < LONG {
            // Into a buffer that is not filled, so that the runtime knows that no more is there.
            stream.read(buffer).await?
        } else {
            throw_away(stream.as_ref(), missing, buffer).await?
        };
        match read {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            n => missing = missing.checked_sub(n).ok_or(ErrorKind::InvalidData)?,
        }
    }
    Ok(())
}

/// Takes up to `most` bytes out of the socket, and no more than fit the buffer; the kernel copies none of them (`MSG_TRUNC`, tcp(7)).
/// 0: the end.
///
/// # Errors
/// As `recv`.
///
/// # Cancel safety
/// Dropping the future takes nothing.
pub async fn throw_away(stream: &TcpStream, most: usize, buffer: &mut [u8]) -> std::io::Result<usize> {
    let most = most.min(buffer.len());
    let receive = || {
        let (_, n) = rustix::net::recv(stream, &mut buffer[..most], RecvFlags::TRUNC | RecvFlags::DONTWAIT)?;
        Ok(n)
    };
    stream.async_io(Interest::READABLE, receive).await
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

/// The end of a connection.
fn broken(read: std::io::Result<usize>) -> Fault {
    Fault::Broken(ending(read))
}

/// The end of a connection as a reason.
pub(crate) fn ending(read: std::io::Result<usize>) -> String {
    match read {
        Ok(_) => Failure::Broken("connection closed".to_owned()).to_string(),
        Err(error) => Failure::Broken(error.to_string()).to_string(),
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
