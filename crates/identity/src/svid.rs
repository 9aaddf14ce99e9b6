//! X.509-SVIDs: a workload's key, the request for a certificate, and both together.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use veer_core::SpiffeId;

use crate::error::Error;
use crate::files;
use crate::leaf::Leaf;

/// A private key. Never shown.
#[derive(Clone)]
pub struct PrivateKey(Arc<PrivateKeyDer<'static>>);

impl PrivateKey {
    /// Takes a key as it is (PKCS #8 for everything that Veer makes).
    pub fn new(der: PrivateKeyDer<'static>) -> Self {
        Self(Arc::new(der))
    }

    /// The key's bytes.
    pub fn der(&self) -> &PrivateKeyDer<'static> {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

/// A new key and the request to certify it. The request names nobody: the issuer decides who asks.
#[derive(Debug)]
pub struct KeyRequest {
    /// PKCS #10, DER.
    pub csr_der: Vec<u8>,
    /// The key; stays with the one who asks.
    pub key: PrivateKey,
}

impl KeyRequest {
    /// Makes an ECDSA P-256 key and its request.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn new() -> Result<Self, Error> {
        let pair = rcgen::KeyPair::generate()?;
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let csr_der = params.serialize_request(&pair)?.der().to_vec();
        let key = PrivateKeyDer::Pkcs8(pair.serialize_der().into());
        Ok(Self { csr_der, key: PrivateKey::new(key) })
    }
}

/// A certified identity: chain and key.
#[derive(Debug, Clone)]
pub struct Svid {
    /// Who this is.
    pub id: SpiffeId,
    /// Leaf first, then what leads to the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKey,
    /// Begin of the leaf's validity.
    pub not_before: SystemTime,
    /// End of the leaf's validity.
    pub not_after: SystemTime,
}

impl Svid {
    /// Joins a key and the chain that was issued for it.
    ///
    /// # Errors
    /// When the leaf is not an X.509-SVID of the one form that Veer issues, or the key is not the leaf's.
    pub fn from_chain(key: PrivateKey, chain: Vec<CertificateDer<'static>>) -> Result<Self, Error> {
        let leaf = chain.first().ok_or_else(|| Error::Text { what: "certificate chain", reason: "is empty".into() })?;
        let Leaf { id, not_before, not_after } = Leaf::read(leaf)?;
        let svid = Self { id, chain, key, not_before, not_after };
        svid.certified_key()?;
        Ok(svid)
    }

    /// When to renew: after half of the lifetime; `jitter` (0 to 1, drawn by the caller) brings it forward by up to a
    /// tenth of the lifetime, so that what started together does not renew together.
    pub fn renew_at(&self, jitter: f64) -> SystemTime {
        let lifetime = self.not_after.duration_since(self.not_before).unwrap_or_default();
        self.not_before + lifetime.mul_f64(0.5 - 0.1 * jitter.clamp(0.0, 1.0))
    }

    /// Time left at `now`; zero when it has ended.
    pub fn remaining(&self, now: SystemTime) -> Duration {
        self.not_after.duration_since(now).unwrap_or_default()
    }

    /// Writes key and chain into one file, mode 0600, whole or not at all: a restart never sees the key of one rotation with
    /// the chain of another.
    ///
    /// # Errors
    /// Which path failed, why, and what to do.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        files::write_private(path, self.to_pem().as_bytes())
    }

    /// Reads what [`Self::save`] wrote. Whether it is still valid is for the caller to ask.
    ///
    /// # Errors
    /// Which path failed, why, and what to do.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = files::read(path)?;
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes())
            .map_err(|error| files::malformed(path, format!("holds no private key in PEM form: {error}")))?;
        let chain = CertificateDer::pem_slice_iter(text.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| files::malformed(path, format!("holds a broken certificate: {error}")))?;
        Self::from_chain(PrivateKey::new(key), chain).map_err(|error| files::malformed(path, error))
    }

    fn to_pem(&self) -> String {
        let label = match self.key.der() {
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        let mut text = pem(label, self.key.der().secret_der());
        self.chain.iter().for_each(|cert| text.push_str(&pem("CERTIFICATE", cert)));
        text
    }

    pub(crate) fn certified_key(&self) -> Result<Arc<rustls::sign::CertifiedKey>, Error> {
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(self.key.der())
            .map_err(|error| Error::Crypto(format!("private key of {}: {error}", self.id)))?;
        let certified = rustls::sign::CertifiedKey::new(self.chain.clone(), key);
        certified.keys_match().map_err(|_| Error::KeyMismatch(self.id.clone()))?;
        Ok(Arc::new(certified))
    }
}

/// PEM text of one value (RFC 7468).
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in body.as_bytes().chunks(64) {
        text.extend(line.iter().map(|&b| char::from(b)));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}
