//! Clocks.
//!
//! Responsible for: nanoseconds of CLOCK_MONOTONIC, which all processes of a machine share, and of
//! the wall clock. Must never: wait. Called by: every part that sets or checks a deadline.
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nanoseconds of CLOCK_MONOTONIC.
#[must_use]
pub fn monotonic_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// Nanoseconds since 1970.
#[must_use]
pub fn realtime_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Realtime))
}

fn nanoseconds(t: Timespec) -> u64 {
    let whole = u64::try_from(t.tv_sec).unwrap_or(0);
    whole.saturating_mul(1_000_000_000).saturating_add(u64::try_from(t.tv_nsec).unwrap_or(0))
}

/// A duration as poll(2) and epoll_wait(2) take it.
#[must_use]
pub fn timespec(ns: u64) -> Timespec {
    Timespec { tv_sec: i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX), tv_nsec: i64::try_from(ns % 1_000_000_000).unwrap_or(0) }
}
