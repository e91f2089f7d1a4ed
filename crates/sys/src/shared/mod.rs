//! Memory that processes share.
//!
//! Responsible for: the typed page that all of it lies in, and what is kept there. Must never:
//! trust what another process writes there with more than the value itself. Called by: the module,
//! droverd, the worker, `crates/session`.
//!
//! * `page`: the mapping.
//! * [`flag`]: one flag.
//! * [`counters`]: counters of httpd's child processes.
//! * [`token`]: slots that exactly one process takes.
//! * [`roster`]: which requests run in which worker.
//! * [`mutex`]: mutexes in a file.
//! * [`memfile`]: sealed files, for messages larger than a datagram.
pub mod counters;
pub mod flag;
pub mod memfile;
pub mod mutex;
mod page;
pub mod roster;
pub mod token;

pub use flag::Flag;
