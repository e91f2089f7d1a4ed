//! The worker process: its start, its life, its forks and its end.

pub mod child_exit;
pub mod control;
pub mod control_thread;
pub mod deadline;
pub mod fork;
pub mod fork_server;
pub mod forked_worker;
pub mod hooks;
pub mod lifecycle;
pub mod memory;
pub mod native;
pub mod protect;
pub mod scripts;
pub mod setup;
pub mod shutdown;
pub mod start;
