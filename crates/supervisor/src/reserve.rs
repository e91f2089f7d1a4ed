//! Descriptors kept back for messages of httpd.
//!
//! A message whose descriptor does not fit is lost: a new child of httpd would get no queue, and a new configuration would not be in force,
//! because workers, or whoever connects to the control socket, have used up what droverd may open.
//!
//! Responsible for: some descriptors being free while httpd's messages are received. Must never: fail; what cannot be kept back now is tried
//! again. Called by: the event loop.
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::OwnedFd;

/// A child of httpd sends one with its question; httpd's parent one with its configuration, and one for each error log.
const SIZE: usize = 8;

/// What is kept back.
#[derive(Debug, Default)]
pub struct Reserve(Vec<OwnedFd>);

impl Reserve {
    /// Keeps back as many as there are, up to [`SIZE`].
    pub fn fill(&mut self) {
        while self.0.len() < SIZE {
            let Ok(fd) = eventfd(0, EventfdFlags::CLOEXEC) else { return };
            self.0.push(fd);
        }
    }

    /// Receives while they are free. What is left of them is kept back again before the message has any effect.
    pub fn lend<T>(&mut self, receive: impl FnOnce() -> T) -> T {
        self.0.clear();
        let received = receive();
        self.fill();
        received
    }
}
