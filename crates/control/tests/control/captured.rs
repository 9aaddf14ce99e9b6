//! A cluster that was taken: somebody holds its authority, speaks as its control plane, and has nothing to lose. It can withdraw
//! what it offered, or lie about itself; the clusters that trust it, their own services and their other peers are not harmed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use veer_control::api::PeerStatus;
use veer_control::lease::PeerState;
use veer_core::offer::PeerGateways;
use veer_core::{Endpoints, Known, Offer, Resource as _, SpiffeId};
use veer_identity::{ALPN_H2_STANDARD, ALPN_XDS, Ca, ClientAuth, Identity, KeyRequest, Svid, clock};
use veer_net::Stream;
use veer_xds::lease::{LeaseAsk, LeaseGrant, Leases};
use veer_xds::{LocalFuture, Services, Source, Status, Subscriber, serve_connection, version_of};

use crate::harness::{Cluster, local, service, until};

const CLIENT: &str = "client.shop.svc.cluster.local";
const STOCK: &str = "stock.shop.svc.clusterset.local";
const CART: &str = "cart.shop.svc.clusterset.local";
/// What a captured peer may make another control plane hold, beyond what it holds anyway: 128 MiB of offers as they came, and as
/// they are read.
const MOST_KIB: u64 = 512 * 1024;

/// East trusts west, which will be taken, and north, which will not.
struct World {
    east: Cluster,
    north: Cluster,
    captor: Captor,
    resident: u64,
}

impl World {
    /// `provides`: what east consents to take from west.
    async fn new(provides: &str) -> Self {
        let [mut west, mut east, mut north] =
            [Cluster::new("west").await, Cluster::new("east").await, Cluster::new("north").await];
        west.write("cart.yaml", &service("cart", "127.1.0.1", Some("east")));
        north.write("stock.yaml", &service("stock", "127.1.0.2", Some("east")));
        east.write("client.yaml", &service("client", "127.1.0.1", None));
        for cluster in [&mut west, &mut east, &mut north] {
            cluster.start_ready().await;
        }
        for peer in [&west, &north] {
            peer.link(&east);
        }
        east.link(&north);
        let anything = "provides: [\"*/*\"]";
        let link = west.handle().link();
        assert!(link.contains(anything), "{link}");
        east.write("link-west.yaml", &link.replace(anything, &format!("provides: [{provides:?}]")));
        until("east takes what both offer", || {
            east.status().peers.iter().all(|peer| peer.offers == 1 && peer.state == PeerState::Fresh).then_some(())
        })
        .await;
        let captor = Captor::seize(west, &east).await;
        let world = Self { east, north, captor, resident: resident_kib() };
        world.captor.is_believed(&world.east).await;
        world
    }

    fn west(&self) -> PeerStatus {
        self.east.status().peers.into_iter().find(|peer| peer.cluster.as_str() == "west").unwrap()
    }

