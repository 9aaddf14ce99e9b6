//! What an ingress proxy serves: one Gateway of the Gateway API, with everything that its listeners need.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::cidr::Cidr;
use crate::names::ObjectName;
use crate::resource::Resource;
use crate::route::{Backend, HttpRoute, TcpRoute};

/// One Gateway as its proxy serves it. Resource name: the proxy, `namespace/name` of [`proxy_of`]. It holds private keys, and is
/// given to that proxy alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ingress {
    /// The Gateway.
    pub gateway: ObjectName,
    /// Where its listeners are bound.
    pub addresses: Vec<IpAddr>,
    /// Ports in ascending order; of two with one number one is for datagrams.
    #[serde(default)]
    pub ports: Vec<IngressPort>,
    /// Routes of requests; listeners refer to them by their place here, so that a route at many listeners travels once.
    #[serde(default)]
    pub http_routes: Vec<HttpRoute>,
    /// Shown to backends outside of the mesh that ask who calls (GEP-3155).
    #[serde(default)]
    pub client_certificate: Option<Certificate>,
}

impl Resource for Ingress {
    const TYPE_URL: &'static str = "veer.dev/v1.Ingress";
}

/// The name, and the service account, of the proxy that serves a Gateway: `<gateway>-gateway` in the Gateway's namespace.
pub fn proxy_of(gateway: &ObjectName) -> ObjectName {
    ObjectName { namespace: Arc::clone(&gateway.namespace), name: format!("{}-gateway", gateway.name).into() }
}

/// A port and who listens on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IngressPort {
    /// Number.
    pub port: u16,
    /// What tells its listeners apart.
    pub kind: PortKind,
    /// Who must say by the PROXY protocol, in front of each connection's bytes, whose connection it is; connections of others are closed.
    /// `None`: nobody says so.
    #[serde(default)]
    pub proxy_protocol: Option<Arc<[Cidr]>>,
    /// Its listeners; no two have the same host name.
    pub listeners: Vec<IngressListener>,
}

/// How the listeners of a port are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortKind {
    /// By the host that a request in clear text names.
    Http,
    /// By the server name of the ClientHello (RFC 6066 §3).
    Tls,
    /// There is only one.
    Tcp,
    /// There is only one, and what comes are datagrams.
    Udp,
}

/// A listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IngressListener {
    /// Its name in the Gateway, or `<namespace>/<ListenerSet>/<name>`.
    pub name: Arc<str>,
    /// Host that it is for, `*.example.com` for all below; `None`: every host.
    #[serde(default)]
    pub hostname: Option<Arc<str>>,
    /// Certificates, where TLS ends here; the first that fits the client is shown.
    #[serde(default)]
    pub certificates: Vec<Certificate>,
    /// What is asked of clients, where TLS ends here; `None`: no certificate.
    #[serde(default)]
    pub clients: Option<ClientCertificates>,
    /// What is done with a connection.
    pub serves: Serves,
}

/// What is asked of clients (GEP-91).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ClientCertificates {
    /// Certificates of the authorities that may vouch for clients, PEM.
    pub authorities_pem: Arc<str>,
    /// Clients without a valid certificate are served like others (`AllowInsecureFallback`).
    #[serde(default)]
    pub optional: bool,
}

/// What a listener does with a connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Serves {
    /// Requests go to the backends of these routes.
    Http(Vec<AttachedHttp>),
    /// Bytes, after TLS has ended here if there are certificates, go to the backends of these routes.
    Bytes(Vec<AttachedStream>),
    /// Datagrams go to the endpoints of the first of these routes.
    Datagrams(Vec<DatagramRoute>),
}

/// A route of datagrams (UDPRoute). They go to endpoints of this cluster in clear text: nothing of the mesh carries them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatagramRoute {
    /// The object that said so.
    pub name: ObjectName,
    /// Weighted.
    pub backends: Vec<Backend>,
    /// Of each backend the endpoints that take something new.
    pub endpoints: Vec<Vec<SocketAddr>>,
}

/// A route of requests at a listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedHttp {
    /// Hosts for which it acts here: those of route and listener that intersect. Empty: every host.
    #[serde(default)]
    pub hostnames: Vec<Arc<str>>,
    /// Place in [`Ingress::http_routes`].
    pub route: usize,
}

/// A route of bytes at a listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedStream {
    /// Server names for which it acts here. Empty: every name, and none.
    #[serde(default)]
    pub hostnames: Vec<Arc<str>>,
    /// Where bytes go.
    pub route: TcpRoute,
}

/// A certificate with its key. The key is never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Leaf first, PEM.
    pub chain_pem: Arc<str>,
    /// PEM.
    pub key_pem: Arc<str>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificate")
    }
}
