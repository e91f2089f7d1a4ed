//! System calls that neither httpd nor Python makes for mod_drover.
//!
//! Responsible for: socket pairs, descriptor passing, shared memory, processes, waiting, clocks.
//! Must never: hold a policy, retry without bound, leave a descriptor open over exec. Called by:
//! the module, droverd, the worker, `drover`.
#![deny(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]

pub mod channel;
pub mod clock;
pub mod files;
pub mod localtime;
pub mod process;
pub mod shared;
pub mod wait;

pub use channel::{outgoing, peek};
pub use files::{filelock, reach};
pub use process::{bury, credentials, inherited, signals, spawn, users};
pub use rustix::io::Errno;
pub use shared::{counters, memfile, mutex, roster, token};

/// Calls write(2) once; returns how many bytes were written. Async-signal-safe.
pub fn write_once(fd: impl std::os::fd::AsFd, bytes: &[u8]) -> Result<usize, Errno> {
    rustix::io::write(fd, bytes)
}
