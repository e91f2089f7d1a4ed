//! What bounds a request: how many run or wait, how much memory their clients cost, how long each may take.
//!
//! * [`admission`]: the numbers of requests. * [`account`]: memory for slow clients. * [`deadlines`]: times.
pub mod account;
pub mod admission;
pub mod deadlines;

pub use account::MemoryAccount;
pub use admission::{AdmissionCounters, Ticket};
pub use deadlines::{Deadlines, TimeLimits};