    /// East serves its own and north's services as before, and has not grown beyond measure.
    async fn is_unharmed(&self, after: &str) {
        let begun = Instant::now();
        let proxy = self.east.proxy("shop/client-1").await;
        for (host, cluster) in [(CLIENT, "east"), (STOCK, "north")] {
            let mut subscription = proxy.client.subscribe::<Endpoints>(host);
            let answer = subscription.answer().await;
            let all = answer.present().unwrap_or_else(|| panic!("{after}: {host} is gone"));
            let clusters: Vec<_> = all.clusters.iter().map(|part| part.cluster.as_str()).collect();
            assert_eq!(clusters, [cluster], "{after}: {host}");
            let identity = all.clusters[0].endpoints[0].identity.as_ref().unwrap().trust_domain.to_string();
            assert_eq!(identity, format!("{cluster}.example"), "{after}: {host}");
        }
        let north = self.east.status().peers.into_iter().find(|peer| peer.cluster == self.north.name).unwrap();
        assert_eq!((north.state, north.offers), (PeerState::Fresh, 1), "{after}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{after}: slow, {:?}", begun.elapsed());
        let grown = resident_kib().saturating_sub(self.resident);
        assert!(grown < MOST_KIB, "{after}: {grown} KiB more");
    }
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Speaks as the control plane of the cluster that was taken.
struct Captor {
    identity: Identity,
    script: Arc<Script>,
    honest: Value,
    relay: crate::harness::Relay,
    _folders: Cluster,
}

impl Captor {
    async fn seize(mut victim: Cluster, peer: &Cluster) -> Self {
        let said = peer.state().join("peers/west.json");
        let saved = until("what the victim said is on disk", || std::fs::read_to_string(&said).ok()).await;
        let honest = serde_json::from_str::<Value>(&saved).unwrap()["offers"]["shop/cart"].clone();
        assert!(honest.is_object(), "{saved}");
        victim.kill().await;
        let ca = Ca::load(&victim.state().join("ca")).unwrap();
        let request = KeyRequest::new().unwrap();
        let hour = Duration::from_secs(3600);
        let name = SpiffeId::control(victim.domain.clone());
        let chain = ca.sign(&request.csr_der, &name, hour, clock::now()).unwrap();
        let trusted = [ca.bundle(), Ca::load(&peer.state().join("ca")).unwrap().bundle()];
        let identity = Identity::new(Svid::from_chain(request.key, chain).unwrap(), trusted).unwrap();
        let captor = Self { identity, script: Script::new(), honest, relay: victim.relay.clone(), _folders: victim };
        captor.offer("shop/cart", captor.honest.to_string());
        captor.script.publish();
        captor
    }

    /// Serves its script from now on.
    async fn is_believed(&self, by: &Cluster) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (identity, script) = (self.identity.clone(), Arc::clone(&self.script));
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let config = identity.server_config(&[ALPN_XDS, ALPN_H2_STANDARD], ClientAuth::Optional);
                let script = Arc::clone(&script);
                tokio::task::spawn_local(async move {
                    let Ok((stream, peer)) = veer_identity::accept(Stream::Tcp(stream), config).await else { return };
                    let services = Services { leases: Some(script.clone()), ..Services::new("west/captor", script) };
                    serve_connection(stream, peer.map(|peer| Subscriber::verified(peer.id)), services).await;
                });
            }
        });
        self.relay.cut();
        self.relay.lead_to(address);
        until("the captor is believed", || {
            let west = by.status().peers.into_iter().find(|peer| peer.cluster.as_str() == "west")?;
            (west.state == PeerState::Fresh && west.connected && west.synced).then_some(())
        })
        .await;
    }

    /// Answers every connection, after a perfect handshake, with these bytes again and again.
    async fn babbles(&self, bytes: &'static [u8]) -> Rc<RefCell<u32>> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (identity, heard) = (self.identity.clone(), Rc::<RefCell<u32>>::default());
        let count = Rc::clone(&heard);
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let config = identity.server_config(&[ALPN_XDS, ALPN_H2_STANDARD], ClientAuth::Optional);
                let count = Rc::clone(&count);
                tokio::task::spawn_local(async move {
                    let Ok((mut stream, _)) = veer_identity::accept(Stream::Tcp(stream), config).await else { return };
                    let mut first = [0; 64];
                    let _ = stream.read(&mut first).await;
                    *count.borrow_mut() += 1;
                    // Bounded, should nobody mind.
                    for _ in 0..10_000 {
                        if stream.write_all(bytes).await.is_err() || stream.flush().await.is_err() {
                            return;
                        }
                    }
                    let _ = stream.read(&mut first).await;
                });
            }
        });
        self.relay.cut();
        self.relay.lead_to(address);
        heard
    }

    fn offer(&self, name: &str, body: impl Into<Bytes>) {
        self.script.put(Offer::TYPE_URL, name, body.into());
    }

    /// Says where its gateways are.
    fn leads_to(&self, address: &str) {
        let gateway = json!({ "name": "g1", "address": address, "weight": 1, "draining": false });
        let gateways = json!({ "cluster": "west", "trust_domain": "west.example", "gateways": [gateway] });
        self.script.put(PeerGateways::TYPE_URL, "west", gateways.to_string().into());
    }

    /// The offer that it made when it was itself, changed.
    fn changed(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut offer = self.honest.clone();
        change(&mut offer);
        offer.to_string()
    }
}

