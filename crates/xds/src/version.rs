//! Versions of resources.

use std::fmt::Write;

/// The version of a resource: FNV-1a of its body with 128 bits (RFC 9923), in hexadecimal. The same body has the same version in
/// every control plane and after every restart, so a reconnecting client is not sent again what it has.
///
/// It tells versions of one resource apart and protects nothing: bodies come from the control plane itself.
pub fn version_of(body: &[u8]) -> String {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let hash = body.iter().fold(OFFSET, |hash, &byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME));
    let mut text = String::with_capacity(32);
    // Writing to a String cannot fail.
    let _ = write!(text, "{hash:032x}");
    text
}

#[cfg(test)]
mod tests {
    use super::version_of;

    #[test]
    fn test_vectors_of_the_specification() {
        assert_eq!(version_of(b""), "6c62272e07bb014262b821756295c58d");
        assert_eq!(version_of(b"a"), "d228cb696f1a8caf78912b704e4a8964");
        assert_eq!(version_of(b"foobar"), "343e1662793c64bf6f0d3597ba446f18");
    }
}
