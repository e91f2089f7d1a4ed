//! Writes to descriptor 2, which is droverd's pipe: the group's log.
//!
//! Responsible for: whole text reaching the pipe. Must never: take a lock or need the GIL. Called
//! by: every file that logs outside of a request.
use std::os::fd::{AsFd, BorrowedFd};

/// Writes all of it to descriptor 2.
pub fn write(bytes: &[u8]) {
    write_all(rustix::stdio::stderr().as_fd(), bytes);
}

/// Writes all of it to a descriptor.
pub fn write_all(fd: BorrowedFd<'_>, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        match drover_sys::write_once(fd, rest) {
            Ok(n) if n > 0 => rest = rest.get(n..).unwrap_or_default(),
            Err(drover_sys::Errno::INTR) => {}
            _ => return, // nobody reads it: droverd has exited, and this process soon will
        }
    }
}
