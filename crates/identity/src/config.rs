//! rustls configurations: TLS 1.3 only, certificates and roots of the moment.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::server::NoServerSessionStorage;
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use veer_core::SpiffeId;
use veer_core::sni::Sni;

use crate::clock::TlsClock;
use crate::resume::{Generation, Kept};
use crate::tickets::Tickets;
use crate::trust::TrustStore;
use crate::verifier::{Anchor, ClientVerifier, Resolver, SecretNotes, ServerVerifier};

/// Destinations whose tickets are kept; when there are more, those without tickets go first, then all.
const MAX_DESTINATIONS: usize = 256;

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

/// What a server needs for its handshakes with [`accept`](crate::accept).
#[derive(Debug)]
pub struct ServerTls {
    pub(crate) config: Arc<rustls::ServerConfig>,
    /// `None`: clients outside of the mesh, of whom rustls alone judges.
    pub(crate) verifier: Option<Arc<ClientVerifier>>,
}

/// What a client needs for its handshakes with [`connect`](crate::connect). Cheap to clone. It cannot be used without naming
/// the identities that may answer.
#[derive(Debug, Clone)]
pub struct ClientTls {
    shared: Arc<Shared>,
    destination: Option<SocketAddr>,
    holds_last_flight: bool,
}

#[derive(Debug)]
struct Shared {
    full: ClientConfig,
    resuming: ClientConfig,
    anchor: Anchor,
    generation: Generation,
    destinations: Mutex<HashMap<(SocketAddr, String), Vec<Arc<Destination>>>>,
}

/// How to shake hands with certain identities, at one address under one name or anywhere.
#[derive(Debug)]
pub(crate) struct Destination {
    full: Arc<ClientConfig>,
    resuming: Option<Arc<ClientConfig>>,
    pub(crate) verifier: Arc<ServerVerifier>,
    pub(crate) tickets: Option<Arc<Kept>>,
}

impl Destination {
    /// The configuration of the next connection.
    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        match (&self.resuming, &self.tickets) {
            (Some(resuming), Some(tickets)) if !tickets.is_empty() => Arc::clone(resuming),
            _ => Arc::clone(&self.full),
        }
    }
}

impl ClientTls {
    /// Says where the connection leads: tickets that were given there are used there again, which saves signatures and
    /// certificates. Without an address nothing is resumed.
    pub fn toward(mut self, address: SocketAddr) -> Self {
        self.destination = Some(address);
        self
    }

    /// Lets the handshake's last flight leave together with the first bytes that are written, which saves a send. For callers
    /// that write, flush or read at once: until then the server waits.
    pub fn holding_last_flight(mut self) -> Self {
        self.holds_last_flight = true;
        self
    }

    pub(crate) fn holds_last_flight(&self) -> bool {
        self.holds_last_flight
    }

    /// How to shake hands with exactly these identities.
    pub(crate) fn expecting(&self, sni: &Sni, expected: &[SpiffeId]) -> Arc<Destination> {
        let Some(address) = self.destination else { return Arc::new(self.shared.destination(expected, None)) };
        let mut all = self.shared.destinations.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (address, sni.to_string());
        // An address may stand for several sets of identities: a gateway, or a port that was given to somebody else.
        if let Some(found) = all.get(&key).and_then(|all| all.iter().find(|one| *one.verifier.expected == *expected)) {
            return Arc::clone(found);
        }
        if all.len() >= MAX_DESTINATIONS {
            all.retain(|_, all| all.iter().any(|one| one.tickets.as_ref().is_some_and(|kept| !kept.is_empty())));
        }
        if all.len() >= MAX_DESTINATIONS {
            all.clear();
        }
        let kept = Arc::new(Kept::new(self.shared.generation.clone()));
        let made = Arc::new(self.shared.destination(expected, Some(kept)));
        let here = all.entry(key).or_default();
        here.truncate(3);
        here.insert(0, Arc::clone(&made));
        made
    }
}

impl Shared {
    fn destination(&self, expected: &[SpiffeId], tickets: Option<Arc<Kept>>) -> Destination {
        let verifier = Arc::new(ServerVerifier {
            anchor: self.anchor.clone(),
            expected: expected.into(),
            algorithms: provider().signature_verification_algorithms,
        });
        let config = |base: &ClientConfig| {
            let mut config = base.clone();
            config.dangerous().set_certificate_verifier(verifier.clone());
            config.resumption = match &tickets {
                Some(kept) => Resumption::store(kept.clone()),
                None => Resumption::disabled(),
            };
            Arc::new(config)
        };
        let resuming = tickets.is_some().then(|| config(&self.resuming));
        Destination { full: config(&self.full), resuming, verifier, tickets }
    }
}

pub(crate) fn client(
    anchor: Anchor,
    key: Option<Arc<ArcSwap<CertifiedKey>>>,
    alpn: &[&[u8]],
    generation: Generation,
) -> ClientTls {
    // Stands in until `expecting` gives every destination its own; believes nobody.
    let nobody = Arc::new(ServerVerifier {
        anchor: Anchor::Trust(Arc::default()),
        expected: Box::default(),
        algorithms: provider().signature_verification_algorithms,
    });
    // One for both configurations: rustls offers a ticket only with the certificate source that it was got with.
    let resolver = Arc::new(Resolver(key));
    let config = |provider: &Arc<CryptoProvider>| {
        let mut config = ClientConfig::builder_with_details(provider.clone(), Arc::new(TlsClock))
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has TLS 1.3 suites")
            .dangerous()
            .with_custom_certificate_verifier(nobody.clone())
            .with_client_cert_resolver(resolver.clone());
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        // Records are ours ([`crate::tls`]).
        config.enable_secret_extraction = true;
        config.key_log = Arc::new(SecretNotes);
        config
    };
    let shared = Shared {
        full: config(provider()),
        resuming: config(resuming_provider()),
        anchor,
        generation,
        destinations: Mutex::default(),
    };
    ClientTls { shared: Arc::new(shared), destination: None, holds_last_flight: false }
}

pub(crate) fn server(
    trust: Arc<ArcSwap<TrustStore>>,
    key: Arc<ArcSwap<CertifiedKey>>,
    alpn: &[&[u8]],
    auth: ClientAuth,
    generation: Generation,
) -> ServerTls {
    let algorithms = provider().signature_verification_algorithms;
    let verifier = Arc::new(ClientVerifier { trust, auth, algorithms });
    let mut config = rustls::ServerConfig::builder_with_details(provider().clone(), Arc::new(TlsClock))
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites")
        .with_client_cert_verifier(verifier.clone())
        .with_cert_resolver(Arc::new(Resolver(Some(key))));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    // The tickets of one configuration are good for it alone: another may admit others.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Arc::new(Tickets::new(generation));
    config.send_tls13_tickets = 1;
    config.max_early_data_size = 0;
    config.enable_secret_extraction = true;
    config.key_log = Arc::new(SecretNotes);
    ServerTls { config: Arc::new(config), verifier: Some(verifier) }
}

/// Full handshakes: hybrid key exchange first.
pub(crate) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| with_groups(&[kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1]))
}

/// Handshakes that offer a ticket: its secret came from a full one.
fn resuming_provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| with_groups(&[kx_group::X25519, kx_group::X25519MLKEM768, kx_group::SECP256R1]))
}

fn with_groups(groups: &[&'static dyn SupportedKxGroup]) -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        // AES-128 first: a third less work per byte than AES-256, which rustls puts first.
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: groups.to_vec(),
        ..default_provider()
    })
}
