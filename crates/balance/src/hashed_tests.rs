use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use proptest::prelude::*;
use veer_core::endpoints::{ClusterEndpoints, Endpoint, EndpointPort, Endpoints, Reach};
use veer_core::hashing::{ConsistentHash, HashKey, key_hash};
use veer_core::names::{ClusterName, ObjectName};
use veer_core::policy::TrafficPolicy;

use super::*;
use crate::{Clusters, Outcome};

const KEYS: u64 = 4000;
const BOTH: [HashTable; 2] = [HashTable::Maglev, HashTable::Ring];

fn endpoint(cluster: &str, number: u16) -> Endpoint {
    let [high, low] = number.to_be_bytes();
    Endpoint {
        workload: ObjectName::new("shop", &format!("{cluster}-{number}")),
        address: std::net::Ipv4Addr::new(10, 0, high, low).into(),
        ports: vec![EndpointPort { service_port: 80, target_port: 8080, token: "token".into() }],
        identity: Some(format!("spiffe://{cluster}.example/ns/shop/sa/cart").parse().unwrap()),
        mesh_port: 15008,
        locality: Default::default(),
        ready: true,
        capacity: None,
    }
}

fn stated(table: HashTable, clusters: &[(&str, &[u16])]) -> Endpoints {
    let hash = ConsistentHash { table, key: HashKey::Source };
    let policy = TrafficPolicy { hash: Some(Arc::new(hash)), slow_start: Duration::ZERO, ..TrafficPolicy::default() };
    let cluster = |(cluster, numbers): &(&str, &[u16])| ClusterEndpoints {
        cluster: ClusterName::new(cluster).unwrap(),
        reach: if *cluster == "here" { Reach::Local } else { Reach::Gateway },
        endpoints: numbers.iter().map(|number| endpoint(cluster, *number)).collect(),
        service_tokens: vec![],
    };
    let host = "cart.shop.svc.clusterset.local".parse().unwrap();
    Endpoints { host, policy, clusters: clusters.iter().map(cluster).collect(), tls: vec![], external: None }
}

struct Bench {
    balance: Arc<ServiceBalance>,
    picker: Picker,
    rng: fastrand::Rng,
    now: Instant,
}

impl Bench {
    fn new(table: HashTable, clusters: &[(&str, &[u16])]) -> Self {
        let now = Instant::now();
        let own = Clusters::new(&ClusterName::new("here").unwrap(), now);
        let balance = ServiceBalance::new(&stated(table, clusters), &own, now);
        Self { picker: Picker::new(Arc::clone(&balance)), balance, rng: fastrand::Rng::with_seed(3), now }
    }

    fn pick(&mut self, key: u64, exclude: &[EndpointKey]) -> Pick {
        self.picker.pick_hashed(key_hash(&[&key.to_be_bytes()]), self.now, &mut self.rng, exclude).unwrap()
    }

    fn send(&mut self, key: u64, outcome: Outcome) -> String {
        let pick = self.pick(key, &[]);
        let workload = pick.key().workload.name.to_string();
        pick.finish(outcome, Duration::from_millis(1), self.now);
        workload
    }

    /// Whom each key leads to.
    fn all(&mut self) -> HashMap<u64, String> {
        (0..KEYS).map(|key| (key, self.send(key, Outcome::Success))).collect()
    }
}

fn counts(all: &HashMap<u64, String>) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    all.values().for_each(|workload| *counts.entry(workload.as_str()).or_default() += 1);
    counts
}

#[test]
fn one_key_one_endpoint_whoever_asks_and_shares_are_even() {
    for (table, tolerance) in [(HashTable::Maglev, 0.15), (HashTable::Ring, 0.35)] {
        let mut bench = Bench::new(table, &[("here", &[0, 1, 2, 3, 4])]);
        let first = bench.all();
        assert_eq!(first, bench.all());
        // Another process, told of the endpoints in another order.
        assert_eq!(first, Bench::new(table, &[("here", &[4, 2, 0, 1, 3])]).all());
        for (workload, count) in counts(&first) {
            let part = count as f64 * 5.0 / KEYS as f64;
            assert!((part - 1.0).abs() < tolerance, "{table:?} {workload}: {part}");
        }
    }
}

#[test]
fn keys_of_an_ejected_endpoint_go_to_the_next_and_come_back() {
    for table in BOTH {
        let mut bench = Bench::new(table, &[("here", &[0, 1, 2, 3])]);
        let before = bench.all();
        let lost = (0..KEYS).find(|key| before[key] == "here-1").unwrap();
        for _ in 0..5 {
            assert_eq!(bench.send(lost, Outcome::AppError5xx), "here-1");
        }
        let during = bench.all();
        for key in 0..KEYS {
            match before[&key].as_str() {
                "here-1" => assert_ne!(during[&key], "here-1"),
                _ => assert_eq!(during[&key], before[&key], "others stay where they are"),
            }
        }
        let heirs: Vec<usize> = {
            let moved: HashMap<u64, String> =
                during.iter().filter(|(key, _)| before[key] == "here-1").map(|(k, w)| (*k, w.clone())).collect();
            counts(&moved).values().copied().collect()
        };
        assert_eq!(heirs.len(), 3, "{table:?}: all others share what it had: {heirs:?}");
        bench.now += Duration::from_secs(6);
        assert_eq!(bench.all(), before, "{table:?}");
    }
}

