use veer_core::gateway::{Lease, PathGateway};
use veer_core::names::ClusterName;

use super::*;

fn path(gateways: &[(&str, u32, bool)]) -> Path {
    let gateway = |(i, &(name, weight, draining)): (usize, &(&str, u32, bool))| PathGateway {
        name: name.into(),
        address: SocketAddr::from(([127, 0, 0, 1], 1000 + i as u16)),
        weight,
        draining,
    };
    Path {
        cluster: ClusterName::new("west").unwrap(),
        trust_domain: "west.example".parse().unwrap(),
        gateways: gateways.iter().enumerate().map(gateway).collect(),
        lease: Lease::Fresh,
        lease_duration: Duration::from_secs(10),
    }
}

fn names(balance: &PathBalance, picks: usize) -> String {
    (0..picks).map(|_| balance.pick().unwrap().name.to_string()).collect()
}

#[test]
fn equal_replicas_take_turns_and_weights_are_kept() {
    let start = Instant::now();
    assert_eq!(names(&PathBalance::new(&path(&[("a", 1, false), ("b", 1, false)]), start), 6), "ababab");
    let weighted = names(&PathBalance::new(&path(&[("a", 3, false), ("b", 1, false)]), start), 400);
    assert_eq!(weighted.matches('a').count(), 300);
    assert!(PathBalance::new(&path(&[]), start).pick().is_none());
}

#[test]
fn draining_and_failed_replicas_are_used_only_when_nothing_else_is_there() {
    let start = Instant::now();
    let balance = PathBalance::new(&path(&[("a", 1, false), ("b", 1, true), ("c", 0, false)]), start);
    let a = balance.pick().unwrap();
    assert_eq!(names(&balance, 3), "aaa");
    balance.failed(&a, start);
    assert!(!names(&balance, 4).contains('a'));
    balance.reachable(&a);
    assert_eq!(names(&balance, 3), "aaa");

    let dead = PathBalance::new(&path(&[("a", 1, false), ("b", 1, false)]), start);
    for _ in 0..2 {
        dead.failed(&dead.pick().unwrap(), start);
    }
    let turns = names(&dead, 4);
    assert!(turns == "abab" || turns == "baba", "{turns}");
}

#[test]
fn failed_replicas_are_probed_with_growing_pauses_and_come_back_without_a_rush() {
    let start = Instant::now();
    let at = |ms: u64| start + Duration::from_millis(ms);
    let balance = PathBalance::new(&path(&[("a", 1, false), ("b", 1, false)]), start);
    let a = balance.pick().unwrap();
    balance.failed(&a, at(0));
    // Many connections of the same replica break at once: one ejection.
    balance.failed(&a, at(1));
    let probes: Vec<u64> = (0..4000).filter(|&ms| !balance.probe_due(at(ms)).is_empty()).collect();
    assert_eq!(probes, [250, 750, 1750, 3750]);
    assert_eq!(balance.snapshot(at(4000))[0].ejections, 1);
    assert_eq!(balance.snapshot(at(4000))[0].unreachable_for, Some(Duration::from_secs(4)));
    names(&balance, 100);
    balance.reachable(&a);
    assert_eq!(names(&balance, 20).matches('a').count(), 10);
}

#[test]
fn an_update_keeps_what_is_known() {
    let start = Instant::now();
    let balance = PathBalance::new(&path(&[("a", 1, false), ("b", 1, false)]), start);
    let a = balance.pick().unwrap();
    balance.failed(&a, start);
    names(&balance, 50);
    balance.update(&path(&[("a", 1, false), ("b", 1, false), ("c", 1, false)]));
    assert!(!a.is_reachable());
    let picks = names(&balance, 20);
    assert!(!picks.contains('a'));
    assert!(picks.matches('c').count() <= 11 + 50, "{picks}");
    balance.update(&path(&[("b", 1, true)]));
    assert!(balance.pick().unwrap().is_draining());
}
