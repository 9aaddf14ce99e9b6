//! Getting and renewing an identity: `veer.v1.Identity`.
//!
//! A workload joins with a secret that an operator gave it, over TLS that proves the *server* (the join token carries the
//! hash of the issuer's certificate); from then on it renews with the certificate that it has.

use std::time::Duration;

use veer_core::SpiffeId;
use veer_core::inbound::TrustBundle;

use crate::grpc::Channel;
use crate::server::{LocalFuture, Subscriber};
use crate::{Status, proto};

/// Takes enrolments at the control plane.
pub trait Enroll: 'static {
    /// Someone without an identity shows a secret. The certificate request names nobody: whom the identity is for follows from
    /// the secret.
    ///
    /// # Errors
    /// What the caller is told; nothing in it should help guessing.
    fn join(&self, request: Join) -> LocalFuture<'_, Result<Enrolled, Status>>;

    /// Someone with a valid identity wants to go on having it.
    ///
    /// # Errors
    /// What the caller is told, such as that its workload is no more.
    fn renew<'a>(&'a self, who: &'a Subscriber, request: Renew) -> LocalFuture<'a, Result<Enrolled, Status>>;
}

/// A request for a first identity.
#[derive(Clone, PartialEq, Eq)]
pub struct Join {
    /// The secret of the join token.
    pub secret: String,
    /// PKCS #10, DER. Its subject is ignored.
    pub csr_der: Vec<u8>,
    /// The workload, `namespace/name`.
    pub workload: String,
    /// The cluster.
    pub cluster: String,
}

impl std::fmt::Debug for Join {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Join").field("workload", &self.workload).field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// A request for the next certificate of the same identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renew {
    /// PKCS #10, DER. Its subject is ignored.
    pub csr_der: Vec<u8>,
    /// The workload that it is for, `namespace/name`; must be one of the caller's identity.
    pub workload: String,
}

/// An identity as issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolled {
    /// The certificate and its intermediates, DER, leaf first.
    pub chain_der: Vec<Vec<u8>>,
    /// Roots of the trust domains to begin with; later ones come as resources.
    pub bundles: Vec<TrustBundle>,
    /// The identity in the certificate.
    pub id: SpiffeId,
    /// How long it is valid.
    pub ttl: Duration,
}

/// Asks for a first identity.
///
/// # Errors
/// What the control plane said, or why it could not be asked.
pub async fn join(channel: &Channel, request: Join) -> Result<Enrolled, Status> {
    let Join { secret, csr_der, workload, cluster } = request;
    let answer: JoinResponse = channel.unary(JOIN, JoinRequest { secret, csr_der, workload, cluster }).await?;
    answer.into_enrolled()
}

/// Asks for the next certificate.
///
/// # Errors
/// What the control plane said, or why it could not be asked.
pub async fn renew(channel: &Channel, request: Renew) -> Result<Enrolled, Status> {
    let Renew { csr_der, workload } = request;
    let answer: JoinResponse = channel.unary(RENEW, RenewRequest { csr_der, workload }).await?;
    answer.into_enrolled()
}

pub(crate) const JOIN: &str = "/veer.v1.Identity/Join";
pub(crate) const RENEW: &str = "/veer.v1.Identity/Renew";

#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(crate) struct JoinRequest {
    #[prost(string, tag = "1")]
    pub secret: String,
    #[prost(bytes = "vec", tag = "2")]
    pub csr_der: Vec<u8>,
    #[prost(string, tag = "3")]
    pub workload: String,
    #[prost(string, tag = "4")]
    pub cluster: String,
}

impl From<JoinRequest> for Join {
    fn from(request: JoinRequest) -> Self {
        let JoinRequest { secret, csr_der, workload, cluster } = request;
        Join { secret, csr_der, workload, cluster }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RenewRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub csr_der: Vec<u8>,
    #[prost(string, tag = "2")]
    pub workload: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct JoinResponse {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub chain_der: Vec<Vec<u8>>,
    /// Each the JSON of a `TrustBundle`.
    #[prost(message, repeated, tag = "2")]
    pub bundles: Vec<proto::Any>,
    #[prost(string, tag = "3")]
    pub spiffe_id: String,
    #[prost(uint64, tag = "4")]
    pub ttl_seconds: u64,
}

impl JoinResponse {
    pub(crate) fn from_enrolled(enrolled: Enrolled) -> Result<Self, Status> {
        use veer_core::Resource;
        let encode = |bundle: &TrustBundle| {
            let value = serde_json::to_vec(bundle).map_err(|error| Status::internal(error.to_string()))?;
            Ok(proto::Any { type_url: TrustBundle::TYPE_URL.to_owned(), value: value.into() })
        };
        Ok(Self {
            chain_der: enrolled.chain_der,
            bundles: enrolled.bundles.iter().map(encode).collect::<Result<_, Status>>()?,
            spiffe_id: enrolled.id.to_string(),
            ttl_seconds: enrolled.ttl.as_secs(),
        })
    }

    fn into_enrolled(self) -> Result<Enrolled, Status> {
        let bad = |what: &dyn std::fmt::Display| Status::internal(format!("the control plane's answer: {what}"));
        let bundles = self.bundles.iter().map(|any| serde_json::from_slice(&any.value));
        Ok(Enrolled {
            chain_der: self.chain_der,
            bundles: bundles.collect::<Result<_, _>>().map_err(|error| bad(&error))?,
            id: self.spiffe_id.parse().map_err(|error| bad(&error))?,
            ttl: Duration::from_secs(self.ttl_seconds),
        })
    }
}
