//! Peers: whose word is taken for what, and over which gateways they are reached.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use veer_core::gateway::Lease;
use veer_core::inbound::TrustBundle;
use veer_core::{ClusterName, Path, PathGateway, Reach, TrustDomain};
use veer_resources::{Diagnostic, Kind, KindName, LinkNetwork, LinkSpec, Object};

use crate::catalog::Catalog;
use crate::faults;
use crate::meaning::Refused;
use crate::world::{ClusterConfig, PeerView};

/// A Link as far as services depend on it: not the peer's lease, nor its gateways of the moment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Peer {
    pub trust_domain: TrustDomain,
    pub reach: Reach,
    pub link: Arc<LinkSpec>,
}

/// All Links together.
#[derive(Default)]
pub(crate) struct Links {
    pub peers: BTreeMap<ClusterName, Arc<Peer>>,
    pub paths: BTreeMap<ClusterName, Path>,
    pub bundles: BTreeMap<TrustDomain, TrustBundle>,
    pub refused: Vec<Refused>,
    pub faults: Vec<Diagnostic>,
}

/// Reads the Links. A Link that claims what belongs to this cluster or to another Link is ignored: the older one, then the
/// smaller name, keeps a trust domain.
pub(crate) fn read(cluster: &ClusterConfig, catalog: &Catalog, views: &[PeerView]) -> Links {
    let views: HashMap<&ClusterName, &PeerView> = views.iter().map(|view| (&view.cluster, view)).collect();
    let mut objects: Vec<&Object> = catalog.of_kind(KindName::Link).collect();
    objects.sort_by_cached_key(|object| age(object));
    let mut links = Links::default();
    links.bundles.insert(cluster.trust_domain.clone(), cluster.bundle.clone());
    for object in objects {
        if let Kind::Link(spec) = &object.kind {
            links.take(cluster, object, spec, &views);
        }
    }
    for name in views.keys().filter(|name| !links.peers.contains_key(**name)) {
        links.refused.push(Refused::whole((*name).clone(), "there is no Link for this cluster".into()));
    }
    links
}

impl Links {
    fn take(
        &mut self,
        cluster: &ClusterConfig,
        object: &Object,
        spec: &Arc<LinkSpec>,
        views: &HashMap<&ClusterName, &PeerView>,
    ) {
        let Ok(name) = ClusterName::new(&object.meta.name) else {
            let what = format!("the name {:?}, which no cluster can have", object.meta.name);
            self.faults.push(faults::link_claims(object, "metadata.name", what));
            return;
        };
        let wrong = if name == cluster.name {
            Some(("metadata.name", "the name of this very cluster".to_owned()))
        } else if self.peers.contains_key(&name) {
            Some(("metadata.name", format!("the name {name}, which another Link has")))
        } else if spec.trust_domain == cluster.trust_domain {
            Some(("spec.trustDomain", "the trust domain of this very cluster".to_owned()))
        } else {
            let taken = self.peers.iter().find(|(_, peer)| peer.trust_domain == spec.trust_domain);
            taken
                .map(|(by, _)| ("spec.trustDomain", format!("trust domain {}, which Link {by} has", spec.trust_domain)))
        };
        if let Some((path, what)) = wrong {
            self.faults.push(faults::link_claims(object, path, what));
            return;
        }
        let view = views.get(&name).copied();
        let path = Path {
            cluster: name.clone(),
            trust_domain: spec.trust_domain.clone(),
            gateways: self.gateways(&name, spec, view),
            lease: view.map_or(Lease::Silent, |view| view.lease),
            lease_duration: spec.lease,
        };
        self.paths.insert(name.clone(), path);
        let bundle = TrustBundle { trust_domain: spec.trust_domain.clone(), roots_pem: spec.bundle.to_string() };
        self.bundles.insert(spec.trust_domain.clone(), bundle);
        let reach = if spec.network == LinkNetwork::Flat { Reach::Flat } else { Reach::Gateway };
        let peer = Peer { trust_domain: spec.trust_domain.clone(), reach, link: Arc::clone(spec) };
        self.peers.insert(name, Arc::new(peer));
    }

    /// The gateways that the peer states now and may hand out; when it stated none of these, the pinned ones.
    fn gateways(&mut self, name: &ClusterName, spec: &LinkSpec, view: Option<&PeerView>) -> Vec<PathGateway> {
        let mut gateways = Vec::new();
        match view.and_then(|view| view.gateways.as_ref()) {
            Some(stated) if stated.cluster != *name || stated.trust_domain != spec.trust_domain => {
                let who = format!("it calls itself {} of trust domain {}", stated.cluster, stated.trust_domain);
                self.refused.push(Refused::whole(name.clone(), who));
            }
            Some(stated) => {
                for gateway in stated.gateways.iter().take(MAX_GATEWAYS) {
                    if spec.allows(gateway.address.ip()) {
                        gateways.push(gateway.clone());
                    } else {
                        let reason =
                            format!("gateway {} is outside the addresses that its Link allows", gateway.address);
                        self.refused.push(Refused::whole(name.clone(), reason));
                    }
                }
            }
            None => {}
        }
        if gateways.is_empty() {
            gateways = spec.gateways.iter().map(pinned).collect();
        }
        gateways.sort_by(|a, b| (&a.name, a.address).cmp(&(&b.name, b.address)));
        gateways
    }
}

/// More gateway replicas than this of one peer are not looked at.
const MAX_GATEWAYS: usize = 256;

fn pinned(gateway: &veer_resources::LinkGateway) -> PathGateway {
    PathGateway {
        name: Arc::clone(&gateway.name),
        address: gateway.address.0,
        weight: gateway.weight,
        draining: gateway.draining,
    }
}

/// Orders objects as Kubernetes settles conflicts: the older first, then by name. One without a time stamp counts as younger
/// than all that have one.
pub(crate) fn age(object: &Object) -> (bool, Arc<str>, veer_core::ObjectName) {
    let created = object.meta.creation_timestamp.clone();
    (created.is_none(), created.unwrap_or_default(), object.name())
}