/// What the captor says.
struct Script {
    bodies: RefCell<BTreeMap<(&'static str, String), (String, Bytes)>>,
    generation: watch::Sender<u64>,
}

impl Script {
    fn new() -> Arc<Self> {
        #[allow(clippy::arc_with_non_send_sync, reason = "one thread; the trait object is shared as an Arc")]
        Arc::new(Self { bodies: RefCell::default(), generation: watch::Sender::new(0) })
    }

    fn put(&self, kind: &'static str, name: &str, body: Bytes) {
        self.bodies.borrow_mut().insert((kind, name.to_owned()), (version_of(&body), body));
    }

    fn clear(&self) {
        self.bodies.borrow_mut().clear();
    }

    fn publish(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }
}

impl Source for Script {
    fn get(&self, _: &Subscriber, type_url: &str, name: &str) -> Option<(String, Bytes)> {
        let bodies = self.bodies.borrow();
        bodies.iter().find(|((kind, of), _)| *kind == type_url && of == name).map(|(_, body)| body.clone())
    }

    fn list(&self, _: &Subscriber, type_url: &str) -> Vec<String> {
        self.bodies.borrow().keys().filter(|(kind, _)| *kind == type_url).map(|(_, name)| name.clone()).collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}

impl Leases for Script {
    fn lease<'a>(&'a self, _: &'a Subscriber, _: &'a LeaseAsk) -> LocalFuture<'a, Result<LeaseGrant, Status>> {
        Box::pin(async { Ok(LeaseGrant { generation: *self.generation.borrow(), incarnation: "captor".to_owned() }) })
    }
}

#[test]
fn lies_about_others_are_refused_and_shown() {
    local(async {
        let world = World::new("shop/cart").await;
        let captor = &world.captor;
        let endpoint = |offer: &mut Value, key: &str, value: Value| offer["endpoints"][0][key] = value;
        // Somebody else's name for its own endpoints; somebody else's services; a service of a system; what is no name.
        let stolen = "spiffe://north.example/ns/shop/sa/stock";
        captor.offer("shop/cart", captor.changed(|offer| endpoint(offer, "identity", json!(stolen))));
        for other in ["shop/client", "shop/stock", "kube-system/dns"] {
            captor.offer(other, captor.changed(|offer| offer["service"] = json!(other)));
        }
        captor.offer("shop/wallet", captor.honest.to_string());
        // It leads to where it pleases: out of what the Link allows.
        captor.leads_to("127.9.9.9:9");
        captor.script.publish();
        until("the lies are shown", || (!world.west().refused.is_empty()).then_some(())).await;
        world.is_unharmed("lies").await;
        let refused = world.west().refused.join("\n");
        for lie in ["shop/cart", "shop/client", "shop/stock", "kube-system/dns", "127.9.9.9:9"] {
            assert!(refused.contains(lie), "{lie} is not among what is refused:\n{refused}");
        }

        // And the truth is taken again.
        captor.script.clear();
        captor.offer("shop/cart", captor.honest.to_string());
        captor.leads_to(&captor.relay.address.to_string());
        captor.script.publish();
        until("the truth is taken", || (world.west().offers == 1 && world.west().refused.is_empty()).then_some(()))
            .await;
    });
}

