//! mod_drover.so: everything that runs inside httpd.
//!
//! In reading order: [`handler`] follows one request from top to bottom, [`dispatch`] takes it to a
//! worker and back. [`config`] holds the directives, [`resolved`] what follows from them. [`httpd`]
//! is the only code that knows httpd; [`messages`] holds the log codes.
#![deny(unsafe_code)]

pub mod dispatch;
pub mod handler;
pub mod httpd;
pub mod messages;
pub mod session;

pub use drover_config as config;
pub use drover_config::resolved;
