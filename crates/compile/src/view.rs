//! All that units of work may read, through a door that notes what was read.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use veer_core::{ClusterName, ObjectName};
use veer_resources::{Kind, KindName, Labels, Object, ServiceSpec, TargetKind, WorkloadSpec, selects};

use crate::admit::Import;
use crate::catalog::{Catalog, ObjectKey};
use crate::links::{Peer, age};
use crate::memo::{Key, Reads};
use crate::routes::{Attached, Parent, Route};
use crate::shape::Shape;
use crate::world::ClusterConfig;

/// Everything known so far in one compilation, layer upon layer.
pub(crate) struct Db {
    pub cluster: ClusterConfig,
    pub catalog: Catalog,
    pub peers: BTreeMap<ClusterName, Arc<Peer>>,
    pub imports: BTreeMap<ObjectName, BTreeMap<ClusterName, Arc<Import>>>,
    pub shapes: BTreeMap<ObjectName, Arc<Shape>>,
    /// Per-cluster names: which service in which peer each stands for.
    pub aliases: BTreeMap<ObjectName, (ObjectName, ClusterName)>,
    pub attached: BTreeMap<Parent, Vec<Attached>>,
    /// Routes that name a parent with listeners.
    pub listener_routes: BTreeMap<ObjectKey, Arc<Option<Route>>>,
    pub service_ids: BTreeMap<ObjectName, u32>,
}

/// The door.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub db: &'a Db,
    pub reads: &'a Reads,
}

impl<'a> View<'a> {
    pub fn cluster(&self) -> &'a ClusterConfig {
        self.reads.note(Key::Cluster);
        &self.db.cluster
    }

    pub fn object(&self, kind: KindName, name: &ObjectName) -> Option<&'a Object> {
        let key = (kind, name.clone());
        self.reads.note(Key::Object(key.clone()));
        self.db.catalog.get(&key)
    }

    pub fn service(&self, name: &ObjectName) -> Option<(&'a Object, &'a Arc<ServiceSpec>)> {
        let object = self.object(KindName::Service, name)?;
        match &object.kind {
            Kind::Service(spec) => Some((object, spec)),
            _ => None,
        }
    }

    /// Objects listed under an index key.
    pub fn listed(&self, key: Key) -> impl Iterator<Item = &'a Object> + use<'a> {
        let db = self.db;
        self.reads.note(key.clone());
        let found: Vec<&Object> = db.catalog.listed(&key).collect();
        found.into_iter()
    }

    /// Workloads of a namespace that a selector selects. Whoever has all labels has the rarest, so that only workloads with
    /// the rarest are looked at, and a change of others is none.
    pub fn selected(&self, namespace: &Arc<str>, selector: &'a Labels) -> Vec<(&'a Object, &'a WorkloadSpec)> {
        let key = |(k, v): (&Arc<str>, &Arc<str>)| Key::Label(Arc::clone(namespace), Arc::clone(k), Arc::clone(v));
        let Some(rarest) = selector.iter().map(key).min_by_key(|key| self.db.catalog.count(key)) else {
            return Vec::new();
        };
        self.listed(rarest)
            .filter(|object| selects(selector, &object.meta.labels))
            .filter_map(workload)
            .filter(|(object, spec)| self.is_usable(object, spec))
            .collect()
    }

    /// The workload that has an address.
    pub fn workload_at(&self, address: IpAddr) -> Option<(&'a Object, &'a WorkloadSpec)> {
        self.owner_of(address).and_then(workload).filter(|(object, _)| !is_system(object))
    }

    /// Whether a workload may be one: not in Veer's own namespace, and at an address of its own.
    pub fn is_usable(&self, object: &Object, spec: &WorkloadSpec) -> bool {
        !is_system(object) && self.owner_of(spec.address).is_none_or(|owner| owner.name() == object.name())
    }

    /// Among workloads that claim one address, the one that has it: one that is up, the older, the first by name.
    pub fn owner_of(&self, address: IpAddr) -> Option<&'a Object> {
        let is_down = |object: &Object| workload(object).is_some_and(|(_, spec)| !spec.is_up());
        self.listed(Key::WorkloadsAt(address)).min_by_key(|object| (is_down(object), age(object)))
    }

    pub fn peer(&self, name: &ClusterName) -> Option<&'a Arc<Peer>> {
        self.reads.note(Key::Link(name.clone()));
        self.db.peers.get(name)
    }

    /// Names of all linked peers.
    pub fn peers(&self) -> impl Iterator<Item = &'a ClusterName> {
        self.reads.note(Key::Links);
        self.db.peers.keys()
    }

    /// What peers offer of a service, and may.
    pub fn imports(&self, name: &ObjectName) -> impl Iterator<Item = (&'a ClusterName, &'a Arc<Import>)> + use<'a> {
        self.reads.note(Key::Import(name.clone()));
        let db = self.db;
        db.imports.get(name).into_iter().flatten()
    }

    pub fn import(&self, name: &ObjectName, peer: &ClusterName) -> Option<&'a Arc<Import>> {
        self.imports(name).find(|(cluster, _)| *cluster == peer).map(|(_, import)| import)
    }

    pub fn shape(&self, name: &ObjectName) -> Option<&'a Shape> {
        self.reads.note(Key::Shape(name.clone()));
        self.db.shapes.get(name).map(|shape| &**shape)
    }

    pub fn alias(&self, name: &ObjectName) -> Option<&'a (ObjectName, ClusterName)> {
        self.reads.note(Key::Alias(name.clone()));
        self.db.aliases.get(name)
    }

    pub fn attached(&self, kind: TargetKind, name: &ObjectName) -> &'a [Attached] {
        let parent = Parent { kind, name: name.clone() };
        self.reads.note(Key::Attached(parent.clone()));
        self.db.attached.get(&parent).map_or(&[], Vec::as_slice)
    }

    /// A route that names a parent with listeners.
    pub fn route(&self, key: &ObjectKey) -> Option<&'a Route> {
        self.reads.note(Key::Route(key.clone()));
        self.db.listener_routes.get(key).and_then(|route| route.as_ref().as_ref())
    }

    pub fn service_id(&self, name: &ObjectName) -> Option<u32> {
        self.reads.note(Key::ServiceId(name.clone()));
        self.db.service_ids.get(name).copied()
    }
}

/// Whether an object lives where only Veer's own identities may.
pub(crate) fn is_system(object: &Object) -> bool {
    &*object.meta.namespace == veer_core::names::SYSTEM_NAMESPACE
}

pub(crate) fn workload(object: &Object) -> Option<(&Object, &WorkloadSpec)> {
    match &object.kind {
        Kind::Workload(spec) => Some((object, spec)),
        _ => None,
    }
}
