//! The floor: a relay that only reads and writes. Whatever a proxy costs above it is what the proxy does.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::Context as _;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

const LISTENER: u64 = u64::MAX;
const BUFFER: usize = 64 * 1024;
/// More than what waits for the listener matters little: connections are opened before anything is measured.
const EVENTS: usize = 256;

/// Relays until killed. A connection is at index 2n of the table to the client, 2n + 1 to the upstream.
pub fn run(listen: SocketAddr, to: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).with_context(|| format!("listening on {listen}"))?;
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut table: Vec<Option<End>> = Vec::new();
    let mut events = Vec::with_capacity(EVENTS);
    let mut buffer = vec![0; BUFFER];
    loop {
        events.clear();
        match epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting"),
        }
        for event in &events {
            match event.data.u64() {
                LISTENER => {
                    let Ok((client, _)) = listener.accept() else { continue };
                    // Nobody to relay to: the client sees its connection close.
                    let Ok(upstream) = TcpStream::connect(to) else { continue };
                    for stream in [client, upstream] {
                        stream.set_nodelay(true)?;
                        stream.set_nonblocking(true)?;
                        let at = table.len() as u64;
                        epoll::add(&poll, &stream, EventData::new_u64(at), EventFlags::IN)?;
                        table.push(Some(End { stream, unsent: Vec::new() }));
                    }
                }
                at => {
                    let at = at as usize;
                    if !pass(&poll, &mut table, at, &mut buffer) {
                        // Dropping a stream takes it out of the poll.
                        table[at] = None;
                        table[at ^ 1] = None;
                    }
                }
            }
        }
    }
}

struct End {
    stream: TcpStream,
    /// What this end's kernel buffer did not take.
    unsent: Vec<u8>,
}

/// Passes on what is there, or what was left over. `false`: the connection is over.
fn pass(poll: &impl std::os::fd::AsFd, table: &mut [Option<End>], at: usize, buffer: &mut [u8]) -> bool {
    let (low, high) = table.split_at_mut(at | 1);
    let (even, odd) = (low.last_mut().and_then(Option::as_mut), high.first_mut().and_then(Option::as_mut));
    let (Some(even), Some(odd)) = (even, odd) else { return true };
    let (this, other) = if at.is_multiple_of(2) { (even, odd) } else { (odd, even) };
    let (this_at, other_at) = (at as u64, at as u64 ^ 1);
    if !this.unsent.is_empty() {
        let unsent = std::mem::take(&mut this.unsent);
        if !send(this, &unsent) {
            return false;
        }
        if !this.unsent.is_empty() {
            return true;
        }
        // The other end may be read again.
        return watch(poll, this, this_at, EventFlags::IN) && watch(poll, other, other_at, EventFlags::IN);
    }
    match this.stream.read(buffer) {
        Ok(0) => false,
        Ok(n) => {
            if !send(other, &buffer[..n]) {
                return false;
            }
            other.unsent.is_empty()
                || watch(poll, other, other_at, EventFlags::IN | EventFlags::OUT)
                    && watch(poll, this, this_at, EventFlags::empty())
        }
        Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
    }
}

/// Writes as much as goes and keeps the rest. `false`: the connection is over.
fn send(end: &mut End, bytes: &[u8]) -> bool {
    match end.stream.write(bytes) {
        Ok(n) => {
            end.unsent.extend_from_slice(&bytes[n..]);
            true
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            end.unsent.extend_from_slice(bytes);
            true
        }
        Err(_) => false,
    }
}

fn watch(poll: &impl std::os::fd::AsFd, end: &End, at: u64, flags: EventFlags) -> bool {
    epoll::modify(poll, &end.stream, EventData::new_u64(at), flags).is_ok()
}
