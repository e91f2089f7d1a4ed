//! Parsers for one value of the configuration: a switch, a number, a time, a path.
//!
//! Responsible for: the syntax of single values. Each function returns the value, or the text that
//! follows "expected" in the error. Must never: accept the beginning of a value and drop the rest,
//! as mod_wsgi does with atoi (`5x` is 5, `x` is 0). Called by: `set` and `options`.

use drover_wire::units;
use std::borrow::Cow;
use std::time::Duration;

/// The longest time.
pub const MAX_SECONDS: u32 = i32::MAX as u32;
/// The largest size.
pub const MAX_BYTES: u64 = i64::MAX as u64;

/// A value, or a description of the accepted values ("a whole number from 0 to 10").
pub type Parsed<T> = Result<T, Cow<'static, str>>;

/// `On` or `Off`; the case of letters is ignored.
pub fn flag(value: &[u8]) -> Parsed<bool> {
    if value.eq_ignore_ascii_case(b"on") {
        Ok(true)
    } else if value.eq_ignore_ascii_case(b"off") {
        Ok(false)
    } else {
        Err(Cow::Borrowed("On or Off"))
    }
}

/// Describes a range of whole numbers, for errors and the documentation.
pub fn range(min: i64, max: i64) -> String {
    format!("a whole number from {min} to {max}")
}

/// A decimal number in a range: digits, with a sign only where negative numbers are accepted.
pub fn whole(value: &[u8], min: i64, max: i64) -> Parsed<i64> {
    let digits = match value {
        [b'-', digits @ ..] if min < 0 => digits,
        _ => value,
    };
    let number = if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) { None } else { str::from_utf8(value).ok() };
    match number.and_then(|text| text.parse::<i64>().ok()) {
        Some(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(Cow::Owned(range(min, max))),
    }
}

/// Seconds, with an optional unit.
pub fn seconds(value: &[u8], min: u32, max: u32) -> Parsed<u32> {
    let expected = || Cow::Owned(seconds_range(min, max));
    units::seconds(value).and_then(|n| u32::try_from(n).ok()).filter(|n| (min..=max).contains(n)).ok_or_else(expected)
}

/// Describes the values that [`seconds`] accepts.
pub fn seconds_range(min: u32, max: u32) -> String {
    format!("seconds from {min} to {max}: a whole number with an optional s, min, h or d")
}

/// Bytes, with an optional unit.
pub fn bytes(value: &[u8], min: u64, max: u64) -> Parsed<u64> {
    units::bytes(value).filter(|n| (min..=max).contains(n)).ok_or_else(|| Cow::Owned(bytes_range(min, max)))
}

/// Describes the values that [`bytes`] accepts.
pub fn bytes_range(min: u64, max: u64) -> String {
    let up_to = if max == MAX_BYTES { String::new() } else { format!(" to {max}") };
    format!("bytes from {min}{up_to}: a whole number with an optional K, M or G")
}

/// The permission bits of a umask, in octal.
pub fn umask(value: &[u8]) -> Parsed<u32> {
    let octal = !value.is_empty() && value.iter().all(|b| (b'0'..=b'7').contains(b));
    match str::from_utf8(value).ok().filter(|_| octal).and_then(|text| u32::from_str_radix(text, 8).ok()) {
        Some(mask) if mask <= 0o777 => Ok(mask),
        _ => Err(Cow::Borrowed("an octal number from 0 to 0777")),
    }
}

/// A positive number of seconds with a fraction, as `sys.setswitchinterval()` takes it; `ms` and
/// `s` are accepted as units.
pub fn fractional_seconds(value: &[u8], min: f64, expected: &'static str) -> Parsed<Duration> {
    let (value, unit) = match value {
        [number @ .., b'm' | b'M', b's' | b'S'] => (number, 1e-3),
        [number @ .., b's' | b'S'] => (number, 1.0),
        number => (number, 1.0),
    };
    let plain = value.iter().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'-' | b'+'));
    str::from_utf8(value)
        .ok()
        .filter(|_| plain)
        .and_then(|text| text.parse::<f64>().ok())
        .map(|number| number * unit)
        .filter(|seconds| *seconds >= min)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or(Cow::Borrowed(expected))
}

/// An argument that `sys.setswitchinterval()` accepts and does not round to zero.
pub fn switch_interval(value: &[u8]) -> Parsed<Duration> {
    fractional_seconds(value, 1e-6, "a positive number of seconds, such as 0.005 or 5ms")
}

/// A path that does not depend on the working directory of httpd.
pub fn absolute_path(value: &[u8]) -> Parsed<Vec<u8>> {
    if value.starts_with(b"/") { Ok(value.to_vec()) } else { Err(Cow::Borrowed("an absolute path")) }
}

/// A list of directories separated by colons. Empty entries are dropped, as Python would read them
/// as the current directory.
pub fn path_list(value: &[u8]) -> Vec<Vec<u8>> {
    value.split(|&b| b == b':').filter(|path| !path.is_empty()).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags() {
        for (text, want) in [("On", Some(true)), ("oFF", Some(false)), ("", None), ("1", None), ("yes", None), ("on ", None)] {
            assert_eq!(flag(text.as_bytes()).ok(), want, "{text}");
        }
    }

    #[test]
    fn whole_numbers() {
        let table = [("0", Some(0)), ("007", Some(7)), ("100", Some(100)), ("101", None), ("-1", None), ("+1", None), ("5x", None)];
        for (text, want) in table {
            assert_eq!(whole(text.as_bytes(), 0, 100).ok(), want, "{text}");
        }
        assert_eq!(whole(b"", 0, 100), Err("a whole number from 0 to 100".into()));
        assert_eq!(whole(b"99999999999999999999", 0, i64::MAX).ok(), None);
        assert_eq!(whole(b"-5", -20, 20), Ok(-5));
        assert_eq!(whole(b"-", -20, 20).ok(), None);
    }

    #[test]
    fn umasks() {
        for (text, want) in
            [("022", Some(0o22)), ("0", Some(0)), ("0777", Some(0o777)), ("1777", None), ("8", None), ("", None), ("-1", None)]
        {
            assert_eq!(umask(text.as_bytes()).ok(), want, "{text}");
        }
    }

    #[test]
    fn seconds_with_a_fraction() {
        assert_eq!(switch_interval(b"0.005"), Ok(Duration::from_millis(5)));
        assert_eq!(switch_interval(b"2e-3"), Ok(Duration::from_millis(2)));
        assert_eq!(switch_interval(b"5ms"), Ok(Duration::from_millis(5)));
        assert_eq!(switch_interval(b"0.5s"), Ok(Duration::from_millis(500)));
        for bad in ["0", "-1", "", "nan", "inf", "0x1", "1m", "ms", "s", "1 s", "1e300", "1e-9"] {
            assert!(switch_interval(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths() {
        assert!(absolute_path(b"/srv").is_ok() && absolute_path(b"srv").is_err() && absolute_path(b"").is_err());
        assert_eq!(path_list(b"/a b::/c:"), [b"/a b".to_vec(), b"/c".to_vec()]);
        assert!(path_list(b"").is_empty());
    }
}
