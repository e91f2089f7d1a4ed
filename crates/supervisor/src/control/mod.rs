//! What httpd and administrators tell droverd: configurations, commands and status requests.
//!
//! Responsible for: applying configurations and commands, and reporting. Must never: wait for a
//! client. Called by: the event loop.
pub mod admin;
pub mod commands;
pub mod configure;
pub mod control_socket;
pub mod open_files;
pub mod plan;
pub mod report;
pub mod settings;
