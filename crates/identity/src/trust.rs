//! Whom we believe: per trust domain its own roots, and for no other trust domain.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use veer_core::inbound::TrustBundle;
use veer_core::{SpiffeId, TrustDomain};

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
        Ok(true)
    }

    /// Forgets a trust domain. Says whether it was held.
    pub fn remove(&mut self, trust_domain: &TrustDomain) -> bool {
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
        if intermediates.len() + 1 > MAX_CHAIN {
            return Err(VerifyError::ChainTooLong(intermediates.len() + 1));
        }
        let claim = Leaf::read(leaf)?;
        let roots = self
            .domains
            .get(&claim.id.trust_domain)
            .ok_or_else(|| VerifyError::UnknownTrustDomain(claim.id.trust_domain.clone()))?;
        let anchors = roots.valid_at(UNIX_EPOCH + Duration::from_secs(now.as_secs()));
        verify_with(&anchors, claim, leaf, intermediates, usage, now)
    }
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
