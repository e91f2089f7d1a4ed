//! The tests of the product as a whole: one binary, one module a concern, a real httpd in each test.
//!
//! Run them with `make test`, or by name: `make test MPM=event T=streaming`.
// A test may stop at whatever it did not expect.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[macro_use]
mod harness;

mod accounts;
mod clients;
mod config;
mod control;
mod crash;
mod deploys;
mod duplex;
mod environ;
mod failures;
mod faults;
mod graceful;
mod groups;
mod hostile;
mod htaccess;
mod large;
mod lifecycle;
mod limits;
mod logging;
mod names;
mod overload;
mod preload;
mod real_apps;
mod releases;
mod request_body;
mod response;
mod session_caches;
mod session_frameworks;
mod sessions;
mod size;
mod slow_clients;
mod soak;
mod tls_http2;
mod tools;
mod verdict;
