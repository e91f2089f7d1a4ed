//! Notices that no thread can take the GIL (`deadlock-timeout`).
//!
//! Responsible for: a thread of its own that asks for the GIL at intervals. If it waits too long, C
//! code holds the GIL and no request can continue. Must never: take the GIL in the thread that asks
//! for the result. Called by: `lifecycle` (starts it), `control_thread` (asks).
use drover_sys::clock;
use pyo3::Python;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What the two threads share.
#[derive(Debug)]
pub struct Watchdog {
    /// deadlock-timeout, if it is set.
    limit: Option<Duration>,
    /// CLOCK_MONOTONIC nanoseconds since which the thread waits for the GIL; 0 when it does not.
    since: AtomicU64,
}

impl Watchdog {
    /// With this deadlock-timeout in milliseconds; 0 is none.
    pub fn new(limit_ms: Option<u64>) -> Self {
        Self { limit: limit_ms.filter(|&ms| ms > 0).map(Duration::from_millis), since: AtomicU64::new(0) }
    }

    /// How often to ask; `None` without a limit.
    pub fn interval(&self) -> Option<Duration> {
        self.limit.map(|limit| (limit / 10).clamp(Duration::from_millis(200), Duration::from_secs(10)))
    }

    /// The thread that asks for the GIL; runs until the process ends.
    pub fn run(&self) {
        let Some(interval) = self.interval() else { return };
        loop {
            std::thread::sleep(interval);
            self.since.store(clock::monotonic_ns(), Ordering::Release);
            Python::attach(|_| {});
            self.since.store(0, Ordering::Release);
        }
    }

    /// How long the GIL was not available, if longer than the limit.
    pub fn stuck_for(&self) -> Option<Duration> {
        let limit = self.limit?;
        let since = self.since.load(Ordering::Acquire);
        let waited = Duration::from_nanos(clock::monotonic_ns().saturating_sub(since));
        (since != 0 && waited >= limit).then_some(waited)
    }
}
