//! Services: a host, its ports, and the routes that act on each port.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::names::{ClusterName, ServiceHost};
use crate::resource::Resource;
use crate::route::{HttpRoute, TcpRoute};

/// A service as callers name it. Resource name: the host, or one of its virtual addresses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Canonical host; also the name of the [`Endpoints`](crate::Endpoints) resource behind it.
    pub host: ServiceHost,
    /// What the host stands for.
    #[serde(default)]
    pub scope: ServiceScope,
    /// Virtual addresses (ClusterIPs); empty for headless services.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Ports in ascending order.
    #[serde(default)]
    pub ports: Vec<ServicePort>,
}

impl Service {
    /// The port a caller named, if the service has it.
    pub fn port(&self, port: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|p| p.port == port)
    }
}

impl Resource for Service {
    const TYPE_URL: &'static str = "veer.dev/v1.Service";
}

/// Which copies a service's host stands for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceScope {
    /// The copies in this cluster.
    #[default]
    Cluster,
    /// The copies in every cluster that offers it (`clusterset.local`, or a Service annotated `veer.dev/scope: clusterset`).
    ClusterSet,
    /// The copies in one peer (`name-cluster`).
    Peer(ClusterName),
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServicePort {
    /// Port number that callers use.
    pub port: u16,
    /// Name of the port, when it has one.
    #[serde(default)]
    pub name: Option<Arc<str>>,
    /// What is spoken on it.
    #[serde(default)]
    pub protocol: AppProtocol,
    /// HTTPRoutes and GRPCRoutes attached to this port; without any, everything goes to the service itself.
    #[serde(default)]
    pub http_routes: Vec<HttpRoute>,
    /// TCPRoute attached to this port (the first by the Gateway API's conflict rules).
    #[serde(default)]
    pub tcp_route: Option<TcpRoute>,
    /// Consumer TCPRoutes, at most one per namespace of callers; such a caller gets it instead of [`Self::tcp_route`].
    #[serde(default)]
    pub consumer_tcp_routes: Vec<TcpRoute>,
}

/// The application protocol of a port (KEP-3726 `appProtocol`, Gateway API GEP-1911).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AppProtocol {
    /// Nobody said: the first bytes decide, within a bounded wait.
    #[default]
    Detect,
    /// HTTP/1.1; HTTP/2 from a caller is translated.
    Http1,
    /// HTTP/2 without TLS (`kubernetes.io/h2c`).
    Http2,
    /// gRPC: HTTP/2, and errors made by a proxy are gRPC statuses.
    Grpc,
    /// Bytes; also server-first protocols and TLS that Veer does not terminate.
    Tcp,
}

impl AppProtocol {
    /// Reads `appProtocol`, else the conventional port name prefix (`http-…`, `grpc`); anything else is [`AppProtocol::Detect`].
    /// The flag says whether a non-empty `appProtocol` was not understood, which lint reports.
    pub fn from_kubernetes(app_protocol: Option<&str>, port_name: Option<&str>) -> (Self, bool) {
        let known = |text: &str| {
            Some(match text.to_ascii_lowercase().as_str() {
                "http" | "http1" | "kubernetes.io/ws" | "kubernetes.io/wss" | "ws" => AppProtocol::Http1,
                "http2" | "h2c" | "kubernetes.io/h2c" => AppProtocol::Http2,
                "grpc" => AppProtocol::Grpc,
                "tcp" | "tls" | "https" | "redis" | "mysql" | "postgres" | "postgresql" | "mongo" | "kafka"
                | "amqp" => AppProtocol::Tcp,
                _ => return None,
            })
        };
        match app_protocol.filter(|text| !text.is_empty()) {
            Some(text) => known(text).map_or((AppProtocol::Detect, true), |protocol| (protocol, false)),
            None => {
                let prefix = port_name.and_then(|name| name.split('-').next());
                (prefix.and_then(known).unwrap_or_default(), false)
            }
        }
    }

    /// Whether requests are visible on this port.
    pub fn is_http(self) -> bool {
        matches!(self, AppProtocol::Http1 | AppProtocol::Http2 | AppProtocol::Grpc)
    }
}
