//! Meaning: what types alone do not say. This file has `metadata`; its children have the kinds.

use std::collections::HashMap;
use std::sync::Arc;

use veer_core::Cidr;
use veer_core::names::SYSTEM_NAMESPACE;

use crate::decode::Failed;
use crate::diagnostic::{Diagnostic, Location, Severity};
use crate::node::clip;
use crate::object::{Kind, KindName, Object};
use crate::positions::Positions;
use crate::suggest::nearest;
use crate::types::*;

mod backend_tls;
mod fault;
pub(crate) mod fleet;
mod gateway;
mod grammar;
mod own;
mod route;
mod service;
pub mod set;
mod xbackend;

/// Settles in which namespace an object lives.
pub(crate) fn scope(
    kind: KindName,
    meta: &mut ObjectMeta,
    at: &Location,
    positions: &Positions,
    out: &mut Vec<Diagnostic>,
) {
    if kind.is_namespaced() {
        if meta.namespace.is_empty() {
            meta.namespace = DEFAULT_NAMESPACE.into();
        }
    } else if !meta.namespace.is_empty() {
        let failed = Failed::default();
        let mut check = Check { file: &at.file, positions, failed: &failed, out };
        let reason = format!("a {kind} lives in no namespace");
        check.warning("V0030", "metadata.namespace", &reason, "remove it");
        meta.namespace = Arc::default();
    }
}

/// What is wrong with an object by itself.
pub(crate) fn object(object: &Object, failed: &Failed, out: &mut Vec<Diagnostic>) {
    let mut check = Check { file: &object.at.file, positions: &object.positions, failed, out };
    metadata(&mut check, object);
    match &object.kind {
        Kind::Namespace => {}
        Kind::Service(spec) => service::service(&mut check, spec),
        Kind::EndpointSlice(slice) => service::slice(&mut check, &object.meta, slice),
        Kind::ServiceExport(spec) => service::export(&mut check, &object.meta, spec),
        Kind::ServiceImport(spec) => service::import(&mut check, spec),
        Kind::HttpRoute(spec) => route::http(&mut check, spec),
        Kind::GrpcRoute(spec) => route::grpc(&mut check, spec),
        Kind::TcpRoute(spec) => route::tcp(&mut check, spec),
        Kind::TlsRoute(spec) => route::tls(&mut check, spec),
        Kind::UdpRoute(spec) => route::udp(&mut check, spec),
        Kind::Gateway(spec) => gateway::gateway(&mut check, spec),
        Kind::GatewayClass(spec) => gateway::class(&mut check, &object.meta, spec),
        Kind::ListenerSet(spec) => gateway::set(&mut check, spec),
        Kind::Secret(spec) => gateway::secret(&mut check, spec),
        Kind::ConfigMap(_) => {}
        Kind::ClusterTrustBundle(spec) => gateway::trust_bundle(&mut check, spec),
        Kind::ReferenceGrant(spec) => route::grant(&mut check, spec),
        Kind::Workload(spec) => own::workload(&mut check, spec),
        Kind::Link(spec) => own::link(&mut check, spec),
        Kind::TrafficPolicy(spec) => own::traffic(&mut check, &object.meta, spec),
        Kind::BackendTrafficPolicy(spec) => own::backend_traffic(&mut check, spec),
        Kind::BackendTlsPolicy(spec) => backend_tls::policy(&mut check, spec),
        Kind::XBackend(spec) => xbackend::xbackend(&mut check, spec),
        Kind::AuthorizationPolicy(spec) => own::authorization(&mut check, spec),
    }
}

/// Reports faults of fields by their paths.
pub(crate) struct Check<'a> {
    file: &'a Arc<str>,
    positions: &'a Positions,
    failed: &'a Failed,
    out: &'a mut Vec<Diagnostic>,
}

impl<'a> Check<'a> {
    pub(crate) fn new(
        file: &'a Arc<str>,
        positions: &'a Positions,
        failed: &'a Failed,
        out: &'a mut Vec<Diagnostic>,
    ) -> Self {
        Self { file, positions, failed, out }
    }

    fn report(&mut self, severity: Severity, code: &'static str, path: &str, reason: &str, mend: &str) {
        let path = &*self.failed.written(path);
        let (line, column) = self.positions.find(path).unwrap_or((1, 1));
        let at = Location { file: Arc::clone(self.file), line, column };
        self.out.push(Diagnostic::new(severity, code, &at, format!("{path}: {reason}"), mend.to_owned()));
    }

    fn error(&mut self, code: &'static str, path: &str, reason: &str, mend: &str) {
        self.report(Severity::Error, code, path, reason, mend);
    }

    fn warning(&mut self, code: &'static str, path: &str, reason: &str, mend: &str) {
        self.report(Severity::Warning, code, path, reason, mend);
    }

    /// Reports a text that broke a grammar.
    fn text(&mut self, code: &'static str, path: &str, text: &str, checked: Result<(), String>, mend: &str) {
        if let Err(rule) = checked {
            self.error(code, path, &format!("{:?} {rule}", clip(text)), mend);
        }
    }

    fn label(&mut self, path: &str, text: &str) {
        self.text("V0018", path, text, grammar::label(text), "write a DNS label like \"cart-2\"");
    }

    fn hostname(&mut self, path: &str, text: &str) {
        self.text("V0026", path, text, grammar::hostname(text), "write a host name like shop.example.com");
    }

    /// Whether the field is written at all.
    fn is_written(&self, path: &str) -> bool {
        self.positions.has(&self.failed.written(path))
    }

