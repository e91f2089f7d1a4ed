//! The descriptor of a reply socket: the worker's end, over which it answers httpd.
//!
//! Responsible for: a forked child finding each open one without waiting. Must never: send,
//! receive. Called by: `threads::serve` (opens), `reply_socket`, `body`, `handback` (use).
use crate::process::fork;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// One reply socket's descriptor. Make and drop it with the GIL held.
#[derive(Debug)]
pub struct ReplyFd {
    fd: OwnedFd,
}

impl ReplyFd {
    /// Takes the socket that came with a request.
    pub fn new(fd: OwnedFd) -> Self {
        fork::add_reply_socket(fd.as_raw_fd());
        Self { fd }
    }
}

impl Drop for ReplyFd {
    fn drop(&mut self) {
        if !fork::is_child() {
            fork::remove_reply_socket(self.fd.as_raw_fd());
        }
    }
}

impl AsFd for ReplyFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
