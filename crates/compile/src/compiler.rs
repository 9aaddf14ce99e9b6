//! The order of work, layer upon layer; each layer looks only at those below it.
//!
//! ```text
//! objects ─► links ─► offers that are consented to ─► names of services ─► routes ─► services, workloads, checks
//! ```
//!
//! Each unit of a layer runs again only when something that it read changed (see `memo`), and hands on a change only when its
//! result differs.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use veer_core::inbound::TrustBundle;
use veer_core::ingress::proxy_of;
use veer_core::{
    ClusterName, Endpoints, GatewayConfig, Inbound, Ingress, ObjectName, Offer, Path, Service, ServiceHost, TrustDomain,
};
use veer_resources::{Diagnostic, KindName};

use crate::admit::{Import, admit};
use crate::backend_tls::{PolicyVerdict, judge};
use crate::callee::{Callee, callee};
use crate::catalog::{Catalog, ObjectKey};
use crate::checks::{self, check};
use crate::external::{External, external};
use crate::ingress::{Front, class_status, front};
use crate::links;
use crate::meaning::{Meaning, Refused};
use crate::memo::{Changed, Dirty, Key, Memo};
use crate::policies;
use crate::route_status::backend_refs;
use crate::routes::{Route, attachments, route};
use crate::service::{Compiled, service};
use crate::shape::{Shape, shape};
use crate::status::{AncestorStatus, ParentRefStatus, ParentStatus, PolicyStatus, RouteStatus, Status};
use crate::view::{Db, View};
use crate::world::{ClusterConfig, World};

/// Compiles worlds that follow one another, and does only the work that the difference needs. The result is always that of
/// [`compile`]; what did not change is the very same `Arc` as in the result before.
#[derive(Default)]
pub struct Compiler {
    db: Option<Db>,
    epochs: BTreeMap<ClusterName, u64>,
    offers: BTreeMap<(ClusterName, ObjectName), Arc<Offer>>,
    admissions: Memo<(ClusterName, ObjectName), Result<Arc<Import>, String>>,
    shapes: Memo<ObjectName, Shape>,
    routes: Memo<ObjectKey, Option<Route>>,
    services: Memo<ObjectName, Compiled>,
    callees: Memo<ObjectName, Callee>,
    fronts: Memo<ObjectName, Front>,
    checks: Memo<ObjectKey, Vec<Diagnostic>>,
    tls_policies: Memo<ObjectKey, PolicyVerdict>,
    policies: Memo<ObjectKey, policies::Verdict>,
    externals: Memo<ObjectName, External>,
    parts: Parts,
    last: Option<Meaning>,
}

/// The parts of a meaning that are many.
#[derive(Default)]
struct Parts {
    services: BTreeMap<String, Arc<Service>>,
    endpoints: BTreeMap<ServiceHost, Arc<Endpoints>>,
    inbound: BTreeMap<ObjectName, Arc<Inbound>>,
    ingress: BTreeMap<ObjectName, Arc<Ingress>>,
    offers: BTreeMap<ClusterName, BTreeMap<ObjectName, Arc<Offer>>>,
}

const ROUTE_KINDS: [KindName; 5] =
    [KindName::HttpRoute, KindName::GrpcRoute, KindName::TlsRoute, KindName::TcpRoute, KindName::UdpRoute];

/// Parents that the status of an XBackend may name.
const MAX_PARENTS: usize = 32;

/// Ancestors that the status of a policy may name.
const MAX_ANCESTORS: usize = 16;

/// Compiles a world from nothing.
pub fn compile(world: &World<'_>) -> Meaning {
    Compiler::default().compile(world)
}

