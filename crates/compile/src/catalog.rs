//! The objects of the cluster, found by name and by what refers to them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use veer_core::ObjectName;
use veer_resources::{Diagnostic, Kind, KindName, Object, ParentRef, SERVICE_NAME_LABEL};

use crate::faults;
use crate::ingress::{listener_kind, wanted};
use crate::memo::{Dirty, Key};
use crate::policies;

/// What tells an object from all others of its cluster.
pub(crate) type ObjectKey = (KindName, ObjectName);

#[derive(Default)]
pub(crate) struct Catalog {
    objects: BTreeMap<ObjectKey, Object>,
    index: HashMap<Key, BTreeSet<ObjectKey>>,
}

impl Catalog {
    /// Takes the objects as they are now, notes in `dirty` what differs, and reports objects that stand in two places.
    pub fn replace(&mut self, objects: &[Object], dirty: &mut Dirty) -> Vec<Diagnostic> {
        let mut now: BTreeMap<ObjectKey, &Object> = BTreeMap::new();
        let mut twice = Vec::new();
        for object in objects {
            let first = now.entry(object.key()).or_insert(object);
            if !std::ptr::eq(*first, object) {
                // The order of the input does not matter: the earlier place wins.
                let (kept, lost) = if object.at < first.at { (object, *first) } else { (*first, object) };
                *first = kept;
                twice.push(faults::twice(kept, lost));
            }
        }
        let gone: Vec<ObjectKey> = self.objects.keys().filter(|key| !now.contains_key(*key)).cloned().collect();
        for key in gone {
            if let Some(old) = self.objects.remove(&key) {
                self.unlist(&key, &old, dirty);
            }
        }
        for (key, object) in now {
            if self.objects.get(&key).is_some_and(|old| old == object) {
                continue;
            }
            if let Some(old) = self.objects.insert(key.clone(), object.clone()) {
                self.unlist(&key, &old, dirty);
            }
            dirty.insert(Key::Object(key.clone()));
            for entry in listed_under(object) {
                self.index.entry(entry.clone()).or_default().insert(key.clone());
                dirty.insert(entry);
            }
        }
        twice
    }

    pub fn get(&self, key: &ObjectKey) -> Option<&Object> {
        self.objects.get(key)
    }

    /// All objects of a kind, by name.
    pub fn of_kind(&self, kind: KindName) -> impl Iterator<Item = &Object> {
        let first = (kind, ObjectName::new("", ""));
        self.objects.range(first..).take_while(move |((k, _), _)| *k == kind).map(|(_, object)| object)
    }

    /// Objects listed under an index key, by kind and name.
    pub fn listed(&self, key: &Key) -> impl Iterator<Item = &Object> {
        self.index.get(key).into_iter().flatten().filter_map(|key| self.objects.get(key))
    }

    pub fn count(&self, key: &Key) -> usize {
        self.index.get(key).map_or(0, BTreeSet::len)
    }

    fn unlist(&mut self, key: &ObjectKey, old: &Object, dirty: &mut Dirty) {
        dirty.insert(Key::Object(key.clone()));
        for entry in listed_under(old) {
            if let Some(set) = self.index.get_mut(&entry) {
                set.remove(key);
                if set.is_empty() {
                    self.index.remove(&entry);
                }
            }
            dirty.insert(entry);
        }
    }
}

/// Every way, beside its name, in which an object is looked for.
fn listed_under(object: &Object) -> Vec<Key> {
    let namespace = || Arc::clone(&object.meta.namespace);
    match &object.kind {
        Kind::Workload(spec) => {
            let label = |(k, v): (&Arc<str>, &Arc<str>)| Key::Label(namespace(), Arc::clone(k), Arc::clone(v));
            let mut keys: Vec<Key> = object.meta.labels.iter().map(label).collect();
            keys.push(Key::WorkloadsAt(spec.address));
            keys
        }
        Kind::Service(spec) => {
            let label = |(k, v): (&Arc<str>, &Arc<str>)| Key::Selector(namespace(), Arc::clone(k), Arc::clone(v));
            let mut keys: Vec<Key> = spec.selector.iter().map(label).collect();
            keys.extend(spec.addresses().into_iter().map(Key::VirtualAddress));
            keys
        }
        Kind::ServiceImport(spec) => spec.ips.iter().copied().map(Key::VirtualAddress).collect(),
        Kind::EndpointSlice(slice) => {
            let service = object.meta.labels.get(SERVICE_NAME_LABEL);
            let service =
                service.map(|name| Key::SlicesOf(ObjectName { namespace: namespace(), name: Arc::clone(name) }));
            let address = |e: &veer_resources::SliceEndpoint| e.addresses.first()?.parse().ok().map(Key::SlicesAt);
            service.into_iter().chain(slice.endpoints.iter().filter_map(address)).collect()
        }
        Kind::Gateway(spec) => wanted(spec).map(Key::GatewaysAt).collect(),
        Kind::ListenerSet(spec) => {
            let namespace = spec.parent_ref.namespace.clone().unwrap_or_else(namespace);
            vec![Key::ListenerSetsOf(ObjectName { namespace, name: Arc::clone(&spec.parent_ref.name) })]
        }
        Kind::HttpRoute(spec) => listener_parents(object, &spec.parent_refs),
        Kind::GrpcRoute(spec) => listener_parents(object, &spec.parent_refs),
        Kind::TlsRoute(spec) => listener_parents(object, &spec.parent_refs),
        Kind::TcpRoute(spec) => listener_parents(object, &spec.parent_refs),
        Kind::UdpRoute(spec) => listener_parents(object, &spec.parent_refs),
        Kind::ReferenceGrant(_) => vec![Key::Grants(namespace())],
        Kind::AuthorizationPolicy(_) => vec![Key::Authorization(namespace())],
        Kind::TrafficPolicy(_) | Kind::BackendTrafficPolicy(_) => {
            policies::targets(object).into_iter().map(|(_, target)| Key::Policies(target)).collect()
        }
        Kind::BackendTlsPolicy(spec) => {
            let targets = spec.target_refs.iter().filter(|target| target.is_service());
            targets
                .map(|t| Key::TlsPolicies(ObjectName { namespace: namespace(), name: Arc::clone(&t.name) }))
                .collect()
        }
        _ => Vec::new(),
    }
}

/// The Gateways and ListenerSets that a route names.
fn listener_parents(route: &Object, parents: &[ParentRef]) -> Vec<Key> {
    let key = |parent: &ParentRef| {
        let namespace = parent.namespace.as_ref().unwrap_or(&route.meta.namespace);
        let name = ObjectName { namespace: Arc::clone(namespace), name: Arc::clone(&parent.name) };
        Some(Key::RoutesOf(listener_kind(parent.listeners()?), name))
    };
    parents.iter().filter_map(key).collect()
}
