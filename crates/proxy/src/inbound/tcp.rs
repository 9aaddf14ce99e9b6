//! Bytes for the application.

use std::rc::Rc;

use tokio::time::Instant;
use veer_identity::clock;
use veer_telemetry::{AccessEntry, Direction, Flag, Protocol};

use super::state::Caller;
use crate::error::RequestError;
use crate::exchange;
use crate::tcp::{Direction as Way, End, RelayOptions, Relayed, Side, relay};
use crate::worker::Worker;

/// Relays a connection to the application, if its caller may come. Otherwise it is closed.
pub async fn serve(worker: &Rc<Worker>, mut downstream: impl Relayed, caller: &Caller) {
    let mut line = AccessEntry::new(clock::now(), Direction::Inbound, Protocol::Tcp);
    let begun = Instant::now();
    let Ok(view) = worker.inbound.view() else {
        worker.refused("inbound", "not_ready");
        return;
    };
    let edge = worker.inbound.edge(&worker.process, &view, caller);
    exchange::label(&mut line, edge.labels());
    if let Some(peer) = &caller.peer {
        line.source_identity = peer.id.to_string().into();
    }

    let admitted = view.admit(caller).and_then(|port| view.authorize(caller, None).map(|()| port));
    let opened = match admitted {
        Ok(port) => {
            let dialing = worker.inbound.app.dialer().tcp(port.app).await;
            dialing.map_err(|error| RequestError::Connect(error.to_string()))
        }
        Err(error) => Err(error),
    };
    let mut application = match opened {
        Ok(application) => application,
        Err(error) => {
            let flag = error.verdict().flag;
            worker.refused("inbound", flag.as_str());
            (line.flag, line.blame, line.reason) = (flag, flag.blame(), error.to_string().into());
            worker.process.telemetry.log.log(line);
            return;
        }
    };

    let _open = edge.tcp_open();
    let (mut up, mut down) = (0, 0);
    let mut meter = |way, bytes| match way {
        Way::Up => {
            up += bytes;
            edge.tcp_bytes(bytes, 0);
        }
        Way::Down => {
            down += bytes;
            edge.tcp_bytes(0, bytes);
        }
    };
    let relaying = relay(&mut downstream, &mut application, RelayOptions::default(), &mut meter);
    let report = worker.until_drained(relaying).await;
    if let Some(End::Failed { side, error }) = report.map(|report| report.end) {
        line.flag = match side {
            Side::First => Flag::DownstreamClosed,
            Side::Second => Flag::UpstreamConnectionLost,
        };
        line.blame = line.flag.blame();
        line.reason = error.to_string().into();
    }
    (line.request_bytes, line.response_bytes, line.duration) = (up, down, begun.elapsed());
    worker.process.telemetry.log.log(line);
}
