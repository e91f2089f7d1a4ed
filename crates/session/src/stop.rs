//! The signal that httpd stops this process, for threads that wait for a store.
//!
//! Responsible for: every wait of this crate ending when the signal is given. Must never: be given for a graceful stop, in
//! which running requests are finished; allocate or lock in [`Stop::stop`], which runs in a signal handler. Called by: every
//! part of this crate that waits, `src/session/stores.rs`.
use crate::error::Error;
use drover_sys::clock::monotonic_ns;
use drover_sys::wait::{EventfdFlags, PollFd, PollFlags, eventfd, poll_until};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long a thread waits for a lock before it checks the signal again: a lock has no descriptor to poll.
const SLICE: Duration = Duration::from_millis(50);

/// The signal. Clones share it.
#[derive(Debug, Clone)]
pub struct Stop(Option<Arc<Signal>>);

#[derive(Debug)]
struct Signal {
    fd: OwnedFd,
    stopping: AtomicBool,
}

/// Why a wait ended without success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The process is being stopped.
    Stopping,
    /// The deadline has passed.
    TimedOut,
}

impl Stop {
    /// A signal that has not been given yet.
    pub fn new() -> Result<Self, Error> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|e| Error::Unavailable(e.to_string()))?;
        Ok(Self(Some(Arc::new(Signal { fd, stopping: AtomicBool::new(false) }))))
    }

    /// A signal that is never given: for work that a stopping process must still do, such as writing its sessions to disk.
    #[must_use]
    pub const fn never() -> Self {
        Self(None)
    }

    /// Gives the signal, for good. Async-signal-safe: an atomic store and write(2).
    pub fn stop(&self) {
        if let Some(signal) = &self.0 {
            signal.stopping.store(true, Ordering::Release);
            // The counter is far from full; a full one would be readable as well.
            let _ = drover_sys::write_once(&signal.fd, &1u64.to_ne_bytes());
        }
    }

    /// Whether the signal was given.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.0.as_ref().is_some_and(|signal| signal.stopping.load(Ordering::Acquire))
    }

    /// Sleeps for `pause`, less if the signal is given.
    pub(crate) fn sleep(&self, pause: Duration) {
        match &self.0 {
            Some(signal) => {
                let pause = u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX);
                // A failing poll(2) ends the pause early; callers have a deadline and check the signal.
                let _ = poll_until(&mut [PollFd::new(&signal.fd, PollFlags::IN)], Some(monotonic_ns().saturating_add(pause)));
            }
            None => std::thread::sleep(pause),
        }
    }

    /// Calls `attempt`, which waits for no longer than it is told, until it succeeds, `limit` is over, or the signal is given.
    pub fn wait<T>(&self, limit: Duration, mut attempt: impl FnMut(Duration) -> Option<T>) -> Result<T, Ended> {
        // An attempt that succeeds at once does not ask the clock.
        if let Some(done) = attempt(Duration::ZERO) {
            return Ok(done);
        }
        let until = monotonic_ns().saturating_add(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
        loop {
            let left = Duration::from_nanos(until.saturating_sub(monotonic_ns()));
            if let Some(done) = attempt(left.min(SLICE)) {
                return Ok(done);
            }
            if self.is_stopping() {
                return Err(Ended::Stopping);
            }
            if left.is_zero() {
                return Err(Ended::TimedOut);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_stop_ends_every_wait() {
        let stop = Stop::new().unwrap();
        let (waits, is_waiting) = mpsc::channel();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                stop.wait(Duration::MAX, |slice| {
                    waits.send(()).unwrap();
                    stop.sleep(slice);
                    None::<()>
                })
            });
            is_waiting.recv().unwrap();
            stop.stop();
            assert_eq!(thread.join().unwrap(), Err(Ended::Stopping));
        });
        // Ends only because the signal was given.
        stop.sleep(Duration::MAX);
        assert_eq!(stop.wait(Duration::MAX, |_| Some(1)), Ok(1), "an attempt that succeeds counts, stopping or not");
    }

    #[test]
    fn a_wait_without_a_signal_has_a_deadline() {
        assert_eq!(Stop::never().wait(Duration::ZERO, |_| None::<()>), Err(Ended::TimedOut));
        Stop::never().stop();
        assert!(!Stop::never().is_stopping());
    }
}
