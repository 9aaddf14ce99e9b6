//! A backend that records what reaches it and answers with the bytes that a case wants; and a lenient reader of HTTP/1.1, for both
//! sides.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::raw::Seen;

/// The backend of one proxy.
#[derive(Clone, Default)]
pub struct Origin {
    log: Rc<RefCell<Vec<Seen>>>,
    answer: Rc<Cell<&'static str>>,
}

impl Origin {
    /// Listens until the test ends.
    pub async fn listen(&self, address: SocketAddr) {
        let listener = TcpListener::bind(address).await.unwrap();
        let origin = self.clone();
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(origin.clone().serve(stream));
            }
        });
    }

    /// Forgets what came, and answers so from now on; `""` is an ordinary answer.
    pub fn say(&self, answer: &'static str) {
        self.log.borrow_mut().clear();
        self.answer.set(answer);
    }

    /// What came, without what came again.
    pub fn seen(&self) -> Vec<Seen> {
        let mut seen = self.log.borrow().clone();
        seen.dedup_by(|one, other| !self.answer.get().is_empty() && one.line == other.line);
        seen
    }

    pub async fn serve(self, mut stream: TcpStream) {
        let mut unread = Vec::new();
        loop {
            let Some((seen, used)) = take(&unread) else {
                match stream.read_buf(&mut unread).await {
                    Ok(read) if read > 0 => continue,
                    _ => return,
                }
            };
            unread.drain(..used);
            let (next, head) = (seen.path() == "/next", seen.line.starts_with("HEAD "));
            self.log.borrow_mut().push(seen);
            let special = self.answer.get();
            let plain = match (next, head) {
                (true, _) => "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext",
                (_, true) => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            };
            let answer = if next || special.is_empty() { plain } else { special };
            if stream.write_all(answer.as_bytes()).await.is_err() || answer == special {
                return;
            }
        }
    }
}

/// A whole request at the beginning, and its length.
pub fn take(bytes: &[u8]) -> Option<(Seen, usize)> {
    let from = bytes.iter().position(|byte| !b"\r\n".contains(byte))?;
    let at = from + find(&bytes[from..], b"\r\n\r\n")?;
    let (line, fields) = head(&bytes[from..at]);
    let mut seen = Seen { line, fields, ..Seen::default() };
    let rest = &bytes[at + 4..];
    let mut used = at + 4;
    if seen.field("transfer-encoding").is_some() {
        used += chunks(rest, &mut seen)?;
    } else if let Some(length) = length(&seen) {
        seen.body = rest.get(..length)?.to_vec();
        used += length;
    }
    Some((seen, used))
}

/// An answer as it came.
#[derive(Debug, Default)]
pub struct Answer {
    pub interim: Vec<u16>,
    pub status: u16,
    pub body: Vec<u8>,
    trailers: Vec<(String, String)>,
    pub fields: Vec<(String, String)>,
    /// Its end is missing.
    cut: bool,
}

/// The answer at the beginning, and its length.
pub fn take_answer(bytes: &[u8], bodiless: bool) -> (Answer, usize) {
    let mut answer = Answer::default();
    let mut used = 0;
    loop {
        let rest = &bytes[used..];
        let Some(at) = find(rest, b"\r\n\r\n") else {
            answer.cut = true;
            return (answer, bytes.len());
        };
        used += at + 4;
        let (line, fields) = head(&rest[..at]);
        answer.status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        answer.fields = fields;
        match answer.status {
            100..200 => answer.interim.push(answer.status),
            _ => break,
        }
    }
    let mut seen = Seen { fields: std::mem::take(&mut answer.fields), ..Seen::default() };
    let rest = &bytes[used..];
    let length = length(&seen);
    if bodiless || matches!(answer.status, 204 | 304) {
    } else if seen.field("transfer-encoding").is_some() {
        let read = chunks(rest, &mut seen);
        answer.cut = read.is_none();
        used += read.unwrap_or(rest.len());
    } else {
        let length = length.unwrap_or(rest.len());
        answer.cut = rest.len() < length;
        seen.body = rest[..length.min(rest.len())].to_vec();
        used += seen.body.len();
    }
    (answer.fields, answer.body, answer.trailers) = (seen.fields, seen.body, seen.trailers);
    (answer, used)
}

impl Answer {
    /// The ordinary one, whole.
    pub fn is_plain(&self) -> bool {
        self.status == 200 && self.interim.is_empty() && !self.cut && matches!(self.body.as_slice(), b"hello" | b"")
    }

    /// Status, body when it is the backend's, and what else is notable.
    pub fn words(&self) -> String {
        let mut words: Vec<_> = self.interim.iter().map(u16::to_string).collect();
        words.push(if self.status == 0 { "without a head".to_owned() } else { self.status.to_string() });
        if (200..300).contains(&self.status) && !self.body.is_empty() {
            words.push(format!("`{}`", self.body.escape_ascii()));
        }
        words.extend(self.trailers.iter().map(|(name, _)| format!("trailer `{name}`")));
        words.extend(
            self.fields
                .iter()
                .filter(|(name, _)| name.starts_with("x-"))
                .map(|(name, value)| format!("`{name}: {value}`")),
        );
        if self.cut && self.status > 0 {
            words.push("cut".to_owned());
        }
        words.join(" ")
    }
}

/// The first length of a list; what is beyond all lengths never ends.
fn length(seen: &Seen) -> Option<usize> {
    let number = seen.field("content-length")?.split(',').next()?.trim().parse::<u128>().ok()?;
    Some(usize::try_from(number).unwrap_or(usize::MAX))
}

/// First line and fields; names in small letters, bytes that are not text as escapes.
fn head(bytes: &[u8]) -> (String, Vec<(String, String)>) {
    let text = bytes.escape_ascii().to_string();
    let mut lines = text.split("\\r\\n").map(|line| line.replace("\\\"", "\"").replace("\\'", "'"));
    let first = lines.next().unwrap_or_default();
    let fields = lines.map(|line| {
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.trim_matches(' ').trim_start_matches("\\t").trim_end_matches("\\t").trim_matches(' ');
        (name.to_ascii_lowercase(), value.to_owned())
    });
    (first, fields.collect())
}

/// A body in chunks with its trailers, and its length.
fn chunks(bytes: &[u8], seen: &mut Seen) -> Option<usize> {
    let mut used = 0;
    loop {
        let end = find(&bytes[used..], b"\r\n")?;
        let line = String::from_utf8_lossy(&bytes[used..used + end]).into_owned();
        let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        used += end + 2;
        if size == 0 {
            break;
        }
        seen.body.extend(bytes.get(used..used.checked_add(size)?)?);
        used += size + 2;
        bytes.get(used..)?;
    }
    loop {
        let end = find(&bytes[used..], b"\r\n")?;
        let (line, _) = head(&bytes[used..used + end]);
        used += end + 2;
        if line.is_empty() {
            return Some(used);
        }
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        seen.trailers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn find(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text)
}
