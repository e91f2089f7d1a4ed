//! The harness: a real httpd in a scratch directory, and the checks after it has exited.
//!
//! Responsible for: writing a private configuration, starting httpd under a chosen MPM with
//! mod_drover or mod_wsgi, a plain HTTP client, waiting for events, and the checks at the end
//! (logs, orphans, sockets, files). Must never: sleep for a fixed time, use a system httpd, listen
//! on anything but 127.0.0.1, signal a process that it did not start. Called by: the tests.
//!
//! A test is written once and run for each MPM ([`mpm_test!`]). A test of behaviour that mod_wsgi
//! has too also runs against mod_wsgi ([`both_test!`]), so that compatibility is measured.
#![allow(dead_code, unused_imports)]

pub mod client;
pub mod gate;
pub mod httpd;
pub mod inject;
pub mod log;
pub mod paths;
pub mod processes;
pub mod site;
pub mod wait;

pub use client::{Conn, Request, Response};
pub use httpd::Httpd;
pub use site::{Mpm, Site, Subject};
pub use wait::until;

/// Runs the body with mod_drover under prefork, worker and event: three tests, `NAME::prefork` and
/// so on.
#[macro_export]
macro_rules! mpm_test {
    ($(#[$meta:meta])* $name:ident, |$site:ident| $body:block) => {
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            fn body($site: $crate::harness::Site) $body
            #[test]
            fn prefork() {
                body($crate::harness::Site::new($crate::harness::Subject::Ours, $crate::harness::Mpm::Prefork, module_path!()));
            }
            #[test]
            fn worker() {
                body($crate::harness::Site::new($crate::harness::Subject::Ours, $crate::harness::Mpm::Worker, module_path!()));
            }
            #[test]
            fn event() {
                body($crate::harness::Site::new($crate::harness::Subject::Ours, $crate::harness::Mpm::Event, module_path!()));
            }
        }
    };
}

/// As [`mpm_test!`], and once more with mod_wsgi under event: `NAME::theirs`.
#[macro_export]
macro_rules! both_test {
    ($(#[$meta:meta])* $name:ident, |$site:ident| $body:block) => {
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            fn body($site: $crate::harness::Site) $body
            #[test]
            fn prefork() {
                body($crate::harness::Site::new($crate::harness::Subject::Ours, $crate::harness::Mpm::Prefork, module_path!()));
            }
            #[test]
            fn worker() {
                body($crate::harness::Site::new($crate::harness::Subject::Ours, $crate::harness::Mpm::Worker, module_path!()));
            }
            #[test]
            fn event() {
                body($crate::harness::Site::new($crate::harness::Subject::Ours, $crate::harness::Mpm::Event, module_path!()));
            }
            #[test]
            fn theirs() {
                body($crate::harness::Site::new($crate::harness::Subject::Theirs, $crate::harness::Mpm::Event, module_path!()));
            }
        }
    };
}

/// Runs the body with mod_drover under event only, for behaviour that does not depend on the MPM
/// (`apachectl -t`, tools, large applications).
#[macro_export]
macro_rules! event_test {
    ($(#[$meta:meta])* $name:ident, |$site:ident| $body:block) => {
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            fn body($site: $crate::harness::Site) $body
            #[test]
            fn event() {
                body($crate::harness::Site::new($crate::harness::Subject::Ours, $crate::harness::Mpm::Event, module_path!()));
            }
        }
    };
}
