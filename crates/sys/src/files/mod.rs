//! Files: locks on them, and why a user cannot open them.
//!
//! Responsible for: what std does not offer for files. Must never: wait. Called by: the module,
//! droverd, `drover`, `crates/session`.
//!
//! * [`filelock`]: locks on single bytes.
//! * [`reach`]: the directory or file whose mode refuses a user.
pub mod filelock;
pub mod reach;
