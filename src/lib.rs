//! mod_drover.so: everything that runs inside httpd.
//!
//! In reading order: [`handler`] is one request from top to bottom, [`dispatch`] its way to a worker and back; [`config`] the
//! directives, [`resolved`] what follows from them; [`httpd`] the only code that knows httpd; [`messages`] the log codes.
#![deny(unsafe_code)]

pub mod config;
pub mod dispatch;
pub mod handler;
pub mod httpd;
pub mod messages;
pub mod resolved;
pub mod session;
