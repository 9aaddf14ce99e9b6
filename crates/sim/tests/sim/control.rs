//! Control planes that are cut off, gone, or find their manifests gone; traffic does not notice.

use std::time::Duration;

use veer_control::lease::PeerState;
use veer_sim::{ClusterSpec, Fleet, FleetSpec};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn served_by(fleet: &Fleet, since: Duration, host: &str) -> usize {
    fleet.journal().served(since).iter().filter(|(_, by, _)| by == host).count()
}

#[test]
fn a_cut_control_link_is_not_noticed_even_when_every_copy_is_replaced() {
    let spec = FleetSpec::new(3)
        .with(ClusterSpec::new("west").caller("visitor", "echo"))
        .with(ClusterSpec::new("east").copies("echo", ["echo-1", "echo-2"]).later("echo", ["echo-3", "echo-4"]));
    let lease = spec.lease;
    let mut fleet = Fleet::start(spec);
    fleet.call("west/visitor", Some(SECOND / 20));
    fleet.run(5 * SECOND);

    fleet.cut_control();
    fleet.until("west hears nothing of east", 2 * lease, |fleet| {
        fleet.believes("west", "east") == Some(PeerState::Silent)
    });
    fleet.run(2 * lease);
    assert!(served_by(&fleet, fleet.now() - SECOND, "east/echo-1") > 0, "the data path is proven");

    // The visitor's cluster hears nothing of this: it knows the old copies only, and the service by name.
    for (new, old) in [("east/echo-3", "east/echo-1"), ("east/echo-4", "east/echo-2")] {
        fleet.add(new);
        fleet.until("the new copy is connected", 20 * SECOND, |fleet| fleet.status("east").proxies.connected == 4);
        fleet.run(3 * SECOND);
        fleet.remove(old);
        fleet.run(10 * SECOND);
        fleet.crash(old);
        fleet.run(2 * lease);
    }
    assert_eq!(fleet.believes("west", "east"), Some(PeerState::Silent));
    // Where the gateway picks, a connection stays with the copy that it was made to; the other serves when that one ends.
    let since = fleet.now();
    fleet.run(lease);
    assert_eq!(fleet.journal().failed(Duration::ZERO), []);
    let new = ["east/echo-3", "east/echo-4"].map(|copy| served_by(&fleet, since, copy));
    assert!(
        new.iter().sum::<usize>() >= 198,
        "new copies are found by their service's name: {new:?}\n{}",
        fleet.tail()
    );

    fleet.mend();
    fleet.until("all is well", 3 * lease, Fleet::is_settled);
    fleet.run(2 * lease);
    for copy in ["east/echo-3", "east/echo-4"] {
        assert!(served_by(&fleet, fleet.now() - lease, copy) > 50, "{copy} is known again by its name");
    }
    assert_eq!(fleet.journal().failed(Duration::ZERO), []);
}

#[test]
fn without_any_control_plane_traffic_flows_for_hours() {
    let mut spec = FleetSpec::new(4)
        .with(ClusterSpec::new("west").caller("visitor", "echo"))
        .with(ClusterSpec::new("east").copies("echo", ["echo-1"]));
    spec.tick = Duration::from_millis(50);
    spec.look = MINUTE;
    // Half of it and more passes, so certificates cannot be renewed in time and connections are made anew with those that
    // there are.
    spec.certificate_ttl = 150 * MINUTE;
    let mut fleet = Fleet::start(spec);
    fleet.call("west/visitor", Some(5 * SECOND));
    fleet.run(2 * MINUTE);
    let expiry = |fleet: &Fleet| fleet.metric("west/visitor", "veer_certificate_expiry_timestamp_seconds");
    let first = expiry(&fleet);

    let gone = fleet.now();
    fleet.crash("west/control");
    fleet.crash("east/control");
    fleet.run(2 * HOUR);
    assert_eq!(fleet.journal().failed(Duration::ZERO), []);
    let served = fleet.journal().served(gone).len();
    assert!(served > 1400, "{served} of 1440");
    let age = fleet.metric("west/visitor", "veer_config_age_seconds");
    assert!(age > 7000.0, "the proxy says how old its configuration is: {age} s");
    assert_eq!(expiry(&fleet), first, "nobody renews a certificate");

    fleet.bounce("west/control");
    fleet.bounce("east/control");
    fleet.until("all is well", 2 * MINUTE, Fleet::is_settled);
    fleet.run(2 * MINUTE);
    let age = fleet.metric("west/visitor", "veer_config_age_seconds");
    assert!(age < 30.0, "{age} s");
    assert!(expiry(&fleet) > first + 3600.0, "certificates are renewed");
    assert_eq!(fleet.journal().failed(Duration::ZERO), []);
}

#[test]
fn a_folder_that_is_empty_when_the_control_plane_returns_deletes_nothing() {
    let spec = FleetSpec::new(5)
        .with(ClusterSpec::new("west").caller("visitor", "echo"))
        .with(ClusterSpec::new("east").copies("echo", ["echo-1", "echo-2"]));
    let mut fleet = Fleet::start(spec);
    fleet.call("west/visitor", Some(SECOND / 10));
    fleet.run(5 * SECOND);

    let folder = fleet.manifests("east");
    let aside = folder.with_extension("aside");
    fleet.crash("east/control");
    std::fs::rename(&folder, &aside).unwrap();
    std::fs::create_dir(&folder).unwrap();
    let wiped = fleet.now();
    fleet.bounce("east/control");
    fleet.run(MINUTE);
    let status = fleet.status("east");
    assert_eq!(status.source.state, "waiting", "it says that it knows nothing: {:?}", status.source);
    let peers = &fleet.status("west").peers;
    assert_eq!((peers[0].offers, peers[0].endpoints), (1, 2), "what east offered stands: {peers:?}");
    assert!(served_by(&fleet, wiped + 30 * SECOND, "east/echo-1") > 0);
    assert_eq!(fleet.journal().failed(Duration::ZERO), []);

    std::fs::remove_dir(&folder).unwrap();
    std::fs::rename(&aside, &folder).unwrap();
    fleet.until("all is well", MINUTE, Fleet::is_settled);
    fleet.run(10 * SECOND);
    assert_eq!(fleet.status("east").source.state, "synced");
    assert_eq!(fleet.journal().failed(Duration::ZERO), []);
}
