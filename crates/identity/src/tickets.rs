//! What a server gives to those who may come again (RFC 8446 §4.6.1).

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use rustls::server::ProducesTickets;

use crate::clock;
use crate::resume::Generation;

/// How long a ticket is good: long enough for whoever comes again, short enough for a stolen key to lose its worth.
const TICKET_LIFETIME: Duration = Duration::from_secs(2 * 3600);
/// How long a ticket key makes tickets; it opens them for a [`TICKET_LIFETIME`] more.
const KEY_LIFETIME: Duration = TICKET_LIFETIME;
/// Chains kept, about 1.1 KiB each; when there are more, all are forgotten, and tickets that need them.
const MAX_CHAINS: usize = 256;
/// End, number of the chain, its place.
const PREFIX: usize = 8 + 8 + 4;

/// A server's tickets: everything is in them, sealed, but for certificates; the server keeps keys, and each caller's chain once.
pub(crate) struct Tickets {
    generation: Generation,
    keys: ArcSwapOption<Keys>,
    writer: Mutex<()>,
    chains: Mutex<Chains>,
}

struct Keys {
    generation: u64,
    made: SystemTime,
    current: Arc<RandomizedNonceKey>,
    previous: Option<Arc<RandomizedNonceKey>>,
}

impl Tickets {
    pub(crate) fn new(generation: Generation) -> Self {
        Self { generation, keys: ArcSwapOption::empty(), writer: Mutex::default(), chains: Mutex::default() }
    }

    /// The keys of this generation that may still open tickets.
    fn keys(&self, now: SystemTime) -> Option<Arc<Keys>> {
        let keys = self.keys.load_full()?;
        let age = now.duration_since(keys.made).unwrap_or_default();
        (keys.generation == self.generation.current() && age < KEY_LIFETIME + TICKET_LIFETIME).then_some(keys)
    }

    /// The keys to seal with; new ones if need be.
    fn fresh_keys(&self, now: SystemTime) -> Option<Arc<Keys>> {
        let is_fresh = |keys: &Arc<Keys>| now.duration_since(keys.made).is_ok_and(|age| age < KEY_LIFETIME);
        if let Some(keys) = self.keys(now).filter(is_fresh) {
            return Some(keys);
        }
        let _turn = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.keys(now);
        if let Some(keys) = held.clone().filter(is_fresh) {
            return Some(keys);
        }
        let mut secret = [0; 32];
        aws_lc_rs::rand::fill(&mut secret).ok()?;
        let keys = Arc::new(Keys {
            generation: self.generation.current(),
            made: now,
            current: Arc::new(RandomizedNonceKey::new(&AES_256_GCM, &secret).ok()?),
            previous: held.map(|keys| Arc::clone(&keys.current)),
        });
        self.keys.store(Some(Arc::clone(&keys)));
        Some(keys)
    }
}

impl Tickets {
    fn chains(&self) -> std::sync::MutexGuard<'_, Chains> {
        self.chains.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        TICKET_LIFETIME.as_secs() as u32
    }

    /// Nonce, then sealed: end in seconds, number and place of the chain, the rest of the session, tag.
    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        let now = clock::now();
        let keys = self.fresh_keys(now)?;
        let ends = clock::unix_seconds(now + TICKET_LIFETIME);
        let chain = chain_of(session).unwrap_or(0..0);
        let number = if chain.is_empty() { 0 } else { self.chains().number(&session[chain.clone()]) };
        let mut text = Vec::with_capacity(PREFIX + session.len() - chain.len() + AES_256_GCM.tag_len());
        text.extend_from_slice(&ends.to_be_bytes());
        text.extend_from_slice(&number.to_be_bytes());
        text.extend_from_slice(&(chain.start as u32).to_be_bytes());
        text.extend_from_slice(&session[..chain.start]);
        text.extend_from_slice(&session[chain.end..]);
        let nonce = keys.current.seal_in_place_append_tag(Aad::empty(), &mut text).ok()?;
        text.splice(0..0, *nonce.as_ref());
        Some(text)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let now = clock::now();
        let keys = self.keys(now)?;
        let (nonce, sealed) = ticket.split_first_chunk::<NONCE_LEN>()?;
        let text = std::iter::once(&keys.current).chain(&keys.previous).find_map(|key| {
            let mut text = sealed.to_vec();
            let length = key.open_in_place(Nonce::from(nonce), Aad::empty(), &mut text).ok()?.len();
            text.truncate(length);
            Some(text)
        })?;
        let (ends, rest) = text.split_first_chunk::<8>()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let (place, rest) = rest.split_first_chunk::<4>()?;
        if clock::unix_seconds(now) >= u64::from_be_bytes(*ends) {
            return None;
        }
        match u64::from_be_bytes(*number) {
            0 => Some(rest.to_vec()),
            number => {
                let chain = self.chains().get(number)?;
                let (before, after) = rest.split_at_checked(u32::from_be_bytes(*place) as usize)?;
                Some([before, &chain, after].concat())
            }
        }
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets(..)")
    }
}

