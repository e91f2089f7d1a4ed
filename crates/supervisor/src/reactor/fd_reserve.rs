//! Descriptors reserved for messages from httpd.
//!
//! When workers or clients have used up droverd's descriptors, a message whose descriptor does not
//! fit is lost. A new httpd child would then get no queue, or a new configuration would not be
//! applied.
//!
//! Responsible for: keeping a few descriptors free while httpd's messages are received. Must never:
//! fail; what cannot be reserved now is tried again later. Called by: the event loop.
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::OwnedFd;

/// A child sends one descriptor with its request; the parent sends one with its configuration, and
/// one for each error log.
const SIZE: usize = 8;

/// The reserved descriptors.
#[derive(Debug, Default)]
pub struct FdReserve(Vec<OwnedFd>);

impl FdReserve {
    /// Reserves up to [`SIZE`] descriptors.
    pub fn fill(&mut self) {
        while self.0.len() < SIZE {
            let Ok(fd) = eventfd(0, EventfdFlags::CLOEXEC) else { return };
            self.0.push(fd);
        }
    }

    /// Frees the reserve while `receive` runs, and refills it before the message takes effect.
    pub fn lend<T>(&mut self, receive: impl FnOnce() -> T) -> T {
        self.0.clear();
        let received = receive();
        self.fill();
        received
    }
}
