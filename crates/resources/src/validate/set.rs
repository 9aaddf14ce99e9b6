//! Meaning of the objects of one cluster together. An object stays in use whatever is found here: these are references that
//! lead nowhere, and Kubernetes has them resolved by whoever acts on them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use veer_core::{ObjectName, TrustDomain};

use crate::diagnostic::Diagnostic;
use crate::object::{Kind, KindName, Object};
use crate::suggest::nearest;
use crate::types::*;

/// Keeps the first of objects that have kind, namespace and name in common, and of Links that claim one trust domain;
/// reports the others.
pub fn remove_duplicates(objects: &mut Vec<Object>) -> Vec<Diagnostic> {
    let mut first: HashMap<(KindName, ObjectName), String> = HashMap::new();
    let mut domains: HashMap<TrustDomain, String> = HashMap::new();
    let mut out = Vec::new();
    objects.retain(|object| {
        let (kind, name) = object.key();
        if let Some(at) = first.get(&(kind, name.clone())) {
            let name = if name.namespace.is_empty() { name.name.to_string() } else { name.to_string() };
            let reason = format!("{kind} {name} stands already at {at}; that one is used");
            out.push(object.error("V0101", "metadata.name", reason, "remove or rename one of the two"));
            return false;
        }
        if let Kind::Link(spec) = &object.kind {
            if let Some(other) = domains.get(&spec.trust_domain) {
                let reason =
                    format!("{} is the trust domain of the peer {other}; this Link is not used", spec.trust_domain);
                out.push(object.error("V0112", "spec.trustDomain", reason, "every peer has a trust domain of its own"));
                return false;
            }
            domains.insert(spec.trust_domain.clone(), name.name.to_string());
        }
        first.insert((kind, name), object.at.to_string());
        true
    });
    out
}

/// What is wrong with the references between the objects of one cluster: for tools that look at manifests alone. A control
/// plane does not need it: `veer-compile` knows what peers offer, and reports the same faults under its own codes.
pub fn check_set(objects: &[Object]) -> Vec<Diagnostic> {
    let index = Index::of(objects);
    let mut out = Vec::new();
    for object in objects {
        match &object.kind {
            Kind::Service(spec) => index.service(object, spec, &mut out),
            Kind::ServiceExport(_) => index.export(object, &mut out),
            Kind::HttpRoute(spec) => {
                let rules = spec.rules.iter().map(|rule| rule.backend_refs.as_slice());
                index.route(object, &spec.parent_refs, rules, &mut out);
            }
            Kind::GrpcRoute(spec) => {
                let rules = spec.rules.iter().map(|rule| rule.backend_refs.as_slice());
                index.route(object, &spec.parent_refs, rules, &mut out);
            }
            Kind::TlsRoute(spec) => {
                let rules = spec.rules.iter().map(|rule| rule.backend_refs.as_slice());
                index.route(object, &spec.parent_refs, rules, &mut out);
            }
            Kind::UdpRoute(spec) => {
                let rules = spec.rules.iter().map(|rule| rule.backend_refs.as_slice());
                index.route(object, &spec.parent_refs, rules, &mut out);
            }
            Kind::TcpRoute(spec) => {
                let rules = spec.rules.iter().map(|rule| rule.backend_refs.as_slice());
                index.route(object, &spec.parent_refs, rules, &mut out);
            }
            Kind::TrafficPolicy(spec) => index.policy(object, spec, &mut out),
            Kind::BackendTrafficPolicy(spec) => {
                for (at, target) in spec.target_refs.iter().enumerate() {
                    index.traffic(object, &format!("spec.targetRefs[{at}]"), target, &mut out);
                }
            }
            Kind::AuthorizationPolicy(spec) => index.authorization(object, spec, &mut out),
            _ => {}
        }
    }
    shared_addresses(objects, &mut out);
    shared_targets(objects, &mut out);
    out
}

struct Index<'a> {
    services: HashMap<ObjectName, &'a ServiceSpec>,
    imports: HashSet<ObjectName>,
    /// Services that an EndpointSlice gives members.
    sliced: HashSet<(Arc<str>, Arc<str>)>,
    /// By namespace, then by one label.
    workloads: HashMap<Arc<str>, Vec<(&'a Object, &'a WorkloadSpec)>>,
    labelled: HashMap<(&'a str, &'a str, &'a str), Vec<(&'a Object, &'a WorkloadSpec)>>,
    grants: Vec<(&'a Object, &'a ReferenceGrantSpec)>,
    xbackends: HashSet<ObjectName>,
    /// HTTPRoutes and GRPCRoutes.
    routes: HashSet<(KindName, ObjectName)>,
    has_links: bool,
}

