use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use veer_core::endpoints::{ClusterEndpoints, Endpoint, EndpointPort, Endpoints, Reach, ServiceToken};
use veer_core::gateway::{Lease, Path};
use veer_core::hashing::{ConsistentHash, HashKey, HashTable};
use veer_core::names::{ClusterName, ObjectName};
use veer_core::policy::{ClusterWeight, TrafficPolicy};

use super::*;
use crate::pick::Outcome::{self, *};
use crate::{Clusters, EndpointState};

const MS: Duration = Duration::from_millis(1);

/// A service, a clock and a seed.
struct Bench {
    stated: Endpoints,
    clusters: Arc<Clusters>,
    balance: Arc<ServiceBalance>,
    picker: Picker,
    rng: fastrand::Rng,
    now: Instant,
}

fn name(cluster: &str) -> ClusterName {
    ClusterName::new(cluster).unwrap()
}

fn endpoint(cluster: &str, index: usize) -> Endpoint {
    Endpoint {
        workload: ObjectName::new("shop", &format!("{cluster}-{index}")),
        address: std::net::Ipv4Addr::new(10, 0, 0, index as u8).into(),
        ports: vec![EndpointPort { service_port: 80, target_port: 8080, token: "token".into() }],
        identity: Some(format!("spiffe://{cluster}.example/ns/shop/sa/cart").parse().unwrap()),
        mesh_port: 15008,
        locality: Default::default(),
        ready: true,
        capacity: None,
    }
}

fn stated(clusters: &[(&str, usize)], policy: TrafficPolicy) -> Endpoints {
    let cluster = |&(cluster, count): &(&str, usize)| ClusterEndpoints {
        cluster: name(cluster),
        reach: if cluster == "here" { Reach::Local } else { Reach::Gateway },
        endpoints: (0..count).map(|index| endpoint(cluster, index)).collect(),
        service_tokens: vec![],
    };
    let host = "cart.shop.svc.clusterset.local".parse().unwrap();
    Endpoints { host, policy, clusters: clusters.iter().map(cluster).collect(), tls: Vec::new(), external: None }
}

impl Bench {
    fn new(clusters: &[(&str, usize)], policy: TrafficPolicy) -> Self {
        let now = Instant::now();
        let stated = stated(clusters, policy);
        let clusters = Clusters::new(&name("here"), now);
        let balance = ServiceBalance::new(&stated, &clusters, now);
        let picker = Picker::new(Arc::clone(&balance));
        Self { stated, clusters, balance, picker, rng: fastrand::Rng::with_seed(3), now }
    }

    fn pick(&mut self) -> Result<Pick, NoEndpoint> {
        self.picker.pick(self.now, &mut self.rng, &[])
    }

    /// One request that ends at once.
    fn send(&mut self, outcome: Outcome, latency: Duration) -> String {
        let pick = self.pick().unwrap();
        let workload = pick.key().workload.name.to_string();
        pick.finish(outcome, latency, self.now);
        workload
    }

    /// Counts by workload of requests that come every `every` and end at once.
    fn send_many(&mut self, requests: usize, every: Duration) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for _ in 0..requests {
            *counts.entry(self.send(Success, MS)).or_default() += 1;
            self.now += every;
        }
        counts
    }

    /// An open-loop load at a rate, for a time: each request lasts as `latency` says of its workload and ends as `outcome` says.
    fn load(
        &mut self,
        per_second: u32,
        time: Duration,
        mut serve: impl FnMut(&EndpointKey, Instant) -> (Outcome, Duration),
    ) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        let mut open: Vec<(Instant, Pick, Outcome, Duration)> = Vec::new();
        let end = self.now + time;
        let gap = Duration::from_secs(1) / per_second;
        while self.now < end {
            let mut index = 0;
            while index < open.len() {
                if open[index].0 <= self.now {
                    let (at, pick, outcome, latency) = open.swap_remove(index);
                    pick.finish(outcome, latency, at.max(self.now));
                } else {
                    index += 1;
                }
            }
            for target in self.balance.probe_due(self.now) {
                if serve(&target.key, self.now).0 != ConnectFailed {
                    self.balance.reachable(&target, self.now);
                }
            }
            let pick = self.pick().unwrap();
            *counts.entry(pick.key().workload.name.to_string()).or_default() += 1;
            let (outcome, latency) = serve(pick.key(), self.now);
            open.push((self.now + latency, pick, outcome, latency));
            self.now += gap;
        }
        counts
    }

    fn state(&self, workload: &str) -> EndpointState {
        let snapshot = self.balance.snapshot(self.now);
        let endpoints = snapshot.clusters.iter().flat_map(|cluster| &cluster.endpoints);
        endpoints.clone().find(|e| &*e.key.workload.name == workload).unwrap().state
    }

    fn share(&self, cluster: &str) -> f64 {
        let snapshot = self.balance.snapshot(self.now);
        snapshot.clusters.iter().find(|c| c.cluster == name(cluster)).unwrap().share
    }

    fn update(&mut self) {
        self.balance.update(&self.stated, self.now);
    }

    fn set_lease(&self, cluster: &str, lease: Lease) {
        self.clusters.set_path(&Path {
            cluster: name(cluster),
            trust_domain: "west.example".parse().unwrap(),
            gateways: vec![],
            lease,
            lease_duration: Duration::from_secs(10),
        });
    }
}

