//! TLS toward clients outside of the mesh: certificates of the user's choice, and no certificate asked of the client.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::clock::TlsClock;
use crate::config::{ClientAuth, ServerTls, provider};
use crate::error::Error;
use crate::verifier::{ClientVerifier, SecretNotes};

/// A certificate with its key, ready to be shown.
#[derive(Debug, Clone)]
pub struct PublicCertificate(Arc<CertifiedKey>);

impl PublicCertificate {
    /// Reads a chain, leaf first, and the leaf's key (PKCS #8, PKCS #1 or SEC 1).
    ///
    /// # Errors
    /// When one of them cannot be read, or they do not belong together.
    pub fn from_pem(chain: &str, key: &str) -> Result<Self, Error> {
        let refuse = |what, reason: String| Error::Text { what, reason };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| refuse("certificate chain", error.to_string()))?;
        if chain.is_empty() {
            return Err(refuse("certificate chain", "there is no certificate in it".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| refuse("private key", e.to_string()))?;
        let key = provider().key_provider.load_private_key(key).map_err(|e| refuse("private key", e.to_string()))?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|error| refuse("private key", error.to_string()))?;
        Ok(Self(Arc::new(certified)))
    }
}

impl ServerTls {
    /// For clients outside of the mesh: shows the first certificate whose key the client can verify, asks for none, and takes
    /// these application protocols (none: it speaks of none). TLS 1.3 only. Nothing is resumed.
    pub fn public(certificates: Vec<PublicCertificate>, alpn: &[&[u8]]) -> Self {
        let algorithms = provider().signature_verification_algorithms;
        // Never asked: no client certificate is requested.
        let verifier = ClientVerifier { trust: Arc::new(ArcSwap::default()), auth: ClientAuth::Optional, algorithms };
        let mut config = rustls::ServerConfig::builder_with_details(provider().clone(), Arc::new(TlsClock))
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has TLS 1.3 suites")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Shown(certificates)));
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        // Records are ours ([`crate::tls`]).
        config.enable_secret_extraction = true;
        config.key_log = Arc::new(SecretNotes);
        Self { config: Arc::new(config), verifier: Arc::new(verifier) }
    }
}

#[derive(Debug)]
struct Shown(Vec<PublicCertificate>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |one: &&PublicCertificate| one.0.key.choose_scheme(hello.signature_schemes()).is_some();
        self.0.iter().find(fits).map(|one| Arc::clone(&one.0))
    }
}