impl<'a> Index<'a> {
    fn of(objects: &'a [Object]) -> Self {
        let mut index = Self {
            services: HashMap::new(),
            imports: HashSet::new(),
            sliced: HashSet::new(),
            workloads: HashMap::new(),
            labelled: HashMap::new(),
            grants: Vec::new(),
            xbackends: HashSet::new(),
            routes: HashSet::new(),
            has_links: false,
        };
        for object in objects {
            match &object.kind {
                Kind::Service(spec) => drop(index.services.insert(object.name(), spec)),
                Kind::ServiceImport(_) => drop(index.imports.insert(object.name())),
                Kind::EndpointSlice(_) => {
                    if let Some(service) = object.meta.labels.get(SERVICE_NAME_LABEL) {
                        index.sliced.insert((Arc::clone(&object.meta.namespace), Arc::clone(service)));
                    }
                }
                Kind::Workload(spec) => {
                    let namespace = &object.meta.namespace;
                    index.workloads.entry(Arc::clone(namespace)).or_default().push((object, spec));
                    for (key, value) in &object.meta.labels {
                        index.labelled.entry((namespace, key, value)).or_default().push((object, spec));
                    }
                }
                Kind::ReferenceGrant(spec) => index.grants.push((object, spec)),
                Kind::XBackend(_) => drop(index.xbackends.insert(object.name())),
                Kind::HttpRoute(_) | Kind::GrpcRoute(_) => drop(index.routes.insert(object.key())),
                Kind::Link(_) => index.has_links = true,
                _ => {}
            }
        }
        index
    }

    fn service(&self, object: &Object, spec: &ServiceSpec, out: &mut Vec<Diagnostic>) {
        let elsewhere = object.meta.is_clusterset_scoped() || self.imports.contains(&object.name());
        let sliced = self.sliced.contains(&(Arc::clone(&object.meta.namespace), Arc::clone(&object.meta.name)));
        if spec.service_type == ServiceType::ExternalName {
            return;
        }
        let Some((key, value)) = spec.selector.first_key_value() else {
            if !sliced && !elsewhere {
                let reason = "the Service has neither a selector nor an EndpointSlice: nobody serves it";
                out.push(object.warning("V0102", "spec", reason, "add a selector"));
            }
            return;
        };
        let candidates = self.labelled.get(&(&*object.meta.namespace, &**key, &**value));
        let selected = candidates.into_iter().flatten().filter(|(w, _)| selects(&spec.selector, &w.meta.labels));
        let selected: Vec<_> = selected.collect();
        if selected.is_empty() {
            if !sliced && !elsewhere {
                let reason = format!("no Workload of the namespace {} has these labels", object.meta.namespace);
                let mend = self.selector_mend(&object.meta.namespace, &spec.selector);
                out.push(object.warning("V0102", "spec.selector", reason, mend));
            }
            return;
        }
        for (index, port) in spec.ports.iter().enumerate().filter(|(_, port)| port.protocol == Transport::Tcp) {
            let target = port.target();
            let Some((lacking, has)) = selected.iter().find(|(_, workload)| workload.port(&target).is_none()) else {
                continue;
            };
            let field = if port.target_port.is_some() { "targetPort" } else { "port" };
            let reason = format!("the Workload {} has no port {target}", lacking.name());
            let ports = has.ports.iter().map(|port| match &port.name {
                Some(name) => format!("{name} ({})", port.port),
                None => port.port.to_string(),
            });
            let ports: Vec<String> = ports.collect();
            let mend = if ports.is_empty() {
                "add it to spec.ports of the Workload".to_owned()
            } else {
                format!("it has {}", ports.join(", "))
            };
            out.push(object.warning("V0103", &format!("spec.ports[{index}].{field}"), reason, mend));
        }
    }

    fn selector_mend(&self, namespace: &str, selector: &Labels) -> String {
        let workloads = self.workloads.get(namespace).into_iter().flatten();
        let pairs: BTreeSet<String> =
            workloads.flat_map(|(w, _)| w.meta.labels.iter().map(|(k, v)| format!("{k}: {v}"))).take(1000).collect();
        let missing = selector.iter().map(|(k, v)| format!("{k}: {v}")).find(|pair| !pairs.contains(pair));
        match missing.and_then(|pair| nearest(&pair, pairs.iter().map(String::as_str))) {
            Some(near) => format!("did you mean {near:?}?"),
            None => "add a Workload with these labels, or mend the selector".to_owned(),
        }
    }

