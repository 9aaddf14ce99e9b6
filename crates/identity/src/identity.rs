//! A process's identity: its SVID and whom it trusts, both replaced in place while connections live on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use veer_core::TrustDomain;
use veer_core::inbound::TrustBundle;

use crate::config::{self, ClientAuth, ClientTls, ServerTls};
use crate::error::Error;
use crate::resume::Generation;
use crate::svid::Svid;
use crate::trust::TrustStore;
use crate::verifier::Anchor;

/// Handle to a process's identity. Cheap to clone; all clones see every change.
///
/// Configurations do not hold certificates or roots but look them up at each handshake, so one that a caller kept is never
/// stale. Established connections are not touched by a change: who must close them watches [`Self::changed`] and asks
/// [`Self::trusts`].
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    svid: ArcSwap<Svid>,
    key: Arc<ArcSwap<CertifiedKey>>,
    trust: Arc<ArcSwap<TrustStore>>,
    generation: watch::Sender<u64>,
    /// Moves with `generation`; what tickets are held against.
    tickets: Generation,
    clients: ArcSwap<Vec<(Vec<Vec<u8>>, ClientTls)>>,
    servers: ArcSwap<Vec<(Vec<Vec<u8>>, ClientAuth, Arc<ServerTls>)>>,
    /// Writers take turns; readers never wait.
    writer: Mutex<()>,
}

impl Identity {
    /// Begins with an SVID and the bundles it came with.
    ///
    /// # Errors
    /// When a bundle is refused (see [`TrustStore::insert`]) or the key is not the certificate's.
    pub fn new(svid: Svid, bundles: impl IntoIterator<Item = TrustBundle>) -> Result<Self, Error> {
        let mut trust = TrustStore::default();
        for bundle in bundles {
            trust.insert(bundle)?;
        }
        let key = svid.certified_key()?;
        Ok(Self(Arc::new(Inner {
            svid: ArcSwap::from_pointee(svid),
            key: Arc::new(ArcSwap::new(key)),
            trust: Arc::new(ArcSwap::from_pointee(trust)),
            generation: watch::Sender::new(1),
            tickets: Generation::default(),
            clients: ArcSwap::default(),
            servers: ArcSwap::default(),
            writer: Mutex::new(()),
        })))
    }

    /// Shows another SVID from the next handshake on. An SVID whose key cannot be used is refused and logged; the former
    /// stays. (None that [`Svid::from_chain`] made is.)
    pub fn rotate(&self, svid: Svid) {
        let _turn = self.turn();
        match svid.certified_key() {
            Ok(key) => {
                self.0.key.store(key);
                self.0.svid.store(Arc::new(svid));
                self.bump();
            }
            Err(error) => tracing::error!(%error, "a new certificate was refused, the former stays"),
        }
    }

    /// Takes or replaces a trust domain's bundle.
    ///
    /// # Errors
    /// When the bundle is refused (see [`TrustStore::insert`]); the former stays.
    pub fn trust(&self, bundle: TrustBundle) -> Result<(), Error> {
        let _turn = self.turn();
        let mut trust = (**self.0.trust.load()).clone();
        if trust.insert(bundle)? {
            self.0.trust.store(Arc::new(trust));
            self.bump();
        }
        Ok(())
    }

    /// Believes no handshake of that trust domain any more. One's own trust domain stays: its loss is never a statement.
    pub fn distrust(&self, trust_domain: &TrustDomain) {
        let _turn = self.turn();
        if *trust_domain == self.0.svid.load().id.trust_domain {
            tracing::warn!(%trust_domain, "the own trust domain cannot be distrusted");
            return;
        }
        let mut trust = (**self.0.trust.load()).clone();
        if trust.remove(trust_domain) {
            self.0.trust.store(Arc::new(trust));
            self.bump();
        }
    }

    /// Whether a bundle is held for the trust domain.
    pub fn trusts(&self, trust_domain: &TrustDomain) -> bool {
        self.0.trust.load().bundle(trust_domain).is_some()
    }

    /// The bundles held.
    pub fn trust_store(&self) -> Arc<TrustStore> {
        self.0.trust.load_full()
    }

    /// The SVID shown now.
    pub fn svid(&self) -> Arc<Svid> {
        self.0.svid.load_full()
    }

    /// When half of the SVID's lifetime is over. With jitter: [`Svid::renew_at`].
    pub fn renew_at(&self) -> SystemTime {
        self.0.svid.load().renew_at(0.0)
    }

    /// A generation that grows with every change of SVID or trust.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.generation.subscribe()
    }

    /// What [`connect`](crate::connect) needs to offer these protocols. Cheap: made once per list of protocols.
    pub fn client_config(&self, alpn: &[&[u8]]) -> ClientTls {
        if let Some((_, tls)) = self.0.clients.load().iter().find(|(names, _)| same(names, alpn)) {
            return tls.clone();
        }
        let _turn = self.turn();
        let tls =
            config::client(Anchor::Trust(self.0.trust.clone()), Some(self.0.key.clone()), alpn, self.0.tickets.clone());
        let mut all = (**self.0.clients.load()).clone();
        all.push((alpn.iter().map(|name| name.to_vec()).collect(), tls.clone()));
        self.0.clients.store(Arc::new(all));
        tls
    }

    /// What [`accept`](crate::accept) needs to answer these protocols. Cheap: made once per list of protocols and `auth`.
    pub fn server_config(&self, alpn: &[&[u8]], auth: ClientAuth) -> Arc<ServerTls> {
        let known = self.0.servers.load();
        if let Some((_, _, config)) = known.iter().find(|(names, a, _)| *a == auth && same(names, alpn)) {
            return config.clone();
        }
        let _turn = self.turn();
        let config =
            Arc::new(config::server(self.0.trust.clone(), self.0.key.clone(), alpn, auth, self.0.tickets.clone()));
        let mut all = (**self.0.servers.load()).clone();
        all.push((alpn.iter().map(|name| name.to_vec()).collect(), auth, config.clone()));
        self.0.servers.store(Arc::new(all));
        config
    }

    fn turn(&self) -> std::sync::MutexGuard<'_, ()> {
        self.0.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After every change: nothing from before it is resumed.
    fn bump(&self) {
        self.0.tickets.advance();
        self.0.generation.send_modify(|generation| *generation += 1);
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("id", &self.0.svid.load().id).finish_non_exhaustive()
    }
}

fn same(names: &[Vec<u8>], alpn: &[&[u8]]) -> bool {
    names.len() == alpn.len() && names.iter().zip(alpn).all(|(a, b)| a == b)
}