fn spread(counts: &BTreeMap<String, usize>) -> f64 {
    *counts.values().max().unwrap() as f64 / *counts.values().min().unwrap() as f64
}

fn weights(list: &[(&str, u32)]) -> TrafficPolicy {
    let mut policy = TrafficPolicy::default();
    policy.locality.weights =
        list.iter().map(|&(cluster, weight)| ClusterWeight { cluster: name(cluster), weight }).collect();
    policy
}

#[test]
fn equal_endpoints_get_equal_shares_exactly() {
    let mut bench = Bench::new(&[("here", 10)], TrafficPolicy::default());
    let counts = bench.send_many(10_000, MS);
    assert!(counts.len() == 10 && counts.values().all(|n| (999..=1001).contains(n)), "{counts:?}");
}

#[test]
fn equal_endpoints_with_trembling_latency_and_concurrency_stay_within_a_tenth() {
    let mut bench = Bench::new(&[("here", 10)], TrafficPolicy::default());
    let mut noise = fastrand::Rng::with_seed(5);
    let counts = bench.load(1000, Duration::from_secs(10), |_, _| (Success, MS * noise.u32(1..40)));
    assert!(spread(&counts) <= 1.1, "{counts:?}");
}

#[test]
fn a_slow_endpoint_gets_less_and_none_starves() {
    for slow in [3, 10, 50] {
        let mut bench = Bench::new(&[("here", 10)], TrafficPolicy::default());
        let counts = bench.load(1000, Duration::from_secs(10), |key, _| {
            (Success, if &*key.workload.name == "here-3" { MS * 10 * slow } else { MS * 10 })
        });
        let slow_share = counts["here-3"];
        assert!((20..850).contains(&slow_share), "{slow}: {counts:?}");
        let mut others = counts.clone();
        others.remove("here-3");
        assert!(spread(&others) <= 1.1, "{counts:?}");
    }
}

#[test]
fn a_slow_endpoint_that_recovers_gets_its_share_again() {
    let mut bench = Bench::new(&[("here", 4)], TrafficPolicy::default());
    let slow_until = bench.now + Duration::from_secs(10);
    let serve = |key: &EndpointKey, now: Instant| {
        (Success, if now < slow_until && &*key.workload.name == "here-0" { MS * 300 } else { MS * 5 })
    };
    bench.load(400, Duration::from_secs(30), serve);
    let counts = bench.load(400, Duration::from_secs(10), serve);
    assert!(spread(&counts) <= 1.1, "{counts:?}");
}

#[test]
fn a_split_between_clusters_is_exact() {
    let mut bench = Bench::new(&[("here", 1), ("west", 7)], weights(&[("here", 90), ("west", 10)]));
    let counts = bench.send_many(1000, MS);
    assert_eq!(counts["here-0"], 900);
    assert_eq!(counts.values().sum::<usize>() - counts["here-0"], 100);
    assert_eq!(bench.send_many(10, MS)["here-0"], 9);
}

#[test]
fn clusters_without_weight_never_serve_where_weights_are_written() {
    let mut bench = Bench::new(&[("here", 1), ("west", 1)], weights(&[("here", 1)]));
    assert_eq!(bench.send_many(20, MS).len(), 1);
    bench.send(ConnectFailed, MS);
    assert_eq!(bench.send(Success, MS), "here-0", "panic before a cluster of weight 0");
    let only = bench.pick().unwrap().key().clone();
    let nobody = bench.picker.pick(bench.now, &mut bench.rng, &[only]).unwrap_err();
    assert_eq!(nobody.reason, NoEndpointReason::Excluded);
}