#[test]
fn what_cannot_be_read_is_refused_by_name_and_floods_are_bounded() {
    local(async {
        let world = World::new("*/*").await;
        let captor = &world.captor;
        let deep = "[".repeat(100_000);
        for (n, garbage) in ["", "null", "[]", "{\"service\":", "\u{0}\u{1}", &deep].into_iter().enumerate() {
            captor.offer(&format!("shop/garbage-{n}"), garbage.to_owned());
        }
        captor.offer("shop/huge", captor.changed(|offer| offer["padding"] = json!("x".repeat(5 << 20))));
        captor.script.publish();
        world.is_unharmed("garbage").await;

        // A policy without end, of delays without end.
        let fault = json!({ "numerator": 1, "denominator": 1, "delay": { "secs": u64::MAX, "nanos": 0 } });
        let endless = json!({ "faults": vec![fault; 1_000], "by": ["x".repeat(1000)] });
        captor.offer("shop/cart", captor.changed(|offer| offer["policy"] = endless));
        captor.script.publish();
        until("the endless policy is refused", || {
            world.west().refused.iter().any(|reason| reason.contains("shop/cart")).then_some(())
        })
        .await;
        world.is_unharmed("an endless policy").await;
        captor.offer("shop/cart", captor.honest.to_string());

        // More offers than anybody has, of endpoints without end.
        let many = captor.changed(|offer| {
            let one = offer["endpoints"][0].clone();
            offer["endpoints"] = json!(vec![one; 2_000]);
        });
        for n in 0..300 {
            let name = format!("shop/many-{n}");
            captor.offer(&name, many.replace("\"shop/cart\"", &format!("{name:?}")));
        }
        captor.script.publish();
        world.is_unharmed("a flood").await;
        // Again and again, each time something else: nothing of it may add up.
        for round in 0..20 {
            captor.offer("shop/cart", captor.changed(|offer| offer["round"] = json!(round)));
            captor.script.publish();
            tokio::task::yield_now().await;
        }
        world.is_unharmed("changes without end").await;
    });
}

#[test]
fn replayed_and_withdrawn_offers_concern_the_captured_cluster_alone() {
    local(async {
        let world = World::new("*/*").await;
        let captor = &world.captor;
        // Withdrawn: its own statement about itself.
        captor.script.clear();
        captor.script.publish();
        until("the offer is withdrawn", || (world.west().offers == 0).then_some(())).await;
        world.is_unharmed("a withdrawal").await;
        // An old word, replayed, is a word of the same cluster about itself: it is believed, and concerns nobody else.
        captor.offer("shop/cart", captor.honest.to_string());
        captor.script.publish();
        until("the old word is taken", || (world.west().offers == 1).then_some(())).await;
        world.is_unharmed("a replay").await;
        let proxy = world.east.proxy("shop/client-1").await;
        let mut cart = proxy.client.subscribe::<Endpoints>(CART);
        assert!(matches!(cart.answer().await, Known::Present(_)));
    });
}

#[test]
fn a_captured_control_plane_that_babbles_is_silent() {
    local(async {
        let world = World::new("*/*").await;
        // Not HTTP/2; settings without end; headers that never end; a frame larger than any.
        const BABBLE: [&[u8]; 4] = [
            b"HTTP/1.1 200 OK\r\n\r\n",
            &[0, 0, 0, 4, 0, 0, 0, 0, 0],
            &[0, 0, 1, 9, 0, 0, 0, 0, 1, 0],
            &[255, 255, 255, 0, 0, 0, 0, 0, 1],
        ];
        for bytes in BABBLE {
            let heard = world.captor.babbles(bytes).await;
            until("east has come, and come again", || (*heard.borrow() >= 2).then_some(())).await;
            world.is_unharmed("babble").await;
        }
        until("it is silent", || (world.west().state == PeerState::Silent).then_some(())).await;
        assert_eq!(world.west().offers, 1, "silence deletes nothing");
        assert!(world.west().last_error.is_some());
        world.captor.is_believed(&world.east).await;
    });
}
