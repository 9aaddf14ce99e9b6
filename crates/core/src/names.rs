//! Names: clusters, trust domains, SPIFFE IDs, objects, hosts of services, places.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A name was refused; the message says which rule of which grammar it broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?}: {reason}")]
pub struct NameError {
    /// What was being read, in the field's term ("trust domain", "cluster name").
    pub what: &'static str,
    /// The text that was refused.
    pub value: String,
    /// The rule it broke, and what would be accepted.
    pub reason: &'static str,
}

impl NameError {
    fn new(what: &'static str, value: &str, reason: &'static str) -> Self {
        Self { what, value: value.chars().take(256).collect(), reason }
    }
}

macro_rules! text_name {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the grammar and takes the name.
            ///
            /// # Errors
            /// When the text is not of the grammar that the type documents.
            pub fn new(text: &str) -> Result<Self, NameError> {
                $check(text)?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

text_name! {
    /// Name of a Kubernetes-shaped cluster: one DNS label (RFC 1123), at most 63 characters.
    ClusterName, check_cluster
}
text_name! {
    /// A SPIFFE trust domain: lower-case letters, digits, `.`, `-`, `_`; at most 255 characters (SPIFFE-ID §2.1).
    TrustDomain, check_trust_domain
}
text_name! {
    /// Fully qualified host of a service in the mesh, lower case, without a trailing dot:
    /// `cart.shop.svc.cluster.local` (this cluster), `cart.shop.svc.clusterset.local` (every cluster that offers it) or
    /// `cart-east.shop.svc.cluster.local` (the copy in one peer). The canonical key of services and endpoints.
    ServiceHost, check_host
}

fn check_label(what: &'static str, text: &str) -> Result<(), NameError> {
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    match bytes {
        [] => Err(NameError::new(what, text, "is empty")),
        _ if bytes.len() > 63 => Err(NameError::new(what, text, "is longer than 63 characters")),
        _ if !edge(bytes[0]) || !edge(bytes[bytes.len() - 1]) => {
            Err(NameError::new(what, text, "must begin and end with a lower-case letter or a digit"))
        }
        _ if !bytes.iter().all(|&b| edge(b) || b == b'-') => {
            Err(NameError::new(what, text, "may hold lower-case letters, digits and '-' only"))
        }
        _ => Ok(()),
    }
}

fn check_cluster(text: &str) -> Result<(), NameError> {
    check_label("cluster name", text)
}

fn check_trust_domain(text: &str) -> Result<(), NameError> {
    const WHAT: &str = "trust domain";
    if text.is_empty() || text.len() > 255 {
        return Err(NameError::new(WHAT, text, "must have 1 to 255 characters"));
    }
    if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_')) {
        return Err(NameError::new(WHAT, text, "may hold lower-case letters, digits, '.', '-' and '_' only"));
    }
    Ok(())
}

fn check_host(text: &str) -> Result<(), NameError> {
    const WHAT: &str = "service host";
    if text.is_empty() || text.len() > 253 {
        return Err(NameError::new(WHAT, text, "must have 1 to 253 characters"));
    }
    text.split('.').try_for_each(|label| {
        check_label(WHAT, label).map_err(|_| {
            NameError::new(WHAT, text, "must be dot-separated labels of lower-case letters, digits and '-'")
        })
    })
}

/// The suffix of services as this cluster alone sees them.
pub const CLUSTER_SUFFIX: &str = "svc.cluster.local";
/// The suffix of services as all clusters together offer them (KEP-1645, Multi-Cluster Services API).
pub const CLUSTERSET_SUFFIX: &str = "svc.clusterset.local";

impl ServiceHost {
    /// `name.namespace.svc.cluster.local`.
    ///
    /// # Errors
    /// When name or namespace is not a DNS label.
    pub fn cluster_local(object: &ObjectName) -> Result<Self, NameError> {
        Self::new(&format!("{}.{}.{CLUSTER_SUFFIX}", object.name, object.namespace))
    }

    /// `name.namespace.svc.clusterset.local`.
    ///
    /// # Errors
    /// When name or namespace is not a DNS label.
    pub fn clusterset(object: &ObjectName) -> Result<Self, NameError> {
        Self::new(&format!("{}.{}.{CLUSTERSET_SUFFIX}", object.name, object.namespace))
    }

    /// What stands for a destination outside of all clusters (an XBackend); no application can ask for it, for RFC 6761 reserves
    /// `invalid`.
    ///
    /// # Errors
    /// When name or namespace is not a DNS label.
    pub fn external(object: &ObjectName) -> Result<Self, NameError> {
        Self::new(&format!("{}.{}.xbackend.invalid", object.name, object.namespace))
    }

    /// Whether this is a `clusterset.local` host.
    pub fn is_clusterset(&self) -> bool {
        self.0.ends_with(CLUSTERSET_SUFFIX)
    }

    /// Namespace and name when the host is one of ours (`name.namespace.svc.…`).
    pub fn object(&self) -> Option<ObjectName> {
        let mut labels = self.0.splitn(3, '.');
        let (name, namespace, rest) = (labels.next()?, labels.next()?, labels.next()?);
        (rest == CLUSTER_SUFFIX || rest == CLUSTERSET_SUFFIX).then(|| ObjectName::new(namespace, name))
    }

    /// Completes what an application wrote as host (`cart`, `cart.shop`, `cart.shop.svc`, or whole), as Kubernetes'
    /// resolver would from `namespace`. Case and a trailing dot do not matter; a port must have been cut off already.
    /// `None` when the text is not a host name that a service could have (an IP address, an external name).
    pub fn complete(text: &str, namespace: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if text.parse::<std::net::IpAddr>().is_ok() {
            return None;
        }
        let labels = text.split('.').count();
        let whole = match labels {
            1 => format!("{text}.{namespace}.{CLUSTER_SUFFIX}"),
            2 => format!("{text}.{CLUSTER_SUFFIX}"),
            3 if text.ends_with(".svc") => format!("{text}.cluster.local"),
            _ if text.ends_with(CLUSTER_SUFFIX) || text.ends_with(CLUSTERSET_SUFFIX) => text,
            _ => return None,
        };
        Self::new(&whole).ok()
    }
}

/// Namespace and name of an object, shown as `namespace/name`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectName {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name within the namespace and kind.
    pub name: Arc<str>,
}

