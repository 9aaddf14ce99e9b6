//! Liveness of a peer: `veer.v1.Peering/Lease`.
//!
//! The consumer sends a fresh nonce; an answer with that nonce proves that the peer's control plane was alive *after* the
//! question was asked. The lease runs from that moment on the consumer's own monotonic clock: no clock is compared between clusters.

use crate::Status;
use crate::grpc::Channel;
use crate::server::{LocalFuture, Subscriber};

/// Answers peers' leases at the control plane.
pub trait Leases: 'static {
    /// A peer asks. The nonce is returned by the caller of this hook.
    ///
    /// # Errors
    /// What the peer is told, such as that there is no link with it.
    fn lease<'a>(&'a self, who: &'a Subscriber, ask: &'a LeaseAsk) -> LocalFuture<'a, Result<LeaseGrant, Status>>;
}

/// A peer's question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseAsk {
    /// The cluster that asks. Claimed; the verified trust domain must agree with it.
    pub consumer_cluster: String,
    /// Version of the program that asks.
    pub version: String,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseGrant {
    /// Generation of what the peer is offered.
    pub generation: u64,
    /// Which life of the control plane's state answers; another one means that its state began anew.
    pub incarnation: String,
}

/// Asks for a lease.
///
/// # Errors
/// What the peer said, or why it could not be asked; `DATA_LOSS` when the answer was to another question.
pub async fn ask(channel: &Channel, nonce: u64, ask: &LeaseAsk) -> Result<LeaseGrant, Status> {
    let LeaseAsk { consumer_cluster, version } = ask.clone();
    let answer: LeaseResponse = channel.unary(LEASE, LeaseRequest { nonce, consumer_cluster, version }).await?;
    if answer.nonce != nonce {
        return Err(Status::data_loss("the answer repeats another nonce"));
    }
    Ok(LeaseGrant { generation: answer.generation, incarnation: answer.incarnation })
}

pub(crate) const LEASE: &str = "/veer.v1.Peering/Lease";

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LeaseRequest {
    #[prost(fixed64, tag = "1")]
    pub nonce: u64,
    #[prost(string, tag = "2")]
    pub consumer_cluster: String,
    #[prost(string, tag = "3")]
    pub version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LeaseResponse {
    #[prost(fixed64, tag = "1")]
    pub nonce: u64,
    #[prost(uint64, tag = "2")]
    pub generation: u64,
    #[prost(string, tag = "3")]
    pub incarnation: String,
}
