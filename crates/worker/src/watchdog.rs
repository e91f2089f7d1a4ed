//! Whether Python's lock can still be had.
//!
//! Responsible for: deadlock-timeout. A thread of its own asks for the GIL now and then; when it has to wait too long, C code holds the
//! lock and no request can go on. Must never: take the GIL in the thread that asks for the result. Called by: `process` (starts it),
//! `control` (looks).
use crate::worker::Worker;
use drover_sys::clock;
use pyo3::Python;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What the two threads share.
#[derive(Debug, Default)]
pub struct Watchdog {
    /// CLOCK_MONOTONIC nanoseconds since which the GIL is waited for; 0: it is not.
    since: AtomicU64,
}

/// The time limit of a worker, if it has one.
pub fn limit(worker: &Worker) -> Option<Duration> {
    worker.config.options.deadlock_timeout_ms.filter(|&ms| ms > 0).map(Duration::from_millis)
}

/// How often to ask: often enough for the limit, seldom enough to cost nothing.
pub fn interval(limit: Duration) -> Duration {
    (limit / 10).clamp(Duration::from_millis(200), Duration::from_secs(10))
}

/// The thread that asks; ends with the process.
pub fn run(worker: &Worker) {
    let Some(limit) = limit(worker) else { return };
    loop {
        std::thread::sleep(interval(limit));
        worker.watchdog.since.store(clock::monotonic_ns(), Ordering::Release);
        Python::attach(|_| {});
        worker.watchdog.since.store(0, Ordering::Release);
    }
}

impl Watchdog {
    /// How long the GIL could not be had, when that is longer than `limit`.
    pub fn stuck_for(&self, limit: Duration) -> Option<Duration> {
        let since = self.since.load(Ordering::Acquire);
        let waited = Duration::from_nanos(clock::monotonic_ns().saturating_sub(since));
        (since != 0 && waited >= limit).then_some(waited)
    }
}
