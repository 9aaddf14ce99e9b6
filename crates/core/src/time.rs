//! Durations as the Gateway API writes them (GEP-2257): `1h2m`, `500ms`, `0s`.

use std::time::Duration;

/// Reads a GEP-2257 duration: one to four groups of at most five digits with unit `h`, `m`, `s` or `ms`.
///
/// # Errors
/// A text that says what is wrong and what is accepted.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let refuse = || {
        format!(
            "{text:?} is not a duration: write groups of digits and h, m, s or ms, like \"10s\", \"1m30s\" or \"250ms\""
        )
    };
    let mut rest = text;
    let mut total = Duration::ZERO;
    let mut groups = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(refuse)?;
        if digits == 0 || digits > 5 || groups == 4 {
            return Err(refuse());
        }
        let number: u64 = rest[..digits].parse().map_err(|_| refuse())?;
        let units = &rest[digits..];
        let (unit_ms, width) = match units.as_bytes() {
            [b'm', b's', ..] => (1, 2),
            [b'h', ..] => (3_600_000, 1),
            [b'm', ..] => (60_000, 1),
            [b's', ..] => (1_000, 1),
            _ => return Err(refuse()),
        };
        total += Duration::from_millis(number * unit_ms);
        rest = &units[width..];
        groups += 1;
    }
    if groups == 0 { Err(refuse()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_the_specification() {
        for (text, ms) in [("0s", 0), ("10s", 10_000), ("1h2m3s4ms", 3_723_004), ("250ms", 250), ("1m30s", 90_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "10", "s", "1.5s", "-1s", "1d", "100000s", "1h1h1h1h1h", "1s "] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
