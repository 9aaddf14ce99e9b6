//! Bytes for the application.

use std::pin::Pin;
use std::rc::Rc;
use std::time::SystemTime;

use tokio::time::Instant;
use veer_http::Name;
use veer_identity::clock;
use veer_net::Stream;
use veer_telemetry::{AccessEntry, Direction, Edge, Flag, Protocol};

use super::state::Caller;
use crate::error::RequestError;
use crate::exchange;
use crate::http::reply;
use crate::http::serve::Response;
use crate::tcp::{Copied, Direction as Way, End, Meter, RelayOptions, Relayed, Side, relay};
use crate::worker::Worker;

type Opening<'a> = Pin<Box<dyn Future<Output = Result<(Stream, Account), RequestError>> + 'a>>;

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
        if let Ok((application, account)) = opening.await {
            carry(worker, &mut downstream, application, account, caller).await;
        }
    }
}

/// Answers another proxy that asks for a stream of bytes: opens the connection to the application first, so that a failure is
/// still an answer, upon which the caller's proxy asks another copy.
pub async fn connect(worker: Rc<Worker>, caller: Rc<Caller>) -> Response {
    match open(&worker, &caller).await {
        Ok((application, account)) => {
            let mut response = reply::empty(200);
            response.tunnel = Some(Box::new(move |downstream| {
                Box::pin(async move { carry(&worker, &mut Copied(downstream), application, account, &caller).await })
            }));
            response
        }
        Err(error) => {
            let verdict = error.verdict();
            let mut response = reply::empty(verdict.status);
            response.head.fields.push(Name::VeerError, reply::veer_error(&verdict, false).as_bytes());
            response
        }
    }
}

async fn carry(
    worker: &Worker,
    downstream: &mut impl Relayed,
    mut application: Stream,
    mut account: Account,
    caller: &Caller,
) {
    let _open = account.edge.tcp_open();
    let relaying = relay(downstream, &mut application, RelayOptions::default(), &mut account);
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

/// A connection to the application, and where it is counted. Fails, and is counted and logged as refused, when the caller may
/// have none, or there is none to be had.
async fn open(worker: &Worker, caller: &Caller) -> Result<(Stream, Account), RequestError> {
    let view = worker.inbound.view().inspect_err(|_| worker.refused("inbound", "not_ready"))?;
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
        Ok(application) => Ok((application, account)),
        Err(error) => {
            let flag = error.verdict().flag;
            worker.refused("inbound", flag.as_str());
            account.log(worker, caller, flag, &error.to_string());
            Err(error)
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
