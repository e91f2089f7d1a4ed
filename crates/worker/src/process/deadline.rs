//! The time by which the process must have exited.
//!
//! Responsible for: the earliest of the times that droverd announces. Must never: end the process.
//! Called by: `control_thread` (sets it), `shutdown` (waits).
use drover_sys::clock;
use parking_lot::{Condvar, Mutex};
use std::time::Duration;

/// The process ends itself this long before SIGKILL, or a quarter of the time left if that is less.
const MAX_MARGIN: Duration = Duration::from_millis(500);

/// The time by which the process must have exited.
#[derive(Debug, Default)]
pub struct Deadline {
    /// CLOCK_MONOTONIC nanoseconds; `None` until droverd says when it kills the process.
    at: Mutex<Option<u64>>,
    changed: Condvar,
}

impl Deadline {
    /// droverd sends SIGKILL after this time.
    pub fn killed_within(&self, within: Duration) {
        let margin = (within / 4).min(MAX_MARGIN);
        let at = clock::monotonic_ns().saturating_add(clock_ns(within.saturating_sub(margin)));
        let mut known = self.at.lock();
        *known = Some(known.map_or(at, |before| before.min(at)));
        self.changed.notify_all();
    }

    /// The time left; until `otherwise` if droverd has said nothing.
    pub fn left(&self, otherwise: u64) -> Duration {
        let at = self.at.lock().unwrap_or(otherwise);
        Duration::from_nanos(at.saturating_sub(clock::monotonic_ns()))
    }

    /// Waits until the deadline; until `otherwise` while droverd has said nothing.
    pub fn wait(&self, otherwise: u64) {
        let mut known = self.at.lock();
        loop {
            let left = known.unwrap_or(otherwise).saturating_sub(clock::monotonic_ns());
            if left == 0 {
                return;
            }
            self.changed.wait_for(&mut known, Duration::from_nanos(left));
        }
    }
}

/// A duration as nanoseconds of the monotonic clock.
pub fn clock_ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
