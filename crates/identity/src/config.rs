//! rustls configurations: TLS 1.3 only, nothing resumed, certificates and roots of the moment.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use veer_core::SpiffeId;

use crate::clock::TlsClock;
use crate::trust::TrustStore;
use crate::verifier::{Anchor, ClientVerifier, Resolver, ServerVerifier};

/// Who may come to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// Any identity of any trusted trust domain, also Veer's own; what it may do is for the caller to decide.
    Required,
    /// Like [`Self::Required`], but Veer's own identities (gateways, control planes) are refused: nobody in between can act
    /// as a workload. For everything where workloads call workloads.
    Workloads,
    /// Like [`Self::Required`] when a certificate is shown; without one the peer is `None`. For joining.
    Optional,
}

/// What a client needs for its handshakes with [`connect`](crate::connect). Cheap to clone. It cannot be used without naming
/// the identities that may answer.
#[derive(Debug, Clone)]
pub struct ClientTls {
    base: Arc<rustls::ClientConfig>,
    anchor: Anchor,
}

impl ClientTls {
    /// The configuration of one connection, and its verifier.
    pub(crate) fn expecting(&self, expected: &[SpiffeId]) -> (Arc<rustls::ClientConfig>, Arc<ServerVerifier>) {
        let verifier = Arc::new(ServerVerifier {
            anchor: self.anchor.clone(),
            expected: expected.to_vec(),
            found: OnceLock::new(),
            algorithms: provider().signature_verification_algorithms,
        });
        let mut config = (*self.base).clone();
        config.dangerous().set_certificate_verifier(verifier.clone());
        (Arc::new(config), verifier)
    }
}

pub(crate) fn client(anchor: Anchor, key: Option<Arc<ArcSwap<CertifiedKey>>>, alpn: &[&[u8]]) -> ClientTls {
    // Stands in until `expecting` gives every connection its own; believes nobody.
    let nobody = ServerVerifier {
        anchor: Anchor::Trust(Arc::default()),
        expected: Vec::new(),
        found: OnceLock::new(),
        algorithms: provider().signature_verification_algorithms,
    };
    let builder = rustls::ClientConfig::builder_with_details(provider().clone(), Arc::new(TlsClock))
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(nobody));
    let mut config = match key {
        Some(key) => builder.with_client_cert_resolver(Arc::new(Resolver(key))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    ClientTls { base: Arc::new(config), anchor }
}

pub(crate) fn server(
    trust: Arc<ArcSwap<TrustStore>>,
    key: Arc<ArcSwap<CertifiedKey>>,
    alpn: &[&[u8]],
    auth: ClientAuth,
) -> Arc<rustls::ServerConfig> {
    let verifier = ClientVerifier { trust, auth, algorithms: provider().signature_verification_algorithms };
    let mut config = rustls::ServerConfig::builder_with_details(provider().clone(), Arc::new(TlsClock))
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites")
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(Resolver(key)));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    // A ticket would outlive the bundle or the certificate by which its connection was judged.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Arc::new(config)
}

fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(aws_lc_rs::default_provider()))
}
