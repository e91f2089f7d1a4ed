//! Waiting for something to become true, with a deadline.
//!
//! Responsible for: the one polling loop of the harness. Must never: be used to let time pass.
//! Called by: the harness and tests.
use std::time::{Duration, Instant};

/// The deadline of every wait. Generous: the machine may be busy, and no test measures a duration.
pub const PATIENCE: Duration = Duration::from_secs(45);

/// Calls `ready` until it returns a value, at most for [`PATIENCE`].
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

/// As [`poll`]; fails the test with `what` after the deadline.
#[track_caller]
pub fn until(what: &str, mut ready: impl FnMut() -> bool) {
    if poll(|| ready().then_some(())).is_none() {
        panic!("timed out after {PATIENCE:?}: {what}");
    }
}
