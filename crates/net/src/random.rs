//! The one place of ambient randomness.

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};

thread_local! {
    static SEEDED: RefCell<Option<fastrand::Rng>> = const { RefCell::new(None) };
}

/// A generator: from the operating system's randomness, or from the thread's seed when [`set_seed`] was called. For jitter,
/// sampling and nonces that need to be fresh but not secret; never for keys.
pub fn rng() -> fastrand::Rng {
    SEEDED.with_borrow_mut(|seeded| match seeded {
        Some(parent) => parent.fork(),
        // The standard library keys its hashers from the operating system, each of them differently.
        None => fastrand::Rng::with_seed(RandomState::new().hash_one(0u8)),
    })
}

/// Makes every later [`rng`] of this thread follow from the seed: a simulation runs on one thread, and the same seed gives the
/// same run.
pub fn set_seed(seed: u64) {
    SEEDED.with_borrow_mut(|seeded| *seeded = Some(fastrand::Rng::with_seed(seed)));
}

/// Ends what [`set_seed`] began.
pub fn clear_seed() {
    SEEDED.with_borrow_mut(|seeded| *seeded = None);
}
