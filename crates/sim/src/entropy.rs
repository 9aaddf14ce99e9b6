//! The operating system's randomness, for a simulation that is to be repeated exactly.
//!
//! Our own code takes its chance from `veer_net::rng`. Tokio (`watch` channels wake their receivers in random order) and the
//! standard library's hashers ask the operating system, and tokio takes a seed only behind `--cfg tokio_unstable`. So the
//! one function by which the standard library asks is ours here: on a thread that [`follow`]s a seed it answers from that,
//! everywhere else it passes the question on. Keys of certificates do not come this way and stay what they are.

use std::cell::RefCell;
use std::io::Read as _;

thread_local! {
    static SEEDED: RefCell<Option<fastrand::Rng>> = const { RefCell::new(None) };
}

/// From now on this thread's randomness follows from the seed. It must not have used any yet: the standard library asks once
/// per thread.
pub fn follow(seed: u64) {
    SEEDED.set(Some(fastrand::Rng::with_seed(seed)));
    // The linker takes a function only when somebody names it.
    std::hint::black_box(getrandom as *const ());
}

/// What the C library's function of this name does.
#[allow(unsafe_code, reason = "a function of the C library is replaced, in test programs only")]
#[unsafe(no_mangle)]
extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    // SAFETY: the caller gives a buffer of this length, as for the function that this one replaces.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
    let seeded = SEEDED.try_with(|seeded| seeded.borrow_mut().as_mut().map(|rng| rng.fill(buffer)).is_some());
    if seeded.unwrap_or(false) {
        return length as isize;
    }
    let filled = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(buffer));
    filled.map_or(-1, |()| length as isize)
}
