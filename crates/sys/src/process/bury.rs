//! Closing a socket together with a process.
//!
//! A socket whose queue has descriptors of an untrusted sender can be closed by no process that goes
//! on: reading a descriptor and closing it may wait for a file system's server (FUSE), which no
//! signal ends; closing the socket unread may wait for a network (SO_LINGER). A process that exits
//! does neither.
//! Responsible for: such a process. Must never: return in it, or call there what is not
//! async-signal-safe. Called by: droverd.
#![allow(unsafe_code)]
use rustix::io::Errno;
use std::os::fd::{AsRawFd, OwnedFd};

/// Starts a process that keeps what this one has open until the returned descriptor is closed, and
/// then exits. Close the socket first. The caller reaps the process.
pub fn keeper() -> Result<OwnedFd, Errno> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let (wait, ours) = (read.as_raw_fd(), write.as_raw_fd());
    // SAFETY: the child calls only async-signal-safe functions, on plain numbers and a local, and
    // ends in _exit without returning.
    match unsafe { libc::fork() } {
        -1 => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::AGAIN)),
        // SAFETY: as above; both descriptors are open in the child, which has no other use for
        // them, and `byte` is a local of one byte.
        0 => unsafe {
            let mut byte = 0u8;
            libc::close(ours);
            libc::read(wait, (&raw mut byte).cast(), 1);
            libc::_exit(0)
        },
        _ => Ok(write),
    }
}

#[cfg(test)]
mod tests {
    use crate::channel::{packet_pair, send};
    use std::os::fd::AsFd;

    #[test]
    fn what_lies_in_the_socket_is_closed_with_the_process() {
        let (a, b) = packet_pair().unwrap();
        let (near, far) = crate::channel::stream_pair().unwrap();
        send(&a, &[b"x"], &[far.as_fd()], false).unwrap();
        drop(far);
        let keeper = super::keeper().unwrap();
        drop((a, b));
        assert!(!crate::wait::ended_now(&near), "the process has it");
        drop(keeper);
        // Ends the wait when the last copy is closed.
        assert_eq!(rustix::io::read(&near, &mut [0; 1]), Ok(0));
    }
}
