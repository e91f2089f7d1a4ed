//! Where the monitor sleeps.
//!
//! Responsible for: no call being lost, and one that changes nothing costing a load. Must never: know why it is rung. Called by:
//! `monitor` (sleeps), `serve` and `worker` (ring).
use drover_sys::clock;
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The monitor is awake.
const AWAKE: u64 = 0;

/// The bell.
#[derive(Debug, Default)]
pub struct Bell {
    /// Until when it sleeps, nanoseconds of CLOCK_MONOTONIC.
    until: AtomicU64,
    lock: Mutex<()>,
    rung: Condvar,
}

impl Bell {
    /// Wakes the monitor if it sleeps longer than until `need`, which is asked only when it sleeps longer than until `soonest`.
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

    /// Sleeps until the bell is rung or this time. `needed` gives the time at which a look is needed once more, when everybody can see
    /// already that the monitor sleeps: what happened before that is not lost.
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
