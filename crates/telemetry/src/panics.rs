//! Panics, counted: a process outlives that of a task, so that somebody must be told of it.

use std::sync::{LazyLock, Once};

use crate::family::{Counter, counters};
use crate::metrics::Metrics;

static PANICS: LazyLock<Counter> = LazyLock::new(Counter::default);

/// Shows the panics of this process as `veer_panics_total`, from the first call on. They are still told on standard error.
pub fn count(metrics: &Metrics) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.inc();
            told(panic);
        }));
    });
    metrics.adopt(&counters::PANICS, PANICS.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_counted_in_every_registry_of_the_process() {
        let (one, other) = (Metrics::new(), Metrics::new());
        count(&one);
        count(&other);
        assert!(one.render().contains("veer_panics_total{} 0\n"));
        let panicked = std::thread::spawn(|| panic!("on purpose")).join();
        assert!(panicked.is_err());
        for metrics in [one, other] {
            assert!(metrics.render().contains("veer_panics_total{} 1\n"), "{}", metrics.render());
        }
    }
}
