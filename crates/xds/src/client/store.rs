//! Everything a client knows, and what it still has to ask for. No I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use veer_core::{Known, Resource};

use super::cache::{Cache, CachedCollection, CachedResource, Received, WRITER};
use super::slot::{All, CollectionSlot, One, Slot};
use crate::proto::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use crate::server::WILDCARD;

/// Names per request: far below gRPC's usual limit on a message, whatever their length.
const NAMES_PER_REQUEST: usize = 1000;

#[derive(Default)]
pub(super) struct Store {
    types: BTreeMap<&'static str, Table>,
    /// Not yet asked for since the process began.
    cached: HashMap<(String, String), CachedResource>,
    cached_collections: HashMap<String, CachedCollection>,
    cache_read_at: Option<SystemTime>,
    /// What nobody holds, oldest first; entries may be out of date.
    idle: VecDeque<(Instant, &'static str, Arc<str>)>,
    /// Counts up with every response that changed something.
    pub generation: u64,
}

#[derive(Default)]
struct Table {
    entries: HashMap<Arc<str>, Entry>,
    to_subscribe: BTreeSet<Arc<str>>,
    to_unsubscribe: BTreeSet<Arc<str>>,
}

struct Entry {
    place: Place,
    handles: usize,
    idle_since: Option<Instant>,
    received: Option<Received>,
}

enum Place {
    One { slot: Arc<dyn Slot>, version: String },
    All { slot: Arc<dyn CollectionSlot>, versions: BTreeMap<String, String> },
}

impl Store {
    /// The receiver for a name, and whether it is to be asked for.
    pub(super) fn subscribe_one<R: Resource>(&mut self, name: &str) -> (watch::Receiver<Known<R>>, bool) {
        let table = self.types.entry(R::TYPE_URL).or_default();
        if let Some(entry) = table.entries.get_mut(name) {
            entry.take_handle();
            let Place::One { slot, .. } = &entry.place else { panic!("{name:?} is no name of a single resource") };
            return (downcast::<One<R>>(slot.as_any()).sender.subscribe(), false);
        }
        let one = One::<R>::new();
        let mut entry_version = String::new();
        let mut received = None;
        if let Some(cached) = self.cached.remove(&(R::TYPE_URL.to_owned(), name.to_owned())) {
            let usable = match &cached.body {
                Some(body) => one.put(body.to_string().as_bytes()).is_ok(),
                None if cached.absent => one.absent(),
                None => false,
            };
            if usable {
                let now = self.cache_read_at.unwrap_or(SystemTime::UNIX_EPOCH);
                received = Some(Received::from_wall(cached.received, now));
                entry_version = cached.version;
            }
        }
        let receiver = one.sender.subscribe();
        table.add(name, Place::One { slot: Arc::new(one), version: entry_version }, received);
        (receiver, true)
    }

    /// The receiver for a whole type, and whether it is to be asked for.
    pub(super) fn subscribe_all<R: Resource>(&mut self) -> (watch::Receiver<Known<BTreeMap<String, Arc<R>>>>, bool) {
        let table = self.types.entry(R::TYPE_URL).or_default();
        if let Some(entry) = table.entries.get_mut(WILDCARD) {
            entry.take_handle();
            let Place::All { slot, .. } = &entry.place else { panic!("\"*\" is no name of a single resource") };
            return (downcast::<All<R>>(slot.as_any()).sender.subscribe(), false);
        }
        let all = All::<R>::new();
        let mut versions = BTreeMap::new();
        let mut received = None;
        if let Some(cached) = self.cached_collections.remove(R::TYPE_URL)
            && let Some(bodies) = cached.bodies
        {
            for (name, body) in bodies {
                if all.put(&name, body.to_string().as_bytes()).is_ok()
                    && let Some(version) = cached.versions.get(&name)
                {
                    versions.insert(name, version.clone());
                }
            }
            all.commit();
            let now = self.cache_read_at.unwrap_or(SystemTime::UNIX_EPOCH);
            received = Some(Received::from_wall(cached.received, now));
        }
        let receiver = all.sender.subscribe();
        table.add(WILDCARD, Place::All { slot: Arc::new(all), versions }, received);
        (receiver, true)
    }

    /// One handle less.
    pub(super) fn release(&mut self, type_url: &'static str, name: &Arc<str>) {
        let Some(entry) = self.types.get_mut(type_url).and_then(|table| table.entries.get_mut(name)) else { return };
        entry.handles = entry.handles.saturating_sub(1);
        if entry.handles == 0 {
            let now = Instant::now();
            entry.idle_since = Some(now);
            self.idle.push_back((now, type_url, Arc::clone(name)));
        }
    }

