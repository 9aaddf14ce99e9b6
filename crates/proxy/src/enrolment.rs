//! Getting a certificate and keeping it fresh; what of the identity outlives the process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use veer_core::inbound::TrustBundle;
use veer_core::sni::Sni;
use veer_core::{ClusterName, SpiffeId};
use veer_identity::{
    ALPN_H2_STANDARD, ALPN_XDS, Identity, JoinToken, KeyRequest, PrivateKey, Svid, clock, files, join,
};
use veer_net::{Backoff, BoxedIo, ConnectOptions, Network};
use veer_telemetry::Metrics;
use veer_telemetry::family::{counters, gauges};
use veer_xds::enroll::{self, Enrolled, Join, Renew};
use veer_xds::{Channel, KeepAlive};

use crate::error::ProxyError;

/// Protocols offered to a control plane.
const CONTROL_ALPN: [&[u8]; 2] = [ALPN_XDS, ALPN_H2_STANDARD];
/// One attempt to join: connection, handshake, answer.
const JOIN_TIME: Duration = Duration::from_secs(5);

/// Who this process is, and whose.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// Certificate and trust; rotated in place.
    pub identity: Identity,
    /// The cluster that issued it.
    pub cluster: ClusterName,
}

/// Where a process reaches its control plane, and where it keeps what must survive a restart.
#[derive(Debug, Clone)]
pub struct Home {
    /// Sockets.
    pub network: Network,
    /// Source and mark of connections.
    pub options: ConnectOptions,
    /// Addresses of the control plane.
    pub control: Vec<SocketAddr>,
    /// The name under which it enrols, `namespace/name`.
    pub node: String,
    /// Folder for identity, trust and configuration.
    pub state: Option<PathBuf>,
}

