//! Manifests, peers' offers and the operator's orders → one meaning, published as one immutable generation.
//!
//! Nothing is published before the manifests were read once, completely: a control plane that knows half would answer
//! *absent* where it should say nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;
use veer_compile::{ClusterConfig, Compiler, Meaning, PeerView, World};
use veer_core::gateway::Lease;
use veer_core::offer::PeerGateways;
use veer_core::{ClusterName, ObjectName, Offer, SpiffeId};
use veer_identity::{EpochKeys, clock};
use veer_resources::{Diagnostic, Kind, Object};
use veer_source::{Snapshot, SourceState};

use crate::api::SourceStatus;
use crate::encoded::{Table, table};
use crate::lease::PeerState;
use crate::links::{Link, links};
use crate::objects::shown;
use crate::peers::PeerSnapshot;
use crate::plane::Plane;
use crate::published::Published;
use crate::sealer::Sealer;
use crate::tokens::Subject;

/// What comes together is compiled together: a folder that is being written, offers of a peer that come one by one.
const GATHER: Duration = Duration::from_millis(10);

/// Publishes generations for ever.
pub(crate) async fn run(plane: Arc<Plane>, mut snapshots: watch::Receiver<Snapshot>) {
    let mut peers = plane.book.changes();
    let mut orders = plane.orders.subscribe();
    let mut served = plane.proxies.served();
    let mut catalog = Catalog::new(plane);
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        peers.mark_unchanged();
        orders.mark_unchanged();
        served.mark_unchanged();
        catalog.update(&snapshot);
        // Wall time may jump; looking every minute at most bounds what a jump does to the epochs of tokens.
        let now = clock::now();
        let epoch = EpochKeys::next_epoch_at(now).duration_since(now).unwrap_or_default();
        tokio::select! {
            biased;
            changed = snapshots.changed() => if changed.is_err() { return },
            _ = peers.changed() => {}
            _ = orders.changed() => {}
            _ = served.changed() => {}
            () = tokio::time::sleep(epoch.min(Duration::from_secs(60))) => {}
        }
        tokio::time::sleep(GATHER).await;
    }
}

/// Notices leases that run out, and writes what peers said to disk.
pub(crate) async fn keep_book(plane: Arc<Plane>) {
    const SAVE: Duration = Duration::from_secs(1);
    /// How far the age of a peer on disk may be behind.
    const SAVE_AGES: Duration = Duration::from_secs(60);
    let mut changes = plane.book.changes();
    let (mut save_at, mut ages_at) = (Instant::now() + SAVE, Instant::now() + SAVE_AGES);
    loop {
        let next = plane.book.tick().unwrap_or(save_at).min(save_at);
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(next) => {}
            _ = changes.changed() => {}
        }
        let now = Instant::now();
        if now >= save_at {
            let ages = now >= ages_at;
            for (peer, error) in plane.book.save(ages) {
                tracing::error!(%peer, %error, "what the peer said could not be saved; a restart would know an older word of it");
            }
            save_at = now + SAVE;
            if ages {
                ages_at = now + SAVE_AGES;
            }
        }
    }
}

struct Catalog {
    plane: Arc<Plane>,
    compiler: Compiler,
    /// Kept so that an unchanged Link is not judged (and logged) again.
    trusted: BTreeMap<ClusterName, Result<(), String>>,
    links: BTreeMap<ClusterName, Link>,
}

impl Catalog {
    fn new(plane: Arc<Plane>) -> Self {
        Self { plane, compiler: Compiler::default(), trusted: BTreeMap::new(), links: BTreeMap::new() }
    }

