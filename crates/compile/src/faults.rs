//! What compile finds wrong in objects together: what is wrong with one object alone was said when it was read. Codes `V03…`
//! are compile's; each is made in one place, here, so that the list is the whole list.

use std::fmt::Display;

use veer_core::{ClusterName, ObjectName};
use veer_resources::{Diagnostic, Object};

const ANNOTATION_AUDIENCE: &str = "metadata.annotations[\"veer.dev/audience\"]";

/// The same object in two places.
pub(crate) fn twice(kept: &Object, lost: &Object) -> Diagnostic {
    let (kind, name) = lost.key();
    lost.error(
        "V0301",
        "metadata.name",
        format!("{kind} {name} stands at {} already; this one is not used", kept.at),
        "remove or rename one of the two",
    )
}

/// A service that has no port the mesh could carry.
pub(crate) fn no_ports(service: &Object) -> Diagnostic {
    service.warning(
        "V0311",
        "spec.ports",
        format!("Service {} has no TCP port, so that nobody can call it through the mesh", service.name()),
        "list its ports",
    )
}

/// A virtual address that another service has.
pub(crate) fn address_taken(object: &Object, address: impl Display, by: &Object) -> Diagnostic {
    let reason = format!("virtual address {address} belongs to {} {} already", by.kind.name(), by.name());
    object.error("V0313", "spec", reason, "give each service an address of its own")
}

/// A named target port that a workload does not have.
pub(crate) fn target_port(service: &Object, index: usize, name: &str, workload: &ObjectName) -> Diagnostic {
    let reason = format!("targetPort {name:?} leads nowhere at Workload {workload}, which has no port of this name");
    service.warning(
        "V0314",
        &format!("spec.ports[{index}].targetPort"),
        reason,
        "name the port in the Workload, or write a number",
    )
}

/// A service that nobody serves.
pub(crate) fn nobody_serves(service: &Object) -> Diagnostic {
    let reason = format!(
        "nobody serves Service {}: its selector selects no Workload and it has no EndpointSlice",
        service.name()
    );
    service.warning("V0315", "spec.selector", reason, "write labels that Workloads of its namespace have")
}

/// An export of something that is not there.
pub(crate) fn export_of_nothing(export: &Object) -> Diagnostic {
    let reason = format!("there is no Service {} to export", export.name());
    export.error("V0320", "metadata.name", reason, "a ServiceExport has the name and namespace of its Service")
}

/// An audience of a cluster without a Link.
pub(crate) fn audience_unknown(export: &Object, peer: &ClusterName) -> Diagnostic {
    let reason = format!("the audience names {peer}, and there is no Link of this name");
    export.warning("V0321", ANNOTATION_AUDIENCE, reason, format!("add a Link {peer}, or take it out of the audience"))
}

/// An export with endpoints that cannot be offered.
pub(crate) fn export_unmeshed(export: &Object, count: usize) -> Diagnostic {
    let reason = format!(
        "{count} endpoint(s) of {} are not in the mesh and are not offered: nothing crosses clusters in plaintext",
        export.name()
    );
    export.warning("V0322", "metadata.name", reason, "make each of them a Workload")
}

/// An import that nobody offers.
pub(crate) fn import_of_nothing(import: &Object) -> Diagnostic {
    let reason = format!("nobody offers {} to this cluster (now)", import.name());
    import.warning(
        "V0330",
        "metadata.name",
        reason,
        "export it in another cluster to this one, and let the Link provide it",
    )
}

/// A per-cluster name that a Service has, or that is no name.
pub(crate) fn peer_name(import: &Object, name: &ObjectName, why: &str) -> Diagnostic {
    let reason = format!("the per-cluster name {name} {why}");
    import.error("V0331", "metadata.annotations[\"veer.dev/per-cluster-names\"]", reason, "rename one of the two")
}

/// An import's port that nobody offers.
pub(crate) fn import_port(import: &Object, index: usize, port: u16) -> Diagnostic {
    let reason = format!("nobody who offers {} has a port {port}", import.name());
    import.warning("V0332", &format!("spec.ports[{index}].port"), reason, "write a port that is offered")
}

/// A Link that claims what is not its peer's.
pub(crate) fn link_claims(link: &Object, path: &str, what: impl Display) -> Diagnostic {
    link.error(
        "V0340",
        path,
        format!("Link {} claims {what}; it is ignored", link.meta.name),
        "each cluster has a name and a trust domain of its own",
    )
}

/// A parent that does not exist.
pub(crate) fn parent_nowhere(route: &Object, index: usize, what: impl Display) -> Diagnostic {
    let reason = format!("the route attaches to {what}, which does not exist");
    route.error(
        "V0350",
        &format!("spec.parentRefs[{index}].name"),
        reason,
        "write the name and namespace of a service of this cluster",
    )
}

/// A port of a parent that does not exist.
pub(crate) fn parent_port(route: &Object, index: usize, what: impl Display) -> Diagnostic {
    route.error(
        "V0351",
        &format!("spec.parentRefs[{index}]"),
        what.to_string(),
        "write a port of the service, or none for all of them",
    )
}

