//! Sizes and times in the configuration and on the command line.
//!
//! Responsible for: one spelling everywhere. A plain number keeps its meaning (bytes, seconds).
//! Must never: accept the start of a value and drop the rest, or round. Called by: `drover-config`
//! and `drover`.

/// Bytes: a whole number, optionally with the unit K, M or G (powers of 1024).
#[must_use]
pub fn bytes(value: &[u8]) -> Option<u64> {
    let (digits, unit) = match value {
        [digits @ .., b'k' | b'K'] => (digits, 1 << 10),
        [digits @ .., b'm' | b'M'] => (digits, 1 << 20),
        [digits @ .., b'g' | b'G'] => (digits, 1 << 30),
        digits => (digits, 1),
    };
    number(digits)?.checked_mul(unit)
}

/// Seconds: a whole number, optionally with the unit s, min, h or d, in upper or lower case.
#[must_use]
pub fn seconds(value: &[u8]) -> Option<u64> {
    let value = value.to_ascii_lowercase();
    let units: [(&[u8], u64); 4] = [(b"min", 60), (b"s", 1), (b"h", 3600), (b"d", 86400)];
    let found = units.iter().find_map(|(name, unit)| Some((value.strip_suffix(*name)?, *unit)));
    let (digits, unit) = found.unwrap_or((&value, 1));
    number(digits)?.checked_mul(unit)
}

/// Digits only: no sign, no space.
fn number(digits: &[u8]) -> Option<u64> {
    let text = str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let table = [("0", 0), ("007", 7), ("1k", 1024), ("2K", 2048), ("3M", 3 << 20), ("1g", 1 << 30)];
        for (value, expected) in table {
            assert_eq!(bytes(value.as_bytes()), Some(expected), "{value}");
        }
        for bad in ["", "K", "-1", "+1", "1 K", "1KB", "1.5M", "1T", "99999999999999999999", "99999999999999G"] {
            assert_eq!(bytes(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn times() {
        let table = [("0", 0), ("30", 30), ("30s", 30), ("5min", 300), ("2h", 7200), ("1D", 86400)];
        for (value, expected) in table {
            assert_eq!(seconds(value.as_bytes()), Some(expected), "{value}");
        }
        for bad in ["", "s", "min", "-1", "1m", "1ms", "1 s", "1.5h", "5 min", "99999999999999999999s", "9999999999999999999d"] {
            assert_eq!(seconds(bad.as_bytes()), None, "{bad}");
        }
    }
}