    fn update(&mut self, snapshot: &Snapshot) {
        self.plane.source.send_replace(source_status(snapshot));
        if !snapshot.is_known() {
            return;
        }
        let (plane, now) = (Arc::clone(&self.plane), clock::now());
        let config = &plane.config;
        let links = links(&snapshot.objects, &config.cluster, &config.trust_domain);
        self.adopt(links, now);

        let sealer = Sealer::new(self.plane.keys(), now);
        let cluster = ClusterConfig {
            name: config.cluster.clone(),
            trust_domain: config.trust_domain.clone(),
            locality: config.locality.clone(),
            mesh_port: config.mesh_port,
            control: self.plane.advertised(),
            keys: sealer.accepted(self.links.keys()),
            bundle: self.plane.issuer.bundle(),
            rotate: self.plane.settings().rotate,
        };
        let peers: Vec<PeerView> = self.plane.book.snapshot().iter().map(view).collect();
        let world = World { cluster: &cluster, objects: &snapshot.objects, peers: &peers, sealer: &sealer };
        let meaning = self.compiler.compile(&world);

        let mut faults: Vec<Diagnostic> = snapshot.diagnostics.to_vec();
        faults.extend(meaning.faults.iter().cloned());
        faults.extend(self.trust_faults(&snapshot.objects));
        self.publish(&snapshot.objects, &meaning, faults, now);
    }

    /// Takes over which Links there are: whom to believe, and whose words to keep.
    fn adopt(&mut self, links: BTreeMap<ClusterName, Link>, now: SystemTime) {
        let (plane, config) = (&self.plane, &self.plane.config);
        for peer in plane.book.linked().iter().filter(|peer| !links.contains_key(*peer)) {
            tracing::info!(%peer, "the Link is gone: the peer is not believed any more, and what it offered is forgotten");
            plane.book.unlink(peer);
            self.trusted.remove(peer);
        }
        // By trust domain, so that a domain which moved to another Link stays believed.
        let held: Vec<_> = plane.identity.trust_store().bundles().map(|bundle| bundle.trust_domain.clone()).collect();
        for domain in held {
            if domain != config.trust_domain && !links.values().any(|link| link.spec.trust_domain == domain) {
                plane.identity.distrust(&domain);
            }
        }
        for (peer, link) in &links {
            if self.links.get(peer) != Some(link) {
                let trusted = plane.identity.trust(link.bundle()).map_err(|error| error.to_string());
                if trusted.is_err() {
                    plane.identity.distrust(&link.spec.trust_domain);
                }
                self.trusted.insert(peer.clone(), trusted);
            }
            let fault = plane.book.link(peer, &link.spec.trust_domain, link.spec.lease, config.gone_after, now);
            if let Some(error) = fault {
                tracing::error!(%peer, %error, "what the peer said last cannot be read; it has to say it again");
            }
        }
        self.links = links;
    }

    fn trust_faults(&self, objects: &[Object]) -> Vec<Diagnostic> {
        let refused = |object: &Object| {
            let Kind::Link(_) = &object.kind else { return None };
            let reason = self.trusted.get(&*object.meta.name)?.as_ref().err()?;
            let mend = "copy the bundle from the peer's own Link (`veer link` there)";
            Some(object.error("V0401", "spec.bundle", reason.clone(), mend))
        };
        objects.iter().filter_map(refused).collect()
    }

