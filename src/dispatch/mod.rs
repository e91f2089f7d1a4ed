//! To whom a request goes and how its answer comes back: queues, the way back, deadlines.
//!
//! Responsible for: one SEQPACKET queue per application group, opened through droverd once per process; socket pairs that are
//! used again only after a clean END. Must never: know httpd, or wait without a deadline and a wake-up descriptor. Called by:
//! `handler`.
//!
//! * [`queues`]: which queues this process knows, and how one is opened.
//! * [`seats`]: which worker runs which request, for the log.
//! * [`way_back`]: one request on its way: sent, answered, ended.
//! * [`error`]: what can go wrong between httpd and a worker.
pub mod error;
pub mod queues;
pub mod seats;
pub mod way_back;

pub use error::DispatchError;
pub use queues::{Key, Queue, Queues};
pub use way_back::{Exchange, Outgoing, Ready, Wake, Want};
