//! The reply sockets that are open: the worker's ends, over which it answers httpd.
//!
//! Responsible for: a forked child finding each of them without waiting for anybody. Must never: send, receive. Called by: `serve`
//! (opens), `way`, `body`, `handback` (use), `fork` (in the child).
//!
//! The list changes only in threads that hold the GIL, as the thread that forks does. So nobody holds the list's lock at a fork.
use crate::fork;
use parking_lot::Mutex;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

static OPEN: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

/// One reply socket. To be made and dropped with the GIL held.
#[derive(Debug)]
pub struct ReplySocket {
    fd: OwnedFd,
}

impl ReplySocket {
    /// Takes the socket that came with a request.
    pub fn new(fd: OwnedFd) -> Self {
        OPEN.lock().push(fd.as_raw_fd());
        Self { fd }
    }
}

impl Drop for ReplySocket {
    fn drop(&mut self) {
        if fork::is_child() {
            return;
        }
        // Before the number is free for another file.
        let mut open = OPEN.lock();
        let number = self.fd.as_raw_fd();
        if let Some(at) = open.iter().position(|fd| *fd == number) {
            open.swap_remove(at);
        }
    }
}

impl AsFd for ReplySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// In a forked child: calls `each` with every open one. Waits for nothing.
pub fn for_each_open(each: impl FnMut(RawFd)) {
    if let Some(open) = OPEN.try_lock() {
        open.iter().copied().for_each(each);
        // Unlocking could wake a thread that is not in this process.
        std::mem::forget(open);
    }
}
