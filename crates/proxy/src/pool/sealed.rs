//! TLS toward endpoints outside of the mesh, as a BackendTLSPolicy says.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;
use veer_core::backend_tls::BackendTls;
use veer_identity::{BackendClient, PublicCertificate, Spoken, TlsStream};
use veer_net::Stream;
use veer_telemetry::family::counters;

use super::dial::{CONNECT_TIME, DialError, Dialer};

/// Policies whose clients are kept.
const MAX_CLIENTS: usize = 256;

/// What this worker has in common for all backends outside of the mesh.
#[derive(Default)]
pub struct Outside {
    /// What is shown to them.
    certificate: RefCell<Option<PublicCertificate>>,
    /// By policy, so that its authorities are held once.
    clients: RefCell<BTreeMap<Arc<BackendTls>, Rc<BackendClient>>>,
}

impl Outside {
    pub(super) fn show(&self, certificate: Option<PublicCertificate>) {
        self.certificate.replace(certificate);
        self.clients.borrow_mut().clear();
    }

    fn client(&self, policy: &Arc<BackendTls>) -> Result<Rc<BackendClient>, DialError> {
        if let Some(client) = self.clients.borrow().get(policy) {
            return Ok(Rc::clone(client));
        }
        let client = BackendClient::new(policy, self.certificate.borrow().as_ref());
        let client = Rc::new(client.map_err(|error| DialError::Policy(error.to_string().into()))?);
        let mut clients = self.clients.borrow_mut();
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(Arc::clone(policy), Rc::clone(&client));
        Ok(client)
    }
}

/// TLS toward one endpoint.
pub struct Sealed {
    policy: Arc<BackendTls>,
    outside: Rc<Outside>,
}

impl Sealed {
    pub(super) fn new(policy: Arc<BackendTls>, outside: Rc<Outside>) -> Self {
        Self { policy, outside }
    }

    /// TCP and TLS, within [`CONNECT_TIME`] together. A policy that is broken makes no connection.
    pub(super) async fn dial(
        &self,
        dialer: &Dialer,
        address: SocketAddr,
        spoken: Spoken,
    ) -> Result<TlsStream<Stream>, DialError> {
        let result = self.shake_hands(dialer, address, spoken).await;
        let outcome = result.as_ref().err().map_or("ok", DialError::outcome);
        dialer.metrics.counter(&counters::TLS_HANDSHAKES, &["backend", outcome]).inc();
        result
    }

    async fn shake_hands(
        &self,
        dialer: &Dialer,
        address: SocketAddr,
        spoken: Spoken,
    ) -> Result<TlsStream<Stream>, DialError> {
        let client = self.outside.client(&self.policy)?;
        let begun = Instant::now();
        let stream = dialer.tcp(address).await?;
        tokio::time::timeout_at(begun + CONNECT_TIME, client.connect(stream, spoken))
            .await
            .map_err(|_| DialError::HandshakeTimeout(address))?
            .map_err(|error| DialError::Handshake { address, error: Arc::new(error) })
    }
}