/// Callers' certificates, which rustls would put into every ticket: 1.1 KiB that is sealed, sent, kept by the client, sent back
/// and hashed four times on the way. A number stands for it. Numbers are never used twice.
#[derive(Default)]
struct Chains {
    numbers: HashMap<Arc<[u8]>, u64>,
    bytes: HashMap<u64, Arc<[u8]>>,
    last: u64,
}

impl Chains {
    fn number(&mut self, chain: &[u8]) -> u64 {
        if let Some(number) = self.numbers.get(chain) {
            return *number;
        }
        if self.numbers.len() >= MAX_CHAINS {
            self.numbers.clear();
            self.bytes.clear();
        }
        self.last += 1;
        let chain: Arc<[u8]> = chain.into();
        self.numbers.insert(Arc::clone(&chain), self.last);
        self.bytes.insert(self.last, chain);
        self.last
    }

    fn get(&self, number: u64) -> Option<Arc<[u8]>> {
        self.bytes.get(&number).cloned()
    }
}

/// Where the caller's chain lies in a session as rustls writes it: name, version, suite, secret, one more flag, then it. Should
/// that ever be wrong, other bytes are kept and put back: the ticket is no worse.
fn chain_of(session: &[u8]) -> Option<Range<usize>> {
    let byte = |at: usize| session.get(at).copied().map(usize::from);
    let name = if byte(0)? == 1 { 2 + byte(1)? } else { 1 };
    let secret = name + 4;
    let flags = secret + 1 + byte(secret)?;
    let start = flags + 2;
    let length = byte(start)? << 16 | byte(start + 1)? << 8 | byte(start + 2)?;
    let chain = start..start + 3 + length;
    (byte(flags + 1)? == 1 && chain.end <= session.len()).then_some(chain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn session(name: Option<&str>, chain: &[u8]) -> Vec<u8> {
        let mut bytes = match name {
            Some(name) => [&[1, name.len() as u8], name.as_bytes()].concat(),
            None => vec![0],
        };
        bytes.extend([3, 4, 0x13, 1, 32]);
        bytes.extend([9; 32]);
        bytes.extend([1, 1, 0, (chain.len() >> 8) as u8, chain.len() as u8]);
        bytes.extend(chain);
        bytes.extend([1, 2, b'h', b'2', 0, 0, 1, 2, 3]);
        bytes
    }

    #[test]
    fn chains_are_not_in_tickets_and_come_back() {
        let tickets = Tickets::new(Generation::default());
        for name in [None, Some("p80.west")] {
            for chain in [vec![1; 1100], vec![2; 900]] {
                let session = session(name, &chain);
                let ticket = tickets.encrypt(&session).unwrap();
                assert!(ticket.len() < 140, "{}", ticket.len());
                assert_eq!(tickets.decrypt(&ticket).unwrap(), session);
            }
        }
        assert_eq!(tickets.chains().bytes.len(), 2);
    }

    #[test]
    fn forgotten_chains_are_not_mistaken_for_others() {
        let tickets = Tickets::new(Generation::default());
        let old = tickets.encrypt(&session(None, &[7; 50])).unwrap();
        for n in 0..=MAX_CHAINS {
            tickets.encrypt(&session(None, &[n as u8, (n >> 8) as u8, 3])).unwrap();
        }
        assert_eq!(tickets.decrypt(&old), None);
        assert!(tickets.chains().bytes.len() <= MAX_CHAINS);
    }

    proptest! {
        #[test]
        fn any_session_comes_back_and_no_other_ticket_is_taken(
            session in proptest::collection::vec(any::<u8>(), 0..300),
            at in any::<prop::sample::Index>(),
        ) {
            let tickets = Tickets::new(Generation::default());
            let mut ticket = tickets.encrypt(&session).unwrap();
            prop_assert_eq!(tickets.decrypt(&ticket), Some(session));
            let at = at.index(ticket.len());
            ticket[at] ^= 1;
            prop_assert_eq!(tickets.decrypt(&ticket), None);
            prop_assert_eq!(tickets.decrypt(&ticket[..at]), None);
        }
    }
}
