//! The worker as droverd and httpd see it: one real process, both other sides played.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod exits;
mod harness;
mod input;
mod life;
mod logs;
mod patched;
mod policy;
mod python;
mod response;
mod schedule;
mod scripts;
mod session;
mod threads;
