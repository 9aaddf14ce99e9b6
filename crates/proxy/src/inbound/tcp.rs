//! Bytes for the application.

use std::pin::Pin;
use std::rc::Rc;
use std::time::SystemTime;

use tokio::time::Instant;
use veer_identity::clock;
use veer_net::Stream;
use veer_telemetry::{AccessEntry, Direction, Edge, Flag, Protocol};

use super::state::Caller;
use crate::error::RequestError;
use crate::exchange;
use crate::tcp::{Direction as Way, End, Meter, RelayOptions, Relayed, Side, relay};
use crate::worker::Worker;

type Opening<'a> = Pin<Box<dyn Future<Output = Option<(Stream, Account)>> + 'a>>;

/// Relays a connection to the application, if its caller may come. Otherwise it is closed.
///
/// Not an `async fn`, because that would hold its arguments twice.
pub fn serve<'a>(
    worker: &'a Rc<Worker>,
    mut downstream: impl Relayed + 'a,
    caller: &'a Caller,
) -> impl Future<Output = ()> + 'a {
    // In a place of its own: what opening takes is not held while bytes are relayed.
    let opening: Opening<'_> = Box::pin(open(worker, caller));
    async move {
        let Some((mut application, mut account)) = opening.await else { return };
        let _open = account.edge.tcp_open();
        let relaying = relay(&mut downstream, &mut application, RelayOptions::default(), &mut account);
        let failed = match worker.until_drained(relaying).await.map(|report| report.end) {
            Some(End::Failed { side: Side::First, error }) => Some((Flag::DownstreamClosed, error)),
            Some(End::Failed { side: Side::Second, error }) => Some((Flag::UpstreamConnectionLost, error)),
            _ => None,
        };
        match failed {
            Some((flag, error)) => account.log(worker, caller, flag, &error.to_string()),
            None => account.log(worker, caller, Flag::None, ""),
        }
    }
}

/// A connection to the application, and where it is counted. `None` when the caller may have none, or there is none to
/// be had.
async fn open(worker: &Worker, caller: &Caller) -> Option<(Stream, Account)> {
    let Ok(view) = worker.inbound.view() else {
        worker.refused("inbound", "not_ready");
        return None;
    };
    let account = Account::begin(worker.inbound.edge(&worker.process, &view, caller));
    let admitted = view.admit(caller).and_then(|port| view.authorize(caller, None).map(|()| port));
    let opened = match admitted {
        Ok(port) => {
            let dialing = worker.inbound.app.dialer().tcp(port.app).await;
            dialing.map_err(|error| RequestError::Connect(error.to_string()))
        }
        Err(error) => Err(error),
    };
    match opened {
        Ok(application) => Some((application, account)),
        Err(error) => {
            let flag = error.verdict().flag;
            worker.refused("inbound", flag.as_str());
            account.log(worker, caller, flag, &error.to_string());
            None
        }
    }
}

/// What is said of a connection when it is over.
struct Account {
    edge: Edge,
    time: SystemTime,
    begun: Instant,
    up: u64,
    down: u64,
}

impl Account {
    fn begin(edge: Edge) -> Self {
        Self { edge, time: clock::now(), begun: Instant::now(), up: 0, down: 0 }
    }

    fn log(self, worker: &Worker, caller: &Caller, flag: Flag, reason: &str) {
        let log = &worker.process.telemetry.log;
        if !log.is_on() {
            return;
        }
        let mut line = AccessEntry::new(self.time, Direction::Inbound, Protocol::Tcp);
        exchange::label(&mut line, self.edge.labels());
        if let Some(peer) = &caller.peer {
            line.source_identity = peer.id.to_string().into();
        }
        (line.flag, line.blame, line.reason) = (flag, flag.blame(), reason.into());
        (line.request_bytes, line.response_bytes, line.duration) = (self.up, self.down, self.begun.elapsed());
        log.log(line);
    }
}

impl Meter for Account {
    fn moved(&mut self, direction: Way, bytes: u64) {
        match direction {
            Way::Up => {
                self.up += bytes;
                self.edge.tcp_bytes(bytes, 0);
            }
            Way::Down => {
                self.down += bytes;
                self.edge.tcp_bytes(0, bytes);
            }
        }
    }
}
