//! The machinery of *compile only what changed*: every unit of work records what it read, and runs again when, and only
//! when, one of those things changed. A unit whose result is equal to the last one stops the change there.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use veer_core::{ClusterName, ObjectName};
use veer_resources::KindName;

use crate::catalog::ObjectKey;
use crate::routes::Parent;

/// Something that a unit may read. Reading *nothing there* is reading, too.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    /// The cluster's configuration.
    Cluster,
    /// One object.
    Object(ObjectKey),
    /// Workloads of a namespace that bear a label.
    Label(Arc<str>, Arc<str>, Arc<str>),
    /// Services of a namespace whose selector asks for a label.
    Selector(Arc<str>, Arc<str>, Arc<str>),
    /// EndpointSlices of a service.
    SlicesOf(ObjectName),
    /// EndpointSlices that hold an address.
    SlicesAt(IpAddr),
    /// Workloads that claim an address.
    WorkloadsAt(IpAddr),
    /// Services and imports that claim a virtual address.
    VirtualAddress(IpAddr),
    /// Gateways that ask for an address.
    GatewaysAt(IpAddr),
    /// ListenerSets that name a Gateway.
    ListenerSetsOf(ObjectName),
    /// Routes that name a Gateway or a ListenerSet.
    RoutesOf(KindName, ObjectName),
    /// A route, translated.
    Route(ObjectKey),
    /// ReferenceGrants of a namespace.
    Grants(Arc<str>),
    /// AuthorizationPolicies of a namespace.
    Authorization(Arc<str>),
    /// TrafficPolicies and XBackendTrafficPolicies for a target.
    Policies(ObjectKey),
    /// BackendTLSPolicies for a Service.
    TlsPolicies(ObjectName),
    /// A Link as far as services depend on it (not its lease).
    Link(ClusterName),
    /// Which Links there are.
    Links,
    /// The keys of a peer's tokens.
    Epoch(ClusterName),
    /// One offer of one peer, as it came.
    Offer(ClusterName, ObjectName),
    /// What peers offer of a service, as far as they may.
    Import(ObjectName),
    /// What names a service has.
    Shape(ObjectName),
    /// The service behind a per-cluster name.
    Alias(ObjectName),
    /// Routes attached to a service.
    Attached(Parent),
    /// Number of a service in tokens.
    ServiceId(ObjectName),
}

/// What changed.
pub(crate) type Dirty = HashSet<Key>;

/// Records what a unit reads.
#[derive(Default)]
pub(crate) struct Reads(RefCell<BTreeSet<Key>>);

impl Reads {
    pub fn note(&self, key: Key) {
        self.0.borrow_mut().insert(key);
    }

    fn into_keys(self) -> Vec<Key> {
        self.0.into_inner().into_iter().collect()
    }
}

/// Results of one kind of unit, by the unit's name.
pub(crate) struct Memo<K, V> {
    entries: BTreeMap<K, Entry<V>>,
    readers: HashMap<Key, BTreeSet<K>>,
}

struct Entry<V> {
    reads: Vec<Key>,
    value: Arc<V>,
}

/// A unit that is new, gone or whose result is another one, with the result that it had.
pub(crate) type Changed<K, V> = Vec<(K, Option<Arc<V>>)>;

impl<K: Ord + Clone, V: PartialEq> Memo<K, V> {
    /// Brings the results up to date for exactly the units of `wanted`, which come in order. `compute` gets the last result, to
    /// reuse parts of it.
    pub fn update(
        &mut self,
        wanted: impl IntoIterator<Item = K>,
        dirty: &Dirty,
        compute: impl Fn(&K, &Reads, Option<&V>) -> V,
    ) -> Changed<K, V> {
        let (new, gone) = self.differences(wanted);
        let mut changed = Vec::new();
        for unit in gone {
            let old = self.entries.remove(&unit).map(|entry| {
                self.forget(&unit, &entry.reads);
                entry.value
            });
            changed.push((unit, old));
        }
        let mut stale: BTreeSet<K> = dirty.iter().filter_map(|key| self.readers.get(key)).flatten().cloned().collect();
        stale.extend(new);
        for unit in stale {
            let last = self.entries.remove(&unit);
            let reads = Reads::default();
            let value = compute(&unit, &reads, last.as_ref().map(|entry| &*entry.value));
            let reads = reads.into_keys();
            if let Some(last) = &last {
                self.forget(&unit, &last.reads);
            }
            for key in &reads {
                self.readers.entry(key.clone()).or_default().insert(unit.clone());
            }
            let value = match last {
                Some(last) if *last.value == value => last.value,
                last => {
                    changed.push((unit.clone(), last.map(|entry| entry.value)));
                    Arc::new(value)
                }
            };
            self.entries.insert(unit, Entry { reads, value });
        }
        changed
    }

    pub fn get(&self, unit: &K) -> Option<&Arc<V>> {
        self.entries.get(unit).map(|entry| &entry.value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&K, &Arc<V>)> {
        self.entries.iter().map(|(unit, entry)| (unit, &entry.value))
    }

    /// Units that are wanted and not there, and the other way round: one walk over two ordered sequences.
    fn differences(&self, wanted: impl IntoIterator<Item = K>) -> (Vec<K>, Vec<K>) {
        let (mut new, mut gone) = (Vec::new(), Vec::new());
        let mut known = self.entries.keys().peekable();
        for unit in wanted {
            while let Some(old) = known.next_if(|old| **old < unit) {
                gone.push(old.clone());
            }
            if known.next_if(|old| **old == unit).is_none() {
                new.push(unit);
            }
        }
        gone.extend(known.cloned());
        (new, gone)
    }

    fn forget(&mut self, unit: &K, reads: &[Key]) {
        for key in reads {
            if let Some(readers) = self.readers.get_mut(key) {
                readers.remove(unit);
                if readers.is_empty() {
                    self.readers.remove(key);
                }
            }
        }
    }
}

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), readers: HashMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_unit_runs_again_only_when_something_it_read_changed() {
        let runs = Cell::new(0);
        let mut memo = Memo::<u8, u32>::default();
        let mut update = |dirty: &Dirty| {
            memo.update([1, 2], dirty, |unit, reads, _| {
                runs.set(runs.get() + 1);
                reads.note(if *unit == 1 { Key::Links } else { Key::Cluster });
                u32::from(*unit)
            })
        };
        assert_eq!(update(&Dirty::new()), [(1, None), (2, None)]);
        assert_eq!((update(&Dirty::new()), runs.get()), (vec![], 2));
        assert_eq!((update(&Dirty::from([Key::Links])), runs.get()), (vec![], 3), "run again, but nothing came of it");
        assert_eq!(memo.update([2, 3], &Dirty::new(), |_, _, _| 3), [(1, Some(Arc::new(1))), (3, None)]);
    }
}
