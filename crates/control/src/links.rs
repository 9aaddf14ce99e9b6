//! The Links that hold: one per peer, with a trust domain of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use veer_core::gateway::PathGateway;
use veer_core::inbound::TrustBundle;
use veer_core::offer::PeerGateways;
use veer_core::{ClusterName, TrustDomain};
use veer_resources::types::LinkSpec;
use veer_resources::{Kind, Object};

/// A Link that holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// The peer.
    pub cluster: ClusterName,
    /// All that is pinned about it.
    pub spec: Arc<LinkSpec>,
}

impl Link {
    /// The roots that are believed for the peer's trust domain.
    pub fn bundle(&self) -> TrustBundle {
        TrustBundle { trust_domain: self.spec.trust_domain.clone(), roots_pem: self.spec.bundle.to_string() }
    }

    /// Where the peer's control plane is dialled: gateways that the peer stated and the Link allows, those that drain last, then
    /// the pinned ones that were not among them.
    pub fn dial(&self, stated: Option<&PeerGateways>) -> Vec<SocketAddr> {
        let stated = stated.filter(|stated| stated.trust_domain == self.spec.trust_domain);
        let mut gateways: Vec<&PathGateway> = stated
            .iter()
            .flat_map(|stated| &stated.gateways)
            .filter(|gateway| self.allows(gateway.address.ip()))
            .collect();
        gateways.sort_by_key(|gateway| gateway.draining);
        let pinned = self.spec.gateways.iter().map(|gateway| gateway.address.0);
        let mut seen = BTreeSet::new();
        gateways
            .into_iter()
            .map(|gateway| gateway.address)
            .chain(pinned)
            .filter(|address| seen.insert(*address))
            .collect()
    }

    /// Whether the peer may hand out the address.
    pub fn allows(&self, address: IpAddr) -> bool {
        self.spec.allows(address)
    }
}

/// The Links among the objects that hold, by peer. A Link that names this cluster, or a trust domain that is this cluster's or
/// another Link's (the older Link keeps it, then the smaller name), is not believed; `veer-compile` judges the same and
/// reports it with its place.
pub fn links(objects: &[Object], own: &ClusterName, own_domain: &TrustDomain) -> BTreeMap<ClusterName, Link> {
    let mut all: Vec<(&Object, &Arc<LinkSpec>)> = objects
        .iter()
        .filter_map(|object| match &object.kind {
            Kind::Link(spec) => Some((object, spec)),
            _ => None,
        })
        .collect();
    all.sort_by_key(|(object, _)| {
        let created = &object.meta.creation_timestamp;
        (created.is_none(), created.clone(), object.name())
    });
    let mut taken = BTreeSet::from([own_domain.clone()]);
    let mut links = BTreeMap::new();
    for (object, spec) in all {
        if let Ok(cluster) = ClusterName::new(&object.meta.name)
            && cluster != *own
            && !links.contains_key(&cluster)
            && taken.insert(spec.trust_domain.clone())
        {
            links.insert(cluster.clone(), Link { cluster, spec: Arc::clone(spec) });
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use veer_resources::parse;

    use super::*;

    fn link(name: &str, domain: &str) -> String {
        format!(
            "apiVersion: veer.dev/v1alpha1\nkind: Link\nmetadata: {{name: {name}}}\nspec:\n  trustDomain: {domain}\n  \
             bundle: \"-----BEGIN CERTIFICATE-----x-----END CERTIFICATE-----\"\n  gateways:\n  - {{name: g1, address: \"10.0.0.1:15443\"}}\n  - {{name: g2, address: \"10.0.0.2:15443\"}}\n---\n"
        )
    }

    fn read(text: &str) -> BTreeMap<ClusterName, Link> {
        let (objects, _) = parse("links.yaml", text);
        links(&objects, &ClusterName::new("west").unwrap(), &TrustDomain::new("west.example").unwrap())
    }

    #[test]
    fn a_link_cannot_take_what_is_taken() {
        let text = [
            link("east", "east.example"),
            link("east2", "east.example"),
            link("west", "other.example"),
            link("mallory", "west.example"),
        ];
        assert_eq!(read(&text.concat()).keys().map(ClusterName::as_str).collect::<Vec<_>>(), ["east"]);
    }

    #[test]
    fn stated_gateways_are_dialled_first_and_only_within_the_link() {
        let links = read(&link("east", "east.example"));
        let east = &links["east"];
        let gateway = |address: &str, draining| PathGateway {
            name: "g".into(),
            address: address.parse().unwrap(),
            weight: 1,
            draining,
        };
        let stated = PeerGateways {
            cluster: ClusterName::new("east").unwrap(),
            trust_domain: TrustDomain::new("east.example").unwrap(),
            gateways: vec![gateway("10.0.0.1:7", true), gateway("10.0.0.2:7", false), gateway("10.9.9.9:7", false)],
        };
        let dial: Vec<String> = east.dial(Some(&stated)).iter().map(ToString::to_string).collect();
        assert_eq!(dial, ["10.0.0.2:7", "10.0.0.1:7", "10.0.0.1:15443", "10.0.0.2:15443"]);
        let other = PeerGateways { trust_domain: TrustDomain::new("x").unwrap(), ..stated };
        assert_eq!(east.dial(Some(&other)).len(), 2, "another trust domain's word does not count");
    }
}