    /// Gives back what nobody has held since `before`. Only to be called while synced: without a control plane nothing that was
    /// let go could be had again.
    pub(super) fn sweep(&mut self, before: Instant) {
        while let Some((since, type_url, name)) = self.idle.pop_front_if(|(since, ..)| *since <= before) {
            let Some(table) = self.types.get_mut(type_url) else { continue };
            let still = table.entries.get(&name).is_some_and(|entry| entry.idle_since == Some(since));
            if still {
                table.entries.remove(&name);
                if !table.to_subscribe.remove(&name) {
                    table.to_unsubscribe.insert(name);
                }
            }
        }
    }

    /// Forgets what a cache held and nobody has asked for.
    pub(super) fn drop_unused_cache(&mut self) {
        self.cached = HashMap::new();
        self.cached_collections = HashMap::new();
    }

    /// A stream begins: everything is to be asked for again. Returns the types that there are.
    pub(super) fn begin_stream(&mut self) -> BTreeSet<&'static str> {
        for table in self.types.values_mut() {
            table.to_unsubscribe.clear();
            table.to_subscribe = table.entries.keys().cloned().collect();
            for entry in table.entries.values() {
                if let Place::All { slot, .. } = &entry.place {
                    slot.discard();
                }
            }
        }
        self.types.iter().filter(|(_, table)| !table.entries.is_empty()).map(|(type_url, _)| *type_url).collect()
    }

    /// Whether there is something to ask for or to give back.
    pub(super) fn has_pending(&self) -> bool {
        self.types.values().any(|table| !table.to_subscribe.is_empty() || !table.to_unsubscribe.is_empty())
    }

    /// The next request that asks or gives back.
    pub(super) fn next_request(&mut self) -> Option<DeltaDiscoveryRequest> {
        let (type_url, table) = self
            .types
            .iter_mut()
            .find(|(_, table)| !table.to_subscribe.is_empty() || !table.to_unsubscribe.is_empty())?;
        let mut request = DeltaDiscoveryRequest { type_url: (*type_url).to_owned(), ..Default::default() };
        let unsubscribe = std::iter::from_fn(|| table.to_unsubscribe.pop_first()).take(NAMES_PER_REQUEST);
        request.resource_names_unsubscribe = unsubscribe.map(|name| name.to_string()).collect();
        let subscribe: Vec<_> = std::iter::from_fn(|| table.to_subscribe.pop_first()).take(NAMES_PER_REQUEST).collect();
        for name in subscribe {
            match table.entries.get(&name).map(|entry| &entry.place) {
                Some(Place::One { version, .. }) if !version.is_empty() => {
                    request.initial_resource_versions.insert(name.to_string(), version.clone());
                }
                Some(Place::All { versions, .. }) => {
                    request.initial_resource_versions.extend(versions.iter().map(|(n, v)| (n.clone(), v.clone())));
                }
                _ => {}
            }
            request.resource_names_subscribe.push(name.to_string());
        }
        Some(request)
    }

    /// The places that a name's news goes to.
    pub(super) fn places(
        &self,
        type_url: &str,
        name: &str,
    ) -> (Option<Arc<dyn Slot>>, Option<Arc<dyn CollectionSlot>>) {
        let entries = self.types.get(type_url).map(|table| &table.entries);
        let one = entries.and_then(|entries| entries.get(name)).and_then(|entry| match &entry.place {
            Place::One { slot, .. } => Some(Arc::clone(slot)),
            Place::All { .. } => None,
        });
        (one, self.collection(type_url))
    }

    pub(super) fn collection(&self, type_url: &str) -> Option<Arc<dyn CollectionSlot>> {
        match &self.types.get(type_url)?.entries.get(WILDCARD)?.place {
            Place::All { slot, .. } => Some(Arc::clone(slot)),
            Place::One { .. } => None,
        }
    }

    /// Remembers the versions of what was applied of a response.
    pub(super) fn applied(&mut self, response: &DeltaDiscoveryResponse, refused: &BTreeSet<String>, changed: bool) {
        self.generation += u64::from(changed);
        let Some(table) = self.types.get_mut(response.type_url.as_str()) else { return };
        let received = Received::now();
        for resource in response.resources.iter().filter(|resource| !refused.contains(&resource.name)) {
            table.set_version(&resource.name, Some(&resource.version), received);
        }
        for name in &response.removed_resources {
            table.set_version(name, None, received);
        }
        if let Some(entry) = table.entries.get_mut(WILDCARD) {
            entry.received = Some(received);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.types.values().map(|table| table.entries.len()).sum()
    }

    pub(super) fn oldest(&self) -> Option<Duration> {
        let entries = self.types.values().flat_map(|table| table.entries.values());
        entries.filter_map(|entry| entry.received).map(Received::age).max()
    }

    pub(super) fn dump(&self) -> Value {
        let table = |table: &Table| -> serde_json::Map<String, Value> {
            let mut sorted: Vec<_> = table.entries.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| *name);
            sorted.into_iter().map(|(name, entry)| (name.to_string(), entry.dump())).collect()
        };
        let types = self.types.iter().map(|(type_url, t)| ((*type_url).to_owned(), Value::Object(table(t))));
        Value::Object(types.collect())
    }

