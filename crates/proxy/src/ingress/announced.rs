//! Connections in front of which a load balancer says whose they are.

use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use veer_core::Cidr;
use veer_net::{Prefixed, Stream};

use crate::proxy_protocol::{Fault, MAX_BYTES, Progress, parse};

/// The header is to come at once: balancers send it before anything that the client sends.
const HEADER_TIME: Duration = Duration::from_secs(10);

/// The connection behind its header, and its client's address.
type Announced = Result<(Prefixed<Stream>, Option<IpAddr>), &'static str>;

/// Reads the header that one of the `balancers` puts in front of a connection. In a place of its own: connections without it hold no room
/// for it.
///
/// # Errors
/// Why the connection is to be closed: `proxy_untrusted` (of a sender that is none of the balancers nothing is read), `proxy_missing`,
/// `proxy_malformed`, `proxy_too_long`, `proxy_slow`, `gone`.
pub fn announced<'a>(
    stream: Stream,
    sender: Option<IpAddr>,
    balancers: &'a [Cidr],
) -> Pin<Box<dyn Future<Output = Announced> + 'a>> {
    Box::pin(async move {
        let is_trusted = |sender: IpAddr| balancers.iter().any(|range| range.contains(sender.to_canonical()));
        if !sender.is_some_and(is_trusted) {
            return Err("proxy_untrusted");
        }
        let deadline = Instant::now() + HEADER_TIME;
        let mut stream = Prefixed::new(stream);
        let header = loop {
            match parse(stream.seen()) {
                Progress::Found(header) => break header,
                Progress::Refused(Fault::NoHeader) => return Err("proxy_missing"),
                Progress::Refused(Fault::TooLong) => return Err("proxy_too_long"),
                Progress::Refused(Fault::Malformed | Fault::Checksum) => return Err("proxy_malformed"),
                Progress::NeedMore => {}
            }
            match timeout_at(deadline, stream.fill(MAX_BYTES)).await {
                Ok(Ok(0) | Err(_)) => return Err("gone"),
                Ok(Ok(_)) => {}
                Err(_) => return Err("proxy_slow"),
            }
        };
        let (stream, mut read) = stream.into_parts();
        read.drain(..header.length);
        Ok((Prefixed::with_prefix(stream, read), header.client.map(|client| client.ip()).or(sender)))
    })
}