    fn export(&self, object: &Object, out: &mut Vec<Diagnostic>) {
        if !self.services.contains_key(&object.name()) {
            let reason = format!("there is no Service {} to export", object.name());
            let mend = self.service_mend(&object.meta.namespace, &object.meta.name);
            out.push(object.warning("V0106", "metadata.name", reason, mend));
        }
    }

    fn service_mend(&self, namespace: &str, name: &str) -> String {
        let names =
            self.services.keys().filter(|service| &*service.namespace == namespace).map(|service| &*service.name);
        match nearest(name, names) {
            Some(near) => format!("did you mean {near:?}?"),
            None => "add the Service, or mend the name".to_owned(),
        }
    }

    fn route<'r>(
        &self,
        object: &Object,
        parents: &[ParentRef],
        rules: impl Iterator<Item = &'r [BackendRef]>,
        out: &mut Vec<Diagnostic>,
    ) {
        for (index, parent) in parents.iter().enumerate() {
            if parent.target() == Some(TargetKind::Service) {
                self.parent(object, &format!("spec.parentRefs[{index}]"), parent, out);
            } else if parent.target() == Some(TargetKind::ServiceImport) {
                let name = name_in(object, parent.namespace.as_ref(), &parent.name);
                self.import(object, "V0105", &format!("spec.parentRefs[{index}].name"), &name, out);
            }
        }
        for (rule, refs) in rules.enumerate() {
            for (index, backend) in refs.iter().enumerate() {
                self.backend(object, &format!("spec.rules[{rule}].backendRefs[{index}]"), backend, out);
            }
        }
    }

    fn parent(&self, object: &Object, at: &str, parent: &ParentRef, out: &mut Vec<Diagnostic>) {
        let name = name_in(object, parent.namespace.as_ref(), &parent.name);
        let Some(service) = self.services.get(&name) else {
            let reason = format!("there is no Service {name}; the route acts on nothing by this parent");
            let mend = self.service_mend(&name.namespace, &name.name);
            out.push(object.warning("V0105", &format!("{at}.name"), reason, mend));
            return;
        };
        let (mend, mut wrong) = (has_ports(service), None);
        if parent.port.is_some_and(|number| !service.ports.iter().any(|port| port.port == number)) {
            wrong = Some("port");
        } else if parent.section_name.is_some() && !service.ports.iter().any(|port| port.name == parent.section_name) {
            wrong = Some("sectionName");
        }
        if let Some(field) = wrong {
            let reason = format!("the Service {name} has no such port; the route acts on nothing by this parent");
            out.push(object.warning("V0105", &format!("{at}.{field}"), reason, mend));
        }
    }

    fn backend(&self, object: &Object, at: &str, backend: &BackendRef, out: &mut Vec<Diagnostic>) {
        let name = name_in(object, backend.namespace.as_ref(), &backend.name);
        if backend.is_xbackend() && !self.xbackends.contains(&name) {
            let reason = format!("there is no XBackend {name}: this share is answered with 500");
            out.push(object.warning("V0104", &format!("{at}.name"), reason, "add the XBackend, or mend the name"));
        }
        let Some(target) = backend.target() else { return };
        if target == TargetKind::ServiceImport {
            self.import(object, "V0104", &format!("{at}.name"), &name, out);
        } else if let Some(service) = self.services.get(&name) {
            if backend.port.is_some_and(|number| !service.ports.iter().any(|port| port.port == number)) {
                let reason = format!("the Service {name} has no such port: this share is answered with 500");
                out.push(object.warning("V0104", &format!("{at}.port"), reason, has_ports(service)));
            }
        } else {
            let reason = format!("there is no Service {name}: this share is answered with 500");
            let mend = self.service_mend(&name.namespace, &name.name);
            out.push(object.warning("V0104", &format!("{at}.name"), reason, mend));
        }
        if name.namespace != object.meta.namespace && !self.granted(object, target, &name) {
            let reason = format!("no ReferenceGrant in {} permits it: this share is answered with 500", name.namespace);
            let mend = format!(
                "add a ReferenceGrant in {} from {} of {}",
                name.namespace,
                object.kind.name(),
                object.meta.namespace
            );
            out.push(object.warning("V0109", &format!("{at}.namespace"), reason, mend));
        }
    }

    /// Imports come into being by peers' offers, so a missing manifest is a fault only where there are no peers.
    fn import(&self, object: &Object, code: &'static str, at: &str, name: &ObjectName, out: &mut Vec<Diagnostic>) {
        if !self.has_links && !self.imports.contains(name) && !self.services.contains_key(name) {
            let reason = format!("there is no ServiceImport {name}, and no Link to a peer that could offer it");
            out.push(object.warning(code, at, reason, "add a Link to the cluster that exports it"));
        }
    }

    fn granted(&self, from: &Object, kind: TargetKind, to: &ObjectName) -> bool {
        self.grants.iter().any(|(grant, spec)| {
            grant.meta.namespace == to.namespace
                && spec.from.iter().any(|f| {
                    (&*f.group, &*f.kind) == (from.kind.name().group(), from.kind.name().as_str())
                        && f.namespace == from.meta.namespace
                })
                && spec.to.iter().any(|t| {
                    TargetKind::of(&t.group, &t.kind) == Some(kind)
                        && t.name.as_ref().is_none_or(|name| *name == to.name)
                })
        })
    }

    fn traffic(&self, object: &Object, at: &str, target: &PolicyTarget, out: &mut Vec<Diagnostic>) {
        let name = name_in(object, None, &target.name);
        let at = &format!("{at}.name");
        match target.target() {
            Some(TargetKind::Service) if !self.services.contains_key(&name) => {
                let reason = format!("there is no Service {name}; the policy acts on nothing");
                out.push(object.warning("V0107", at, reason, self.service_mend(&name.namespace, &name.name)));
            }
            Some(TargetKind::ServiceImport) => self.import(object, "V0107", at, &name, out),
            _ => {}
        }
    }

    /// A TrafficPolicy, which may be for more than services.
    fn policy(&self, object: &Object, spec: &TrafficPolicySpec, out: &mut Vec<Diagnostic>) {
        let Some(kind @ (KindName::HttpRoute | KindName::GrpcRoute)) = spec.target_ref.policed() else {
            return self.traffic(object, "spec.targetRef", &spec.target_ref, out);
        };
        let name = name_in(object, None, &spec.target_ref.name);
        if !self.routes.contains(&(kind, name.clone())) {
            let reason = format!("there is no {kind} {name}; the policy acts on nothing");
            out.push(object.warning(
                "V0107",
                "spec.targetRef.name",
                reason,
                "write the name of a route of its namespace",
            ));
        }
        for field in spec.unfit_for_routes() {
            let reason = format!("means nothing at a {kind}; every request for the route is answered with 500");
            let mend = "write it in a policy for the Service, or for its Namespace";
            out.push(object.error("V0114", &format!("spec.{field}"), reason, mend));
        }
    }

    fn authorization(&self, object: &Object, spec: &AuthorizationPolicySpec, out: &mut Vec<Diagnostic>) {
        let Some(selector) = &spec.selector else { return };
        let workloads = self.workloads.get(&object.meta.namespace);
        if !workloads.into_iter().flatten().any(|(workload, _)| spec.selects(&workload.meta.labels)) {
            let reason = "selects no Workload of its namespace; the policy protects nothing";
            let mend = self.selector_mend(&object.meta.namespace, &selector.match_labels);
            out.push(object.warning("V0108", "spec.selector", reason, mend));
        }
    }
}

