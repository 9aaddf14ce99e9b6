//! BackendTLSPolicy (GEP-1897): which policy acts on which port of a Service, and what its status says.

use std::collections::BTreeMap;
use std::sync::Arc;

use veer_core::ObjectName;
use veer_core::backend_tls::{Authorities, BackendTls};
use veer_resources::{BackendTlsPolicySpec, BackendTlsValidation, Diagnostic, Kind, Object, ObjectRef, SectionTarget};

use crate::authorities::authorities;
use crate::catalog::ObjectKey;
use crate::faults;
use crate::links::age;
use crate::memo::Key;
use crate::status::{Condition, No};
use crate::view::View;

/// What became of one policy; the same wherever its Services are called from.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct PolicyVerdict {
    /// The Services that it is for.
    pub services: Vec<ObjectName>,
    pub conditions: Vec<Condition>,
    pub faults: Vec<Diagnostic>,
}

/// TLS toward the endpoints of a Service that are not in the mesh, by port. A policy for the port itself stands over one for all;
/// of several the older acts, then the first by name. One that acts and is broken lets nobody vouch.
pub(crate) fn backend_tls(view: View<'_>, name: &ObjectName) -> Vec<BackendTls> {
    let policies = policies_of(view, name);
    let Some((_, service)) = view.service(name) else { return Vec::new() };
    let mut found: BTreeMap<u16, BackendTls> = BTreeMap::new();
    for port in &service.ports {
        let acts = |section: Option<&Arc<str>>| {
            policies.iter().find(|(_, spec)| targets(spec, name).any(|target| target.section() == section))
        };
        let own = port.name.as_ref().and_then(|name| acts(Some(name)));
        if let Some((object, spec)) = own.or_else(|| acts(None)) {
            found.entry(port.port).or_insert_with(|| translate(view, object, spec, port.port));
        }
    }
    found.into_values().collect()
}

/// What the status of a policy says, and what is wrong with it.
pub(crate) fn judge(view: View<'_>, key: &ObjectKey) -> PolicyVerdict {
    let mut verdict = PolicyVerdict::default();
    let Some((object, spec)) = view.object(key.0, &key.1).and_then(policy) else { return verdict };
    let Judged { mut accepted, resolved, .. } = authorities_of(view, object, &spec.validation);
    for target in spec.target_refs.iter().filter(|target| target.is_service()) {
        let name = service_of(object, target);
        if let Some(no) = unattached(view, object, target, &name) {
            accepted.get_or_insert(no);
        }
        if !verdict.services.contains(&name) {
            verdict.services.push(name);
        }
    }
    for (no, path) in [(&accepted, "spec"), (&resolved, "spec.validation.caCertificateRefs")] {
        verdict.faults.extend(no.iter().map(|no| faults::backend_tls(object, path, no.0, &no.1)));
    }
    verdict.conditions = vec![
        Condition::unless(object, "Accepted", accepted.as_ref()),
        Condition::unless(object, "ResolvedRefs", resolved.as_ref()),
    ];
    verdict
}

fn policy(object: &Object) -> Option<(&Object, &BackendTlsPolicySpec)> {
    match &object.kind {
        Kind::BackendTlsPolicy(spec) => Some((object, spec)),
        _ => None,
    }
}

/// In the order of precedence.
fn policies_of<'a>(view: View<'a>, service: &ObjectName) -> Vec<(&'a Object, &'a BackendTlsPolicySpec)> {
    let mut all: Vec<_> = view.listed(Key::TlsPolicies(service.clone())).filter_map(policy).collect();
    all.sort_by_key(|(object, _)| age(object));
    all
}

fn service_of(object: &Object, target: &SectionTarget) -> ObjectName {
    ObjectName { namespace: Arc::clone(&object.meta.namespace), name: Arc::clone(&target.name) }
}

/// The targets of a policy that name this Service of its namespace.
fn targets<'a>(spec: &'a BackendTlsPolicySpec, service: &'a ObjectName) -> impl Iterator<Item = &'a SectionTarget> {
    spec.target_refs.iter().filter(|target| target.is_service() && target.name == service.name)
}

/// Why a policy does not act at one of its targets.
fn unattached(view: View<'_>, object: &Object, target: &SectionTarget, name: &ObjectName) -> Option<No> {
    let Some((_, service)) = view.service(name) else {
        return Some(("TargetNotFound", format!("Service {name} does not exist")));
    };
    if let Some(section) = target.section()
        && !service.ports.iter().any(|port| port.name.as_ref() == Some(section))
    {
        return Some(("TargetNotFound", format!("Service {name} has no port named {section}")));
    }
    let earlier = policies_of(view, name).into_iter().take_while(|(other, _)| other.key() != object.key());
    let mut same = earlier.filter(|(_, spec)| targets(spec, name).any(|other| other.section() == target.section()));
    same.next().map(|(other, _)| {
        let what = target.section().map_or("Service".to_owned(), |section| format!("port {section} of Service"));
        ("Conflicted", format!("{} acts on {what} {name} already: it is older, or first by name", other.name()))
    })
}

/// Who may vouch for a backend, and what is wrong with that.
pub(crate) struct Judged {
    pub accepted: Option<No>,
    pub resolved: Option<No>,
    pub authorities: Authorities,
}

/// Who may vouch for a backend of which `object` asks this.
pub(crate) fn authorities_of(view: View<'_>, object: &Object, validation: &BackendTlsValidation) -> Judged {
    let broken = |reason, message: String| {
        let authorities = Authorities::Nobody(message.as_str().into());
        Judged { accepted: Some((reason, message)), resolved: None, authorities }
    };
    let well_known = validation.well_known.as_deref().filter(|name| !name.is_empty());
    if object.failed_closed {
        return broken("Invalid", "the policy could not be read".to_owned());
    }
    if validation.subject_alt_names.iter().any(|name| name.name().is_none()) {
        return broken("Invalid", "a name of spec.validation.subjectAltNames cannot be understood".to_owned());
    }
    if validation.ca_certificate_refs.is_empty() {
        return match well_known {
            Some("System") => Judged { accepted: None, resolved: None, authorities: Authorities::System },
            Some(other) => broken("Invalid", format!("wellKnownCACertificates {other:?} is not known")),
            None => broken("Invalid", "nobody may vouch for the backend".to_owned()),
        };
    }
    let references: Vec<ObjectRef> = validation.ca_certificate_refs.iter().map(ObjectRef::from).collect();
    let found = authorities(view, object, &references);
    let resolved = found.unresolved.map(|(reason, message)| match reason {
        "InvalidCACertificateKind" => ("InvalidKind", message),
        reason => (reason, message),
    });
    if !found.pem.is_empty() {
        return Judged { accepted: None, resolved, authorities: Authorities::Pem(found.pem.into()) };
    }
    let why = resolved.as_ref().map_or("none is named", |no| &no.1);
    let message = format!("there is no certificate of an authority: {why}");
    Judged { resolved: resolved.clone(), ..broken("NoValidCACertificate", message) }
}

fn translate(view: View<'_>, object: &Object, spec: &BackendTlsPolicySpec, service_port: u16) -> BackendTls {
    let Judged { authorities, .. } = authorities_of(view, object, &spec.validation);
    let authorities = match authorities {
        Authorities::Nobody(reason) => Authorities::Nobody(format!("{}: {reason}", object.name()).into()),
        sound => sound,
    };
    let names = spec.validation.subject_alt_names.iter().filter_map(|name| name.name()).collect();
    BackendTls { service_port, hostname: Arc::clone(&spec.validation.hostname), names, authorities }
}