#[test]
fn excluded_endpoints_are_not_picked_and_other_clusters_help() {
    let mut bench = Bench::new(&[("here", 2), ("west", 1)], TrafficPolicy::default());
    let mut exclude = Vec::new();
    let mut picked = Vec::new();
    for _ in 0..3 {
        let pick = bench.picker.pick(bench.now, &mut bench.rng, &exclude).unwrap();
        exclude.push(pick.key().clone());
        picked.push(pick.cluster().to_string());
    }
    assert_eq!(picked, ["here", "here", "west"]);
    let nobody = bench.picker.pick(bench.now, &mut bench.rng, &exclude).unwrap_err();
    assert_eq!((nobody.reason, nobody.known), (NoEndpointReason::Excluded, 3));
    // Retries leave no debts behind.
    assert!(bench.send_many(100, MS).keys().all(|name| name.starts_with("here")));
    assert_eq!(bench.balance.in_flight.load(Relaxed), 0);
}

#[test]
fn no_endpoints_is_an_error_with_a_reason() {
    let mut bench = Bench::new(&[("here", 0)], TrafficPolicy::default());
    assert_eq!(bench.pick().unwrap_err().reason, NoEndpointReason::Empty);
    let mut bench = Bench::new(&[("here", 1)], TrafficPolicy::default());
    bench.stated.clusters[0].endpoints[0].ready = false;
    bench.update();
    assert_eq!(bench.pick().unwrap_err().reason, NoEndpointReason::Empty);
}

#[test]
fn limits_open_the_circuit() {
    let mut policy = TrafficPolicy::default();
    policy.circuit_breaker.max_requests_per_endpoint = 3;
    policy.circuit_breaker.max_requests = 10;
    let mut bench = Bench::new(&[("here", 2), ("west", 2)], policy);
    let held: Vec<Pick> = (0..10).map(|_| bench.pick().unwrap()).collect();
    let here = held.iter().filter(|pick| pick.cluster().as_str() == "here").count();
    assert_eq!(here, 6, "a full cluster spills over");
    assert_eq!(bench.pick().unwrap_err().reason, NoEndpointReason::Overflow);
    drop(held);
    bench.send(Success, MS);
    assert_eq!(bench.balance.events().overflow, 1);
}

#[test]
fn failures_in_a_row_eject_and_time_brings_back_slowly() {
    let mut bench = Bench::new(&[("here", 4)], TrafficPolicy::default());
    let bad_until = bench.now + Duration::from_secs(2);
    let serve = move |key: &EndpointKey, now: Instant| {
        (if now < bad_until && &*key.workload.name == "here-1" { AppError5xx } else { Success }, MS * 5)
    };
    bench.load(200, Duration::from_secs(1), serve);
    assert_eq!(bench.state("here-1"), EndpointState::Ejected);
    let counts = bench.load(200, Duration::from_secs(2), serve);
    assert!(!counts.contains_key("here-1"));
    bench.load(200, Duration::from_secs(3), serve);
    assert_eq!(bench.state("here-1"), EndpointState::SlowStart);
    bench.load(200, Duration::from_secs(12), serve);
    assert_eq!(bench.state("here-1"), EndpointState::Healthy);
    assert!(spread(&bench.load(200, Duration::from_secs(5), serve)) <= 1.1);
    assert_eq!(bench.balance.events().ejected_consecutive, 1);
    let losses = bench.balance.snapshot(bench.now).losses;
    assert_eq!(losses.values().map(|lost| lost.consecutive).collect::<Vec<_>>(), [1], "{losses:?}");
}

#[test]
fn an_endpoint_that_stays_bad_is_ejected_for_longer_each_time() {
    let mut bench = Bench::new(&[("here", 4)], TrafficPolicy::default());
    let mut longest = Duration::ZERO;
    for _ in 0..1200 {
        bench.load(100, MS * 100, |key, _| (if &*key.workload.name == "here-1" { Timeout } else { Success }, MS * 5));
        let snapshot = bench.balance.snapshot(bench.now);
        longest = longest.max(snapshot.clusters[0].endpoints[1].for_time.unwrap_or_default());
    }
    assert!(longest > Duration::from_secs(18) && longest <= Duration::from_secs(60), "{longest:?}");
}

#[test]
fn a_ratio_of_failures_ejects_too() {
    let mut bench = Bench::new(&[("here", 4)], TrafficPolicy::default());
    let mut count = 0;
    bench.load(400, Duration::from_secs(2), |key, _| {
        count += 1;
        // Never five in a row, yet two of three fail.
        (if &*key.workload.name == "here-1" && count % 3 != 0 { ProxyError } else { Success }, MS)
    });
    assert_eq!(bench.state("here-1"), EndpointState::Ejected);
    assert_eq!(bench.balance.events().ejected_ratio, 1);
}

