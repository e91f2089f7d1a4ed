//! From httpd's request to the message for a worker.
//!
//! In order: [`checks`] refuses, [`select`] finds the group, [`environ`] (with [`proxy`]) fills the environment, [`sessions`]
//! sets up the request's session, [`message`] encodes all of it.
pub mod checks;
pub mod environ;
pub mod message;
pub mod proxy;
pub mod select;
pub mod sessions;
