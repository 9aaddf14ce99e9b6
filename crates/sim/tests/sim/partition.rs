//! A whole cluster falls silent under steady load, and returns.

use std::time::Duration;

use veer_control::lease::PeerState;
use veer_sim::{ClusterSpec, Fleet, FleetSpec};

const EVERY: Duration = Duration::from_millis(20);
const SECOND: Duration = Duration::from_secs(1);

/// Share of the requests answered within `time` from `since` that this cluster served.
fn share(fleet: &Fleet, cluster: &str, since: Duration, time: Duration) -> f64 {
    let served = fleet.journal().served(since);
    let within: Vec<_> = served.iter().filter(|(at, ..)| *at < since + time).collect();
    assert!(!within.is_empty(), "nothing was served\n{}", fleet.tail());
    within.iter().filter(|(_, by, _)| by.starts_with(cluster)).count() as f64 / within.len() as f64
}

#[test]
fn a_silent_cluster_fails_no_request_leaves_within_the_lease_and_returns_slowly() {
    let spec = FleetSpec::new(2)
        .with(ClusterSpec::new("west").caller("visitor", "echo"))
        .with(ClusterSpec::new("east").gateways(2).copies("echo", ["echo-1", "echo-2"]))
        .with(ClusterSpec::new("north").copies("echo", ["echo-1", "echo-2"]));
    let lease = spec.lease;
    let mut fleet = Fleet::start(spec);
    fleet.call("west/visitor", Some(EVERY));
    fleet.run(20 * SECOND);
    let before = share(&fleet, "east", fleet.now() - 5 * SECOND, 5 * SECOND);
    assert!((0.3..0.7).contains(&before), "both serve: {before}");

    // Not a word to anybody: what was sent is lost, and so is what will be.
    let cut = fleet.now();
    fleet.cut_off("east");
    let silent = fleet
        .until("east is silent to west", 2 * lease, |fleet| fleet.believes("west", "east") == Some(PeerState::Silent));
    assert!(silent <= lease + SECOND, "{silent:?}");
    fleet.run(2 * lease);
    let healed = fleet.now();
    assert_eq!(fleet.journal().failed(Duration::ZERO), [], "another cluster has copies");
    // Those under way waited until their connections were proven dead; nobody later did, and nobody after the lease at all.
    let slowest = |since: Duration, until: Duration| {
        let served = fleet.journal().served(since);
        served.into_iter().filter(|(at, ..)| *at < until).map(|(.., took)| took).max().unwrap()
    };
    assert!(slowest(cut, healed) < 3 * SECOND, "{:?}", slowest(cut, healed));
    assert!(slowest(cut + lease, healed) < SECOND / 2, "{:?}", slowest(cut + lease, healed));
    assert_eq!(share(&fleet, "east", cut + SECOND, healed - cut - SECOND), 0.0);

    fleet.mend();
    fleet.until("east is back", 3 * lease, |fleet| {
        fleet.believes("west", "east") == Some(PeerState::Fresh)
            && fleet.journal().served(healed).iter().any(|(_, by, _)| by.starts_with("east"))
    });
    let back = fleet.journal().served(healed).into_iter().find(|(_, by, _)| by.starts_with("east")).unwrap().0;
    fleet.run(60 * SECOND);
    let (first, last) =
        (share(&fleet, "east", back, 3 * SECOND), share(&fleet, "east", fleet.now() - 10 * SECOND, 10 * SECOND));
    assert!((before - last).abs() < 0.15, "as before: {before}, now {last}");
    assert!(first < last * 0.7, "slowly: {first} at first, {last} at last");
    assert_eq!(fleet.journal().failed(Duration::ZERO), []);
}
