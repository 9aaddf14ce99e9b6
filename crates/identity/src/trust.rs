//! Whom we believe: per trust domain its own roots, and for no other trust domain.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use veer_core::inbound::TrustBundle;
use veer_core::{SpiffeId, TrustDomain};

use crate::ca;
use crate::error::{Error, VerifyError};
use crate::leaf::{self, Authority, Leaf};

/// Certificates of a chain that are looked at: leaf, two intermediates, and the root for those who pin it.
pub const MAX_CHAIN: usize = 4;
/// Roots in one bundle: rotation needs two, foreign issuers some more.
pub const MAX_ROOTS: usize = 16;

/// Which side of the handshake a certificate is used on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// The peer is the TLS server.
    Server,
    /// The peer is the TLS client.
    Client,
}

/// Bundles by trust domain. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct TrustStore {
    domains: BTreeMap<TrustDomain, Arc<Roots>>,
    believed: Believed,
}

/// A chain that was believed.
#[derive(Debug, Clone)]
pub(crate) struct Judged {
    pub(crate) id: SpiffeId,
    /// End of the leaf.
    pub(crate) not_after: SystemTime,
    /// SHA-256 of the leaf.
    pub(crate) fingerprint: [u8; 32],
}

/// Chains that these bundles have proved, so that a peer that comes again costs no signature check (two, 65 µs each). Goes
/// with the bundles: a copy that is to be changed begins with none.
#[derive(Debug, Default)]
struct Believed(Mutex<HashMap<[u8; 32], Proof>>);

/// Chains kept; when there are more, all are proved anew.
const MAX_BELIEVED: usize = 512;

/// Holds from the latest begin to the earliest end of all certificates that it rests on.
#[derive(Debug)]
struct Proof {
    judged: Judged,
    from: SystemTime,
    until: SystemTime,
}

impl Clone for Believed {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Believed {
    fn find(&self, key: &[u8; 32], now: SystemTime) -> Option<Judged> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(key).filter(|proof| (proof.from..=proof.until).contains(&now)).map(|proof| proof.judged.clone())
    }

    fn keep(&self, key: [u8; 32], proof: Proof) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_BELIEVED {
            all.clear();
        }
        all.insert(key, proof);
    }
}

#[derive(Debug)]
struct Roots {
    bundle: TrustBundle,
    anchors: Vec<TrustAnchor<'static>>,
    /// When each anchor ends. Path validation knows no dates of anchors (RFC 5280 §6.1.1), we do.
    ends: Vec<SystemTime>,
}

impl Roots {
    fn valid_at(&self, now: SystemTime) -> Cow<'_, [TrustAnchor<'static>]> {
        if self.ends.iter().all(|end| now <= *end) {
            return Cow::Borrowed(&self.anchors);
        }
        let valid = self.anchors.iter().zip(&self.ends).filter(|(_, end)| now <= **end);
        Cow::Owned(valid.map(|(anchor, _)| anchor.clone()).collect())
    }
}

impl TrustStore {
    /// Takes or replaces a trust domain's bundle. Says whether anything changed.
    ///
    /// # Errors
    /// When the bundle holds no root, too many, something that is not a CA certificate, or a root that says it belongs to
    /// another trust domain.
    pub fn insert(&mut self, bundle: TrustBundle) -> Result<bool, Error> {
        if self.domains.get(&bundle.trust_domain).is_some_and(|held| held.bundle == bundle) {
            return Ok(false);
        }
        let (anchors, ends) = read_roots(&bundle)?;
        self.domains.insert(bundle.trust_domain.clone(), Arc::new(Roots { bundle, anchors, ends }));
        self.believed = Believed::default();
        Ok(true)
    }

    /// Forgets a trust domain. Says whether it was held.
    pub fn remove(&mut self, trust_domain: &TrustDomain) -> bool {
        self.believed = Believed::default();
        self.domains.remove(trust_domain).is_some()
    }

    /// The bundle of a trust domain.
    pub fn bundle(&self, trust_domain: &TrustDomain) -> Option<&TrustBundle> {
        self.domains.get(trust_domain).map(|roots| &roots.bundle)
    }

    /// Every bundle held, by trust domain.
    pub fn bundles(&self) -> impl Iterator<Item = &TrustBundle> {
        self.domains.values().map(|roots| &roots.bundle)
    }

