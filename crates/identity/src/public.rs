//! TLS toward clients outside of the mesh: certificates of the user's choice, and what is asked of the client (GEP-91).

use std::sync::Arc;

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{DistinguishedName, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use crate::clock::TlsClock;
use crate::config::{ServerTls, provider};
use crate::error::Error;
use crate::signatures::tls13_signatures;
use crate::verifier::SecretNotes;

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

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0)
    }
}

impl ServerTls {
    /// For clients outside of the mesh: shows the first certificate whose key the client can verify, asks for what `clients`
    /// says (`None`: no certificate), and takes these application protocols (none: it speaks of none). TLS 1.3 only. Nothing is
    /// resumed. Clients have no identity of the mesh: [`accept`](crate::accept) gives no peer.
    pub fn public(certificates: Vec<PublicCertificate>, alpn: &[&[u8]], clients: Option<PublicClients>) -> Self {
        let config = rustls::ServerConfig::builder_with_details(provider().clone(), Arc::new(TlsClock))
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has TLS 1.3 suites");
        let config = match clients {
            None => config.with_no_client_auth(),
            Some(clients) => config.with_client_cert_verifier(clients.0),
        };
        let mut config = config.with_cert_resolver(Arc::new(Shown(certificates)));
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        // Records are ours ([`crate::tls`]).
        config.enable_secret_extraction = true;
        config.key_log = Arc::new(SecretNotes);
        Self { config: Arc::new(config), verifier: None }
    }
}

/// What is asked of clients outside of the mesh.
#[derive(Debug, Clone)]
pub struct PublicClients(Arc<dyn ClientCertVerifier>);

impl PublicClients {
    /// Clients must show a certificate for client authentication that leads to one of these authorities (RFC 5280 §6), PEM.
    ///
    /// # Errors
    /// When one of them cannot be read, or there is none: nobody could be let in.
    pub fn of_authorities(authorities: &str) -> Result<Self, Error> {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(authorities)?), provider().clone());
        let verifier = verifier.build().map_err(|error| Error::Crypto(error.to_string()))?;
        Ok(Self(verifier))
    }

    /// Clients are asked for a certificate; those that show none, or one that nobody vouches for, are let in as well. Who shows one
    /// must have its key.
    pub fn anybody() -> Self {
        Self(Arc::new(Anybody(provider().signature_verification_algorithms)))
    }
}

/// Certificates of authorities, PEM.
pub(crate) fn roots(text: &str) -> Result<RootCertStore, Error> {
    let refuse = |reason: String| Error::Text { what: "certificates of authorities", reason };
    let mut roots = RootCertStore::empty();
    for der in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let der = der.map_err(|error| refuse(error.to_string()))?;
        roots.add(der).map_err(|error| refuse(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(refuse("there is no certificate in it".to_owned()));
    }
    Ok(roots)
}

#[derive(Debug)]
struct Anybody(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for Anybody {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    tls13_signatures!(0);
}

#[derive(Debug)]
struct Shown(Vec<PublicCertificate>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |one: &&PublicCertificate| one.0.key.choose_scheme(hello.signature_schemes()).is_some();
        self.0.iter().find(fits).map(|one| Arc::clone(&one.0))
    }
}
