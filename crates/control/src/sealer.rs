//! Tokens for peers: sealed under the keys of the present epoch.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use veer_compile::TokenSealer;
use veer_core::ClusterName;
use veer_core::gateway::TokenKey;
use veer_identity::{EpochKeys, RouteToken, TokenCrypter};

/// Seals tokens of one moment.
pub(crate) struct Sealer {
    keys: EpochKeys,
    now: SystemTime,
    crypters: RefCell<BTreeMap<ClusterName, Option<TokenCrypter>>>,
}

impl Sealer {
    pub(crate) fn new(keys: EpochKeys, now: SystemTime) -> Self {
        Self { keys, now, crypters: RefCell::default() }
    }

    /// The keys by which gateways open what these peers show now.
    pub(crate) fn accepted<'a>(&self, peers: impl IntoIterator<Item = &'a ClusterName>) -> Vec<TokenKey> {
        peers.into_iter().flat_map(|peer| self.keys.accepted(peer, self.now)).collect()
    }

    fn seal(&self, peer: &ClusterName, token: &RouteToken) -> Option<Arc<str>> {
        let mut crypters = self.crypters.borrow_mut();
        let crypter =
            crypters.entry(peer.clone()).or_insert_with(|| TokenCrypter::new(&self.keys.current(peer, self.now)).ok());
        crypter.as_ref().map(|crypter| crypter.seal(token).into())
    }
}

impl TokenSealer for Sealer {
    fn epoch(&self, _: &ClusterName) -> u64 {
        EpochKeys::epoch(self.now)
    }

    fn endpoint(&self, peer: &ClusterName, address: IpAddr, port: u16) -> Option<Arc<str>> {
        self.seal(peer, &RouteToken::Endpoint { addr: address, port })
    }

    fn service(&self, peer: &ClusterName, service: u32, port: u16) -> Option<Arc<str>> {
        self.seal(peer, &RouteToken::Service { id: service, port })
    }
}