#[test]
fn at_most_half_is_ejected_but_all_that_cannot_be_reached_are_out() {
    let mut bench = Bench::new(&[("here", 6)], TrafficPolicy::default());
    bench.load(500, Duration::from_secs(3), |_, _| (AppError5xx, MS));
    let states = |bench: &Bench, state| (0..6).filter(|i| bench.state(&format!("here-{i}")) == state).count();
    assert_eq!(states(&bench, EndpointState::Ejected), 3);
    assert!(bench.balance.events().spared > 0);

    let mut bench = Bench::new(&[("here", 6), ("west", 1)], TrafficPolicy::default());
    let counts = bench.load(500, Duration::from_secs(3), |key, _| {
        (if key.cluster.as_str() == "here" { ConnectFailed } else { Success }, MS)
    });
    assert_eq!(states(&bench, EndpointState::Unreachable), 6);
    assert_eq!(counts.iter().filter(|(name, _)| name.starts_with("here")).map(|(_, n)| n).sum::<usize>(), 6);
}

#[test]
fn the_only_local_endpoint_is_ejected_when_another_cluster_can_serve() {
    let mut bench = Bench::new(&[("here", 1), ("west", 1)], TrafficPolicy::default());
    let serve =
        |key: &EndpointKey, _: Instant| (if key.cluster.as_str() == "here" { AppError5xx } else { Success }, MS);
    let counts = bench.load(100, Duration::from_secs(2), serve);
    assert!(counts["here-0"] <= 6, "{counts:?}");
    let mut alone = Bench::new(&[("here", 1)], TrafficPolicy::default());
    alone.load(100, Duration::from_secs(2), |_, _| (AppError5xx, MS));
    assert_ne!(alone.state("here-0"), EndpointState::Ejected);
}

#[test]
fn unreachable_endpoints_are_dialled_and_return_slowly() {
    let mut bench = Bench::new(&[("here", 3)], TrafficPolicy::default());
    let dead_until = bench.now + Duration::from_secs(3);
    let serve = move |key: &EndpointKey, now: Instant| {
        (if now < dead_until && &*key.workload.name == "here-2" { ConnectFailed } else { Success }, MS)
    };
    let counts = bench.load(300, Duration::from_secs(3), serve);
    assert_eq!(counts["here-2"], 1, "one request found out, probes did the rest");
    bench.load(300, Duration::from_secs(1), serve);
    assert_eq!(bench.state("here-2"), EndpointState::SlowStart);
    let counts = bench.load(300, Duration::from_secs(2), serve);
    assert!(counts["here-2"] > 10 && counts["here-2"] < 180, "{counts:?}");
    assert_eq!(bench.balance.events().restored, 1);
}

#[test]
fn what_was_sent_before_the_return_does_not_count() {
    let mut bench = Bench::new(&[("here", 1)], TrafficPolicy::default());
    let (old, older) = (bench.pick().unwrap(), bench.pick().unwrap());
    let target = Arc::clone(old.target());
    old.finish(ConnectionLost, MS, bench.now);
    assert_eq!(bench.state("here-0"), EndpointState::Unreachable);
    bench.now += MS * 300;
    bench.balance.reachable(&target, bench.now);
    older.finish(ConnectionLost, MS, bench.now);
    assert_eq!(bench.state("here-0"), EndpointState::SlowStart);
}

#[test]
fn when_nothing_is_fit_something_is_tried_in_turn() {
    let mut bench = Bench::new(&[("here", 3), ("west", 2)], TrafficPolicy::default());
    for _ in 0..5 {
        bench.send(ConnectFailed, MS);
    }
    let picks: Vec<Pick> = (0..6).map(|_| bench.pick().unwrap()).collect();
    assert!(picks.iter().all(|pick| pick.is_panic() && pick.cluster().as_str() == "here"));
    let different: std::collections::BTreeSet<_> = picks.iter().map(|pick| pick.key()).collect();
    assert_eq!(different.len(), 3);
    // An answer is the best proof that it is back.
    let key = picks[0].key().clone();
    picks.into_iter().next().unwrap().finish(Success, MS, bench.now);
    let pick = bench.pick().unwrap();
    assert!(!pick.is_panic() && *pick.key() == key);
}

