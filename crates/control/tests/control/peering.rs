//! Two control planes, each behind a relay in place of its gateway.

use std::collections::BTreeSet;

use veer_control::api::PeerStatus;
use veer_control::lease::PeerState;
use veer_core::gateway::{Lease, Path};
use veer_core::{Endpoints, Known};

use crate::harness::{Cluster, local, service, until};

const CART: &str = "cart.shop.svc.clusterset.local";

/// West exports cart to east, stock to all, and keeps web to itself; both peer.
async fn pair() -> (Cluster, Cluster) {
    let (mut west, mut east) = (Cluster::new("west").await, Cluster::new("east").await);
    west.write("cart.yaml", &service("cart", "127.1.0.1", Some("east")));
    west.write("stock.yaml", &service("stock", "127.1.0.2", Some("*")));
    west.write("price.yaml", &service("price", "127.1.0.3", Some("north")));
    west.write("web.yaml", &service("web", "127.1.0.4", None));
    east.write("client.yaml", &service("client", "127.1.0.1", None));
    west.start_ready().await;
    east.start_ready().await;
    west.link(&east);
    east.link(&west);
    until("east takes what west offers", || (peer(&east)?.offers == 2).then_some(())).await;
    (west, east)
}

fn peer(cluster: &Cluster) -> Option<PeerStatus> {
    cluster.status().peers.into_iter().next()
}

async fn reaches(cluster: &Cluster, state: PeerState) {
    until(&format!("the peer is {state:?}"), || (peer(cluster)?.state == state).then_some(())).await;
}

#[test]
fn a_peer_reads_exactly_what_was_exported_to_it() {
    local(async {
        let (west, east) = pair().await;
        let dump: serde_json::Value = {
            let answer = west.handle().answer(&veer_control::ApiRequest::get("/v1/dump"));
            serde_json::from_slice(&answer.body).unwrap()
        };
        let offered: BTreeSet<&str> = dump["offered"]["east"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(offered, BTreeSet::from(["shop/cart", "shop/stock"]));
        reaches(&east, PeerState::Fresh).await;
        assert_eq!(peer(&east).unwrap().endpoints, 2);
        assert_eq!(peer(&west).unwrap().offers, 0, "east exports nothing");
        // What west offers is not offered on by east.
        assert_eq!(peer(&east).unwrap().offered, 0);

        // A proxy in east sees it, with a token instead of a way around the gateway.
        let proxy = east.proxy("shop/client-1").await;
        let mut cart = proxy.client.subscribe::<Endpoints>(CART);
        let endpoints = cart.answer().await.present().cloned().expect("cart of west");
        let remote = endpoints.clusters.iter().find(|c| c.cluster == west.name).unwrap();
        assert!(!remote.endpoints[0].ports[0].token.is_empty());
        assert_eq!(remote.endpoints[0].identity.as_ref().unwrap().to_string(), "spiffe://west.example/ns/shop/sa/cart");
        for unseen in ["price.shop.svc.clusterset.local", "web.shop.svc.clusterset.local"] {
            assert_eq!(proxy.client.subscribe::<Endpoints>(unseen).answer().await, Known::Absent, "{unseen}");
        }

        // Taking back is a statement.
        west.write("cart.yaml", &service("cart", "127.1.0.1", None));
        until("the offer is taken back", || (peer(&east)?.offers == 1).then_some(())).await;
    });
}

#[test]
fn a_cut_is_silence_after_the_lease_and_deletes_nothing() {
    local(async {
        let (west, east) = pair().await;
        reaches(&east, PeerState::Fresh).await;
        let proxy = east.proxy("shop/client-1").await;
        let mut path = proxy.client.subscribe::<Path>("west");
        assert_eq!(path.answer().await.present().unwrap().lease, Lease::Fresh);
        let cart = proxy.client.subscribe::<Endpoints>(CART);

        west.relay.cut();
        reaches(&east, PeerState::Silent).await;
        until("the proxy hears of the silence", || {
            (path.borrow_and_update().present()?.lease == Lease::Silent).then_some(())
        })
        .await;
        let status = peer(&east).unwrap();
        assert_eq!((status.offers, status.connected), (2, false));
        assert!(status.last_error.is_some());
        assert!(cart.borrow().present().is_some());

        west.relay.lead_to(west.handle().listen());
        reaches(&east, PeerState::Fresh).await;
        assert_eq!(peer(&east).unwrap().offers, 2);
    });
}

#[test]
fn a_peer_restarted_over_a_wiped_folder_takes_nothing_away() {
    local(async {
        let (mut west, east) = pair().await;
        west.kill().await;
        let kept = west.manifests().with_file_name("kept");
        std::fs::rename(west.manifests(), &kept).unwrap();
        std::fs::create_dir(west.manifests()).unwrap();
        west.start().await;
        reaches(&east, PeerState::Silent).await;
        assert_eq!(peer(&east).unwrap().offers, 2);
        assert!(!west.status().ready, "an empty folder says nothing");

        std::fs::remove_dir(west.manifests()).unwrap();
        std::fs::rename(&kept, west.manifests()).unwrap();
        reaches(&east, PeerState::Fresh).await;
        assert_eq!(peer(&east).unwrap().offers, 2);
    });
}

#[test]
fn an_own_restart_with_a_dead_peer_keeps_what_it_said_and_its_age() {
    local(async {
        let (mut west, mut east) = pair().await;
        reaches(&east, PeerState::Fresh).await;
        until("what was said is on disk", || std::fs::read_to_string(east.state().join("peers/west.json")).ok()).await;
        west.kill().await;
        east.kill().await;
        east.start_ready().await;
        let status = peer(&east).unwrap();
        assert_eq!((status.state, status.offers), (PeerState::Silent, 2));
        assert!(status.age_seconds.is_some());
        let proxy = east.proxy("shop/client-1").await;
        let endpoints = proxy.client.subscribe::<Endpoints>(CART).answer().await.present().cloned().expect("cart");
        assert!(endpoints.clusters.iter().any(|c| c.cluster == west.name && !c.endpoints.is_empty()));

        west.start_ready().await;
        reaches(&east, PeerState::Fresh).await;
    });
}

#[test]
fn removing_the_link_ends_trust_and_forgets_the_offers() {
    local(async {
        let (west, east) = pair().await;
        east.remove("link-west.yaml");
        until("the peer is gone", || east.status().peers.is_empty().then_some(())).await;
        let proxy = east.proxy("shop/client-1").await;
        assert_eq!(proxy.client.subscribe::<Endpoints>(CART).answer().await, Known::Absent);
        assert!(!east.state().join("peers/west.json").exists());
        // West still has its Link: its session with east is closed and cannot come back.
        reaches(&west, PeerState::Silent).await;
        assert!(!peer(&west).unwrap().connected);
    });
}
