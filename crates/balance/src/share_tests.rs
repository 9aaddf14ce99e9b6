use proptest::prelude::*;
use veer_core::names::ClusterName;
use veer_core::policy::ClusterWeight;

use super::*;

fn cluster(own: bool, known: u32, healthy: u32) -> Strength {
    Strength { own, usable: true, known, healthy, ramped: f64::from(healthy), ..Strength::default() }
}

fn shares(clusters: &[Strength], policy: &LocalityPolicy) -> Vec<f64> {
    let local = clusters.iter().find(|c| c.own).map_or(0.0, |own| own.health(policy.overprovisioning));
    let mut shares = Vec::new();
    split(clusters, local, policy, &mut shares);
    shares.iter().map(|share| (share * 1000.0).round() / 1000.0).collect()
}

#[test]
fn local_first_spills_what_is_missing_in_proportion() {
    let policy = LocalityPolicy::default();
    let others = [cluster(false, 6, 6), cluster(false, 2, 2)];
    let with = |healthy| shares(&[cluster(true, 10, healthy), others[0], others[1]], &policy);
    assert_eq!(with(10), [1.0, 0.0, 0.0]);
    assert_eq!(with(8), [1.0, 0.0, 0.0]);
    assert_eq!(with(5), [0.7, 0.225, 0.075]);
    assert_eq!(with(1), [0.14, 0.645, 0.215]);
    assert_eq!(with(0), [0.0, 0.75, 0.25]);
    assert_eq!(shares(&[cluster(true, 10, 1)], &policy), [1.0]);
    assert_eq!(shares(&[cluster(true, 10, 0)], &policy), [0.0]);
}

#[test]
fn written_weights_hold_while_clusters_can_bear_them() {
    let name = |n| ClusterName::new(n).unwrap();
    let weights =
        vec![ClusterWeight { cluster: name("a"), weight: 90 }, ClusterWeight { cluster: name("b"), weight: 10 }];
    let policy = LocalityPolicy { weights, ..LocalityPolicy::default() };
    let with = |a: Strength, b: Strength| {
        shares(&[Strength { weight: Some(90), ..a }, Strength { weight: Some(10), ..b }], &policy)
    };
    assert_eq!(with(cluster(true, 1, 1), cluster(false, 9, 9)), [0.9, 0.1]);
    assert_eq!(with(cluster(true, 1, 0), cluster(false, 9, 9)), [0.0, 1.0]);
    assert_eq!(with(cluster(true, 10, 5), cluster(false, 9, 9)), [0.863, 0.137]);
    let off = Strength { weight: Some(0), ..cluster(false, 5, 5) };
    assert_eq!(shares(&[Strength { weight: Some(1), ..cluster(true, 1, 0) }, off], &policy), [0.0, 0.0]);
}

#[test]
fn without_local_first_endpoints_count_alike() {
    let policy = LocalityPolicy { local_first: false, ..LocalityPolicy::default() };
    assert_eq!(shares(&[cluster(true, 1, 1), cluster(false, 3, 3)], &policy), [0.25, 0.75]);
}

#[test]
fn expired_clusters_serve_only_when_no_other_does() {
    let policy = LocalityPolicy::default();
    let expired = Strength { usable: false, ..cluster(false, 5, 5) };
    assert_eq!(shares(&[cluster(true, 10, 1), expired], &policy), [1.0, 0.0]);
    assert_eq!(shares(&[cluster(true, 1, 0), expired, cluster(false, 1, 1)], &policy), [0.0, 0.0, 1.0]);
    assert_eq!(shares(&[cluster(true, 1, 0), expired], &policy), [0.0, 1.0]);
}

#[test]
fn newcomers_beside_settled_endpoints_are_no_loss_of_health() {
    let grown = Strength { ramping: 5, ramped: 5.5, ..cluster(true, 10, 10) };
    assert_eq!(grown.health(1.4), 1.0);
    let from_nothing = Strength { ramping: 1, ramped: 0.1, ..cluster(true, 1, 1) };
    assert!((from_nothing.health(1.4) - 0.14).abs() < 1e-9);
}