#[test]
fn expired_clusters_leave_the_rotation_and_return_by_slow_start() {
    let mut bench = Bench::new(&[("west", 2), ("north", 2)], TrafficPolicy::default());
    assert_eq!(bench.send_many(40, MS).len(), 4);
    bench.set_lease("west", Lease::Silent);
    // Proven by the answers above: stays.
    bench.now += MS * 200;
    assert_eq!(bench.send_many(40, MS).len(), 4);
    bench.now += Duration::from_secs(11);
    bench.clusters.get(&name("north")).prove(bench.now);
    bench.send(Success, MS);
    assert!(bench.send_many(40, MS).keys().all(|name| name.starts_with("north")));
    bench.set_lease("west", Lease::Fresh);
    bench.now += MS * 200;
    bench.send(Success, MS);
    assert_eq!(bench.state("west-0"), EndpointState::SlowStart);
    assert!(bench.share("west") < 0.15, "{}", bench.share("west"));
    bench.now += Duration::from_secs(10);
    bench.send(Success, MS);
    assert_eq!(bench.share("west"), 0.5);
}

#[test]
fn an_expired_cluster_is_better_than_none() {
    let mut bench = Bench::new(&[("here", 1), ("west", 1), ("north", 1)], TrafficPolicy::default());
    bench.set_lease("west", Lease::Silent);
    bench.set_lease("north", Lease::Silent);
    bench.send(ConnectFailed, MS);
    let counts = bench.send_many(100, Duration::ZERO);
    assert_eq!((counts["west-0"], counts["north-0"]), (50, 50));
}

#[test]
fn in_silence_the_share_of_unreachable_endpoints_goes_to_the_gateway() {
    let mut bench = Bench::new(&[("west", 4)], TrafficPolicy::default());
    let token = ServiceToken { service_port: 80, target_port: 8080, token: "any".into(), identities: vec![] };
    bench.stated.clusters[0].service_tokens.push(token);
    bench.update();
    bench.now += Duration::from_secs(20);
    bench.send_many(8, MS);
    let lost = bench.pick().unwrap();
    lost.finish(ConnectFailed, MS, bench.now);
    assert!(!bench.send_many(90, Duration::ZERO).contains_key("*"), "fresh: endpoints are known");
    bench.set_lease("west", Lease::Silent);
    bench.now += MS * 101;
    let counts = bench.send_many(400, Duration::ZERO);
    assert_eq!(counts["*"], 100, "{counts:?}");
    let pick = std::iter::repeat_with(|| bench.pick().unwrap()).find(|p| p.target().endpoint().is_none()).unwrap();
    assert!(matches!(pick.target().dial(80), Some(crate::Dial::Gateway { token, .. }) if &**token == "any"));
}

#[test]
fn lost_local_health_spills_at_once_in_proportion() {
    let mut bench = Bench::new(&[("here", 10), ("west", 10)], TrafficPolicy::default());
    let mut last = 1.0;
    for lost in 1..=10 {
        let pick = std::iter::repeat_with(|| bench.pick().unwrap()).find(|p| p.cluster().as_str() == "here").unwrap();
        pick.finish(ConnectFailed, MS, bench.now);
        bench.send(Success, MS);
        let share = bench.share("here");
        let expected = (1.4 * f64::from(10 - lost) / 10.0).min(1.0);
        assert!((share - expected).abs() < 1e-9 && share <= last, "{lost}: {share}");
        last = share;
    }
}

#[test]
fn overload_spills_over_and_comes_home() {
    let policy = TrafficPolicy { slow_start: Duration::from_secs(1), ..TrafficPolicy::default() };
    let mut bench = Bench::new(&[("here", 2), ("west", 2)], policy);
    for endpoint in &mut bench.stated.clusters[0].endpoints {
        endpoint.capacity = Some(5);
    }
    bench.update();
    bench.load(100, Duration::from_secs(5), |_, _| (Success, MS * 10));
    assert_eq!(bench.share("here"), 1.0);
    // 400/s for 50 ms: 20 at once, twice what is declared, 2.5 times the target.
    bench.load(400, Duration::from_secs(30), |_, _| (Success, MS * 50));
    let share = bench.share("here");
    assert!((0.3..0.55).contains(&share), "{share}");
    bench.load(50, Duration::from_secs(20), |_, _| (Success, MS * 10));
    assert_eq!(bench.share("here"), 1.0);
}

