//! Sessions in httpd: where they are stored, and what a worker may do with them.
//!
//! Responsible for: everything between the configuration and [`drover_session`], which stores them.
//! Must never: name one of httpd's types. Called by: `httpd::lifecycle` (plan and stores),
//! `handler` (answers).
//!
//! * [`plan`]: the stores that a configuration needs, and the settings of each server.
//! * [`stores`]: the stores of one child process.
//! * `registry`: which of them are open; `scopes`: their directories.
//! * [`answer`]: the answers to one request's questions, also before the worker asks.
//! * [`predictor`]: which requests are likely to ask.
//! * [`cookie`]: reads and writes the cookie.
pub mod answer;
pub mod cookie;
pub mod predictor;
mod registry;
mod scopes;
pub mod stores;

pub use answer::{Answered, RequestSession};
pub use drover_config::sessions as plan;
pub use plan::{Plan, Settings, StorePlan};
pub use stores::Stores;