    /// Whether a list is empty because nothing stands in it, not because nothing of it could be read.
    fn is_empty<T>(&self, path: &str, list: &[T]) -> bool {
        list.is_empty() && !self.failed.has(&self.failed.written(path))
    }

    /// Whether a field is absent because it is not written, not because it could not be read: that was told already.
    fn is_missing<T>(&self, path: &str, field: &Option<T>) -> bool {
        field.is_none() && !self.failed.has(&self.failed.written(path))
    }

    /// Reports what is written twice in a list.
    fn distinct<T: std::fmt::Display>(&mut self, list: &str, field: &str, values: impl Iterator<Item = Option<T>>) {
        let mut seen = HashMap::new();
        for (index, value) in values.enumerate().filter_map(|(index, value)| Some((index, value?.to_string()))) {
            match seen.get(&value) {
                Some(first) => {
                    let reason = format!("{} is already that of {list}[{first}]", clip(&value));
                    self.error("V0020", &format!("{list}[{index}].{field}"), &reason, "give each its own");
                }
                None => drop(seen.insert(value, index)),
            }
        }
    }

    fn app_protocol(&mut self, path: &str, text: Option<&Arc<str>>) {
        if let Some(text) = text
            && veer_core::AppProtocol::from_kubernetes(Some(text), None).1
        {
            let known = ["http", "http2", "kubernetes.io/h2c", "kubernetes.io/ws", "grpc", "tcp", "tls", "https"];
            let mend = match nearest(text, known) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("write one of {}, or remove it", known.join(", ")),
            };
            let reason = format!("{:?} is not known; the protocol is detected from the first bytes", clip(text));
            self.warning("V0023", path, &reason, &mend);
        }
    }

    fn transport(&mut self, path: &str, transport: &Transport) {
        if matches!(transport, Transport::Udp | Transport::Sctp) {
            let reason = format!("{} is not carried by the mesh; the port is left out", transport.as_str());
            self.warning(
                "V0037",
                path,
                &reason,
                "none, if that is meant: only UDPRoutes at Gateways lead to UDP ports",
            );
        }
    }
}

fn metadata(check: &mut Check<'_>, object: &Object) {
    let (kind, meta) = (object.kind.name(), &object.meta);
    let (name, at) = (&*meta.name, "metadata.name");
    match kind {
        KindName::Namespace
        | KindName::Service
        | KindName::ServiceExport
        | KindName::ServiceImport
        | KindName::Link => check.label(at, name),
        _ => check.text("V0018", at, name, grammar::subdomain(name), "write a name like \"cart-v2\""),
    }
    if kind.is_namespaced() {
        check.label("metadata.namespace", &meta.namespace);
        if kind == KindName::Workload && &*meta.namespace == SYSTEM_NAMESPACE {
            let reason = format!("identities of {SYSTEM_NAMESPACE} are Veer's own");
            check.error("V0039", "metadata.namespace", &reason, "put the workload into another namespace");
        }
    }
    labels(check, "metadata.labels", &meta.labels);
    for (key, value) in &meta.annotations {
        let path = format!("metadata.annotations[{key:?}]");
        check.text("V0019", &path, key, grammar::qualified(key), "write a key like example.com/owner");
        if key.starts_with("veer.dev/") {
            annotation(check, kind, &path, key, value);
        }
    }
}

fn labels(check: &mut Check<'_>, path: &str, all: &Labels) {
    for (key, value) in all {
        let path = format!("{path}[{key:?}]");
        check.text("V0019", &path, key, grammar::qualified(key), "write a key like app or example.com/app");
        check.text("V0019", &path, value, grammar::label_value(value), "write a value like cart or v1.2");
    }
}

fn annotation(check: &mut Check<'_>, kind: KindName, path: &str, key: &str, value: &str) {
    let (kinds, values): (&[KindName], &[&str]) = match key {
        AUDIENCE => (&[KindName::ServiceExport], &[]),
        SCOPE => (&[KindName::Service], &["clusterset", "cluster"]),
        PER_CLUSTER_NAMES => (&[KindName::ServiceImport], &["true", "false"]),
        PROXY => (&[KindName::Workload], &["external"]),
        CAPTURE => (&[KindName::Workload], &["true", "false"]),
        ACCESS_LOG => (&[KindName::Workload, KindName::Gateway], &["true", "false"]),
        UNSAFE_METHODS => (&[KindName::ServiceExport, KindName::Namespace], &["true", "false"]),
        MTLS => (&[KindName::Namespace, KindName::Workload], &["strict", "permissive"]),
        PROXY_PROTOCOL => (&[KindName::Gateway], &[]),
        _ => {
            let mend = match nearest(key, ANNOTATIONS) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("known: {}", ANNOTATIONS.join(", ")),
            };
            return check.warning("V0029", path, "no annotation of Veer has this name", &mend);
        }
    };
    if !kinds.contains(&kind) {
        let names: Vec<&str> = kinds.iter().map(|k| k.as_str()).collect();
        let reason = format!("has no meaning on a {kind}");
        return check.warning("V0029", path, &reason, &format!("it belongs on a {}", names.join(" or a ")));
    }
    if key == PROXY_PROTOCOL {
        for range in value.split(',').map(str::trim) {
            if let Err(rule) = range.parse::<Cidr>() {
                let mend = "write ranges of load balancers with commas between them, like \"10.0.0.0/8,192.0.2.7\"";
                check.error("V0029", path, &rule, mend);
            }
        }
    }
    if !values.is_empty() && !values.contains(&value) {
        let mend = match nearest(value, values.iter().copied()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("write {}", values.join(" or ")),
        };
        check.error("V0029", path, &format!("{:?} is not understood", clip(value)), &mend);
    }
}
