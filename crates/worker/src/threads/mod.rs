//! The worker's threads: those that serve requests, and those that watch them.
//!
//! State that several threads share (`bell`, `leader`, `slot`, `watchdog`) knows no thread that
//! uses it.

pub mod bell;
pub mod interrupt;
pub mod leader;
pub mod monitor;
pub mod policy;
pub mod request_threads;
pub mod schedule;
pub mod serve;
pub mod slot;
pub mod spawn;
pub mod threading;
pub mod watchdog;
