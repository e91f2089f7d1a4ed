//! Worker processes: how they start, what they send and print, and how they exit.
//!
//! Responsible for: the mechanism. Must never: decide that a worker starts or exits; the pools do.
//! Called by: the event loop and the supervisor.
pub mod children;
pub mod fork_server;
pub mod forked_worker;
pub mod lines;
pub mod memory;
pub mod messages;
pub mod process;
pub mod provenance;
pub mod scripts;
pub mod spawn;
