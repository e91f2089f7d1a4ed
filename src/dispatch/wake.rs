//! Wakes all waiting threads of this process when httpd stops it.
//!
//! Responsible for: one descriptor that every blocking wait includes. Must never: take a lock. Called by: `httpd::lifecycle`
//! (stop), everything that waits.
use drover_sys::Errno;
use drover_sys::wait::{EventfdFlags, eventfd};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// A stop signal for all threads of this process.
#[derive(Debug)]
pub struct Wake {
    fd: OwnedFd,
    stopping: AtomicBool,
}

impl Wake {
    /// Not stopped.
    pub fn new() -> Result<Self, Errno> {
        Ok(Self { fd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?, stopping: AtomicBool::new(false) })
    }

    /// Wakes all threads, permanently. Async-signal-safe: an atomic store and write(2).
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        // A full counter would mean that the descriptor is readable already.
        let _ = drover_sys::write_once(&self.fd, &1u64.to_ne_bytes());
    }

    /// Whether [`Wake::stop`] was called.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// A descriptor that becomes readable with [`Wake::stop`].
    #[must_use]
    pub const fn fd(&self) -> &OwnedFd {
        &self.fd
    }
}
