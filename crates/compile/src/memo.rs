//! The machinery of *compile only what changed*: every unit of work records what it read, and runs again when, and only
//! when, one of those things changed. A unit whose result is equal to the last one stops the change there.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use veer_core::{ClusterName, ObjectName};

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
    /// ReferenceGrants of a namespace.
    Grants(Arc<str>),
    /// AuthorizationPolicies of a namespace.
    Authorization(Arc<str>),
    /// TrafficPolicies for a target.
    Policies(Parent),
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
pub(crate) struct Memo<K, V>(BTreeMap<K, Entry<V>>);

struct Entry<V> {
    reads: Vec<Key>,
    value: Arc<V>,
}

impl<K: Ord + Clone, V: PartialEq> Memo<K, V> {
    /// Brings the results up to date for exactly the units of `wanted`. `compute` gets the last result, to reuse parts of it.
    /// Returns the units that are new, gone or whose result is another one.
    pub fn update(
        &mut self,
        wanted: impl IntoIterator<Item = K>,
        dirty: &Dirty,
        compute: impl Fn(&K, &Reads, Option<&V>) -> V,
    ) -> Vec<K> {
        let mut old = std::mem::take(&mut self.0);
        let mut changed = Vec::new();
        for unit in wanted {
            let last = old.remove(&unit);
            let entry = match last {
                Some(entry) if !entry.reads.iter().any(|key| dirty.contains(key)) => entry,
                last => {
                    let reads = Reads::default();
                    let value = compute(&unit, &reads, last.as_ref().map(|e| &*e.value));
                    let reads = reads.into_keys();
                    match last {
                        Some(last) if *last.value == value => Entry { reads, value: last.value },
                        _ => {
                            changed.push(unit.clone());
                            Entry { reads, value: Arc::new(value) }
                        }
                    }
                }
            };
            self.0.insert(unit, entry);
        }
        changed.extend(old.into_keys());
        changed
    }

    pub fn get(&self, unit: &K) -> Option<&Arc<V>> {
        self.0.get(unit).map(|entry| &entry.value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&K, &Arc<V>)> {
        self.0.iter().map(|(unit, entry)| (unit, &entry.value))
    }
}

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
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
        assert_eq!(update(&Dirty::new()), [1, 2]);
        assert_eq!((update(&Dirty::new()), runs.get()), (vec![], 2));
        assert_eq!((update(&Dirty::from([Key::Links])), runs.get()), (vec![], 3), "run again, but nothing came of it");
    }
}
