//! Waiting for something to become true, with a deadline.
//!
//! Responsible for: the one polling loop of the harness. Must never: be used to let time pass. Called by: the harness and tests.
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up on it. Generous: the machine may be busy, and no test's verdict is a duration.
pub const PATIENCE: Duration = Duration::from_secs(45);

/// Asks `ready` until it answers, at most [`PATIENCE`] long.
pub fn poll<T>(mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = ready() {
            return Some(value);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(4));
    }
}

/// As [`poll`], and fails the test with `what` when it does not come true.
#[track_caller]
pub fn until(what: &str, mut ready: impl FnMut() -> bool) {
    if poll(|| ready().then_some(())).is_none() {
        panic!("waited {PATIENCE:?} in vain: {what}");
    }
}
