//! Objects → meaning.
//!
//! [`compile`] is a pure function of a [`World`] (the manifests of one cluster, what its peers offer, and the cluster's own
//! configuration) to its [`Meaning`]: services, endpoints, the callee's side of every workload, paths to peers, roots, offers
//! to peers, and everything that is wrong with the manifests. No clock, no sockets, no randomness. [`Compiler`] does the same
//! for worlds that follow one another, with work in proportion to what changed.
//!
//! # Hosts of a service
//!
//! | host | there when | endpoints |
//! |---|---|---|
//! | `x.ns.svc.cluster.local` | a Service is there | this cluster's; with `veer.dev/scope: clusterset` also the peers' |
//! | `x.ns.svc.clusterset.local` | exported with an audience, imported, or offered by a peer | this cluster's if it exports the Service (or scopes it so), then the peers' |
//! | `x-<peer>.ns.svc.cluster.local` | the ServiceImport asks for per-cluster names and the peer offers it | the peer's |
//!
//! # Consent
//!
//! Nothing that a peer says is used unless its Link provides for it (`admit`); what is not used is listed in
//! [`Meaning::refused`]. This departs from the Multi-Cluster Services API, where whoever exports a name first joins it.
//!
//! # Routes
//!
//! A route in its Service's namespace is a *producer* route, for all callers; one in another namespace is a *consumer* route
//! for the callers of that namespace, and for them replaces the producer's. The producer's routes travel with the export.
//! What this version does not understand fails closed: the rule answers 500 and a fault says so.

mod admit;
mod authorities;
mod backend_tls;
mod callee;
mod catalog;
mod checks;
mod compiler;
mod explain;
mod export;
mod external;
mod faults;
mod http;
mod ingress;
mod links;
mod meaning;
mod members;
mod memo;
mod policies;
mod ports;
mod route_status;
mod routes;
mod said;
mod service;
mod shape;
pub mod status;
mod view;
mod world;

pub use compiler::{Compiler, compile};
pub use explain::{RouteLine, explain_routes};
pub use ingress::{IngressProxy, ingress_proxies};
pub use meaning::{Meaning, Refused};
pub use world::{ClusterConfig, PeerView, TokenSealer, World};
