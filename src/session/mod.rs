//! Sessions as httpd has them: where they are kept, and what a worker may do with them.
//!
//! Responsible for: everything between the configuration and [`drover_session`], which keeps them. Must never: name one of httpd's types.
//! Called by: `httpd::lifecycle` (plan and stores), `handler` (answers).
//!
//! * [`plan`]: which stores a configuration needs, and what holds in each server.
//! * [`stores`]: the stores of one child of httpd, opened at their first use.
//! * [`answer`]: one request's questions, answered, or before they are asked.
//! * [`guess`]: which requests are likely to ask.
//! * [`cookie`]: the cookie, read and written.
pub mod answer;
pub mod cookie;
pub mod guess;
pub mod stores;

pub use answer::{Answered, RequestSession};
pub use drover_config::sessions as plan;
pub use plan::{Plan, Settings, StorePlan};
pub use stores::Stores;
