//! How a request reaches a worker and its response comes back.
//!
//! Responsible for: one SEQPACKET queue per application group, opened through droverd once per process; reply sockets that are
//! reused only after a clean END. Must never: know httpd, or wait without a deadline and a wake-up descriptor. Called by:
//! `handler`.
//!
//! In reading order: [`queues`] opens queues, [`in_flight`] sends a request and exchanges frames over its `reply_socket`;
//! [`seats`] records which worker runs which request, for the log;
//! [`wake`] stops all waits; [`error`] lists what can fail.
pub mod error;
pub mod in_flight;
pub mod queues;
mod reply_socket;
pub mod seats;
pub mod wake;

pub use error::DispatchError;
pub use in_flight::{InFlight, Outgoing, Ready, Want};
pub use queues::{Key, Queue, Queues};
pub use wake::Wake;
