//! Who gets a certificate: joining with a token, renewing with the current certificate, and the control plane's own.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use veer_core::inbound::TrustBundle;
use veer_core::{ObjectName, SpiffeId, TrustDomain};
use veer_identity::{Ca, KeyRequest, Svid, clock};

use crate::issued::IssuedRecord;
use crate::random;
use crate::state::{StateDir, StateError};
use crate::tokens::{RedeemError, Subject, TOKEN_LIFETIME, TokenStore};

/// The cluster's issuer.
#[derive(Debug)]
pub(crate) struct Issuer {
    trust_domain: TrustDomain,
    ttl: Duration,
    ca: Mutex<Ca>,
    ca_dir: std::path::PathBuf,
    tokens: Mutex<TokenStore>,
    issued: Mutex<IssuedRecord>,
}

/// Whom the issuer knows now.
pub(crate) trait Directory {
    /// The identity of the Workload or gateway, when there is such a one.
    fn identity(&self, subject: &Subject) -> Option<SpiffeId>;
}

/// A certificate was not issued.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IssueError {
    /// The token does not admit, or its use could not be recorded.
    #[error(transparent)]
    Token(#[from] RedeemError),
    /// There is no such Workload or gateway (any more).
    #[error("there is no {0} in this cluster: its deletion ended its certificates")]
    NoSuch(Subject),
    /// The certificate shown is not that of the subject.
    #[error("the certificate of {shown} does not stand for {subject}")]
    NotYours {
        /// The identity of the certificate that was shown.
        shown: SpiffeId,
        /// Whom the caller claims to be.
        subject: Subject,
    },
    /// Signing failed.
    #[error(transparent)]
    Sign(#[from] veer_identity::Error),
    /// It could not be recorded whose the certificate is.
    #[error("the certificate could not be recorded: {0}")]
    Record(#[from] io::Error),
}

/// A certificate, as it is handed out.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    pub id: SpiffeId,
    /// DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    pub bundle: TrustBundle,
    pub subject: Subject,
}

impl Issuer {
    /// Opens authority, tokens and records of the state folder; also returns what was unreadable and is done without.
    pub(crate) fn open(
        state: &StateDir,
        trust_domain: &TrustDomain,
        ttl: Duration,
    ) -> Result<(Self, Vec<StateError>), veer_identity::Error> {
        let now = clock::now();
        let ca_dir = state.ca();
        let ca = Ca::load_or_create(&ca_dir, trust_domain, now)?;
        let (tokens, token_fault) = TokenStore::open(state.tokens(), now);
        let (issued, issued_fault) = IssuedRecord::open(state.issued(), now);
        let faults = [(state.tokens(), token_fault), (state.issued(), issued_fault)];
        let faults = faults.into_iter().filter_map(|(path, fault)| Some(StateError { path, source: fault? })).collect();
        let issuer = Self {
            trust_domain: trust_domain.clone(),
            ttl,
            ca: Mutex::new(ca),
            ca_dir,
            tokens: Mutex::new(tokens),
            issued: Mutex::new(issued),
        };
        Ok((issuer, faults))
    }

    /// The cluster's own roots.
    pub(crate) fn bundle(&self) -> TrustBundle {
        lock(&self.ca).bundle()
    }

    /// SHA-256 of the root, for join tokens.
    pub(crate) fn root_hash(&self) -> [u8; 32] {
        lock(&self.ca).root_hash()
    }

    /// A certificate for the control plane itself.
    pub(crate) fn own(&self) -> Result<Svid, veer_identity::Error> {
        let request = KeyRequest::new()?;
        let now = clock::now();
        let mut ca = lock(&self.ca);
        if ca.renew_intermediate(now)?
            && let Err(error) = ca.save(&self.ca_dir)
        {
            tracing::error!(%error, "the renewed intermediate could not be saved; it is renewed again after a restart");
        }
        let chain = ca.sign(&request.csr_der, &SpiffeId::control(self.trust_domain.clone()), self.ttl, now)?;
        drop(ca);
        Svid::from_chain(request.key, chain)
    }

    /// Issues a join token's secret for somebody who exists.
    pub(crate) fn token(
        &self,
        subject: Subject,
        directory: &dyn Directory,
    ) -> Result<(String, std::time::SystemTime), IssueError> {
        if directory.identity(&subject).is_none() {
            return Err(IssueError::NoSuch(subject));
        }
        Ok(lock(&self.tokens).issue(subject, TOKEN_LIFETIME, clock::now())?)
    }

    /// A first certificate, against a join token.
    pub(crate) fn join(&self, secret: &str, csr: &[u8], directory: &dyn Directory) -> Result<Certificate, IssueError> {
        // The request is signed by its key, so its hash stands for the key: nobody else can use what is issued for it.
        let key = random::sha256_hex(csr);
        let subject = lock(&self.tokens).redeem(secret, &key, clock::now())?;
        let id = directory.identity(&subject).ok_or_else(|| IssueError::NoSuch(subject.clone()))?;
        self.issue(subject, id, csr)
    }

    /// The next certificate, against the current one.
    pub(crate) fn renew(
        &self,
        subject: &Subject,
        shown: &SpiffeId,
        csr: &[u8],
        directory: &dyn Directory,
    ) -> Result<Certificate, IssueError> {
        let id = directory.identity(subject).ok_or_else(|| IssueError::NoSuch(subject.clone()))?;
        if id != *shown {
            return Err(IssueError::NotYours { shown: shown.clone(), subject: subject.clone() });
        }
        self.issue(subject.clone(), id, csr)
    }

    /// Whom the holder of a certificate (by its [`certificate_hash`]) stands for. The record says it; a certificate that is not in the record (its file was
    /// lost) stands for what the holder claims, as far as its identity is the claimed one's.
    pub(crate) fn subject(
        &self,
        certificate: &str,
        shown: &SpiffeId,
        claim: Option<Subject>,
        directory: &dyn Directory,
    ) -> Option<Subject> {
        let recorded = lock(&self.issued).subject(certificate).cloned();
        match (recorded, claim) {
            (Some(recorded), Some(claim)) if recorded != claim => None,
            (Some(recorded), _) => Some(recorded),
            (None, Some(claim)) => (directory.identity(&claim).as_ref() == Some(shown)).then_some(claim),
            (None, None) => None,
        }
    }

    fn issue(&self, subject: Subject, id: SpiffeId, csr: &[u8]) -> Result<Certificate, IssueError> {
        let now = clock::now();
        let ca = lock(&self.ca);
        let chain = ca.sign(csr, &id, self.ttl, now)?;
        let bundle = ca.bundle();
        drop(ca);
        if let Some(leaf) = chain.first() {
            lock(&self.issued).record(&certificate_hash(leaf), &subject, now + self.ttl, now)?;
        }
        tracing::info!(%subject, %id, "a certificate was issued");
        Ok(Certificate { id, chain: chain.iter().map(|der| der.to_vec()).collect(), bundle, subject })
    }
}

/// What a certificate is recorded by.
pub(crate) fn certificate_hash(leaf: &[u8]) -> String {
    random::sha256_hex(leaf)
}

/// The Workloads and gateways of one generation.
impl Directory for std::collections::BTreeMap<Subject, SpiffeId> {
    fn identity(&self, subject: &Subject) -> Option<SpiffeId> {
        self.get(subject).cloned()
    }
}

/// Reads whom a node claims to be: `namespace/name` of a Workload, or `gateway/<name>` in the system namespace's place.
pub(crate) fn claim(node: &str) -> Option<Subject> {
    let name: ObjectName = node.parse().ok()?;
    Some(if &*name.namespace == veer_core::names::SYSTEM_NAMESPACE {
        Subject::Gateway(name.name.to_string())
    } else {
        Subject::Workload(name)
    })
}

/// The name that a join token and a node carry: the reverse of [`claim`].
pub(crate) fn node_name(subject: &Subject) -> ObjectName {
    match subject {
        Subject::Workload(name) => name.clone(),
        Subject::Gateway(name) => ObjectName::new(veer_core::names::SYSTEM_NAMESPACE, name),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn open(dir: &std::path::Path) -> Issuer {
        let (state, _) = StateDir::open(dir).unwrap();
        let domain = TrustDomain::new("west.example").unwrap();
        Issuer::open(&state, &domain, Duration::from_secs(3600)).unwrap().0
    }

    fn directory() -> (Subject, Subject, BTreeMap<Subject, SpiffeId>) {
        let id = SpiffeId::new(TrustDomain::new("west.example").unwrap(), "shop", "web");
        let one = Subject::Workload(ObjectName::new("shop", "web-1"));
        let two = Subject::Workload(ObjectName::new("shop", "web-2"));
        (one.clone(), two.clone(), BTreeMap::from([(one, id.clone()), (two, id)]))
    }

    #[test]
    fn a_certificate_stands_for_its_workload_and_no_other_of_the_same_identity() {
        let dir = tempfile::tempdir().unwrap();
        let issuer = open(dir.path());
        let (one, two, directory) = directory();
        let (secret, _) = issuer.token(one.clone(), &directory).unwrap();
        let csr = KeyRequest::new().unwrap().csr_der;
        let certificate = issuer.join(&secret, &csr, &directory).unwrap();
        assert_eq!(certificate.id.to_string(), "spiffe://west.example/ns/shop/sa/web");
        let (leaf, id) = (&certificate_hash(&certificate.chain[0]), &certificate.id);
        assert_eq!(issuer.subject(leaf, id, None, &directory), Some(one.clone()));
        assert_eq!(issuer.subject(leaf, id, Some(two.clone()), &directory), None);
        // The record of another control plane does not know it: the identity decides.
        let elsewhere = tempfile::tempdir().unwrap();
        assert_eq!(open(elsewhere.path()).subject(leaf, id, Some(two.clone()), &directory), Some(two));
        // And again after a restart.
        assert_eq!(open(dir.path()).subject(leaf, id, None, &directory), Some(one));
    }

    #[test]
    fn deletion_of_the_workload_ends_renewal_and_joining() {
        let dir = tempfile::tempdir().unwrap();
        let issuer = open(dir.path());
        let (one, two, mut directory) = directory();
        let (secret, _) = issuer.token(one.clone(), &directory).unwrap();
        let csr = KeyRequest::new().unwrap().csr_der;
        let id = issuer.join(&secret, &csr, &directory).unwrap().id;
        assert!(issuer.renew(&one, &id, &csr, &directory).is_ok());
        directory.remove(&one);
        assert!(matches!(issuer.renew(&one, &id, &csr, &directory), Err(IssueError::NoSuch(_))));
        assert!(matches!(issuer.join(&secret, &csr, &directory), Err(IssueError::NoSuch(_))));
        assert!(matches!(issuer.token(one, &directory), Err(IssueError::NoSuch(_))));
        // A service account that was changed needs a new token.
        directory.insert(two.clone(), SpiffeId::new(id.trust_domain.clone(), "shop", "other"));
        assert!(matches!(issuer.renew(&two, &id, &csr, &directory), Err(IssueError::NotYours { .. })));
    }
}