impl Compiler {
    /// A compiler that has seen nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the world means now.
    pub fn compile(&mut self, world: &World<'_>) -> Meaning {
        let mut dirty = Dirty::new();
        let mut db = self.db.take().unwrap_or_else(|| empty(world.cluster.clone()));
        if db.cluster != *world.cluster {
            db.cluster = world.cluster.clone();
            dirty.insert(Key::Cluster);
        }
        let mut faults = db.catalog.replace(world.objects, &mut dirty);

        let links = links::read(world.cluster, &db.catalog, world.peers);
        if !db.peers.keys().eq(links.peers.keys()) {
            dirty.insert(Key::Links);
        }
        replace(&mut db.peers, links.peers, Key::Link, &mut dirty);
        self.note_epochs(world, &db, &mut dirty);

        let mut refused = links.refused;
        self.admit(world, &mut db, &mut dirty);
        for ((cluster, service), admission) in self.admissions.iter() {
            if let Err(reason) = &**admission {
                let (cluster, service) = (cluster.clone(), Some(service.clone()));
                refused.push(Refused { cluster, service, reason: reason.clone() });
            }
        }

        self.name_services(&mut db, &mut dirty);
        self.attach_routes(&mut db, &mut dirty);

        let names = db.shapes.keys().cloned();
        let services = self
            .services
            .update(names, &dirty, |name, reads, last| service(View { db: &db, reads }, world.sealer, name, last));
        let workloads = db.catalog.of_kind(KindName::Workload).map(|object| object.name());
        let callees = self.callees.update(workloads, &dirty, |name, reads, _| callee(View { db: &db, reads }, name));
        let gateways = db.catalog.of_kind(KindName::Gateway).map(|object| object.name());
        let fronts =
            self.fronts.update(gateways, &dirty, |name, reads, last| front(View { db: &db, reads }, name, last));
        let checked = checks::KINDS.iter().flat_map(|kind| db.catalog.of_kind(*kind)).map(|object| object.key());
        self.checks.update(checked, &dirty, |key, reads, _| check(View { db: &db, reads }, key));

        let policies = db.catalog.of_kind(KindName::BackendTlsPolicy).map(|object| object.key());
        self.tls_policies.update(policies, &dirty, |key, reads, _| judge(View { db: &db, reads }, key));
        let outside = db.catalog.of_kind(KindName::XBackend).map(|object| object.name());
        let externals =
            self.externals.update(outside, &dirty, |name, reads, last| external(View { db: &db, reads }, name, last));
        let judged = policies::KINDS.iter().flat_map(|kind| db.catalog.of_kind(*kind)).map(|object| object.key());
        self.policies.update(judged, &dirty, |key, reads, _| policies::judge(View { db: &db, reads }, key));

        faults.extend(links.faults);
        let statuses = self.statuses(&db);
        self.db = Some(db);
        self.keep(services, callees);
        self.keep_fronts(fronts);
        self.keep_externals(externals);
        let meaning = self.gather(world, links.paths, links.bundles, refused, faults, statuses);
        self.last = Some(meaning.clone());
        meaning
    }

    /// Puts what services and workloads mean now in place of what they meant. A host, an address and an offer come of one
    /// service only, so that all old ones may go before any new one comes.
    fn keep(&mut self, services: Changed<ObjectName, Compiled>, callees: Changed<ObjectName, Callee>) {
        let parts = &mut self.parts;
        for (name, old) in &services {
            let Some(old) = old else { continue };
            for (host, service) in &old.services {
                parts.services.remove(host.as_str());
                service.addresses.iter().for_each(|address| drop(parts.services.remove(&address.to_string())));
                parts.endpoints.remove(host);
            }
            for peer in old.offers.keys() {
                parts.offers.get_mut(peer).and_then(|offers| offers.remove(name));
            }
        }
        for (name, _) in services {
            let Some(now) = self.services.get(&name) else { continue };
            for (host, service) in &now.services {
                for address in &service.addresses {
                    parts.services.insert(address.to_string(), Arc::clone(service));
                }
                parts.services.insert(host.to_string(), Arc::clone(service));
            }
            parts.endpoints.extend(now.endpoints.iter().map(|(host, e)| (host.clone(), Arc::clone(e))));
            for (peer, offer) in &now.offers {
                parts.offers.entry(peer.clone()).or_default().insert(name.clone(), Arc::clone(offer));
            }
        }
        for (name, _) in callees {
            match self.callees.get(&name).and_then(|callee| callee.inbound.clone()) {
                Some(inbound) => parts.inbound.insert(name, inbound),
                None => parts.inbound.remove(&name),
            };
        }
    }

    fn note_epochs(&mut self, world: &World<'_>, db: &Db, dirty: &mut Dirty) {
        let epochs = db.peers.keys().map(|peer| (peer.clone(), world.sealer.epoch(peer))).collect();
        replace(&mut self.epochs, epochs, Key::Epoch, dirty);
    }

