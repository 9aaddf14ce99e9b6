//! Randomness for secrets. It never comes from the seeded generator of the simulation: a secret that a seed reproduces is none.

use aws_lc_rs::{digest, rand};

/// Fresh bytes of the operating system's generator.
///
/// # Panics
/// When the operating system has no randomness: nothing that needs a secret may go on then.
pub(crate) fn secret<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the operating system gives randomness");
    bytes
}

/// SHA-256, lower-case hexadecimal.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
