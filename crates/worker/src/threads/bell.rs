//! Where the monitor sleeps.
//!
//! Responsible for: losing no wake-up; a wake-up that is not needed costing one load. Must never:
//! know why it is rung. Called by: `monitor` (sleeps, rings), `worker` (rings).
use drover_sys::clock;
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The monitor is awake.
const AWAKE: u64 = 0;

/// Wakes the monitor.
#[derive(Debug, Default)]
pub struct Bell {
    /// When the monitor's sleep ends, CLOCK_MONOTONIC nanoseconds.
    until: AtomicU64,
    lock: Mutex<()>,
    rung: Condvar,
}

impl Bell {
    /// Wakes the monitor if it sleeps until later than `need`. `need` is computed only if the
    /// monitor sleeps until later than `soonest`.
    pub fn ring(&self, soonest: u64, need: impl FnOnce() -> u64) {
        let until = self.until.load(Ordering::SeqCst);
        if until > soonest && until > need() {
            self.wake();
        }
    }

    /// Wakes the monitor.
    pub fn wake(&self) {
        let guard = self.lock.lock();
        self.until.store(AWAKE, Ordering::SeqCst);
        drop(guard);
        self.rung.notify_one();
    }

    /// Sleeps until the bell is rung or this time. `needed` computes the next time to wake up, once
    /// other threads can see that the monitor sleeps: so nothing that happened before is lost.
    pub fn sleep(&self, until: u64, needed: impl FnOnce() -> u64) {
        let mut guard = self.lock.lock();
        self.until.store(until, Ordering::SeqCst);
        let mut asleep = needed() >= until;
        while asleep && self.until.load(Ordering::SeqCst) != AWAKE {
            let left = until.saturating_sub(clock::monotonic_ns());
            asleep = left > 0;
            if asleep {
                self.rung.wait_for(&mut guard, Duration::from_nanos(left));
            }
        }
        self.until.store(AWAKE, Ordering::SeqCst);
    }
}