    fn admit(&mut self, world: &World<'_>, db: &mut Db, dirty: &mut Dirty) {
        let mut offers = BTreeMap::new();
        for view in world.peers.iter().filter(|view| db.peers.contains_key(&view.cluster)) {
            for offer in &view.offers {
                offers.entry((view.cluster.clone(), offer.service.clone())).or_insert_with(|| Arc::clone(offer));
            }
        }
        replace_keyed(&mut self.offers, offers, |(cluster, name)| Key::Offer(cluster.clone(), name.clone()), dirty);
        let offers = &self.offers;
        let changed = self.admissions.update(offers.keys().cloned(), dirty, |unit, reads, _| {
            let view = View { db, reads };
            let (cluster, name) = unit;
            reads.note(Key::Offer(cluster.clone(), name.clone()));
            match (view.peer(cluster), offers.get(unit)) {
                (Some(peer), Some(offer)) => admit(&view.cluster().trust_domain, cluster, peer, offer).map(Arc::new),
                _ => Err("there is no Link for this cluster".to_owned()),
            }
        });
        for (unit, _) in changed {
            let import = self.admissions.get(&unit).and_then(|admission| admission.as_ref().as_ref().ok());
            let (cluster, name) = unit;
            dirty.insert(Key::Import(name.clone()));
            let imports = db.imports.entry(name.clone()).or_default();
            match import {
                Some(import) => imports.insert(cluster, Arc::clone(import)),
                None => imports.remove(&cluster),
            };
            if imports.is_empty() {
                db.imports.remove(&name);
            }
        }
    }

    fn name_services(&mut self, db: &mut Db, dirty: &mut Dirty) {
        let kinds = [KindName::Service, KindName::ServiceExport, KindName::ServiceImport];
        let objects = kinds.into_iter().flat_map(|kind| db.catalog.of_kind(kind)).map(|object| object.name());
        let names: BTreeSet<ObjectName> = objects.chain(db.imports.keys().cloned()).collect();
        let changed = self.shapes.update(names, dirty, |name, reads, _| shape(View { db, reads }, name));
        if changed.is_empty() {
            return;
        }
        for (name, _) in changed {
            match self.shapes.get(&name) {
                Some(shape) => db.shapes.insert(name.clone(), Arc::clone(shape)),
                None => db.shapes.remove(&name),
            };
            dirty.insert(Key::Shape(name));
        }
        let mut aliases = BTreeMap::new();
        for (name, shape) in &db.shapes {
            for (peer, alias) in &shape.peer_names {
                aliases.entry(alias.clone()).or_insert_with(|| (name.clone(), peer.clone()));
            }
        }
        replace(&mut db.aliases, aliases, Key::Alias, dirty);
        let offered = db.shapes.iter().filter(|(_, shape)| !shape.audience.is_empty()).map(|(name, _)| name);
        let ids = service_ids(offered);
        replace(&mut db.service_ids, ids, Key::ServiceId, dirty);
    }

    fn attach_routes(&mut self, db: &mut Db, dirty: &mut Dirty) {
        let keys = ROUTE_KINDS.into_iter().flat_map(|kind| db.catalog.of_kind(kind)).map(|object| object.key());
        let changed = self.routes.update(keys, dirty, |key, reads, _| route(View { db, reads }, key));
        for (key, _) in &changed {
            let route = self.routes.get(key).filter(|route| route.as_ref().as_ref().is_some_and(Route::has_listeners));
            let old = match route {
                Some(route) => db.listener_routes.insert(key.clone(), Arc::clone(route)),
                None => db.listener_routes.remove(key),
            };
            if old.is_some() || route.is_some() {
                dirty.insert(Key::Route(key.clone()));
            }
        }
        if !changed.is_empty() {
            replace(&mut db.attached, attachments(&self.routes), Key::Attached, dirty);
        }
    }

    /// A Gateway's proxy has a name that no Workload has, so that both stand in one table.
    fn keep_fronts(&mut self, fronts: Changed<ObjectName, Front>) {
        for (name, _) in fronts {
            let now = self.fronts.get(&name);
            let proxy = proxy_of(&name);
            match now.and_then(|front| front.ingress.clone()) {
                Some(ingress) => self.parts.ingress.insert(proxy.clone(), ingress),
                None => self.parts.ingress.remove(&proxy),
            };
            // Where a Workload has the name, the Gateway is not served.
            let inbound = now.and_then(|front| front.inbound.clone());
            match inbound.or_else(|| self.callees.get(&proxy).and_then(|callee| callee.inbound.clone())) {
                Some(inbound) => self.parts.inbound.insert(proxy, inbound),
                None => self.parts.inbound.remove(&proxy),
            };
        }
    }

    fn keep_externals(&mut self, externals: Changed<ObjectName, External>) {
        for (name, old) in externals {
            if let Some((host, _)) = old.as_ref().and_then(|old| old.endpoints.as_ref()) {
                self.parts.endpoints.remove(host);
            }
            let now = self.externals.get(&name).and_then(|external| external.endpoints.clone());
            self.parts.endpoints.extend(now);
        }
    }

