//! Memory of processes that have nothing to do, with and without connections.

use std::any::Any;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::closed::mib;
use super::{Entry, tls};
use crate::side_by_side::figures::{Figure, Run};
use crate::side_by_side::process::{Memory, with_children};
use crate::side_by_side::works::{Kind, Shape};

/// Connections that are opened, each of which has done one request.
const CONNECTIONS: usize = 5_000;
/// Before the first look: what a program needs once for its first connections is not theirs.
const FIRST: usize = 100;

/// A program that had nothing to do for so long is at rest.
const REST: Duration = Duration::from_secs(12);

/// After one request, and a rest.
pub(super) async fn at_rest(entry: &Entry) -> anyhow::Result<Run> {
    tokio::time::sleep(REST).await;
    let memory = Memory::of(&with_children(&entry.running.roots())?)?;
    Ok(Run::of([
        (Figure::ResidentMib, mib(memory.resident)),
        (Figure::ProportionalMib, mib(memory.proportional)),
        (Figure::PrivateMib, mib(memory.private)),
    ]))
}

pub(super) async fn idle(entry: &Entry, shape: &Shape) -> anyhow::Result<Run> {
    let all = with_children(&entry.running.roots())?;
    let tls = match shape.kind {
        Kind::Idle { tls: true } => Some(tls::Client::new(&entry.running, false, false)?),
        _ => None,
    };
    let mut open = Vec::with_capacity(FIRST + CONNECTIONS);
    for _ in 0..FIRST {
        open.push(connection(entry, tls.as_ref()).await?);
    }
    let before = Memory::of(&all)?;
    for n in 0..CONNECTIONS {
        open.push(connection(entry, tls.as_ref()).await.with_context(|| format!("connection {n}"))?);
    }
    let after = Memory::of(&all)?;
    let each = |before: u64, after: u64| (after as f64 - before as f64) / 1024.0 / CONNECTIONS as f64;
    Ok(Run::of([
        // Of their own: pages of the program come and go, whatever the connections are.
        (Figure::KibPerConnection, each(before.private, after.private)),
        (Figure::ResidentKibPerConnection, each(before.resident, after.resident)),
        (Figure::ResidentMib, mib(after.resident)),
    ]))
}

/// Whatever holds it open.
async fn connection(entry: &Entry, tls: Option<&tls::Client>) -> anyhow::Result<Box<dyn Any>> {
    let running = &entry.running;
    if let Some(client) = tls {
        return Ok(Box::new(client.ask(&running.host).await?));
    }
    let mut stream = TcpStream::connect(running.target).await?;
    stream.write_all(format!("GET /items HTTP/1.1\r\nHost: {}\r\n\r\n", running.host).as_bytes()).await?;
    let mut answer = [0; 4096];
    let n = stream.read(&mut answer).await?;
    anyhow::ensure!(answer[..n].starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer[..n]));
    Ok(Box::new(stream))
}