impl Home {
    /// The identity that was persisted, else one by joining; tries until there is one.
    ///
    /// # Errors
    /// When there is no usable identity and no token that could still give one.
    pub async fn enrol(&self, token: Option<&JoinToken>, rng: fastrand::Rng) -> Result<Enrolment, ProxyError> {
        match self.load() {
            Ok(Some(enrolment)) => return Ok(enrolment),
            Ok(None) => {}
            // A state folder that cannot be read is no reason not to join again.
            Err(error) if token.is_some() => tracing::warn!(%error, "the persisted identity is of no use"),
            Err(error) => return Err(error),
        }
        let token = token.ok_or_else(|| {
            ProxyError::NoIdentity(
                "there is no join token, and no persisted certificate that is still valid".to_owned(),
            )
        })?;
        let request = KeyRequest::new().map_err(|error| ProxyError::NoIdentity(error.to_string()))?;
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5), rng);
        loop {
            if token.has_expired(clock::now()) {
                return Err(ProxyError::NoIdentity("the join token has expired; issue a new one".to_owned()));
            }
            let attempt = tokio::time::timeout(JOIN_TIME, self.join(token, &request));
            match attempt.await.unwrap_or_else(|_| Err(format!("no answer within {JOIN_TIME:?}"))) {
                Ok(enrolled) => return self.begin(token, request.key, enrolled),
                Err(reason) => tracing::warn!(reason, "joining failed, trying again"),
            }
            backoff.wait().await;
        }
    }

    async fn join(&self, token: &JoinToken, request: &KeyRequest) -> Result<Enrolled, String> {
        let mut reason = "no address of a control plane is known".to_owned();
        for address in self.control.iter().chain(&token.control) {
            let stream = match self.network.connect_with(*address, self.options).await {
                Ok(stream) => stream,
                Err(error) => {
                    reason = format!("{address}: {error}");
                    continue;
                }
            };
            let (stream, _) = match join::connect(stream, token, &CONTROL_ALPN).await {
                Ok(connected) => connected,
                Err(error) => {
                    reason = format!("{address}: {error}");
                    continue;
                }
            };
            let channel = Channel::connect(stream, KeepAlive::default()).await.map_err(|error| error.to_string())?;
            let join = Join {
                secret: token.secret.clone(),
                csr_der: request.csr_der.clone(),
                workload: self.node.clone(),
                cluster: token.cluster.to_string(),
            };
            return enroll::join(&channel, join).await.map_err(|status| status.message().to_owned());
        }
        Err(reason)
    }

    fn begin(&self, token: &JoinToken, key: PrivateKey, enrolled: Enrolled) -> Result<Enrolment, ProxyError> {
        let refuse = |error: veer_identity::Error| ProxyError::NoIdentity(error.to_string());
        let bundles = enrolled.bundles.clone();
        let svid = svid(key, enrolled).map_err(refuse)?;
        let identity = Identity::new(svid, bundles).map_err(refuse)?;
        let enrolment = Enrolment { identity, cluster: token.cluster.clone() };
        self.save(&enrolment);
        Ok(enrolment)
    }

    /// Connects to the control plane with the own certificate; nobody else may answer.
    ///
    /// # Errors
    /// When none of the addresses answers as the control plane.
    pub async fn dial(&self, enrolment: &Enrolment) -> std::io::Result<BoxedIo> {
        let expected = SpiffeId::control(enrolment.identity.svid().id.trust_domain.clone());
        let sni = Sni::Control { cluster: enrolment.cluster.clone() };
        let mut last = std::io::Error::other("no address of a control plane is known");
        for address in &self.control {
            let stream = match self.network.connect_with(*address, self.options).await {
                Ok(stream) => stream,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            let tls = enrolment.identity.client_config(&CONTROL_ALPN);
            match veer_identity::connect(stream, tls, &sni, std::slice::from_ref(&expected)).await {
                Ok((stream, _)) => return Ok(Box::new(stream)),
                Err(error) => last = std::io::Error::other(error),
            }
        }
        Err(last)
    }

    /// Renews at half of the lifetime, and at once when the control plane's count of orders grows; keeps trying while it fails.
    pub async fn renew(
        self,
        enrolment: Enrolment,
        client: veer_xds::Client,
        mut orders: watch::Receiver<Option<u64>>,
        metrics: Metrics,
        mut rng: fastrand::Rng,
    ) {
        let mut obeyed = *orders.borrow_and_update();
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30), rng.fork());
        loop {
            let svid = enrolment.identity.svid();
            metrics.gauge(&gauges::CERTIFICATE_EXPIRY, &[]).set(clock::unix_seconds(svid.not_after) as f64);
            let wait = svid.renew_at(rng.f64()).duration_since(clock::now()).unwrap_or_default();
            let ordered = async {
                loop {
                    let now = *orders.borrow_and_update();
                    // The first word is no order: it may be as old as the workload.
                    if obeyed.is_some() && now > obeyed {
                        return;
                    }
                    obeyed = now.or(obeyed);
                    if orders.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
            };
            tokio::select! {
                biased;
                () = tokio::time::sleep(wait) => {}
                () = ordered => {}
            }
            loop {
                let outcome = self.renew_once(&enrolment, &client).await;
                let word = if outcome.is_ok() { "ok" } else { "failed" };
                metrics.counter(&counters::CERTIFICATE_ROTATIONS, &[word]).inc();
                match outcome {
                    Ok(()) => break,
                    Err(reason) => tracing::warn!(reason, "the certificate could not be renewed, trying again"),
                }
                backoff.wait().await;
            }
            backoff.reset();
            obeyed = (*orders.borrow_and_update()).or(obeyed);
            self.save(&enrolment);
        }
    }

    async fn renew_once(&self, enrolment: &Enrolment, client: &veer_xds::Client) -> Result<(), String> {
        let channel = client.channel().ok_or("there is no session with the control plane")?;
        let request = KeyRequest::new().map_err(|error| error.to_string())?;
        let ask = Renew { csr_der: request.csr_der, workload: self.node.clone() };
        let enrolled = tokio::time::timeout(JOIN_TIME, enroll::renew(&channel, ask))
            .await
            .map_err(|_| format!("no answer within {JOIN_TIME:?}"))?
            .map_err(|status| status.message().to_owned())?;
        for bundle in &enrolled.bundles {
            enrolment.identity.trust(bundle.clone()).map_err(|error| error.to_string())?;
        }
        enrolment.identity.rotate(svid(request.key, enrolled).map_err(|error| error.to_string())?);
        Ok(())
    }

    /// Writes identity and trust, if there is a place for them. Failure costs the next restart, not this process.
    pub fn save(&self, enrolment: &Enrolment) {
        let Some(dir) = &self.state else { return };
        let bundles: Vec<TrustBundle> = enrolment.identity.trust_store().bundles().cloned().collect();
        let kept = Kept { cluster: enrolment.cluster.clone(), bundles };
        let written = enrolment.identity.svid().save(&dir.join(SVID)).and_then(|()| {
            let json = serde_json::to_vec_pretty(&kept).unwrap_or_default();
            files::write_private(&dir.join(TRUST), &json)
        });
        if let Err(error) = written {
            tracing::error!(%error, "the identity could not be persisted");
        }
    }

    fn load(&self) -> Result<Option<Enrolment>, ProxyError> {
        let Some(dir) = &self.state else { return Ok(None) };
        let refuse = |error: &dyn std::fmt::Display| ProxyError::State(error.to_string());
        let Some(text) = files::read_if_there(&dir.join(TRUST)).map_err(|error| refuse(&error))? else {
            return Ok(None);
        };
        let kept: Kept = serde_json::from_str(&text).map_err(|error| refuse(&error))?;
        let svid = Svid::load(&dir.join(SVID)).map_err(|error| refuse(&error))?;
        if svid.remaining(clock::now()).is_zero() {
            return Err(refuse(&"the persisted certificate has expired; a new join token is needed"));
        }
        let identity = Identity::new(svid, kept.bundles).map_err(|error| refuse(&error))?;
        Ok(Some(Enrolment { identity, cluster: kept.cluster }))
    }

    /// The configuration that the former process knew.
    pub fn load_config(&self) -> Option<veer_xds::Cache> {
        let text = files::read_if_there(&self.file(CONFIG)?).ok()??;
        serde_json::from_str(&text)
            .inspect_err(|error| tracing::warn!(%error, "the persisted configuration is of no use"))
            .ok()
    }

    /// Keeps the configuration for the next process.
    pub fn save_config(&self, client: &veer_xds::Client) {
        let Some(path) = self.file(CONFIG) else { return };
        let json = serde_json::to_vec(&client.export_cache(clock::now())).unwrap_or_default();
        if let Err(error) = files::write_private(&path, &json) {
            tracing::error!(%error, "the configuration could not be persisted");
        }
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        self.state.as_deref().map(|dir: &Path| dir.join(name))
    }
}

const SVID: &str = "svid.pem";
const TRUST: &str = "trust.json";
const CONFIG: &str = "config.json";

#[derive(serde::Serialize, serde::Deserialize)]
struct Kept {
    cluster: ClusterName,
    bundles: Vec<TrustBundle>,
}

fn svid(key: PrivateKey, enrolled: Enrolled) -> Result<Svid, veer_identity::Error> {
    Svid::from_chain(key, enrolled.chain_der.into_iter().map(CertificateDer::from).collect())
}