/// Local share over time under a load that wants `demand` times the target utilisation at home, measured with noise.
fn run(demand: impl Fn(f64) -> f64, noise: f64, seconds: f64) -> Vec<f64> {
    let policy = LocalityPolicy::default();
    let mut rng = fastrand::Rng::with_seed(11);
    let (mut share, mut seen, mut demanded, mut out) = (1.0, None, None, Vec::new());
    for tick in 0..(seconds * 10.0) as u32 {
        let now = f64::from(tick) / 10.0;
        let used = demand(now) * policy.target_utilisation * share * (1.0 + noise * (rng.f64() * 2.0 - 1.0));
        // What arrives was smoothed on its way.
        let smooth = seen.map_or(used, |seen: f64| seen + (used - seen) * 0.1);
        seen = Some(smooth);
        demanded = next_demand(demanded, 0.1, Some(smooth), share);
        share = next_local_share(share, 0.1, 1.0, demanded, 10.0, &policy);
        out.push(share);
    }
    out
}

fn sign_changes(values: &[f64]) -> usize {
    let moves: Vec<f64> = values.windows(2).map(|w| w[1] - w[0]).filter(|d| *d != 0.0).collect();
    moves.windows(2).filter(|w| w[0].signum() != w[1].signum()).count()
}

#[test]
fn overload_spills_as_much_as_is_over_and_comes_home() {
    let shares = run(|now| if now < 60.0 { 2.0 } else { 0.5 }, 0.1, 120.0);
    let settled = &shares[400..599];
    assert!(settled.iter().all(|share| (0.42..=0.6).contains(share)), "{settled:?}");
    assert!(sign_changes(&shares[..599]) <= 4, "{}", sign_changes(&shares[..599]));
    assert_eq!(*shares.last().unwrap(), 1.0);
    assert!(shares.windows(2).all(|w| (w[1] - w[0]).abs() <= 0.0101), "one step at a time");
}

#[test]
fn load_around_the_target_does_not_make_the_share_tremble() {
    let shares = run(|_| 1.0, 0.2, 120.0);
    assert!(shares.iter().all(|&share| share > 0.9));
    assert!(sign_changes(&shares) <= 4, "{}", sign_changes(&shares));
}

#[test]
fn lost_health_takes_effect_at_once_and_returns_slowly() {
    let policy = LocalityPolicy::default();
    assert_eq!(next_local_share(1.0, 0.1, 0.3, None, 10.0, &policy), 0.3);
    assert_eq!(next_local_share(1.0, 0.1, 0.3, Some(0.1), 10.0, &policy).min(0.31), 0.3);
    let after = next_local_share(0.3, 0.1, 1.0, None, 10.0, &policy);
    assert!((after - 0.314).abs() < 1e-9, "{after}");
    assert_eq!(next_local_share(0.3, 0.1, 1.0, None, 0.0, &policy), 1.0);
}

proptest! {
    #[test]
    fn shares_sum_to_one_and_local_share_grows_with_local_health(
        known in 1_u32..20, others in proptest::collection::vec(1_u32..20, 1..4), weighted in any::<bool>(),
    ) {
        let mut policy = LocalityPolicy::default();
        if weighted {
            policy.weights = vec![ClusterWeight { cluster: ClusterName::new("x").unwrap(), weight: 1 }];
        }
        let weight = weighted.then_some(3);
        let mut last = -1.0;
        for healthy in 0..=known {
            let mut clusters = vec![Strength { weight, ..cluster(true, known, healthy) }];
            clusters.extend(others.iter().map(|&n| Strength { weight, ..cluster(false, n, n) }));
            let mut out = Vec::new();
            split(&clusters, clusters[0].health(policy.overprovisioning), &policy, &mut out);
            prop_assert!((out.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            prop_assert!(out.iter().all(|share| (0.0..=1.0 + 1e-9).contains(share)));
            prop_assert!(out[0] >= last - 1e-9);
            last = out[0];
        }
    }
}
