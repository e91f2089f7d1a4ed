//! Signals as a descriptor.
//!
//! Responsible for: blocking signals and reading them; they are never handled asynchronously. Must
//! never: install a handler. Called by: the mains of droverd and drover, before anything else; the
//! worker.
#![allow(unsafe_code)]
use rustix::io::Errno;
use rustix::process::Signal;
use std::ffi::c_int;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// A child has ended.
pub const CHILD: i32 = libc::SIGCHLD;
/// Terminate.
pub const TERMINATE: i32 = libc::SIGTERM;
/// Terminate, from a terminal (Ctrl-C).
pub const INTERRUPT: i32 = libc::SIGINT;
/// The terminal was closed.
pub const HANGUP: i32 = libc::SIGHUP;
/// A write to a socket or pipe without a reader.
pub const PIPE: i32 = libc::SIGPIPE;
/// httpd's graceful restart.
pub const USER1: i32 = libc::SIGUSR1;

/// Whether this signal is sent by a person or a program, not raised by a fault of the process
/// itself.
#[must_use]
pub const fn is_sent_to_end(signal: i32) -> bool {
    matches!(signal, libc::SIGKILL | TERMINATE | INTERRUPT | HANGUP)
}

/// The signal on which a worker's `faulthandler` writes all stacks; a real-time one, which nothing
/// else uses.
#[must_use]
pub fn dump() -> Signal {
    // SAFETY: SIGRTMAX is below the number of signals, and four below it is above SIGRTMIN on every
    // Linux.
    unsafe { Signal::from_raw_unchecked(libc::SIGRTMAX() - 4) }
}

/// A set of blocked signals, read one by one.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

fn last() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

impl Signals {
    /// Blocks `signals`, unblocks all others, and returns a descriptor from which they are read.
    pub fn block(signals: &[i32]) -> Result<Self, Errno> {
        // SAFETY: a sigset_t of zeros is a valid one, and sigemptyset makes it so on every system.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: the pointers are to the local above; the calls write nothing else.
        let fd = unsafe {
            libc::sigemptyset(&raw mut set);
            for signal in signals {
                libc::sigaddset(&raw mut set, *signal);
            }
            if libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) < 0 {
                return Err(last());
            }
            libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(last());
        }
        // SAFETY: signalfd has just returned it, so it has no other owner.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// The next signal that has come, if any.
    #[must_use]
    pub fn next(&self) -> Option<i32> {
        let mut record = [0u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.fd, &mut record) {
            // The number is the record's first field (signalfd(2)).
            Ok(n) if n == record.len() => record.first_chunk::<4>().and_then(|b| i32::try_from(u32::from_ne_bytes(*b)).ok()),
            _ => None,
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Runs `start` with all signals blocked in this thread: a thread that it starts never handles one.
pub fn blocked<T>(start: impl FnOnce() -> T) -> T {
    // SAFETY: sigset_t is a struct of integers; both are written before they are read, by functions
    // that write nothing else.
    let before = unsafe {
        let (mut all, mut before) = (std::mem::zeroed::<libc::sigset_t>(), std::mem::zeroed::<libc::sigset_t>());
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        before
    };
    let result = start();
    // SAFETY: the mask that the first call stored.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut()) };
    result
}

/// Blocks all signals in this thread, until [`release`].
pub fn hold() {
    set_mask(libc::sigfillset);
}

/// Blocks no signal in this thread any more, whatever mask the program was started with. Those that
/// have come meanwhile are delivered.
pub fn release() {
    set_mask(libc::sigemptyset);
}

fn set_mask(make: unsafe extern "C" fn(*mut libc::sigset_t) -> c_int) {
    // SAFETY: sigset_t is a struct of integers; `make` is sigfillset or sigemptyset, which write it and
    // nothing else.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        make(&raw mut set);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Ignores a signal from now on.
pub fn ignore(signal: i32) {
    // SAFETY: SIG_IGN installs no function.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_read() {
        let signals = Signals::block(&[USER1]).unwrap();
        assert_eq!(signals.next(), None);
        // SAFETY: the signal is blocked in this thread, so it waits there for the descriptor.
        unsafe { libc::raise(USER1) };
        assert_eq!(signals.next(), Some(USER1));
        assert_eq!(signals.next(), None);
    }
}