#[test]
fn the_first_copies_back_from_nothing_are_not_run_over() {
    let mut bench = Bench::new(&[("here", 0), ("west", 10)], TrafficPolicy::default());
    let (rate, pods) = (1000, 10);
    let fair = rate as f64 / pods as f64;
    let mut peak: f64 = 0.0;
    for second in 0..30 {
        if second < pods {
            bench.stated.clusters[0].endpoints.push(endpoint("here", second));
            bench.update();
        }
        let counts = bench.load(rate, Duration::from_secs(1), |_, _| (Success, MS * 5));
        peak = peak.max(counts.get("here-0").copied().unwrap_or(0) as f64);
    }
    assert!(peak <= 1.5 * fair, "{peak}");
    assert_eq!(bench.share("here"), 1.0);
    assert!(spread(&bench.load(1000, Duration::from_secs(2), |_, _| (Success, MS * 5))) <= 1.1);
}

#[test]
fn an_update_keeps_what_is_known_and_newcomers_start_slowly() {
    let mut bench = Bench::new(&[("here", 2)], TrafficPolicy::default());
    let held = bench.pick().unwrap();
    let lost = std::iter::repeat_with(|| bench.pick().unwrap()).find(|p| p.key() != held.key()).unwrap();
    let lost_key = lost.key().workload.name.to_string();
    lost.finish(ConnectFailed, MS, bench.now);
    bench.stated.clusters[0].endpoints.push(endpoint("here", 9));
    bench.update();
    assert_eq!(bench.state(&lost_key), EndpointState::Unreachable);
    assert_eq!(bench.state("here-9"), EndpointState::SlowStart);
    let counts = bench.send_many(100, MS);
    assert!(counts["here-9"] < 35, "{counts:?}");
    assert_eq!(bench.balance.in_flight.load(Relaxed), 1);
    drop(held);
    bench.stated.clusters[0].endpoints.clear();
    bench.update();
    assert_eq!(bench.pick().unwrap_err().reason, NoEndpointReason::Empty);
}

#[test]
fn to_say_the_same_again_changes_nothing_and_targets_that_stay_are_the_same() {
    let mut bench = Bench::new(&[("here", 2)], TrafficPolicy::default());
    let target = bench.pick().unwrap().target().clone();
    let version = bench.balance.version();
    bench.update();
    assert_eq!(bench.balance.version(), version);
    bench.stated.clusters[0].endpoints.push(endpoint("here", 9));
    bench.update();
    assert!(bench.balance.version() > version);
    assert!(std::iter::repeat_with(|| bench.pick().unwrap()).take(9).any(|pick| Arc::ptr_eq(pick.target(), &target)));
}

#[test]
fn targets_are_dialled_as_they_are_reached() {
    use crate::Dial;
    let dial = |cluster: &str, change: fn(&mut ClusterEndpoints)| {
        let mut bench = Bench::new(&[(cluster, 1)], TrafficPolicy::default());
        change(&mut bench.stated.clusters[0]);
        bench.update();
        let pick = bench.pick().unwrap();
        assert!(pick.target().dial(81).is_none(), "no such port");
        match pick.target().dial(80) {
            None => "none".to_owned(),
            Some(Dial::Plain { address }) => format!("plain {address}"),
            Some(Dial::Mesh { address, target_port, cluster, identities }) => {
                format!("mesh {address} p{target_port}.{cluster} {identities:?}")
            }
            Some(Dial::Gateway { cluster, token, target_port, identities }) => {
                format!("gateway {token}.p{target_port}.{cluster} {identities:?}")
            }
        }
    };
    let id = |cluster: &str| format!("[spiffe://{cluster}.example/ns/shop/sa/cart]");
    assert_eq!(dial("here", |_| ()), format!("mesh 10.0.0.0:15008 p8080.here {}", id("here")));
    assert_eq!(dial("here", |c| c.endpoints[0].identity = None), "plain 10.0.0.0:8080");
    assert_eq!(dial("west", |_| ()), format!("gateway token.p8080.west {}", id("west")));
    assert_eq!(dial("west", |c| c.reach = Reach::Flat), format!("mesh 10.0.0.0:15008 p8080.west {}", id("west")));
    // Nothing crosses clusters in plaintext, ever.
    assert_eq!(dial("west", |c| (c.reach, c.endpoints[0].identity) = (Reach::Flat, None)), "none");
    assert_eq!(dial("west", |c| c.endpoints[0].mesh_port = 0), "none");
    assert_eq!(dial("west", |c| c.endpoints[0].ports[0].token = "".into()), "none");
}