#[test]
fn a_failed_try_and_a_full_endpoint_lead_to_the_next_on_the_ring() {
    for table in BOTH {
        let mut bench = Bench::new(table, &[("here", &[0, 1, 2])]);
        let first = bench.pick(7, &[]).key().clone();
        let second = bench.pick(7, std::slice::from_ref(&first)).key().clone();
        assert_ne!(first, second);
        let third = bench.pick(7, &[first.clone(), second.clone()]).key().clone();
        assert!(third != first && third != second);
        assert_eq!(*bench.pick(7, &[first.clone(), second.clone()]).key(), third, "always in the same order");
        // At its limit.
        let held: Vec<Pick> = (0..1024).map(|_| bench.pick(7, &[])).collect();
        assert!(held.iter().all(|pick| *pick.key() == first));
        assert_eq!(*bench.pick(7, &[]).key(), second);
    }
}

#[test]
fn the_own_cluster_comes_first_and_only_what_it_cannot_bear_leaves() {
    for table in BOTH {
        let mut bench = Bench::new(table, &[("here", &[0, 1, 2, 3]), ("west", &[0, 1, 2, 3])]);
        let before = bench.all();
        assert!(before.values().all(|workload| workload.starts_with("here")));
        // Half of the own copies cannot be reached: what stays, stays where it was.
        for number in [0, 1] {
            let cluster = ClusterName::new("here").unwrap();
            let key = EndpointKey {
                address: std::net::Ipv4Addr::new(10, 0, 0, number).into(),
                workload: ObjectName::new("shop", &format!("here-{number}")),
                cluster,
            };
            let plan = bench.balance.plan();
            let target = plan.set.groups[0].targets.iter().find(|target| target.key == key).unwrap();
            bench.balance.unreachable(target, bench.now);
        }
        bench.now += Duration::from_millis(200);
        let during = bench.all();
        let west = during.values().filter(|workload| workload.starts_with("west")).count();
        let share = 1.0 - bench.balance.snapshot(bench.now).clusters[0].share;
        assert!((west as f64 / KEYS as f64 - share).abs() < 0.05, "{west} of {KEYS}, share {share}");
        for key in 0..KEYS {
            if during[&key].starts_with("here") && !matches!(before[&key].as_str(), "here-0" | "here-1") {
                assert_eq!(during[&key], before[&key]);
            }
        }
    }
}

#[test]
fn when_nobody_is_fit_somebody_is_tried_as_without_hashing() {
    let mut bench = Bench::new(HashTable::Maglev, &[("here", &[0])]);
    let plan = bench.balance.plan();
    bench.balance.unreachable(&plan.set.groups[0].targets[0], bench.now);
    bench.now += Duration::from_millis(200);
    assert!(bench.pick(1, &[]).is_panic());
}

#[test]
fn tables_are_bounded() {
    let numbers: Vec<u16> = (0..5000).collect();
    for table in BOTH {
        let mut bench = Bench::new(table, &[("here", &numbers)]);
        bench.send(1, Outcome::Success);
        match &**bench.balance.plan().set.groups[0].table.as_ref().unwrap() {
            Table::Maglev(places) => assert_eq!(places.len(), PLACES as usize),
            Table::Ring(points) => assert!(points.len() <= MOST_POINTS, "{}", points.len()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// When an endpoint goes, its keys alone move (with Maglev: and few more); when one comes, keys move to it alone.
    #[test]
    fn a_change_moves_few_keys(mut numbers in proptest::collection::btree_set(0_u16..1000, 3..40), gone in any::<prop::sample::Index>()) {
        let with: Vec<u16> = numbers.iter().copied().collect();
        let leaves = with[gone.index(with.len())];
        numbers.remove(&leaves);
        let without: Vec<u16> = numbers.into_iter().collect();
        for table in BOTH {
            let before = Bench::new(table, &[("here", &with)]).all();
            let after = Bench::new(table, &[("here", &without)]).all();
            let name = format!("here-{leaves}");
            let moved = (0..KEYS).filter(|key| before[key] != name && before[key] != after[key]).count();
            let allowed = match table { HashTable::Ring => 0, _ => KEYS as usize / 8 };
            prop_assert!(moved <= allowed, "{table:?}: {moved} of {KEYS} moved without need");
        }
    }
}