    fn statuses(&self, db: &Db) -> BTreeMap<ObjectKey, Status> {
        let mut parents: BTreeMap<ObjectKey, Vec<(usize, ParentStatus)>> = BTreeMap::new();
        let mut statuses = BTreeMap::new();
        for (_, front) in self.fronts.iter() {
            statuses.extend(front.statuses.iter().map(|(key, status)| (key.clone(), status.clone())));
            for (key, known) in &front.parents {
                parents.entry(key.clone()).or_default().extend(known.iter().cloned());
            }
        }
        for (key, route) in self.routes.iter() {
            let (Some(route), Some(object)) = (route.as_ref(), db.catalog.get(key)) else { continue };
            let mut all = parents.remove(key).unwrap_or_default();
            all.extend(route.mesh.iter().map(|(index, no)| {
                (*index, ParentStatus::new(&route.parent_refs[*index], route.conditions(object, no.as_ref())))
            }));
            all.sort_by_key(|(index, _)| *index);
            let parents = all.into_iter().map(|(_, status)| status).collect();
            statuses.insert(key.clone(), Status::Route(RouteStatus { parents }));
        }
        for (key, verdict) in self.tls_policies.iter() {
            let leads = |front: &Front| front.services.iter().any(|service| verdict.services.contains(service));
            let gateways = self.fronts.iter().filter(|(_, front)| leads(front));
            let gateways = gateways.map(|(name, _)| AncestorStatus::new(KindName::Gateway, name, &verdict.conditions));
            let mut ancestors: Vec<AncestorStatus> = gateways.take(MAX_ANCESTORS).collect();
            if ancestors.is_empty() {
                let services = verdict.services.iter().take(MAX_ANCESTORS);
                ancestors.extend(services.map(|s| AncestorStatus::new(KindName::Service, s, &verdict.conditions)));
            }
            statuses.insert(key.clone(), Status::Policy(PolicyStatus { ancestors }));
        }
        let mut led = self.led_outside(db);
        for (name, external) in self.externals.iter() {
            let parents = led.remove(name).unwrap_or_default().into_iter().take(MAX_PARENTS);
            let parents = parents.map(|parent| ParentStatus::below(parent, external.conditions.clone())).collect();
            statuses.insert((KindName::XBackend, name.clone()), Status::Route(RouteStatus { parents }));
        }
        for (key, verdict) in self.policies.iter() {
            let ancestors = verdict.ancestors.iter().take(MAX_ANCESTORS).cloned().collect();
            statuses.insert(key.clone(), Status::Policy(PolicyStatus { ancestors }));
        }
        let classes = db.catalog.of_kind(KindName::GatewayClass);
        statuses.extend(classes.filter_map(|class| Some((class.key(), class_status(class)?))));
        statuses
    }

    /// By XBackend the parents of routes that lead there.
    fn led_outside(&self, db: &Db) -> BTreeMap<ObjectName, Vec<ParentRefStatus>> {
        let mut led: BTreeMap<ObjectName, Vec<ParentRefStatus>> = BTreeMap::new();
        for (key, route) in self.routes.iter() {
            let (Some(route), Some(object)) = (route.as_ref(), db.catalog.get(key)) else { continue };
            for reference in backend_refs(object).filter(|reference| reference.is_xbackend()) {
                let namespace = reference.namespace.as_ref().unwrap_or(&object.meta.namespace);
                let name = ObjectName { namespace: Arc::clone(namespace), name: Arc::clone(&reference.name) };
                let parents = led.entry(name).or_default();
                for parent in &route.parent_refs {
                    let parent = ParentRefStatus::below(parent, object);
                    if !parents.contains(&parent) {
                        parents.push(parent);
                    }
                }
            }
        }
        led
    }