#[test]
fn several_workers_share_one_view() {
    let mut bench = Bench::new(&[("here", 5)], TrafficPolicy::default());
    assert_eq!(bench.balance.any_target(&name("here")).unwrap().key.cluster, name("here"));
    assert!(bench.balance.any_target(&name("west")).is_none());
    let mut other = Picker::new(Arc::clone(&bench.balance));
    let key = bench.pick().unwrap().key().clone();
    let target = bench.pick().unwrap().target().clone();
    bench.balance.unreachable(&target, bench.now);
    let others: Vec<Pick> = (0..20).map(|_| other.pick(bench.now, &mut bench.rng, &[]).unwrap()).collect();
    assert!(others.iter().all(|pick| *pick.key() != target.key));
    assert_eq!(bench.balance.snapshot(bench.now).in_flight, 20);
    assert!(serde_json::to_string(&bench.balance.snapshot(bench.now)).unwrap().contains(&*key.workload.name));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens: as long as an endpoint is ready, somebody is picked, nothing unfit while something is fit, and what is taken
    /// is given back.
    #[test]
    fn there_is_always_somebody_and_counts_return_to_zero(
        here in 0_usize..5, west in 0_usize..5,
        events in proptest::collection::vec((0_u8..7, 0_u64..3000), 1..200),
    ) {
        let mut bench = Bench::new(&[("here", here), ("west", west)], TrafficPolicy::default());
        let mut held = Vec::new();
        for (event, pause) in events {
            bench.now += Duration::from_millis(pause);
            match bench.pick() {
                Err(nobody) => prop_assert!(here + west == 0 && nobody.reason == NoEndpointReason::Empty),
                Ok(pick) => {
                    prop_assert_eq!(pick.is_panic(), !pick.target().stats.is_fit());
                    let outcomes = [Success, AppError5xx, ProxyError, ConnectionLost, Timeout, ConnectFailed, Cancelled];
                    held.push((pick, outcomes[usize::from(event)]));
                }
            }
            if held.len() > 3 {
                let (pick, outcome) = held.remove(0);
                pick.finish(outcome, MS * 10, bench.now);
            }
            for target in bench.balance.probe_due(bench.now) {
                if event % 2 == 0 {
                    bench.balance.reachable(&target, bench.now);
                }
            }
        }
        drop(held);
        let snapshot = bench.balance.snapshot(bench.now);
        prop_assert_eq!(snapshot.in_flight, 0);
        prop_assert!(snapshot.clusters.iter().flat_map(|c| &c.endpoints).all(|e| e.in_flight == 0));
    }

    #[test]
    fn equal_endpoints_get_equal_shares_whatever_their_number(count in 1_usize..40, rounds in 1_usize..30) {
        let mut bench = Bench::new(&[("here", count)], TrafficPolicy::default());
        let counts = bench.send_many(count * rounds, MS);
        prop_assert!(counts.values().all(|&n| n.abs_diff(rounds) <= 1), "{:?}", counts);
    }
}

/// Sixty requests a second; what is silent never answers, and callers wait as long as `patience` says.
fn lost_to(silent: &[&str], copies: usize, time: Duration) -> (Bench, BTreeMap<String, usize>) {
    let mut bench = Bench::new(&[("here", copies)], TrafficPolicy::default());
    bench.load(60, Duration::from_secs(5), |_, _| (Success, MS * 5));
    let counts = bench.load(60, time, |key, _| {
        if silent.contains(&&*key.workload.name) { (Timeout, Duration::from_secs(6)) } else { (Success, MS * 5) }
    });
    (bench, counts)
}

#[test]
fn a_silent_endpoint_is_avoided_before_anything_runs_out_of_time() {
    let (bench, counts) = lost_to(&["here-1"], 3, Duration::from_millis(5900));
    assert!(counts["here-1"] <= 9, "{counts:?}");
    assert_eq!(bench.state("here-1"), EndpointState::Silent);
    assert_eq!(bench.balance.events().silent, 1);
    let others = [counts["here-0"], counts["here-2"]];
    assert!(others[0].abs_diff(others[1]) <= 4, "{counts:?}");
}

#[test]
fn all_silent_still_serve_in_turn() {
    let (_, counts) = lost_to(&["here-0", "here-1", "here-2"], 3, Duration::from_secs(5));
    assert!(counts.values().sum::<usize>() >= 300 && spread(&counts) <= 1.2, "{counts:?}");
}

