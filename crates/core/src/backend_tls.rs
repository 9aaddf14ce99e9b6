//! TLS toward endpoints that are not in the mesh (Gateway API, BackendTLSPolicy, GEP-1897). Endpoints of the mesh need none of it:
//! they are called by mutual TLS and their SPIFFE identity.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// How the endpoints behind one port of a service are spoken to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BackendTls {
    /// Port of the service.
    pub service_port: u16,
    /// Server name that is asked for (RFC 6066 §3); the certificate must be for it, unless [`Self::names`] says otherwise.
    pub hostname: Arc<str>,
    /// Names of which the certificate must have one. Empty: [`Self::hostname`].
    #[serde(default)]
    pub names: Vec<SubjectName>,
    /// Who may vouch for the certificate.
    pub authorities: Authorities,
}

/// A name in a certificate (RFC 5280 §4.2.1.6).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SubjectName {
    /// A DNS name; `*.example.com` stands for every host one label below.
    Hostname(Arc<str>),
    /// A URI, to the letter.
    Uri(Arc<str>),
}

/// Who may vouch for a backend.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Authorities {
    /// These certificates, PEM.
    Pem(Arc<str>),
    /// Those that the system of the proxy trusts.
    System,
    /// Nobody, for this reason: the policy is broken, and no connection is made. Never clear text in its place.
    Nobody(Arc<str>),
}
