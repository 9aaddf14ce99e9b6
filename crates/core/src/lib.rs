//! The words of the mesh.
//!
//! Everything here is plain data: what a cluster *means* once its manifests were read, in the terms of the Gateway API,
//! the Multi-Cluster Services API and SPIFFE. The control plane produces these values (`veer-compile`), the xDS session
//! carries them as resources, and the proxy acts on them without translating them again. No clock, no sockets, no files.

pub mod backend_tls;
pub mod cidr;
pub mod endpoints;
pub mod fault;
pub mod gateway;
pub mod hashing;
pub mod inbound;
pub mod ingress;
pub mod names;
pub mod offer;
pub mod pattern;
pub mod policy;
pub mod rate;
pub mod resource;
pub mod route;
pub mod service;
pub mod sni;
pub mod time;
mod words;
pub mod written;

pub use cidr::Cidr;
pub use endpoints::{ClusterEndpoints, Endpoint, EndpointPort, Endpoints, Reach};
pub use gateway::{GatewayConfig, Path, PathGateway};
pub use inbound::{Inbound, InboundPort};
pub use ingress::Ingress;
pub use names::{ClusterName, Locality, ObjectName, ServiceHost, SpiffeId, TrustDomain};
pub use offer::Offer;
pub use pattern::{Pattern, PatternError};
pub use resource::{Known, Resource};
pub use service::{AppProtocol, Service, ServicePort};