#[test]
fn a_silent_endpoint_that_speaks_again_gets_its_share() {
    let mut bench = Bench::new(&[("here", 3)], TrafficPolicy::default());
    let mends = bench.now + Duration::from_secs(7);
    let silent_from = bench.now + Duration::from_secs(2);
    let serve = |key: &EndpointKey, now: Instant| {
        let silent = &*key.workload.name == "here-1" && (silent_from..mends).contains(&now);
        // A process that was stopped answers everything when it goes on.
        (Success, if silent { mends - now + MS } else { MS * 5 })
    };
    bench.load(60, Duration::from_secs(14), serve);
    assert_eq!(bench.balance.events().spoke, 1);
    let _ = bench.load(60, Duration::from_secs(40), serve);
    let counts = bench.load(60, Duration::from_secs(10), serve);
    assert!(spread(&counts) <= 1.1, "{counts:?}");
}

#[test]
fn a_service_that_takes_seconds_is_slow_and_not_silent() {
    let mut bench = Bench::new(&[("here", 3)], TrafficPolicy::default());
    let counts = bench.load(20, Duration::from_secs(60), |_, _| (Success, Duration::from_secs(3)));
    assert!(spread(&counts) <= 1.1, "{counts:?}");
    // One that takes half a minute among quick ones is asked less, and is no more silent once it has answered.
    let mut bench = Bench::new(&[("here", 3)], TrafficPolicy::default());
    let serve = |key: &EndpointKey, _: Instant| {
        (Success, if &*key.workload.name == "here-2" { Duration::from_secs(2) } else { MS * 5 })
    };
    bench.load(60, Duration::from_secs(10), serve);
    let counts = bench.load(60, Duration::from_secs(60), serve);
    assert!(counts["here-2"] >= 30, "{counts:?}");
    assert_ne!(bench.state("here-2"), EndpointState::Silent);
}

#[test]
fn streams_that_last_and_polls_that_wait_are_no_silence_where_others_are_answered() {
    let mut bench = Bench::new(&[("here", 2)], TrafficPolicy::default());
    bench.send_many(100, MS * 10);
    let streams: Vec<Pick> = (0..4).map(|_| bench.pick().unwrap()).collect();
    streams.iter().for_each(|stream| stream.answered());
    let polls: Vec<Pick> = (0..4).map(|_| bench.pick().unwrap()).collect();
    for _ in 0..600 {
        bench.send(Success, MS * 5);
        bench.now += MS * 50;
        assert!(["here-0", "here-1"].iter().all(|name| bench.state(name) == EndpointState::Healthy));
    }
    drop((streams, polls));
}

#[test]
fn keys_of_a_silent_endpoint_are_led_to_others_until_it_answers() {
    let hash = ConsistentHash { table: HashTable::Maglev, key: HashKey::Source };
    let policy = TrafficPolicy { hash: Some(hash.into()), ..TrafficPolicy::default() };
    let mut bench = Bench::new(&[("here", 3)], policy);
    bench.send_many(30, MS * 10);
    bench.now += MS * 200;
    let pick = |bench: &mut Bench| bench.picker.pick_hashed(7, bench.now, &mut bench.rng, &[]).unwrap();
    let first = pick(&mut bench);
    bench.now += MS * 300;
    let second = pick(&mut bench);
    assert_ne!(first.key(), second.key());
    let home = first.key().clone();
    first.finish(Success, MS * 300, bench.now);
    assert_eq!(*pick(&mut bench).key(), home);
}

#[test]
fn a_session_stays_with_its_endpoint_while_that_can_serve() {
    let mut bench =
        Bench::new(&[("here", 3), ("there", 2)], TrafficPolicy { slow_start: Duration::ZERO, ..Default::default() });
    let first = bench.pick().unwrap();
    let (id, key) = (first.target().id, first.key().clone());
    assert_eq!(id, key.id());
    first.finish(Success, MS, bench.now);
    for _ in 0..20 {
        let pick = bench.picker.pick_bound(id, bench.now, &[]).unwrap();
        assert_eq!(*pick.key(), key);
        pick.finish(Success, MS, bench.now);
    }
    assert!(bench.picker.pick_bound(id, bench.now, std::slice::from_ref(&key)).is_none(), "it has failed this request");
    assert!(bench.picker.pick_bound(id ^ 1, bench.now, &[]).is_none(), "nobody");
    let pick = bench.picker.pick_bound(id, bench.now, &[]).unwrap();
    pick.finish(ConnectFailed, MS, bench.now);
    bench.now += Duration::from_millis(200);
    assert!(bench.picker.pick_bound(id, bench.now, &[]).is_none(), "it cannot be reached");
    // What was refused holds no place.
    assert_eq!(bench.balance.in_flight.load(Relaxed), 0);
}
