//! Request queues: kept in the store, handed to httpd's children, repaired and answered.
//!
//! Responsible for: every group having a working queue, and every queued request getting a worker
//! or an answer. Must never: trust the contents of a request. Called by: the event loop and the
//! supervisor.
pub mod broker;
pub mod drain_queue;
pub mod eviction;
pub mod refuse;
pub mod repair;
pub mod store;
