//! The wall clock in the machine's time zone.
//!
//! Responsible for: the date at the start of an error log line. httpd uses localtime_r(3) as well,
//! so a log has one time zone and no crate is needed. Must never: change the environment. Called
//! by: droverd's log.
#![allow(unsafe_code)]

/// A date and a time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalTime {
    /// Year.
    pub year: i32,
    /// 0 January … 11 December.
    pub month: usize,
    /// 1…31.
    pub day: i32,
    /// 0 Sunday … 6 Saturday.
    pub weekday: usize,
    /// 0…23.
    pub hour: i32,
    /// 0…59.
    pub minute: i32,
    /// 0…60.
    pub second: i32,
}

/// The local time at `seconds` since 1970.
#[must_use]
pub fn at(seconds: i64) -> LocalTime {
    // SAFETY: a tm of zeros is valid (its one pointer may be null), and localtime_r writes only to
    // it.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to locals. droverd never changes the environment, from which
    // localtime_r reads TZ.
    unsafe { libc::localtime_r(&raw const seconds, &raw mut tm) };
    LocalTime {
        year: tm.tm_year + 1900,
        month: usize::try_from(tm.tm_mon).unwrap_or(0),
        day: tm.tm_mday,
        weekday: usize::try_from(tm.tm_wday).unwrap_or(0),
        hour: tm.tm_hour,
        minute: tm.tm_min,
        second: tm.tm_sec,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_known_day() {
        let t = super::at(1_000_000_000);
        assert_eq!((t.year, t.month), (2001, 8));
        assert!((8..=9).contains(&t.day));
    }
}
