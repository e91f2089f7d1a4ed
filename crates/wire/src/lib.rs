//! The messages that httpd's child processes, droverd and the workers exchange.
//!
//! Responsible for: the layout of every message, its limits, its version. Must never: do I/O, read
//! a clock, hold a descriptor, panic on any input. Called by: the module (`src/`), droverd
//! (`crates/supervisor`), the worker (`crates/worker`), `drover` and the fuzz targets.
//!
//! * [`request`]: one request, one SEQPACKET message on a queue.
//! * [`frame`]: frames in both directions on a request's reply socket.
//! * [`head`]: the status line and header fields in a HEAD frame.
//! * [`session`]: requests of an application's session to httpd, in SESSION frames.
//! * [`control`]: configuration, opening of queues, lifecycle of workers.
//! * [`admin`]: commands of `drover` and the replies.
//! * [`units`]: sizes and times in configuration and command line. Not a message, but used by the same parts.
//! * [`text`]: text shortened to fit into a message or a log.
#![forbid(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]

pub mod admin;
mod codec;
pub mod control;
pub mod frame;
pub mod head;
pub mod request;
pub mod session;
pub mod text;
pub mod units;

pub use codec::{Reader, WireError};

/// Number of the protocol, which every message states after its magic number. Raised with each
/// incompatible change.
pub const PROTOCOL: u16 = 4;

/// Version of the product. Parts with different versions refuse each other.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
