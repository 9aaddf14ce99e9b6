//! What can go wrong, in words that say what to do.

use std::path::PathBuf;
use std::time::SystemTime;

use veer_core::{SpiffeId, TrustDomain};

use crate::clock;

/// Making, reading or keeping identities failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read, written or understood.
    #[error("{path}: {problem}; {mend}", path = path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        mend: &'static str,
    },
    /// A certificate or a chain does not hold what it must.
    #[error(transparent)]
    Certificate(#[from] VerifyError),
    /// Private key and certificate do not belong together.
    #[error("the private key does not belong to the certificate of {0}")]
    KeyMismatch(SpiffeId),
    /// A certificate signing request was refused.
    #[error("certificate signing request refused: {0}")]
    Request(String),
    /// A trust bundle was refused.
    #[error("trust bundle of {trust_domain} refused: {reason}")]
    Bundle {
        /// Whose bundle it claims to be.
        trust_domain: TrustDomain,
        /// The rule it broke.
        reason: String,
    },
    /// The issuer cannot sign now.
    #[error("the issuer of {trust_domain} cannot sign: {reason}")]
    Issuer {
        /// The issuer's trust domain.
        trust_domain: TrustDomain,
        /// Why, and what to do.
        reason: String,
    },
    /// A text (join token, key) is not of its form.
    #[error("{what}: {reason}")]
    Text {
        /// What was being read.
        what: &'static str,
        /// The rule it broke.
        reason: String,
    },
    /// The cryptographic library refused.
    #[error("{0}")]
    Crypto(String),
}

impl From<rcgen::Error> for Error {
    fn from(error: rcgen::Error) -> Self {
        Error::Crypto(error.to_string())
    }
}

impl From<aws_lc_rs::error::Unspecified> for Error {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Error::Crypto("the system's source of randomness failed".to_owned())
    }
}

/// Why a peer's certificate chain was not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The certificate cannot be read, or lacks what an X.509-SVID must have.
    #[error("not an X.509-SVID: {0}")]
    Malformed(String),
    /// The subject alternative name is not exactly one URI of the form that Veer issues.
    #[error("not exactly one SPIFFE ID in the certificate: {0}")]
    NotOneSpiffeId(String),
    /// A CA's certificate was presented as a workload's.
    #[error("a CA certificate was presented as an identity")]
    CaAsLeaf,
    /// Key usage does not allow this use.
    #[error("the certificate is not for this use: {0}")]
    Usage(String),
    /// No bundle is held for the trust domain.
    #[error("trust domain {0} is not known here")]
    UnknownTrustDomain(TrustDomain),
    /// The chain does not lead to a root of the leaf's own trust domain.
    #[error("the certificate of {id} is not signed by an authority of {}: {reason}", id.trust_domain)]
    NotSigned {
        /// Who the leaf claims to be.
        id: SpiffeId,
        /// What the path building said.
        reason: String,
    },
    /// A certificate of the chain says that it belongs to another trust domain.
    #[error("the certificate of {id} was issued by an authority of another trust domain: {issuer}")]
    ForeignIssuer {
        /// Who the leaf claims to be.
        id: SpiffeId,
        /// The URI of the issuer.
        issuer: String,
    },
    /// More certificates than any chain of ours has.
    #[error("the chain has {0} certificates, at most {max} are read", max = crate::trust::MAX_CHAIN)]
    ChainTooLong(usize),
    /// The certificate has ended.
    #[error("the certificate of {id} expired {} s ago", ago(*not_after))]
    Expired {
        /// Who it was.
        id: SpiffeId,
        /// When it ended.
        not_after: SystemTime,
    },
    /// The certificate does not hold yet.
    #[error("the certificate of {id} is valid only in {} s: a clock is wrong", until(*not_before))]
    NotYetValid {
        /// Who it will be.
        id: SpiffeId,
        /// When it begins.
        not_before: SystemTime,
    },
    /// A believed peer, but not one of those that were to answer.
    #[error("expected {}, found {found}", list(expected))]
    WrongIdentity {
        /// Who answered.
        found: SpiffeId,
        /// Who was to answer.
        expected: Vec<SpiffeId>,
    },
    /// One of Veer's own identities where only workloads may come.
    #[error("{0} is a reserved identity and may not act as a workload")]
    SystemIdentity(SpiffeId),
    /// The root that a join token pinned is not in the chain.
    #[error("the chain does not lead to the root that the join token pinned")]
    NotPinned,
}

fn ago(time: SystemTime) -> u64 {
    clock::now().duration_since(time).map_or(0, |d| d.as_secs())
}

fn until(time: SystemTime) -> u64 {
    time.duration_since(clock::now()).map_or(0, |d| d.as_secs())
}

fn list(ids: &[SpiffeId]) -> String {
    match ids {
        [] => "nobody".to_owned(),
        [one] => one.to_string(),
        [first, rest @ ..] => format!("{first} or {} more", rest.len()),
    }
}
