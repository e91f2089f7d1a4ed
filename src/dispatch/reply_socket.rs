//! The stream socket pair over which a worker responds.
//!
//! Responsible for: recognizing the worker's end by the kernel's socket cookie. Must never: send or receive. Called by:
//! [`super::queues`] (keeps idle ones), [`super::in_flight`] (uses them).
use super::error::DispatchError;
use drover_sys::channel;
use std::os::fd::OwnedFd;

/// A connected pair of stream sockets that is not in use.
#[derive(Debug)]
pub(super) struct ReplySocket {
    /// httpd's end.
    pub near: OwnedFd,
    /// The worker's end.
    pub far: OwnedFd,
    /// The kernel's number of `far`, to recognize it when the worker returns it.
    pub cookie: u64,
}

impl ReplySocket {
    pub fn new() -> Result<Self, DispatchError> {
        let system = |e| DispatchError::System("cannot create a socket pair", e);
        let (near, far) = channel::stream_pair().map_err(system)?;
        let cookie = channel::cookie(&far).map_err(system)?;
        Ok(Self { near, far, cookie })
    }
}
