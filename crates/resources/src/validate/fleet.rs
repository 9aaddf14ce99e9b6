//! Meaning of a fleet.

use std::collections::HashMap;
use std::sync::Arc;

use super::Check;
use crate::decode::Failed;
use crate::diagnostic::Diagnostic;
use crate::positions::Positions;
use crate::suggest::nearest;
use crate::types::Fleet;

pub(crate) fn check(fleet: &Fleet, positions: &Positions, failed: &Failed, file: &Arc<str>, out: &mut Vec<Diagnostic>) {
    let mut check = Check::new(file, positions, failed, out);
    let check = &mut check;
    let clusters = &fleet.clusters;
    if check.is_empty("spec.clusters", clusters) {
        check.error("V0011", "spec.clusters", "a fleet has at least one cluster", "add one");
    }
    check.distinct("spec.clusters", "name", clusters.iter().map(|c| Some(&c.name)));
    check.distinct("spec.clusters", "trustDomain", clusters.iter().map(|c| Some(&c.trust_domain)));
    check.distinct("spec.clusters", "manifests", clusters.iter().map(|c| Some(&c.manifests)));
    let mut taken = HashMap::new();
    for (index, cluster) in clusters.iter().enumerate() {
        let base = format!("spec.clusters[{index}]");
        check.distinct(&format!("{base}.gateways"), "name", cluster.gateways.iter().map(|g| Some(&g.name)));
        let control = (format!("{base}.control.address"), cluster.control.address);
        let gateways = cluster.gateways.iter().enumerate();
        let gateways = gateways.map(|(at, gateway)| (format!("{base}.gateways[{at}].address"), gateway.address));
        for (path, address) in std::iter::once(control).chain(gateways) {
            if address.is_unspecified() || address.is_multicast() {
                let reason = format!("{address} is not the address of one process");
                check.error("V0014", &path, &reason, "write an address like 127.1.0.1");
            // Two network namespaces may use the same addresses.
            } else if let Some(other) = taken.insert((&cluster.network_namespace, address), path.clone()) {
                let reason = format!("{address} is taken by {other}");
                check.error("V0020", &path, &reason, "give each process of the fleet its own address");
            }
        }
        for (field, duration) in [("lease", cluster.lease), ("certificateTtl", cluster.certificate_ttl)] {
            if duration.is_some_and(|duration| duration.is_zero()) {
                check.error("V0015", &format!("{base}.{field}"), "cannot be zero", "write a duration like 10s");
            }
        }
    }
    peering(check, fleet);
}

fn peering(check: &mut Check<'_>, fleet: &Fleet) {
    let mut pairs = HashMap::new();
    for (index, peering) in fleet.peering.iter().enumerate() {
        let path = format!("spec.peering[{index}].between");
        for (at, name) in peering.between.iter().enumerate() {
            // A cluster that could not be read may be the one that is meant.
            if fleet.cluster(name.as_str()).is_none() && !check.failed.has("spec.clusters") {
                let mend = match nearest(name.as_str(), fleet.clusters.iter().map(|c| c.name.as_str())) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => "name a cluster of spec.clusters".to_owned(),
                };
                check.error("V0050", &format!("{path}[{at}]"), &format!("there is no cluster {name}"), &mend);
            }
        }
        let [one, other] = &peering.between[..] else {
            if check.failed.has(&check.failed.written(&path)) {
                continue;
            }
            check.error("V0050", &path, "a peering is between two clusters", "write between: [west, east]");
            continue;
        };
        if one == other {
            check.error("V0050", &path, "a cluster does not peer with itself", "name two clusters");
        }
        let pair = if one < other { (one, other) } else { (other, one) };
        if let Some(first) = pairs.insert(pair, index) {
            let reason = format!("{one} and {other} peer already by spec.peering[{first}]");
            check.error("V0020", &path, &reason, "keep one of the two");
        }
    }
}
