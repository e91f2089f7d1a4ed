//! The tests of the product as a whole: one binary, one module a concern, a real httpd in each test.
//!
//! Run them with `make test`, or by name: `make test MPM=event T=streaming`.
// A test may stop at whatever it did not expect.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[macro_use]
mod harness;

mod accounts;
mod application_threads;
mod clients;
mod config;
mod control;
mod crash;
mod deploys;
mod descriptors;
mod doubled;
mod duplex;
mod effects;
mod environ;
mod failures;
mod faults;
mod forks;
mod gone_clients;
mod graceful;
mod groups;
mod hostile;
mod htaccess;
mod install;
mod isolation;
mod large;
mod lifecycle;
mod limits;
mod logging;
mod monitoring;
mod names;
mod overload;
mod permissions;
mod preload;
mod real_apps;
mod releases;
mod request_body;
mod reserved_keys;
mod response;
mod serve;
mod session_caches;
mod session_directory;
mod session_frameworks;
mod session_sizes;
mod sessions;
mod size;
mod slow_clients;
mod slow_http2;
mod soak;
mod streams;
mod tls_http2;
mod tools;
mod verdict;
