//! The choice among a rule's backends.

use veer_core::route::Backend;

/// One backend by weight. `None` when there is none or all weigh nothing, which answers 500 (Gateway API). A backend that is
/// [`invalid`](Backend::invalid) keeps its share, and that share answers 500.
pub fn pick_backend<'b>(backends: &'b [Backend], rng: &mut fastrand::Rng) -> Option<&'b Backend> {
    if let [only] = backends {
        return (only.weight > 0).then_some(only);
    }
    let total: u64 = backends.iter().map(|b| u64::from(b.weight)).sum();
    if total == 0 {
        return None;
    }
    let mut at = rng.u64(..total);
    backends.iter().find(|b| match at.checked_sub(u64::from(b.weight)) {
        Some(rest) => {
            at = rest;
            false
        }
        None => true,
    })
}

#[cfg(test)]
mod tests {
    use veer_core::names::ServiceHost;

    use super::*;

    fn backends(weights: &[u32]) -> Vec<Backend> {
        let host = |i| ServiceHost::new(&format!("b{i}.shop.svc.cluster.local")).unwrap();
        weights
            .iter()
            .enumerate()
            .map(|(i, &weight)| Backend { host: host(i), port: 80, weight, invalid: None })
            .collect()
    }

    #[test]
    fn shares_follow_weights() {
        let mut rng = fastrand::Rng::with_seed(7);
        let backends = backends(&[90, 0, 10]);
        let mut counts = [0; 3];
        for _ in 0..10_000 {
            let picked = pick_backend(&backends, &mut rng).unwrap();
            counts[backends.iter().position(|b| b.host == picked.host).unwrap()] += 1;
        }
        assert_eq!(counts[1], 0);
        assert!((800..1200).contains(&counts[2]), "{counts:?}");
    }

    #[test]
    fn no_weight_no_backend() {
        let mut rng = fastrand::Rng::with_seed(7);
        assert!(pick_backend(&[], &mut rng).is_none());
        assert!(pick_backend(&backends(&[0]), &mut rng).is_none());
        assert!(pick_backend(&backends(&[0, 0]), &mut rng).is_none());
        let huge = backends(&[u32::MAX, u32::MAX, u32::MAX]);
        assert!(pick_backend(&huge, &mut rng).is_some());
    }
}
