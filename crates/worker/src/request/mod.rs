//! One request: its parts, and the objects the application gets for it.
//!
//! `running` holds the parts (`reply_socket`, `body`, `response`, `session`). The parts know each
//! other only where a function takes one as an argument, and never `running`.

pub mod application;
pub mod base_environ;
pub mod body;
pub mod environ;
pub mod failure;
pub mod file_wrapper;
pub mod handback;
pub mod headers;
pub mod input;
pub mod log;
pub mod reply_fd;
pub mod reply_socket;
pub mod response;
pub mod running;
pub mod session;
pub mod session_calls;
pub mod start_response;