fn name_in(object: &Object, namespace: Option<&Arc<str>>, name: &Arc<str>) -> ObjectName {
    ObjectName { namespace: Arc::clone(namespace.unwrap_or(&object.meta.namespace)), name: Arc::clone(name) }
}

fn has_ports(service: &ServiceSpec) -> String {
    let ports: Vec<String> = service
        .ports
        .iter()
        .map(|port| match &port.name {
            Some(name) => format!("{} ({name})", port.port),
            None => port.port.to_string(),
        })
        .collect();
    format!("it has {}", ports.join(", "))
}

/// A Workload has its address for itself, as a Pod has: its proxy listens there.
fn shared_addresses(objects: &[Object], out: &mut Vec<Diagnostic>) {
    let mut taken = HashMap::new();
    for object in objects {
        let Kind::Workload(spec) = &object.kind else { continue };
        if !spec.is_up() {
            continue;
        }
        if let Some(other) = taken.insert(spec.address, object) {
            let reason = format!("{} is the address of the Workload {} already", spec.address, other.name());
            let mend = "give each Workload its own address; on one machine 127.1.0.2, 127.1.0.3, …";
            out.push(object.warning("V0111", "spec.address", reason, mend));
        }
    }
}

fn shared_targets(objects: &[Object], out: &mut Vec<Diagnostic>) {
    let mut taken: HashMap<_, &Object> = HashMap::new();
    for object in objects {
        let Kind::TrafficPolicy(spec) = &object.kind else { continue };
        let target = (spec.target_ref.policed(), name_in(object, None, &spec.target_ref.name));
        if let Some(other) = taken.insert(target, object) {
            let reason = format!("the TrafficPolicy {} has the same target; the first by name counts", other.name());
            out.push(object.warning("V0110", "spec.targetRef.name", reason, "put both into one"));
        }
    }
}