/// A backend that cannot serve: its share is answered 500.
pub(crate) fn backend(route: &Object, path: &str, reason: &str) -> Diagnostic {
    route.error(
        "V0352",
        path,
        format!("{reason}; its share of requests is answered with 500"),
        "refer to a service and port that exist and may be used",
    )
}

/// A reference to a backend for copies that leads nowhere.
pub(crate) fn mirror(route: &Object, path: &str, reason: impl Display) -> Diagnostic {
    let mend = "write a Service or ServiceImport that is there, with one of its ports";
    route.error("V0357", path, format!("{reason}; no copies are sent"), mend)
}

/// Something that this version does not act on, in a rule that fails closed.
pub(crate) fn unsupported(route: &Object, path: &str, reason: &str) -> Diagnostic {
    let mend =
        "write the rule without it; a rule that is not understood is never served as if that part were not there";
    route.error("V0353", path, format!("{reason}; requests for this rule are answered with 500"), mend)
}

/// A route that loses against another.
pub(crate) fn route_loses(at: &veer_resources::Location, reason: String) -> Diagnostic {
    Diagnostic::warning("V0354", at, reason, "attach routes of one kind to a port")
}

/// A policy for something that does not exist.
pub(crate) fn policy_target(policy: &Object, at: &str, what: impl Display) -> Diagnostic {
    policy.error(
        "V0360",
        &format!("{at}.name"),
        format!("the policy is for {what}, which does not exist"),
        "write the name of a service or route of this namespace",
    )
}

/// A second policy for one target.
pub(crate) fn policy_loses(policy: &Object, at: &str, reason: &str) -> Diagnostic {
    policy.error("V0361", at, format!("{reason}; this one is not used"), "write one policy for each target")
}

/// Something in a policy that means nothing where it is attached.
pub(crate) fn policy_unfit(policy: &Object, field: &str, reason: &str) -> Diagnostic {
    let mend = "write it in a policy for the Service, or for its Namespace";
    policy.error("V0363", &format!("spec.{field}"), reason.to_owned(), mend)
}

/// An AuthorizationPolicy for nobody.
pub(crate) fn selects_nothing(policy: &Object) -> Diagnostic {
    policy.warning(
        "V0362",
        "spec.selector",
        "no Workload of this namespace has these labels",
        "write labels that workloads have",
    )
}

/// A workload in Veer's own namespace.
pub(crate) fn system_namespace(workload: &Object) -> Diagnostic {
    let reason =
        format!("Workload {} would have an identity that is reserved for Veer itself; it is ignored", workload.name());
    workload.error("V0370", "metadata.namespace", reason, "use another namespace")
}

/// A workload at an address that another one has.
pub(crate) fn workload_address(workload: &Object, by: &Object) -> Diagnostic {
    let reason = format!("the address belongs to Workload {} at {} already; this one is ignored", by.name(), by.at);
    workload.error("V0371", "spec.address", reason, "give each workload an address of its own")
}

/// A slice of a service that is not there.
pub(crate) fn slice_nowhere(slice: &Object, service: &ObjectName) -> Diagnostic {
    let reason = format!("the slice belongs to Service {service}, which does not exist");
    let mend = "name a Service of its namespace in the label kubernetes.io/service-name";
    slice.warning("V0380", "metadata.labels[\"kubernetes.io/service-name\"]", reason, mend)
}

/// A Gateway that cannot be served as it is written.
pub(crate) fn gateway(gateway: &Object, reason: &str, message: &str) -> Diagnostic {
    let path = if reason.starts_with("Address") || reason == "UnsupportedAddress" { "spec.addresses" } else { "spec" };
    gateway.error("V0390", path, format!("{reason}: {message}"), "`veer get gateway` shows its status")
}

/// A listener that is not served, or not as it is written.
pub(crate) fn listener(owner: &Object, path: &str, message: &str) -> Diagnostic {
    let mend = format!("`veer get {}` shows its status", owner.kind.name().as_str().to_lowercase());
    owner.error("V0391", path, message.to_owned(), mend)
}

/// A ListenerSet that its Gateway does not take.
pub(crate) fn listener_set(set: &Object, message: &str) -> Diagnostic {
    set.error(
        "V0392",
        "spec.parentRef",
        message.to_owned(),
        "allow its namespace in the Gateway's spec.allowedListeners",
    )
}

/// A route that its parent's listeners do not take.
pub(crate) fn route_parent(route: &Object, index: usize, reason: &str, message: &str) -> Diagnostic {
    let path = format!("spec.parentRefs[{index}]");
    let mend = "compare names, ports, kinds, namespaces and host names of the route and the listeners";
    route.error("V0393", &path, format!("{reason}: {message}"), mend)
}

/// An XBackend that nobody is led to, or not as it is written.
pub(crate) fn xbackend(backend: &Object, reason: &str, message: &str) -> Diagnostic {
    let mend = "`veer get xbackend` shows its status; what it leaves open is never sent in clear text";
    backend.error("V0395", "spec", format!("{reason}: {message}"), mend)
}

/// A BackendTLSPolicy that does not act as it is written.
pub(crate) fn backend_tls(policy: &Object, path: &str, reason: &str, message: &str) -> Diagnostic {
    let mend = "`veer get backendtlspolicy` shows its status; what it leaves open is never sent in clear text";
    policy.error("V0394", path, format!("{reason}: {message}"), mend)
}
