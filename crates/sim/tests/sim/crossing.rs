//! A request from one cluster to another.

use std::time::Duration;

use veer_sim::{ClusterSpec, Fleet, FleetSpec, What};

#[test]
fn a_request_crosses_clusters_under_the_callers_own_identity() {
    let spec = FleetSpec::new(1)
        .with(ClusterSpec::new("west").caller("visitor", "echo"))
        .with(ClusterSpec::new("east").gateways(2).copies("echo", ["echo-1", "echo-2"]));
    let mut fleet = Fleet::start(spec);
    fleet.call("west/visitor", Some(Duration::from_millis(50)));
    fleet.run(Duration::from_secs(5));
    fleet.call("west/visitor", None);
    fleet.run(Duration::from_secs(1));

    assert_eq!(fleet.journal().failed(Duration::ZERO), []);
    let served = fleet.journal().served(Duration::ZERO);
    assert!(served.len() >= 99, "{}", served.len());
    for copy in ["east/echo-1", "east/echo-2"] {
        let share = served.iter().filter(|(_, by, _)| by == copy).count();
        assert!(share > served.len() / 4, "{copy} served {share} of {}", served.len());
    }
    // The callee's proxy takes nothing but mutual TLS (strict) and verified who called: the visitor itself, not the gateway.
    let events = fleet.journal().events();
    for event in events.iter() {
        if let What::Served { caller, .. } = &event.what {
            assert_eq!(caller, "spiffe://west.example/ns/shop/sa/caller", "{event}");
        }
    }
}
