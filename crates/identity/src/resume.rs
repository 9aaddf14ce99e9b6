//! Resumption: what a client keeps of a handshake to make the next one cheap (RFC 8446 §2.2), and for how long. What a server
//! gives out for it: [`crate::tickets`].
//!
//! A ticket is good only while the process that made it and the process that holds it have the certificate and the bundles
//! that they had then: each change starts a new [`Generation`], in which no older ticket is offered or taken. What has run out
//! meanwhile is found by judging the first handshake's chain again, by the rules and the clock of the moment
//! ([`connect`](crate::connect), [`accept`](crate::accept)).

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls_pki_types::ServerName;

/// Tickets kept for one destination: connections begun at the same time need one each.
const MAX_TICKETS: usize = 32;

/// Counts the changes of certificate and bundles of one [`Identity`](crate::Identity).
#[derive(Debug, Clone, Default)]
pub(crate) struct Generation(Arc<AtomicU64>);

impl Generation {
    pub(crate) fn advance(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn current(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// A client's tickets for one destination. Each is offered once (RFC 8446 §C.4).
pub(crate) struct Kept {
    generation: Generation,
    tickets: Mutex<VecDeque<(u64, Tls13ClientSessionValue)>>,
}

impl Kept {
    pub(crate) fn new(generation: Generation) -> Self {
        Self { generation, tickets: Mutex::default() }
    }

    /// Whether there is a ticket to offer.
    pub(crate) fn is_empty(&self) -> bool {
        self.current().is_empty()
    }

    /// Forgets all tickets: what one of them led to was not believed.
    pub(crate) fn clear(&self) {
        self.current().clear();
    }

    /// The tickets, without those of earlier generations.
    fn current(&self) -> std::sync::MutexGuard<'_, VecDeque<(u64, Tls13ClientSessionValue)>> {
        let current = self.generation.current();
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.retain(|(generation, _)| *generation == current);
        tickets
    }
}

impl ClientSessionStore for Kept {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let generation = self.generation.current();
        let mut tickets = self.current();
        if tickets.len() >= MAX_TICKETS {
            tickets.pop_front();
        }
        tickets.push_back((generation, ticket));
    }

    /// The newest.
    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.current().pop_back().map(|(_, ticket)| ticket)
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept(..)")
    }
}
