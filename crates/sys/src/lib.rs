//! The kernel calls that neither httpd nor Python makes for us.
//!
//! Responsible for: socket pairs, descriptor passing, waiting, memory files, clocks. Must never: hold a policy, retry without
//! bound, leave a descriptor open over exec. Called by: the module, droverd, the worker.
#![deny(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]

pub mod channel;
pub mod clock;
pub mod credentials;
mod disposal;
pub mod filelock;
pub mod inherited;
pub mod localtime;
pub mod memfile;
pub mod mutex;
pub mod outgoing;
pub mod peek;
pub mod reach;
mod recvmsg;
pub mod roster;
pub mod shared;
pub mod signals;
pub mod spawn;
pub mod tally;
pub mod token;
pub mod users;
pub mod wait;
pub use rustix::io::Errno;

/// write(2), once; returns how much the kernel took. Async-signal-safe.
pub fn write_once(fd: impl std::os::fd::AsFd, bytes: &[u8]) -> Result<usize, Errno> {
    rustix::io::write(fd, bytes)
}