    fn publish(&self, objects: &[Object], meaning: &Meaning, faults: Vec<Diagnostic>, now: SystemTime) {
        let plane = &self.plane;
        let last = plane.published();
        let empty = Published::empty();
        let before = last.as_deref().unwrap_or(&empty);
        let gateways = PeerGateways {
            cluster: plane.config.cluster.clone(),
            trust_domain: plane.config.trust_domain.clone(),
            gateways: plane.gateways(),
        };
        let ingress = table(&before.ingress, meaning.ingress.iter().map(|(k, v)| (k.to_string(), Arc::clone(v))));
        let since = |name: &str| {
            let same = ingress.get(name).zip(before.ingress.get(name)).is_some_and(|(now, old)| Arc::ptr_eq(now, old));
            before.ingress_since.get(name).copied().filter(|_| same)
        };
        // What is not acknowledged by the proxy that serves it is not programmed.
        let pending = |proxy: &ObjectName| {
            meaning.ingress.contains_key(proxy)
                && since(&proxy.to_string()).is_none_or(|since| !plane.proxies.serves_since(proxy, since))
        };
        let known: BTreeMap<String, Option<u64>> = ingress.keys().map(|name| (name.clone(), since(name))).collect();
        let mut next = Published {
            generation: before.generation,
            since: before.since,
            directory: directory(plane, meaning),
            links: self.links.clone(),
            services: table(&before.services, meaning.services.iter().map(|(k, v)| (k.to_string(), Arc::clone(v)))),
            endpoints: table(&before.endpoints, meaning.endpoints.iter().map(|(k, v)| (k.to_string(), Arc::clone(v)))),
            inbound: table(&before.inbound, meaning.inbound.iter().map(|(k, v)| (k.to_string(), Arc::clone(v)))),
            objects: shown(&before.objects, objects, meaning, now, pending),
            ingress,
            ingress_since: BTreeMap::new(),
            paths: table(&before.paths, meaning.paths.iter().map(|(k, v)| (k.to_string(), Arc::clone(v)))),
            bundles: table(&before.bundles, meaning.bundles.iter().map(|(k, v)| (k.to_string(), Arc::clone(v)))),
            gateway: table(&before.gateway, [(plane.config.cluster.to_string(), Arc::clone(&meaning.gateway))]),
            peer_gateways: table(&before.peer_gateways, [(plane.config.cluster.to_string(), Arc::new(gateways))]),
            offers: self.links.keys().map(|peer| (peer.clone(), offers(before, meaning, peer))).collect(),
            refused: meaning.refused.clone(),
            faults,
        };
        if last.is_some() && next.means_the_same(before) {
            return;
        }
        next.generation = plane.next_generation();
        let now = next.generation;
        next.ingress_since = known.into_iter().map(|(name, since)| (name, since.unwrap_or(now))).collect();
        next.since = Instant::now();
        tracing::debug!(generation = next.generation, "a new generation is served");
        let generation = next.generation;
        plane.published.send_replace(Some(Arc::new(next)));
        plane.generation.send_replace(generation);
    }
}

/// What `veer-compile` needs of a peer. Whom nothing was ever heard of is silent: its pinned gateways are worth a try.
fn view(peer: &PeerSnapshot) -> PeerView {
    PeerView {
        cluster: peer.cluster.clone(),
        lease: if peer.state == PeerState::Fresh { Lease::Fresh } else { Lease::Silent },
        gateways: peer.gateways.as_deref().cloned(),
        offers: peer.offers.values().cloned().collect(),
    }
}

fn offers(before: &Published, meaning: &Meaning, peer: &ClusterName) -> Table<Offer> {
    let none = Table::new();
    let offers = meaning.offers.get(peer).into_iter().flatten();
    table(before.offers.get(peer).unwrap_or(&none), offers.map(|offer| (offer.service.to_string(), Arc::clone(offer))))
}

/// Everybody who may have a certificate.
fn directory(plane: &Plane, meaning: &Meaning) -> BTreeMap<Subject, SpiffeId> {
    let workloads =
        meaning.inbound.iter().map(|(name, inbound)| (Subject::Workload(name.clone()), inbound.identity.clone()));
    let gateways = plane.config.gateways.iter().map(|gateway| {
        (Subject::Gateway(gateway.name.to_string()), SpiffeId::gateway(plane.config.trust_domain.clone()))
    });
    // Veer's own namespace holds no Workload of a user.
    workloads.filter(|(_, id)| !id.is_system()).chain(gateways).collect()
}

fn source_status(snapshot: &Snapshot) -> SourceStatus {
    let (state, reason) = match &snapshot.state {
        SourceState::Starting => ("waiting", Some("its manifests were not read completely yet".to_owned())),
        SourceState::Synced => ("synced", None),
        SourceState::Stale { folder, silence, .. } => ("stale", Some(format!("{folder} {silence}"))),
    };
    SourceStatus {
        state: state.to_owned(),
        generation: snapshot.generation,
        objects: snapshot.objects.len(),
        held: snapshot
            .held
            .iter()
            .flat_map(|held| &held.objects)
            .map(|(kind, name)| format!("{kind} {name}"))
            .collect(),
        reason,
    }
}
