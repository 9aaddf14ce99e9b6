//! The protocol between a control plane and all who follow it.
//!
//! One HTTP/2 connection over mutual TLS carries everything: Envoy's *delta ADS* stream with Veer's own resources in it
//! ([`client()`], [`Source`]), and a few calls beside it ([`enroll`], [`lease`], [`agent`]). The envelope is
//! `envoy.service.discovery.v3` byte for byte (xDS transport protocol, "incremental xDS"); a resource's body is the JSON of a
//! [`veer_core::Resource`] inside `google.protobuf.Any`.
//!
//! What the protocol promises:
//! - Silence deletes nothing. A subscriber keeps all it knows when the connection ends; only the words *removed* and *there is
//!   no such resource* take something away, and a control plane that is not ready does not say them ([`Source::changes`]).
//! - One bad resource spoils nothing: it is refused (NACK) by name, its last good version stays, and the rest is applied.
//! - Cost follows use: a name is subscribed to on first use and given back when nobody has used it for a while.
//! - Nothing unchanged is sent twice: a new connection begins with the versions that the client has.
//!
//! Everything runs on single-threaded runtimes ([`tokio::task::spawn_local`]); only [`Client`] and [`Subscription`] cross threads.

pub mod agent;
mod client;
pub mod enroll;
mod grpc;
pub mod lease;
mod node;
pub mod proto;
mod server;
mod version;

pub use client::{
    Cache, CachedCollection, CachedResource, Client, Collection, Session, SessionOptions, SessionState, SessionStatus,
    Subscription, client, client_with,
};
pub use grpc::{Channel, KeepAlive};
pub use node::{NodeInfo, PROTOCOL, VersionRange};
pub use server::{Limits, LocalFuture, ServerStats, Services, Source, Subscriber, serve_connection};
pub use tonic::{Code, Status};
pub use version::version_of;

/// The types that Veer knows, in the order in which a change is sent: what others refer to goes first, so that a reader never
/// holds a service whose endpoints, paths or roots it could not have yet.
pub const TYPE_ORDER: [&str; 9] = {
    use veer_core::{Endpoints, GatewayConfig, Inbound, Ingress, Offer, Path, Resource, Service, inbound, offer};
    [
        inbound::TrustBundle::TYPE_URL,
        Path::TYPE_URL,
        offer::PeerGateways::TYPE_URL,
        GatewayConfig::TYPE_URL,
        Inbound::TYPE_URL,
        Endpoints::TYPE_URL,
        Service::TYPE_URL,
        Ingress::TYPE_URL,
        Offer::TYPE_URL,
    ]
};