    pub(super) fn export(&self, now: SystemTime) -> Cache {
        let mut cache = Cache { writer: WRITER.to_owned(), ..Cache::default() };
        for (type_url, table) in &self.types {
            for (name, entry) in &table.entries {
                let received = entry.received.map_or(0, |received| received.to_wall(now));
                match &entry.place {
                    Place::One { slot, version } => cache.resources.push(CachedResource {
                        type_url: (*type_url).to_owned(),
                        name: name.to_string(),
                        version: version.clone(),
                        received,
                        absent: matches!(slot.known(), Known::Absent),
                        body: slot.known().present().map(|body| Value::clone(body)),
                    }),
                    Place::All { slot, versions } => cache.collections.push(CachedCollection {
                        type_url: (*type_url).to_owned(),
                        received,
                        versions: versions.clone(),
                        bodies: slot.known().present().map(|bodies| BTreeMap::clone(bodies)),
                    }),
                }
            }
        }
        cache.resources.extend(self.cached.values().cloned());
        cache.collections.extend(self.cached_collections.values().cloned());
        // The same knowledge gives the same file.
        cache.resources.sort_unstable_by(|a, b| (&a.type_url, &a.name).cmp(&(&b.type_url, &b.name)));
        cache.collections.sort_unstable_by(|a, b| a.type_url.cmp(&b.type_url));
        cache
    }

    pub(super) fn import(&mut self, cache: Cache, now: SystemTime) {
        let same_writer = cache.writer == WRITER;
        self.cache_read_at = Some(now);
        for mut cached in cache.resources {
            if !same_writer {
                cached.version = String::new();
            }
            self.cached.insert((cached.type_url.clone(), cached.name.clone()), cached);
        }
        for mut cached in cache.collections {
            if !same_writer {
                cached.versions = cached.versions.into_keys().map(|name| (name, String::new())).collect();
            }
            self.cached_collections.insert(cached.type_url.clone(), cached);
        }
    }
}

impl Table {
    fn add(&mut self, name: &str, place: Place, received: Option<Received>) {
        let name: Arc<str> = name.into();
        self.to_unsubscribe.remove(&name);
        self.to_subscribe.insert(Arc::clone(&name));
        self.entries.insert(name, Entry { place, handles: 1, idle_since: None, received });
    }

    fn set_version(&mut self, name: &str, version: Option<&str>, received: Received) {
        if let Some(Entry { place: Place::One { version: held, .. }, received: at, .. }) = self.entries.get_mut(name) {
            version.unwrap_or_default().clone_into(held);
            *at = Some(received);
        }
        if let Some(Entry { place: Place::All { versions, .. }, .. }) = self.entries.get_mut(WILDCARD) {
            match version {
                Some(version) => drop(versions.insert(name.to_owned(), version.to_owned())),
                None => drop(versions.remove(name)),
            }
        }
    }
}

impl Entry {
    fn take_handle(&mut self) {
        self.handles += 1;
        self.idle_since = None;
    }

    fn dump(&self) -> Value {
        let age = self.received.map(|received| received.age().as_secs());
        match &self.place {
            Place::One { slot, version } => {
                let (known, value) = match slot.known() {
                    Known::Unknown => ("unknown", Value::Null),
                    Known::Absent => ("absent", Value::Null),
                    Known::Present(value) => ("present", Value::clone(&value)),
                };
                json!({ "known": known, "version": version, "ageSeconds": age, "handles": self.handles, "value": value })
            }
            Place::All { slot, versions } => {
                let known = slot.known();
                let values = known.present().map(|values| json!(**values)).unwrap_or_default();
                let known = if known.present().is_some() { "present" } else { "unknown" };
                json!({ "known": known, "versions": versions, "ageSeconds": age, "handles": self.handles, "value": values })
            }
        }
    }
}

/// A place made for one type is only ever asked for by that type, unless two types claim one URL.
fn downcast<T: 'static>(place: &dyn std::any::Any) -> &T {
    place.downcast_ref().unwrap_or_else(|| panic!("two types claim one TYPE_URL"))
}
