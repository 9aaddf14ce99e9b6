//! How many connections strangers may hold: in all, per source address, and while nothing is known of them yet.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Limits on connections of one listener side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections at once.
    pub total: usize,
    /// Connections at once from one source: an IPv4 address, or an IPv6 network of 64 bits, which is what one host
    /// gets. A whole cluster may come from one translated address, so this is no fairness between workloads but a fence
    /// around one machine.
    pub per_source: usize,
    /// Connections at once from one source that have not shown a whole ClientHello.
    pub pending_per_source: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { total: 20_000, per_source: 10_000, pending_per_source: 512 }
    }
}

/// Why a connection is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Total,
    Source,
    Pending,
}

impl Full {
    /// For metrics.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Full::Total => "total_limit",
            Full::Source => "source_limit",
            Full::Pending => "pending_limit",
        }
    }
}

/// Counts connections. Shared by the workers; the lock is taken when a connection begins, is understood and ends.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: ConnectionLimits,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    sources: HashMap<IpAddr, Source>,
}

#[derive(Debug, Default)]
struct Source {
    open: usize,
    pending: usize,
}

/// One admitted connection; dropping it makes room.
#[derive(Debug)]
pub(crate) struct Admitted {
    admission: Arc<Admission>,
    source: IpAddr,
    pending: bool,
}

impl Admission {
    pub(crate) fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self { limits, counts: Mutex::default() })
    }

    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Admitted, Full> {
        let source = source_of(address);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.total >= self.limits.total {
            return Err(Full::Total);
        }
        let of_source = counts.sources.entry(source).or_default();
        // A source that is refused has connections, so its entry was there before: refusing leaves nothing behind.
        if of_source.open >= self.limits.per_source {
            return Err(Full::Source);
        }
        if of_source.pending >= self.limits.pending_per_source {
            return Err(Full::Pending);
        }
        of_source.open += 1;
        of_source.pending += 1;
        counts.total += 1;
        Ok(Admitted { admission: Arc::clone(self), source, pending: true })
    }

    pub(crate) fn open(&self) -> usize {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).total
    }
}

impl Admitted {
    /// The connection has shown what it wants.
    pub(crate) fn understood(&mut self) {
        self.change(|source| source.pending = source.pending.saturating_sub(1));
        self.pending = false;
    }

    fn change(&self, change: impl FnOnce(&mut Source)) {
        let mut counts = self.admission.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(source) = counts.sources.get_mut(&self.source) {
            change(source);
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut counts = self.admission.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.total = counts.total.saturating_sub(1);
        if let Some(source) = counts.sources.get_mut(&self.source) {
            source.open = source.open.saturating_sub(1);
            source.pending = source.pending.saturating_sub(usize::from(self.pending));
            if source.open == 0 {
                counts.sources.remove(&self.source);
            }
        }
    }
}

fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_limit_holds_and_room_comes_back() {
        let admission = Admission::new(ConnectionLimits { total: 4, per_source: 3, pending_per_source: 2 });
        let one = at("192.0.2.1");
        let mut first = admission.enter(one).unwrap();
        let second = admission.enter(one).unwrap();
        assert_eq!(admission.enter(one).unwrap_err(), Full::Pending);
        first.understood();
        let third = admission.enter(one).unwrap();
        assert_eq!(admission.enter(one).unwrap_err(), Full::Source);
        let other = admission.enter(at("192.0.2.2")).unwrap();
        assert_eq!(admission.enter(at("192.0.2.3")).unwrap_err(), Full::Total);
        assert_eq!(admission.open(), 4);
        drop((first, second, third, other));
        assert_eq!(admission.open(), 0);
        assert!(admission.counts.lock().unwrap().sources.is_empty(), "nothing is kept of sources that have gone");
    }

    #[test]
    fn a_host_with_many_ipv6_addresses_is_one_source() {
        let admission = Admission::new(ConnectionLimits { total: 9, per_source: 1, pending_per_source: 9 });
        let _first = admission.enter(at("2001:db8::1")).unwrap();
        assert_eq!(admission.enter(at("2001:db8::2")).unwrap_err(), Full::Source);
        assert!(admission.enter(at("2001:db8:0:1::1")).is_ok());
        let _v4 = admission.enter(at("192.0.2.1")).unwrap();
        assert_eq!(admission.enter(at("::ffff:192.0.2.1")).unwrap_err(), Full::Source);
    }
}