    /// Judges a chain (leaf first) at a time: the leaf is an X.509-SVID with exactly one SPIFFE ID, and the chain leads to a
    /// root of that ID's own trust domain.
    ///
    /// # Errors
    /// The first rule that was broken.
    pub fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        usage: Usage,
        now: UnixTime,
    ) -> Result<SpiffeId, VerifyError> {
        self.judge(leaf, intermediates, usage, now).map(|judged| judged.id)
    }

    /// Like [`Self::verify`], with what else is known of the leaf.
    pub(crate) fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        usage: Usage,
        now: UnixTime,
    ) -> Result<Judged, VerifyError> {
        if intermediates.len() + 1 > MAX_CHAIN {
            return Err(VerifyError::ChainTooLong(intermediates.len() + 1));
        }
        let time = UNIX_EPOCH + Duration::from_secs(now.as_secs());
        let key = chain_hash(leaf, intermediates, usage);
        if let Some(judged) = self.believed.find(&key, time) {
            return Ok(judged);
        }
        let claim = Leaf::read(leaf)?;
        let (mut from, mut until) = (claim.not_before, claim.not_after);
        let roots = self
            .domains
            .get(&claim.id.trust_domain)
            .ok_or_else(|| VerifyError::UnknownTrustDomain(claim.id.trust_domain.clone()))?;
        let anchors = roots.valid_at(time);
        let not_after = claim.not_after;
        let id = verify_with(&anchors, claim, leaf, intermediates, usage, now)?;
        let judged = Judged { id, not_after, fingerprint: ca::hash(leaf) };
        // Which of them the path went through does not matter: the earliest end is early enough.
        let authorities: Result<Vec<_>, _> = intermediates.iter().map(Authority::read).collect();
        if let Ok(authorities) = authorities {
            for authority in authorities {
                from = from.max(authority.not_before);
                until = until.min(authority.not_after);
            }
            until = roots.ends.iter().filter(|end| **end >= time).fold(until, |until, end| until.min(*end));
            self.believed.keep(key, Proof { judged: judged.clone(), from, until });
        }
        Ok(judged)
    }
}

fn chain_hash(leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>], usage: Usage) -> [u8; 32] {
    let mut all = digest::Context::new(&digest::SHA256);
    all.update(&[usage as u8]);
    for der in std::iter::once(leaf).chain(intermediates) {
        all.update(&der.len().to_be_bytes());
        all.update(der);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(all.finish().as_ref());
    hash
}

/// Judges a chain whose claim was read, by these anchors alone.
pub(crate) fn verify_with(
    anchors: &[TrustAnchor<'_>],
    claim: Leaf,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    usage: Usage,
    now: UnixTime,
) -> Result<SpiffeId, VerifyError> {
    let end_entity =
        webpki::EndEntityCert::try_from(leaf).map_err(|error| VerifyError::Malformed(format!("{error:?}")))?;
    let purpose = match usage {
        Usage::Server => webpki::KeyUsage::server_auth(),
        Usage::Client => webpki::KeyUsage::client_auth(),
    };
    // The leaf's own dates first, so that an ended certificate is told from a foreign one also after its root has gone.
    let now_time = UNIX_EPOCH + Duration::from_secs(now.as_secs());
    if now_time < claim.not_before {
        return Err(VerifyError::NotYetValid { id: claim.id, not_before: claim.not_before });
    }
    if now_time > claim.not_after {
        return Err(VerifyError::Expired { id: claim.id, not_after: claim.not_after });
    }
    let path = match end_entity.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        anchors,
        intermediates,
        now,
        purpose,
        None,
        None,
    ) {
        Ok(path) => path,
        Err(error) => return Err(refusal(error, claim)),
    };
    // X.509-SVID §3.2: an authority may carry the ID of its trust domain; then it signs for no other.
    for issuer in path.intermediate_certificates() {
        for uri in issuer.valid_uri_names() {
            if leaf::trust_domain_of(uri).as_ref() != Some(&claim.id.trust_domain) {
                return Err(VerifyError::ForeignIssuer { id: claim.id, issuer: uri.chars().take(300).collect() });
            }
        }
    }
    Ok(claim.id)
}

fn refusal(error: webpki::Error, claim: Leaf) -> VerifyError {
    let id = claim.id;
    match error {
        webpki::Error::CertExpired { not_after, .. } => {
            VerifyError::Expired { id, not_after: UNIX_EPOCH + Duration::from_secs(not_after.as_secs()) }
        }
        webpki::Error::CertNotValidYet { not_before, .. } => {
            VerifyError::NotYetValid { id, not_before: UNIX_EPOCH + Duration::from_secs(not_before.as_secs()) }
        }
        webpki::Error::CaUsedAsEndEntity => VerifyError::CaAsLeaf,
        error @ webpki::Error::RequiredEkuNotFoundContext(_) => VerifyError::Usage(format!("{error:?}")),
        error => VerifyError::NotSigned { id, reason: format!("{error:?}") },
    }
}

fn read_roots(bundle: &TrustBundle) -> Result<(Vec<TrustAnchor<'static>>, Vec<SystemTime>), Error> {
    let refuse = |reason: String| Error::Bundle { trust_domain: bundle.trust_domain.clone(), reason };
    let (mut anchors, mut ends) = (Vec::new(), Vec::new());
    for (number, der) in CertificateDer::pem_slice_iter(bundle.roots_pem.as_bytes()).enumerate() {
        let number = number + 1;
        if number > MAX_ROOTS {
            return Err(refuse(format!("it holds more than {MAX_ROOTS} roots")));
        }
        let der = der.map_err(|error| refuse(format!("root {number} is not PEM: {error}")))?;
        let authority = Authority::read(&der).map_err(|error| refuse(format!("root {number}: {error}")))?;
        if let Some(other) = authority.trust_domain.filter(|domain| *domain != bundle.trust_domain) {
            return Err(refuse(format!("root {number} says that it belongs to {other}")));
        }
        let anchor =
            webpki::anchor_from_trusted_cert(&der).map_err(|error| refuse(format!("root {number}: {error:?}")))?;
        ends.push(authority.not_after);
        anchors.push(anchor.to_owned());
    }
    if anchors.is_empty() {
        return Err(refuse("it holds no root certificate (PEM, BEGIN CERTIFICATE)".to_owned()));
    }
    Ok((anchors, ends))
}
