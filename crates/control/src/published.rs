//! What is served: one immutable snapshot at a time, and who may read which part of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;
use veer_compile::Refused;
use veer_core::gateway::Path;
use veer_core::inbound::TrustBundle;
use veer_core::offer::PeerGateways;
use veer_core::{
    ClusterName, Endpoints, GatewayConfig, Inbound, Ingress, Offer, Resource, Service, SpiffeId, TrustDomain,
};
use veer_resources::Diagnostic;

use crate::encoded::{Encoded, Table};
use crate::links::Link;
use crate::objects::{self, Shown};
use crate::tokens::Subject;

/// One generation of everything.
#[derive(Debug)]
pub(crate) struct Published {
    pub generation: u64,
    pub since: Instant,
    /// Workloads and gateways, and their identities.
    pub directory: BTreeMap<Subject, SpiffeId>,
    pub links: BTreeMap<ClusterName, Link>,
    pub services: Table<Service>,
    pub endpoints: Table<Endpoints>,
    pub inbound: Table<Inbound>,
    /// By the proxy that serves it, and for it alone: private keys are in it.
    pub ingress: Table<Ingress>,
    /// By that proxy, the generation that first had what it serves now.
    pub ingress_since: BTreeMap<String, u64>,
    pub paths: Table<Path>,
    pub bundles: Table<TrustBundle>,
    pub gateway: Table<GatewayConfig>,
    pub peer_gateways: Table<PeerGateways>,
    pub offers: BTreeMap<ClusterName, Table<Offer>>,
    pub refused: Vec<Refused>,
    pub objects: Shown,
    pub faults: Vec<Diagnostic>,
}

/// Who is at the other end of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    /// A proxy beside a Workload, or a gateway, of this cluster.
    Member(Subject),
    /// The control plane of a peer that has a Link.
    Peer(ClusterName),
}

impl Published {
    /// What nothing was ever said about.
    pub(crate) fn empty() -> Self {
        Self {
            generation: 0,
            since: Instant::now(),
            directory: BTreeMap::new(),
            links: BTreeMap::new(),
            services: Table::new(),
            endpoints: Table::new(),
            inbound: Table::new(),
            ingress: Table::new(),
            ingress_since: BTreeMap::new(),
            paths: Table::new(),
            bundles: Table::new(),
            gateway: Table::new(),
            peer_gateways: Table::new(),
            offers: BTreeMap::new(),
            refused: Vec::new(),
            objects: Shown::new(),
            faults: Vec::new(),
        }
    }

    /// Whether another generation would serve the same. Cheap: equal resources are shared.
    pub(crate) fn means_the_same(&self, other: &Self) -> bool {
        same(&self.services, &other.services)
            && same(&self.endpoints, &other.endpoints)
            && same(&self.inbound, &other.inbound)
            && same(&self.ingress, &other.ingress)
            && objects::same(&self.objects, &other.objects)
            && same(&self.paths, &other.paths)
            && same(&self.bundles, &other.bundles)
            && same(&self.gateway, &other.gateway)
            && same(&self.peer_gateways, &other.peer_gateways)
            && self.offers.len() == other.offers.len()
            && self.offers.iter().zip(&other.offers).all(|((a, x), (b, y))| a == b && same(x, y))
            && self.directory == other.directory
            && self.links == other.links
            && self.refused == other.refused
            && self.faults == other.faults
    }

    /// The peer whose control plane has this identity.
    pub(crate) fn peer(&self, id: &SpiffeId) -> Option<&ClusterName> {
        (*id == SpiffeId::control(id.trust_domain.clone())).then(|| self.peer_of(&id.trust_domain)).flatten()
    }

    /// The peer of a trust domain.
    pub(crate) fn peer_of(&self, trust_domain: &TrustDomain) -> Option<&ClusterName> {
        self.links.values().find(|link| link.spec.trust_domain == *trust_domain).map(|link| &link.cluster)
    }

    /// A resource, if it is there and `who` may read it. The two are not told apart: a refusal says nothing about what is
    /// there.
    pub(crate) fn read(&self, who: &Who, type_url: &str, name: &str) -> Option<(String, Bytes)> {
        match who {
            Who::Member(subject) => self.read_as_member(subject, type_url, name),
            Who::Peer(peer) => match type_url {
                Offer::TYPE_URL => wire(self.offers.get(peer)?, name),
                PeerGateways::TYPE_URL => wire(&self.peer_gateways, name),
                _ => None,
            },
        }
    }

    /// The names behind `*`. Only peers may ask for all, and get what was offered to them; a stolen workload cannot list the
    /// cluster.
    pub(crate) fn list(&self, who: &Who, type_url: &str) -> Vec<String> {
        match (who, type_url) {
            (Who::Peer(peer), Offer::TYPE_URL) => {
                self.offers.get(peer).map(|table| table.keys().cloned().collect()).unwrap_or_default()
            }
            (Who::Peer(_), PeerGateways::TYPE_URL) => self.peer_gateways.keys().cloned().collect(),
            _ => Vec::new(),
        }
    }

    fn read_as_member(&self, subject: &Subject, type_url: &str, name: &str) -> Option<(String, Bytes)> {
        // Deletion of the Workload ends what its certificate is good for here, too.
        if !self.directory.contains_key(subject) {
            return None;
        }
        match (type_url, subject) {
            (Service::TYPE_URL, Subject::Workload(_)) => wire(&self.services, name),
            (Endpoints::TYPE_URL, Subject::Workload(_)) => wire(&self.endpoints, name),
            (Path::TYPE_URL, _) => wire(&self.paths, name),
            (TrustBundle::TYPE_URL, _) => wire(&self.bundles, name),
            (Inbound::TYPE_URL, Subject::Workload(own)) if own.to_string() == name => wire(&self.inbound, name),
            (Ingress::TYPE_URL, Subject::Workload(own)) if own.to_string() == name => wire(&self.ingress, name),
            (GatewayConfig::TYPE_URL, Subject::Gateway(_)) => wire(&self.gateway, name),
            _ => None,
        }
    }
}

fn same<R: Resource>(one: &Table<R>, other: &Table<R>) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|((a, x), (b, y))| a == b && Arc::ptr_eq(x, y))
}

fn wire<R: Resource>(table: &Table<R>, name: &str) -> Option<(String, Bytes)> {
    table.get(name).and_then(|resource: &Arc<Encoded<R>>| resource.wire())
}
