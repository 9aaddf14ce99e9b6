//! Two control planes on a simulated network with a virtual clock: a day of silence takes a moment.

use std::path::Path;
use std::time::Duration;

use veer_control::api::PeerStatus;
use veer_control::lease::PeerState;
use veer_control::{Control, ControlConfig, Handle};
use veer_core::{ClusterName, TrustDomain};
use veer_identity::{Ca, clock};
use veer_net::{Drain, Network};

const LEASE: Duration = Duration::from_secs(10);
const DAY: Duration = Duration::from_secs(86_400);

/// Writes a cluster's manifests: one exported service, and the Link to its peer. turmoil gives addresses in the order of hosts.
fn cluster(dir: &Path, name: &str, peer: &str, peer_address: &str) -> ControlConfig {
    let domain = |name: &str| TrustDomain::new(&format!("{name}.example")).unwrap();
    let state = |name: &str| dir.join(name).join("state");
    let peer_ca = Ca::load_or_create(&state(peer).join("ca"), &domain(peer), clock::now()).unwrap();
    let bundle = peer_ca.bundle().roots_pem.replace('\n', "\n    ");
    let manifests = dir.join(name).join("manifests");
    std::fs::create_dir_all(&manifests).unwrap();
    let text = format!(
        "apiVersion: veer.dev/v1alpha1\nkind: Link\nmetadata: {{name: {peer}}}\nspec:\n  trustDomain: {peer}.example\n  bundle: |\n    \
         {bundle}\n  gateways: [{{name: g1, address: \"{peer_address}:15010\"}}]\n  provides: [\"*/*\"]\n  lease: 10s\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: cart, namespace: shop}}\nspec: {{ports: [{{port: 80}}]}}\n---\n\
         apiVersion: multicluster.x-k8s.io/v1beta1\nkind: ServiceExport\nmetadata: {{name: cart, namespace: shop, annotations: \
         {{veer.dev/audience: \"*\"}}}}\n"
    );
    std::fs::write(manifests.join("all.yaml"), text).unwrap();
    let listen = "0.0.0.0:15010".parse().unwrap();
    ControlConfig {
        manifests: vec![manifests],
        network: Network::Sim,
        lease: LEASE,
        ..ControlConfig::new(ClusterName::new(name).unwrap(), domain(name), state(name), listen)
    }
}

fn peer(handle: &Handle) -> Option<PeerStatus> {
    handle.status().peers.into_iter().next()
}

async fn reaches(handle: &Handle, state: PeerState, limit: Duration) -> Duration {
    let start = tokio::time::Instant::now();
    while peer(handle).is_none_or(|peer| peer.state != state) {
        assert!(start.elapsed() < limit, "not {state:?} within {limit:?}: {:?}", peer(handle));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    start.elapsed()
}

#[test]
fn silence_is_noticed_within_the_lease_and_a_day_of_it_is_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let west = cluster(dir.path(), "west", "east", "192.168.0.2");
    let east = cluster(dir.path(), "east", "west", "192.168.0.1");
    let mut sim = turmoil::Builder::new()
        .simulation_duration(DAY * 3)
        .tick_duration(Duration::from_millis(50))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(20))
        .rng_seed(7)
        .build();
    sim.host("west", move || {
        let config = west.clone();
        async move { Ok(veer_control::run(config, Drain::never()).await?) }
    });
    sim.client("east", async move {
        // The day is short here: what matters is that it ends.
        let control = Control::bind(ControlConfig { gone_after: LEASE * 30, ..east }).await?;
        let handle = control.handle();
        let running = tokio::task::spawn_local(control.run(Drain::never()));
        reaches(&handle, PeerState::Fresh, LEASE).await;
        assert_eq!(peer(&handle).unwrap().offers, 1);

        turmoil::partition("west", "east");
        let silent = reaches(&handle, PeerState::Silent, LEASE * 2).await;
        assert!(silent <= LEASE, "within one lease, not {silent:?}");
        assert_eq!(peer(&handle).unwrap().offers, 1, "silence deletes nothing");

        turmoil::repair("west", "east");
        reaches(&handle, PeerState::Fresh, LEASE * 2).await;

        turmoil::partition("west", "east");
        let gone = reaches(&handle, PeerState::Gone, LEASE * 40).await;
        assert!(gone > LEASE * 28, "{gone:?}");
        assert_eq!(peer(&handle).unwrap().offers, 0, "gone");
        turmoil::repair("west", "east");
        reaches(&handle, PeerState::Fresh, LEASE * 2).await;
        assert_eq!(peer(&handle).unwrap().offers, 1);
        running.abort();
        Ok(())
    });
    sim.run().unwrap();
}
