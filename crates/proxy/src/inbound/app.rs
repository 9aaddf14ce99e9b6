//! Connections to the application beside this proxy.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;

use veer_http::RequestHead;

use crate::error::RequestError;
use crate::http::interim::Interim;
use crate::http::replay::Replay;
use crate::pool::{Answer, DialError, Key, Lease, Reach, Ready, SendError, Upstream};
use crate::worker::Worker;

/// Connections that may turn out to be closed before a new one is opened in any case.
const STALE_TRIES: usize = 3;

/// A request for the application.
pub struct Asked {
    /// The head, without `Host`.
    pub head: RequestHead,
    /// The protocol that the caller wants to change to.
    pub upgrade: Option<Vec<u8>>,
    /// The body.
    pub body: Replay,
    /// Whom informational answers go to.
    pub interim: Interim,
    /// Whether the application speaks HTTP/2 (h2c), else HTTP/1.1.
    pub http2: bool,
}

/// Sends the request. A connection that had waited may have been closed by the application meanwhile: the request is sent again
/// on another when nothing of it was taken up, or when repeating does no harm.
///
/// # Errors
/// Why there is no answer, and whether the application may have seen the request.
pub async fn ask(worker: &Rc<Worker>, app: SocketAddr, asked: &Asked) -> Result<(Answer, Lease), (RequestError, bool)> {
    let pools = &worker.inbound.app;
    let key = Key {
        cluster: worker.process.own_cluster().clone(),
        address: app.ip(),
        port: app.port(),
        identity: None,
        service: None,
        tls: None,
        name: None,
    };
    let upstream = pools.upstream(&key);
    let reach = Reach::Plain(app);
    let mut tries = 0;
    loop {
        tries += 1;
        let fresh = asked.upgrade.is_some() || tries > STALE_TRIES;
        let ready = if asked.http2 {
            match upstream.h2_ready() {
                Ready::Place(lease) => Some(Lease::H2(lease)),
                Ready::Busy(lease) => {
                    upstream.open_another(&reach);
                    Some(Lease::H2(lease))
                }
                Ready::Nothing => None,
            }
        } else if fresh {
            None
        } else {
            upstream.h1_idle()
        };
        let connected = match ready {
            Some(lease) => Ok(lease),
            None => open(&upstream, &reach, asked.http2, fresh).await,
        };
        let mut lease = connected.map_err(|error| (RequestError::Connect(error.to_string()), false))?;
        let body = asked.body.next_try().informing(&asked.interim);
        let failed = match lease.send(&asked.head, asked.upgrade.as_deref(), body).await {
            Ok(response) => {
                asked.body.commit();
                return Ok((response, lease));
            }
            Err(failed) => failed,
        };
        if asked.body.failed() {
            return Err((RequestError::BodyIncomplete, true));
        }
        let harmless =
            failed.nothing_sent() || (lease.reused() && failed.closed_idle() && asked.head.method().is_idempotent());
        if harmless && asked.body.can_repeat() && tries <= STALE_TRIES {
            continue;
        }
        let text = failed.to_string();
        let error = match failed {
            SendError::Protocol(_) => RequestError::UpstreamProtocol(text),
            _ => RequestError::Lost(text),
        };
        return Err((error, !failed.nothing_sent()));
    }
}

type Opening<'a> = Pin<Box<dyn Future<Output = Result<Lease, DialError>> + 'a>>;

/// A new connection. In a place of its own: the way of every other request has no room for dialling.
fn open<'a>(upstream: &'a Rc<Upstream>, reach: &'a Reach, http2: bool, fresh: bool) -> Opening<'a> {
    Box::pin(async move { if http2 { upstream.h2(reach).await } else { upstream.h1(reach, fresh).await } })
}
