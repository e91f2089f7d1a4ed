//! What happens: the event loop and the descriptors that it watches.
//!
//! Responsible for: waiting and reading without blocking. Must never: decide anything about
//! workers. Called by: main.
pub mod event_loop;
pub mod fd_reserve;
pub mod peer;
pub mod poller;
