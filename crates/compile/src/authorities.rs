//! Certificates of authorities that an object refers to.

use std::sync::Arc;

use veer_core::ObjectName;
use veer_resources::{Kind, KindName, Object, ObjectRef, has_pem};

use crate::routes::granted;
use crate::status::No;
use crate::view::View;

/// What the references of one object lead to.
#[derive(Debug, Default)]
pub(crate) struct Authorities {
    /// All certificates that were found, PEM, one after the other; empty: none.
    pub pem: String,
    /// Why the first of those that were not found was not.
    pub unresolved: Option<No>,
}

/// Reads references to ConfigMaps, Secrets (both with a key `ca.crt`) and ClusterTrustBundles.
pub(crate) fn authorities(view: View<'_>, owner: &Object, references: &[ObjectRef]) -> Authorities {
    let mut found = Authorities::default();
    for reference in references {
        match one(view, owner, reference) {
            Ok(pem) => {
                found.pem.push_str(&pem);
                if !pem.ends_with('\n') {
                    found.pem.push('\n');
                }
            }
            Err(no) => drop(found.unresolved.get_or_insert(no)),
        }
    }
    found
}

fn one(view: View<'_>, owner: &Object, reference: &ObjectRef) -> Result<Arc<str>, No> {
    let kind = match (&*reference.group, &*reference.kind) {
        ("" | "core", "ConfigMap") => KindName::ConfigMap,
        ("" | "core", "Secret") => KindName::Secret,
        ("certificates.k8s.io", "ClusterTrustBundle") => KindName::ClusterTrustBundle,
        (group, kind) => {
            let message = format!("{kind} of the group {group:?} holds no certificates of authorities");
            return Err(("InvalidCACertificateKind", message));
        }
    };
    let namespace = match kind.is_namespaced() {
        true => Arc::clone(reference.namespace.as_ref().unwrap_or(&owner.meta.namespace)),
        false => Arc::default(),
    };
    let name = ObjectName { namespace, name: Arc::clone(&reference.name) };
    let shown = if kind.is_namespaced() { name.to_string() } else { name.name.to_string() };
    let is_own = !kind.is_namespaced() || name.namespace == owner.meta.namespace;
    if !is_own && !granted(view, owner, kind.group(), kind.as_str(), &name) {
        let (from, to) = (owner.kind.name(), &name.namespace);
        let message = format!("no ReferenceGrant in namespace {to} lets {from} refer to {kind} {shown}");
        return Err(("RefNotPermitted", message));
    }
    let Some(object) = view.object(kind, &name) else {
        return Err(("InvalidCACertificateRef", format!("{kind} {shown} does not exist")));
    };
    let (key, pem) = match &object.kind {
        Kind::ConfigMap(map) => ("ca.crt", map.authorities.as_ref()),
        Kind::Secret(secret) => ("ca.crt", secret.authorities()),
        Kind::ClusterTrustBundle(bundle) => ("spec.trustBundle", Some(&bundle.trust_bundle)),
        _ => ("ca.crt", None),
    };
    match pem.filter(|pem| has_pem(pem, "CERTIFICATE")) {
        Some(pem) => Ok(Arc::clone(pem)),
        None => Err(("InvalidCACertificateRef", format!("{kind} {shown} holds no sound certificates in {key}"))),
    }
}
