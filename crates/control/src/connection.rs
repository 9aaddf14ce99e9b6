//! One connection to the control plane: who is there, and what it may do.
//!
//! A certificate proves an identity; which Workload of that identity is there follows from the record of issued
//! certificates, and what the node says about itself must agree. Everything is looked up when it is asked for, in the present
//! generation: what a certificate is good for ends with the Workload or the Link, not with the connection.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::sync::watch;
use veer_core::{Ingress, ObjectName, Resource as _, SpiffeId};
use veer_xds::agent::{Agents, Report};
use veer_xds::enroll::{Enroll, Enrolled, Join, Renew};
use veer_xds::lease::{LeaseAsk, LeaseGrant, Leases};
use veer_xds::{LocalFuture, NodeInfo, Services, Source, Status, Subscriber};

use crate::issuer::{self, Certificate, IssueError};
use crate::plane::Plane;
use crate::proxies::{self, ProxySession};
use crate::published::{Published, Who};
use crate::tokens::{RedeemError, Subject};

/// The control plane as one connection sees it.
pub(crate) struct Connection {
    plane: Arc<Plane>,
    /// The certificate that was shown, with its identity; nothing before joining.
    shown: Option<Shown>,
    /// In the registry while the connection stands.
    session: OnceLock<ProxySession>,
}

#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub id: SpiffeId,
    /// Its [`issuer::certificate_hash`].
    pub certificate: String,
}

impl Connection {
    pub(crate) fn new(plane: Arc<Plane>, shown: Option<Shown>) -> Arc<Self> {
        Arc::new(Self { plane, shown, session: OnceLock::new() })
    }

    /// What `veer-xds` serves on this connection.
    pub(crate) fn services(self: &Arc<Self>, identifier: &str) -> Services {
        Services {
            enroll: Some(self.clone()),
            leases: Some(self.clone()),
            agents: Some(self.clone()),
            ..Services::new(identifier, self.clone())
        }
    }

    /// Whether there is anything here for this certificate: members of this cluster, and the control planes of its peers.
    pub(crate) fn is_welcome(&self) -> bool {
        match &self.shown {
            None => true,
            Some(shown) if shown.id.trust_domain == self.plane.config.trust_domain => {
                shown.id != SpiffeId::control(shown.id.trust_domain.clone())
            }
            Some(shown) => self.plane.published().is_some_and(|published| published.peer(&shown.id).is_some()),
        }
    }

    /// Returns when what the certificate stands for goes: its Workload is deleted, its Link removed. Who comes back with a
    /// certificate that stands for nobody any more is let in to hear it when it asks for renewal, and is told nothing else.
    pub(crate) async fn revoked(&self) {
        let mut published = self.plane.published.subscribe();
        let mut stood = false;
        loop {
            let stands = published.borrow_and_update().as_ref().is_some_and(|published| self.stands(published));
            if (stood && !stands) || published.changed().await.is_err() {
                return;
            }
            stood |= stands;
        }
    }

    /// Whether the certificate stands for somebody who is there.
    fn stands(&self, published: &Published) -> bool {
        let Some(shown) = &self.shown else { return true };
        if shown.id.trust_domain != self.plane.config.trust_domain {
            return published.peer(&shown.id).is_some();
        }
        // One that is not in the record is judged by what its node claims, when it claims it.
        let recorded = self.plane.issuer.subject(&shown.certificate, &shown.id, None, &published.directory);
        recorded.is_none_or(|subject| published.directory.get(&subject) == Some(&shown.id))
    }

    fn who(&self, published: &Published, node: &NodeInfo) -> Option<Who> {
        let shown = self.shown.as_ref()?;
        if shown.id.trust_domain != self.plane.config.trust_domain {
            return published.peer(&shown.id).cloned().map(Who::Peer);
        }
        let subject = self.member(published, shown, &node.workload, &node.id)?;
        self.session.get_or_init(|| self.plane.proxies.connected(subject.clone()));
        Some(Who::Member(subject))
    }

