//! From the balance's word for a target to a connection.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;
use veer_balance::Dial;
use veer_core::TrustDomain;
use veer_core::sni::Sni;

use crate::pool::{DialError, Lease, Reach, Ready, Recipe, Upstream, Via};
use crate::worker::Worker;

/// How a new connection to the target is made now. Chooses the gateway replica where there is one in between.
///
/// # Errors
/// When no gateway can be used.
pub async fn of(worker: &Worker, dial: &Dial<'_>) -> Result<Reach, DialError> {
    Ok(match dial {
        Dial::Plain { address } => Reach::Plain(*address),
        Dial::Mesh { address, target_port, cluster, identities } => {
            trust(worker, identities).await;
            Reach::Mesh(Recipe {
                address: *address,
                via: None,
                sni: Sni::Direct { port: *target_port, cluster: (*cluster).clone() },
                expected: Arc::from(*identities),
            })
        }
        Dial::Gateway { cluster, token, target_port, identities } => {
            let no_gateway = || DialError::NoGateway(cluster.to_string());
            let path = worker.knowledge.path(cluster).await.map_err(|_| no_gateway())?;
            trust(worker, identities).await;
            let replica = path.balance.pick().ok_or_else(no_gateway)?;
            Reach::Mesh(Recipe {
                address: replica.address,
                via: Some(Via {
                    cluster: (*cluster).clone(),
                    balance: Arc::clone(&path.balance),
                    draining: replica.is_draining(),
                    replica,
                }),
                sni: Sni::Gateway { token: token.to_string(), port: *target_port, cluster: (*cluster).clone() },
                expected: Arc::from(*identities),
            })
        }
    })
}

/// The same when nothing needs to be waited for.
fn now(worker: &Worker, dial: &Dial<'_>) -> Option<Reach> {
    let mut cx = Context::from_waker(Waker::noop());
    match pin!(of(worker, dial)).poll(&mut cx) {
        Poll::Ready(reach) => reach.ok(),
        Poll::Pending => None,
    }
}

/// A place on an HTTP/2 connection that is there; when those are busy, another is begun beside them.
pub fn at_hand(worker: &Worker, upstream: &Rc<Upstream>, dial: &Dial<'_>) -> Option<Lease> {
    match upstream.h2_ready() {
        Ready::Place(lease) => Some(Lease::H2(lease)),
        Ready::Busy(lease) => {
            if let Some(reach) = now(worker, dial) {
                upstream.open_another(&reach);
            }
            Some(Lease::H2(lease))
        }
        Ready::Nothing => None,
    }
}

/// Waits, for the time of a first word, until the bundle that can judge the identities is held. Without it the handshake
/// fails, which says why.
async fn trust(worker: &Worker, identities: &[veer_core::SpiffeId]) {
    let process = &worker.process;
    let missing = |domain: &&TrustDomain| !process.identity.trusts(domain);
    let Some(domain) = identities.iter().map(|id| &id.trust_domain).find(missing) else { return };
    process.want_trust(domain);
    let deadline = Instant::now() + process.config.knowledge_wait;
    let mut changed = process.identity.changed();
    while !process.identity.trusts(domain) {
        let next = tokio::time::timeout_at(deadline, changed.changed()).await;
        if !matches!(next, Ok(Ok(()))) {
            return;
        }
    }
}