impl ObjectName {
    /// Takes both parts as they are.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl FromStr for ObjectName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::new(namespace, name))
            }
            _ => Err(NameError::new("object name", text, "must be written namespace/name")),
        }
    }
}
impl TryFrom<String> for ObjectName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}
impl From<ObjectName> for String {
    fn from(object: ObjectName) -> String {
        object.to_string()
    }
}
impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Namespace that Veer's own identities live in; no workload of a user may have an identity there.
pub const SYSTEM_NAMESPACE: &str = "veer-system";

/// A SPIFFE ID of the form `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId {
    /// The cluster's trust domain.
    pub trust_domain: TrustDomain,
    /// Kubernetes namespace of the workload.
    pub namespace: Arc<str>,
    /// Kubernetes service account of the workload.
    pub service_account: Arc<str>,
}

impl SpiffeId {
    /// Takes the parts as they are.
    pub fn new(trust_domain: TrustDomain, namespace: &str, service_account: &str) -> Self {
        Self { trust_domain, namespace: namespace.into(), service_account: service_account.into() }
    }

    /// The reserved identity of a cluster's control plane.
    pub fn control(trust_domain: TrustDomain) -> Self {
        Self::new(trust_domain, SYSTEM_NAMESPACE, "control")
    }

    /// The reserved identity of a cluster's gateways.
    pub fn gateway(trust_domain: TrustDomain) -> Self {
        Self::new(trust_domain, SYSTEM_NAMESPACE, "gateway")
    }

    /// Whether the identity is one of Veer's own.
    pub fn is_system(&self) -> bool {
        &*self.namespace == SYSTEM_NAMESPACE
    }
}

impl FromStr for SpiffeId {
    type Err = NameError;

    /// Reads the one form that Veer issues; anything else, also other valid SPIFFE IDs, is refused.
    fn from_str(text: &str) -> Result<Self, NameError> {
        const WHAT: &str = "SPIFFE ID";
        const FORM: &str = "must be spiffe://<trust domain>/ns/<namespace>/sa/<service account>";
        if text.len() > 2048 {
            return Err(NameError::new(WHAT, text, "is longer than 2048 bytes"));
        }
        let rest = text.strip_prefix("spiffe://").ok_or_else(|| NameError::new(WHAT, text, FORM))?;
        let mut parts = rest.split('/');
        let (Some(domain), Some("ns"), Some(namespace), Some("sa"), Some(account), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NameError::new(WHAT, text, FORM));
        };
        check_label(WHAT, namespace)?;
        // Service accounts are DNS subdomains.
        account.split('.').try_for_each(|label| check_label(WHAT, label))?;
        Ok(Self::new(TrustDomain::new(domain)?, namespace, account))
    }
}
impl TryFrom<String> for SpiffeId {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}
impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> String {
        id.to_string()
    }
}
impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}
impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where something runs. Both parts may be empty when nobody said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Locality {
    /// `topology.kubernetes.io/region`.
    #[serde(default)]
    pub region: Arc<str>,
    /// `topology.kubernetes.io/zone`.
    #[serde(default)]
    pub zone: Arc<str>,
}

/// A hash that all versions and processes agree on (FNV-1a, 64 bits). Not for anything that somebody may want to collide.
pub fn stable_hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hosts_are_completed_as_kubernetes_would() {
        let complete = |text| ServiceHost::complete(text, "shop").map(|h| h.to_string());
        for text in [
            "cart",
            "Cart",
            "cart.shop",
            "cart.shop.svc",
            "cart.shop.svc.cluster.local",
            "cart.shop.svc.cluster.local.",
        ] {
            assert_eq!(complete(text).as_deref(), Some("cart.shop.svc.cluster.local"), "{text}");
        }
        assert_eq!(complete("cart.shop.svc.clusterset.local").as_deref(), Some("cart.shop.svc.clusterset.local"));
        for text in ["", "10.0.0.1", "::1", "www.example.com", "a.b.c.d", "-cart", "ca_rt"] {
            assert_eq!(complete(text), None, "{text}");
        }
    }

    #[test]
    fn a_host_knows_its_object() {
        let host = ServiceHost::new("cart.shop.svc.clusterset.local").unwrap();
        assert_eq!(host.object(), Some(ObjectName::new("shop", "cart")));
        assert_eq!(ServiceHost::new("example.com").unwrap().object(), None);
    }

    #[test]
    fn spiffe_ids_of_other_forms_are_refused() {
        let good = "spiffe://west.example/ns/shop/sa/web";
        assert_eq!(good.parse::<SpiffeId>().unwrap().to_string(), good);
        for bad in [
            "spiffe://west.example/ns/shop/sa/web/",
            "spiffe://west.example/ns/shop/sa/",
            "spiffe:///ns/shop/sa/web",
            "spiffe://West.example/ns/shop/sa/web",
            "spiffe://west.example:80/ns/shop/sa/web",
            "spiffe://west.example/ns/shop/sa/web?x",
            "spiffe://west.example/ns/../sa/web",
            "spiffe://west.example/sa/web/ns/shop",
            "https://west.example/ns/shop/sa/web",
        ] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_written_back(text in "\\PC{0,80}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