    /// Which member of the cluster holds the certificate, when it agrees with what it says about itself.
    fn member(&self, published: &Published, shown: &Shown, workload: &str, node: &str) -> Option<Subject> {
        let claim = match workload {
            // A gateway is no Workload; it may say its name as its node's id.
            "" if shown.id == SpiffeId::gateway(shown.id.trust_domain.clone()) => {
                Some(Subject::Gateway(node.to_owned())).filter(|claim| published.directory.contains_key(claim))
            }
            "" => None,
            // A claim that cannot be read agrees with nothing.
            text => Some(issuer::claim(text)?),
        };
        let subject = self.plane.issuer.subject(&shown.certificate, &shown.id, claim, &published.directory)?;
        (published.directory.get(&subject) == Some(&shown.id)).then_some(subject)
    }

    fn enrolled(&self, certificate: Certificate) -> Enrolled {
        let published = self.plane.published();
        let peers = published.iter().flat_map(|p| p.bundles.values()).map(|entry| (**entry.value()).clone());
        let others = peers.filter(|bundle| bundle.trust_domain != certificate.bundle.trust_domain);
        Enrolled {
            chain_der: certificate.chain,
            bundles: std::iter::once(certificate.bundle.clone()).chain(others).collect(),
            id: certificate.id,
            ttl: self.plane.config.certificate_ttl,
        }
    }

    fn ready(&self) -> Result<Arc<Published>, Status> {
        self.plane.published().ok_or_else(|| Status::unavailable("this control plane has not read its manifests yet"))
    }
}

impl Source for Connection {
    fn get(&self, who: &Subscriber, type_url: &str, name: &str) -> Option<(String, Bytes)> {
        let published = self.plane.published()?;
        let reader = self.who(&published, &who.node)?;
        let found = published.read(&reader, type_url, name);
        if let (Who::Member(subject), Ingress::TYPE_URL, Some(_)) = (&reader, type_url, &found) {
            self.plane.proxies.asked_ingress(subject);
        }
        found
    }

    fn list(&self, who: &Subscriber, type_url: &str) -> Vec<String> {
        let Some(published) = self.plane.published() else { return Vec::new() };
        self.who(&published, &who.node).map(|who| published.list(&who, type_url)).unwrap_or_default()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.plane.generation.subscribe()
    }

    /// To a certificate that stands for nobody any more nothing is said: that there is no service would be a lie, and that there
    /// is one is none of its business.
    fn knows(&self, _: &Subscriber, _: &str, _: &str) -> bool {
        self.plane.published().is_some_and(|published| self.stands(&published))
    }

    fn accepted(&self, who: &Subscriber, type_url: &str, generation: u64) {
        if let Some(Who::Member(subject)) = self.plane.published().and_then(|published| self.who(&published, &who.node))
        {
            if type_url == Ingress::TYPE_URL {
                self.plane.proxies.answered_ingress(&subject, Ok(generation));
            }
            self.plane.proxies.accepted(&subject, generation);
        }
    }

    fn caught_up(&self, who: &Subscriber, generation: u64) {
        if let Some(Who::Member(subject)) = self.plane.published().and_then(|published| self.who(&published, &who.node))
        {
            self.plane.proxies.caught_up_ingress(&subject, generation);
        }
    }

    fn rejected(&self, who: &Subscriber, type_url: &str, generation: u64, reason: &str) {
        match self.plane.published().and_then(|published| self.who(&published, &who.node)) {
            Some(Who::Member(subject)) => {
                tracing::warn!(%subject, type_url, generation, reason, "a proxy refused what it was sent");
                if type_url == Ingress::TYPE_URL {
                    self.plane.proxies.answered_ingress(&subject, Err(()));
                }
                self.plane.proxies.refused(&subject, reason);
            }
            Some(Who::Peer(peer)) => tracing::warn!(%peer, type_url, generation, reason, "a peer refused an offer"),
            None => {}
        }
    }
}