    fn gather(
        &self,
        world: &World<'_>,
        paths: BTreeMap<ClusterName, Path>,
        bundles: BTreeMap<TrustDomain, TrustBundle>,
        mut refused: Vec<Refused>,
        mut faults: Vec<Diagnostic>,
        statuses: BTreeMap<ObjectKey, Status>,
    ) -> Meaning {
        let offers = paths.keys().map(|peer| {
            let offers = self.parts.offers.get(peer).into_iter().flat_map(|offers| offers.values().cloned());
            (peer.clone(), offers.collect())
        });
        let offers = offers.collect();
        let offered = self.services.iter().filter_map(|(_, compiled)| compiled.gateway.clone()).collect();
        faults.extend(self.services.iter().flat_map(|(_, compiled)| compiled.faults.iter().cloned()));
        faults.extend(self.shapes.iter().flat_map(|(_, shape)| shape.faults.iter().cloned()));
        faults
            .extend(self.routes.iter().filter_map(|(_, r)| r.as_ref().as_ref()).flat_map(|r| r.faults.iter().cloned()));
        faults.extend(self.callees.iter().flat_map(|(_, callee)| callee.faults.iter().cloned()));
        faults.extend(self.fronts.iter().flat_map(|(_, front)| front.faults.iter().cloned()));
        faults.extend(self.tls_policies.iter().flat_map(|(_, verdict)| verdict.faults.iter().cloned()));
        faults.extend(self.externals.iter().flat_map(|(_, external)| external.faults.iter().cloned()));
        faults.extend(self.policies.iter().flat_map(|(_, verdict)| verdict.faults.iter().cloned()));
        faults.extend(self.checks.iter().flat_map(|(_, faults)| faults.iter().cloned()));
        let place = |d: &Diagnostic| (Arc::clone(&d.file), d.line, d.column, d.code, d.reason.clone());
        faults.sort_by_cached_key(place);
        faults.dedup();
        refused.sort();
        refused.dedup();
        let gateway = GatewayConfig {
            cluster: world.cluster.name.clone(),
            mesh_port: world.cluster.mesh_port,
            control: world.cluster.control.clone(),
            keys: world.cluster.keys.clone(),
            services: offered,
            egress: paths.values().cloned().collect(),
            rotate: world.cluster.rotate,
        };
        let last = self.last.as_ref();
        Meaning {
            services: self.parts.services.clone(),
            endpoints: self.parts.endpoints.clone(),
            inbound: self.parts.inbound.clone(),
            ingress: self.parts.ingress.clone(),
            statuses: share(statuses, last.map(|last| &last.statuses)),
            paths: share(paths, last.map(|last| &last.paths)),
            bundles: share(bundles, last.map(|last| &last.bundles)),
            gateway: match last {
                Some(last) if *last.gateway == gateway => Arc::clone(&last.gateway),
                _ => Arc::new(gateway),
            },
            offers,
            refused,
            faults,
        }
    }
}

fn empty(cluster: ClusterConfig) -> Db {
    Db {
        cluster,
        catalog: Catalog::default(),
        peers: BTreeMap::new(),
        imports: BTreeMap::new(),
        shapes: BTreeMap::new(),
        aliases: BTreeMap::new(),
        attached: BTreeMap::new(),
        listener_routes: BTreeMap::new(),
        service_ids: BTreeMap::new(),
    }
}

/// Puts a table in place of another and notes which entries differ.
fn replace<K: Ord + Clone, V: PartialEq>(
    table: &mut BTreeMap<K, V>,
    now: BTreeMap<K, V>,
    key: impl Fn(K) -> Key,
    dirty: &mut Dirty,
) {
    replace_keyed(table, now, |k| key(k.clone()), dirty);
}

fn replace_keyed<K: Ord, V: PartialEq>(
    table: &mut BTreeMap<K, V>,
    now: BTreeMap<K, V>,
    key: impl Fn(&K) -> Key,
    dirty: &mut Dirty,
) {
    dirty.extend(now.iter().filter(|(k, v)| table.get(k) != Some(v)).map(|(k, _)| key(k)));
    dirty.extend(table.keys().filter(|k| !now.contains_key(k)).map(key));
    *table = now;
}

fn share<K: Ord, V: PartialEq>(now: BTreeMap<K, V>, last: Option<&BTreeMap<K, Arc<V>>>) -> BTreeMap<K, Arc<V>> {
    let share = |(key, value): (K, V)| {
        let shared = match last.and_then(|last| last.get(&key)).filter(|old| ***old == value) {
            Some(old) => Arc::clone(old),
            None => Arc::new(value),
        };
        (key, shared)
    };
    now.into_iter().map(share).collect()
}

/// Numbers for tokens: the FNV-1a hash (32 bits) of `namespace/name`, so that a number outlives restarts and does not depend
/// on what else is offered. Of two services with one hash the second by name takes the next free number.
fn service_ids<'a>(names: impl Iterator<Item = &'a ObjectName>) -> BTreeMap<ObjectName, u32> {
    let mut taken = HashSet::new();
    let mut ids = BTreeMap::new();
    for name in names {
        let mut id = fnv1a(name.to_string().as_bytes());
        while !taken.insert(id) {
            id = id.wrapping_add(1);
        }
        ids.insert(name.clone(), id);
    }
    ids
}

/// <http://www.isthe.com/chongo/tech/comp/fnv/>
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv1a(b""), 0x811c_9dc5);
        assert_eq!(fnv1a(b"a"), 0xe40c_292c);
        assert_eq!(fnv1a(b"foobar"), 0xbf9c_f968);
    }
}
