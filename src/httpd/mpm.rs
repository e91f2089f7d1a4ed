//! What the MPM says of itself, asked where each answer is right.
//!
//! Responsible for: MAX_THREADS and MAX_DAEMONS being asked when the MPM has checked its own directives or later, where alone they are true. Called
//! by: `lifecycle::check_config` (which runs after the MPM's) and `lifecycle::post_config`.
use super::ffi;
use drover_session::choice;
use std::ffi::{CStr, c_int};
use std::fmt;

/// The answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mpm {
    /// `prefork`, `worker`, `event`, …
    pub name: String,
    /// Threads in a child.
    pub threaded: bool,
    /// More than one child may run.
    pub forked: bool,
    /// Threads of a child at most.
    pub threads: i32,
    /// Children at most.
    pub daemons: i32,
}

fn ask(what: i32) -> i32 {
    let mut answer: c_int = 0;
    // SAFETY: writes one number; on failure it is left alone (ap_mpm.h).
    if unsafe { ffi::ap_mpm_query(what, &raw mut answer) } == ffi::APR_SUCCESS { answer } else { 0 }
}

impl Mpm {
    /// Asks. Only behind the MPM's check_config.
    #[must_use]
    pub fn query() -> Self {
        // SAFETY: returns a static string (ap_mpm.h).
        let name = unsafe { CStr::from_ptr(ffi::ap_show_mpm()) }.to_string_lossy().into_owned();
        Self {
            name,
            threaded: ask(ffi::AP_MPMQ_IS_THREADED) != ffi::AP_MPMQ_NOT_SUPPORTED,
            forked: ask(ffi::AP_MPMQ_IS_FORKED) != ffi::AP_MPMQ_NOT_SUPPORTED,
            threads: ask(ffi::AP_MPMQ_MAX_THREADS).max(1),
            daemons: ask(ffi::AP_MPMQ_MAX_DAEMONS).max(1),
        }
    }

    /// Requests that can be with daemon processes at once.
    #[must_use]
    pub const fn slots(&self) -> i64 {
        self.threads as i64 * self.daemons as i64
    }

    /// What of it decides where sessions are kept.
    #[must_use]
    pub const fn for_sessions(&self) -> choice::Mpm {
        choice::Mpm { threaded: self.threaded, forked: self.forked, max_daemons: self.daemons }
    }
}

impl fmt::Display for Mpm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (children, threads) = (self.daemons, self.threads);
        write!(
            f,
            "MPM {}: up to {children} child process{} x {threads} thread{}, so at most {} requests at once",
            self.name,
            if children == 1 { "" } else { "es" },
            if threads == 1 { "" } else { "s" },
            self.slots()
        )
    }
}