impl Enroll for Connection {
    fn join(&self, request: Join) -> LocalFuture<'_, Result<Enrolled, Status>> {
        Box::pin(async move {
            let published = self.ready()?;
            if request.cluster != self.plane.config.cluster.as_str() {
                return Err(Status::failed_precondition(format!("this is cluster {}", self.plane.config.cluster)));
            }
            let certificate = self.plane.issuer.join(&request.secret, &request.csr_der, &published.directory);
            let certificate = certificate.map_err(status)?;
            // The token decides; a node that means another workload was configured wrong, and should hear it now.
            let own: ObjectName = issuer::node_name(&certificate.subject);
            if !request.workload.is_empty() && request.workload != own.to_string() {
                let what = format!("the token is for {}, not for {}", certificate.subject, request.workload);
                return Err(Status::failed_precondition(what));
            }
            Ok(self.enrolled(certificate))
        })
    }

    fn renew<'a>(&'a self, _: &'a Subscriber, request: Renew) -> LocalFuture<'a, Result<Enrolled, Status>> {
        Box::pin(async move {
            let published = self.ready()?;
            let shown =
                self.shown.as_ref().ok_or_else(|| Status::unauthenticated("renewal needs the current certificate"))?;
            // Found by the record first: a deleted Workload is told so, and not that it is somebody else.
            let claim = issuer::claim(&request.workload);
            let subject = self.plane.issuer.subject(&shown.certificate, &shown.id, claim, &published.directory);
            let subject =
                subject.ok_or_else(|| Status::permission_denied("the certificate does not stand for that workload"))?;
            let certificate =
                self.plane.issuer.renew(&subject, &shown.id, &request.csr_der, &published.directory).map_err(status)?;
            Ok(self.enrolled(certificate))
        })
    }
}

impl Leases for Connection {
    fn lease<'a>(&'a self, who: &'a Subscriber, ask: &'a LeaseAsk) -> LocalFuture<'a, Result<LeaseGrant, Status>> {
        Box::pin(async move {
            // One that has not read its manifests vouches for nothing: the consumer's lease runs out, and it keeps what it knows.
            let published = self.ready()?;
            let peer =
                published.peer(&who.id).ok_or_else(|| Status::permission_denied("there is no Link with you here"))?;
            if ask.consumer_cluster != peer.as_str() {
                let what = format!("the Link calls you {peer}, and you call yourself {}", ask.consumer_cluster);
                return Err(Status::failed_precondition(what));
            }
            let incarnation = self.plane.incarnation().to_string();
            Ok(LeaseGrant { generation: published.generation, incarnation })
        })
    }
}

impl Agents for Connection {
    fn report(&self, _: &Subscriber, report: Report) -> Result<(), Status> {
        let published = self.ready()?;
        let shown = self.shown.as_ref().ok_or_else(|| Status::unauthenticated("reports need a certificate"))?;
        let workload = report.workload.map(|workload| workload.to_string()).unwrap_or_default();
        let subject = self.member(&published, shown, &workload, &report.node);
        let subject =
            subject.ok_or_else(|| Status::permission_denied("the certificate does not stand for that workload"))?;
        self.session.get_or_init(|| self.plane.proxies.connected(subject.clone()));
        let report = proxies::Report { admin: report.admin, version: report.version, generation: report.generation };
        self.plane.proxies.report(&subject, report);
        Ok(())
    }
}

fn status(error: IssueError) -> Status {
    let text = error.to_string();
    match error {
        IssueError::Token(RedeemError::Refused(_)) => Status::permission_denied(text),
        IssueError::NoSuch(_) => Status::not_found(text),
        IssueError::NotYours { .. } => Status::permission_denied(text),
        IssueError::Sign(veer_identity::Error::Request(_)) => Status::invalid_argument(text),
        // What went wrong inside is for the log, not for whoever asks.
        error => {
            tracing::error!(%error, "a certificate could not be issued");
            Status::internal("the certificate could not be issued; the control plane's log says why")
        }
    }
}
