//! BackendTLSPolicy (Gateway API, GEP-1897).

use std::sync::Arc;

use veer_core::backend_tls::SubjectName;

use super::{Labels, ObjectRef};
use crate::decode::{manifest, open_enum};

manifest! {
    /// `spec` of a BackendTLSPolicy.
    #[derive(Default)]
    pub struct BackendTlsPolicySpec {
        /// The Services that it is for, in the policy's own namespace.
        pub target_refs: Vec<SectionTarget> = "targetRefs" => required,
        /// What is asked of the backend.
        pub validation: BackendTlsValidation = "validation" => required,
        /// Choices of an implementation. Veer has none.
        pub options: Labels = "options",
    }
    ignored []
}

impl BackendTlsPolicySpec {
    /// What stands in for a policy that could not be read: nobody may vouch for its backends, so that no connection is made.
    pub fn broken(target_refs: Vec<SectionTarget>) -> Self {
        Self { target_refs, ..Self::default() }
    }
}

manifest! {
    /// A Service, or one of its ports, in the policy's own namespace.
    #[derive(Default)]
    pub struct SectionTarget {
        /// API group.
        pub group: Arc<str> = "group",
        /// Kind.
        pub kind: Arc<str> = "kind" => required,
        /// Name.
        pub name: Arc<str> = "name" => required,
        /// Name of a port; `None`: all ports.
        pub section_name: Option<Arc<str>> = "sectionName",
    }
    ignored []
}

impl SectionTarget {
    /// Whether it names a Service, the only kind that is served.
    pub fn is_service(&self) -> bool {
        (self.group.is_empty() || &*self.group == "core") && &*self.kind == "Service"
    }

    /// The port that it names.
    pub fn section(&self) -> Option<&Arc<str>> {
        self.section_name.as_ref().filter(|name| !name.is_empty())
    }
}

manifest! {
    /// What is asked of a backend.
    #[derive(Default)]
    pub struct BackendTlsValidation {
        /// Where the authorities' certificates are.
        pub ca_certificate_refs: Vec<LocalRef> = "caCertificateRefs",
        /// Authorities that are known by name: `System`.
        pub well_known: Option<Arc<str>> = "wellKnownCACertificates",
        /// Server name, and the name that the certificate must have, unless there are [`Self::subject_alt_names`].
        pub hostname: Arc<str> = "hostname" => required,
        /// Names of which the certificate must have one.
        pub subject_alt_names: Vec<SubjectAltName> = "subjectAltNames",
    }
    ignored []
}

manifest! {
    /// Refers to an object of the referrer's namespace.
    #[derive(Default)]
    pub struct LocalRef {
        /// API group.
        pub group: Arc<str> = "group",
        /// Kind.
        pub kind: Arc<str> = "kind" => required,
        /// Name.
        pub name: Arc<str> = "name" => required,
    }
    ignored []
}

impl From<&LocalRef> for ObjectRef {
    fn from(local: &LocalRef) -> Self {
        let LocalRef { group, kind, name } = local.clone();
        ObjectRef { group, kind, namespace: None, name }
    }
}

manifest! {
    /// A name in a certificate.
    #[derive(Default)]
    pub struct SubjectAltName {
        /// Which field holds it.
        pub name_type: SubjectAltNameType = "type" => required,
        /// A DNS name.
        pub hostname: Option<Arc<str>> = "hostname",
        /// A URI.
        pub uri: Option<Arc<str>> = "uri",
    }
    ignored []
}

impl SubjectAltName {
    /// The name; `None` when it is not written, or of a type that is not known.
    pub fn name(&self) -> Option<SubjectName> {
        let written = |text: &Option<Arc<str>>| text.clone().filter(|text| !text.is_empty());
        match self.name_type {
            SubjectAltNameType::Hostname => written(&self.hostname).map(SubjectName::Hostname),
            SubjectAltNameType::Uri => written(&self.uri).map(SubjectName::Uri),
            SubjectAltNameType::Unknown(_) => None,
        }
    }
}

open_enum! {
    /// The type of a name in a certificate.
    pub enum SubjectAltNameType {
        /// A DNS name.
        Hostname = "Hostname",
        /// A URI.
        Uri = "URI",
    }
    default Hostname
}
