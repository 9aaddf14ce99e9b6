//! One connection from the callee's first answer to its last byte.
//!
//! Until the callee's first byte has come the gateway may still speak for itself, in TLS alerts; from then on it is
//! silent and blind.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout_at};
use veer_net::{Prefixed, Stream};

use super::front::{Held, Side};
use super::metrics::Open;
use crate::client_hello::MAX_BYTES;
use crate::tcp::{Cut, Direction, End, Meter, RelayOptions, relay};

/// A connection whose way was found and whose callee has answered.
pub(super) struct Passing {
    pub(super) client: Prefixed<Stream>,
    pub(super) upstream: Prefixed<Stream>,
    pub(super) idle: Duration,
    pub(super) side: Side,
    pub(super) cut: Cut,
    pub(super) held: Held,
    pub(super) open: Open,
}

/// Relays from here on.
///
/// Not an `async fn`, because that would hold its argument twice.
pub(super) fn pass(passing: Passing) -> impl Future<Output = ()> {
    let Passing { mut client, mut upstream, idle, side, cut, held, open } = passing;
    let mut meter = Counting { open, side };
    async move {
        let options = RelayOptions { idle, splice: true };
        let report = cut.unless(relay(&mut client, &mut upstream, options, &mut meter)).await;
        let outcome = match report.map(|report| report.end) {
            Some(End::Closed) => "ok",
            Some(End::Idle) => "idle",
            Some(End::Failed { .. }) => "broken",
            None => {
                // What is cut must not look whole.
                client.into_parts().0.reset();
                upstream.into_parts().0.reset();
                if held.is_revoked() { "revoked" } else { "drained" }
            }
        };
        meter.open.meters().ended(outcome);
        drop((held, meter));
    }
}

/// Open until dropped.
struct Counting {
    open: Open,
    side: Side,
}

impl Meter for Counting {
    fn moved(&mut self, direction: Direction, bytes: u64) {
        self.open.meters().moved(self.side, direction, bytes);
    }
}

pub(super) enum Unanswered {
    ClientGone,
    /// Closed, broke or stayed silent. Nothing came from there, so the caller can be told.
    ByUpstream,
}

/// Writes the hello and reads the first bytes of the answer.
pub(super) async fn first_answer(
    client: &mut Prefixed<Stream>,
    upstream: &mut Stream,
    hello: &[u8],
    time: Duration,
) -> Result<Vec<u8>, Unanswered> {
    let deadline = Instant::now() + time;
    match timeout_at(deadline, upstream.write_all(hello)).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) | Err(_) => return Err(Unanswered::ByUpstream),
    }
    let mut answer = Prefixed::new(upstream);
    loop {
        let room = client.seen().len() < MAX_BYTES;
        tokio::select! {
            biased;
            read = timeout_at(deadline, answer.fill(MAX_BYTES)) => {
                return match read {
                    Ok(Ok(count)) if count > 0 => Ok(answer.into_parts().1),
                    _ => Err(Unanswered::ByUpstream),
                };
            }
            // A caller has nothing more to say before the answer, unless it gives up (or sends early data, which is
            // kept).
            read = client.fill(MAX_BYTES), if room => {
                if !matches!(read, Ok(count) if count > 0) {
                    return Err(Unanswered::ClientGone);
                }
            }
        }
    }
}
