//! The words that httpd's children, droverd and the workers exchange.
//!
//! Responsible for: the layout of every message, its limits, its version. Must never: do I/O, read a clock, hold a
//! descriptor, panic on any input. Called by: the module (`src/`), droverd (`crates/supervisor`), the worker
//! (`crates/worker`) and the fuzz targets.
//!
//! * [`request`]: one request, one SEQPACKET message on a queue.
//! * [`frame`]: the way back, both directions, on a stream socket.
//! * [`head`]: the status line and header fields inside a HEAD frame.
//! * [`session`]: what an application's session asks of httpd, inside SESSION frames.
//! * [`control`]: configuration, opening of queues, life of workers.
//! * [`admin`]: what the command `drover` asks.
//! * [`units`]: sizes and times as people write them; no message, but shared by the same parts.
//! * [`text`]: text cut to fit into one of them, or into a log.
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

/// Number of the protocol; the first field of every message. Raised at each incompatible change.
pub const PROTOCOL: u16 = 4;

/// Version of the product. The parts of one installation carry the same one, and refuse each other otherwise.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
