//! Where a Gateway is reached, and who serves it.

use std::net::IpAddr;

use veer_core::ObjectName;
use veer_core::ingress::proxy_of;
use veer_resources::{ACCESS_LOG, CONTROLLER_NAME, GATEWAY_CLASS, GatewaySpec, Kind, KindName, Object};

use crate::links::age;
use crate::memo::Key;
use crate::status::No;
use crate::view::View;

/// A proxy that serves a Gateway: what a supervisor has to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngressProxy {
    /// The Gateway.
    pub gateway: ObjectName,
    /// Name under which the proxy joins.
    pub proxy: ObjectName,
    /// Its first address: the one from which it calls, and where its admin server is.
    pub address: IpAddr,
    /// Whether the Gateway asks for an access log (`veer.dev/access-log`).
    pub access_log: bool,
}

/// The proxies that the Gateways among these objects need. Whether a Gateway is served is the control plane's to say: a proxy that
/// stands by without a listener harms nobody.
pub fn ingress_proxies(objects: &[Object]) -> Vec<IngressProxy> {
    let class = |name: &str| {
        objects.iter().find_map(|object| match &object.kind {
            Kind::GatewayClass(spec) if &*object.meta.name == name => Some(&*spec.controller_name == CONTROLLER_NAME),
            _ => None,
        })
    };
    let proxy = |object: &Object| {
        let Kind::Gateway(spec) = &object.kind else { return None };
        let name = &*spec.gateway_class_name;
        let ours = class(name).unwrap_or(name == GATEWAY_CLASS);
        let address = wanted(spec).next().filter(|_| ours)?;
        Some(IngressProxy {
            gateway: object.name(),
            proxy: proxy_of(&object.name()),
            address,
            access_log: object.meta.annotation(ACCESS_LOG) == Some("true"),
        })
    };
    objects.iter().filter_map(proxy).collect()
}

/// Whether Veer serves Gateways of the class. The class `veer` is there without an object.
pub(crate) fn serves_class(view: View<'_>, name: &str) -> bool {
    match view.object(KindName::GatewayClass, &ObjectName::new("", name)).map(|object| &object.kind) {
        Some(Kind::GatewayClass(spec)) => &*spec.controller_name == CONTROLLER_NAME,
        _ => name == GATEWAY_CLASS,
    }
}

/// The addresses that a Gateway asks for.
pub(crate) fn wanted(spec: &GatewaySpec) -> impl Iterator<Item = IpAddr> {
    spec.addresses.iter().filter(|a| &*a.address_type == "IPAddress").filter_map(|a| a.value.parse().ok())
}

/// Why the Gateway is not accepted for what it asks of its addresses.
pub(super) fn unsupported(spec: &GatewaySpec) -> Option<No> {
    let other = spec.addresses.iter().find(|address| &*address.address_type != "IPAddress")?;
    Some(("UnsupportedAddress", format!("an address of type {:?} cannot be bound", &*other.address_type)))
}

/// The addresses that are the Gateway's, and why that is not all that it needs.
pub(super) fn usable(view: View<'_>, object: &Object, spec: &GatewaySpec) -> (Vec<IpAddr>, Option<No>) {
    let mut usable = Vec::new();
    let mut no = None;
    for address in wanted(spec) {
        let ours = |gateway: &&Object| match &gateway.kind {
            Kind::Gateway(spec) => serves_class(view, &spec.gateway_class_name),
            _ => false,
        };
        let owner = view.listed(Key::GatewaysAt(address)).filter(ours).min_by_key(|gateway| age(gateway));
        let taken = match owner {
            Some(owner) if owner.key() != object.key() => {
                Some(format!("{address} belongs to Gateway {}", owner.name()))
            }
            _ => view.owner_of(address).map(|workload| format!("{address} belongs to Workload {}", workload.name())),
        };
        match taken {
            Some(message) => no = Some(("AddressNotUsable", message)),
            None => usable.push(address),
        }
    }
    if usable.is_empty() && no.is_none() {
        let message = "no address is assigned: write spec.addresses, for Veer assigns none by itself".to_owned();
        no = Some(("AddressNotAssigned", message));
    }
    let proxy = proxy_of(&object.name());
    if view.object(KindName::Workload, &proxy).is_some() {
        let message = format!("Workload {proxy} has the name that the Gateway's own proxy would have");
        return (Vec::new(), Some(("NoResources", message)));
    }
    (usable, no)
}
