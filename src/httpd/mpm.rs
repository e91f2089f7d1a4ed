//! The limits of the MPM.
//!
//! Responsible for: querying MAX_THREADS and MAX_DAEMONS only after the MPM checked its directives; earlier values are wrong. Must
//! never: cache them. Called by: `lifecycle::check_config` (which runs after the MPM's) and `lifecycle::post_config`.
use super::ffi;
use drover_session::choice;
use std::ffi::{CStr, c_int};
use std::fmt;

/// What the MPM reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mpm {
    /// `prefork`, `worker`, `event`, …
    pub name: String,
    /// Children have threads.
    pub threaded: bool,
    /// Several children may run.
    pub forked: bool,
    /// The most threads of a child.
    pub threads: i32,
    /// The most children.
    pub daemons: i32,
}

fn ask(what: i32) -> i32 {
    let mut answer: c_int = 0;
    // SAFETY: writes one number, or nothing on failure (ap_mpm.h).
    if unsafe { ffi::ap_mpm_query(what, &raw mut answer) } == ffi::APR_SUCCESS { answer } else { 0 }
}

impl Mpm {
    /// Queries the MPM. Only after the MPM's check_config.
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

    /// The most requests that httpd handles at once.
    #[must_use]
    pub const fn slots(&self) -> i64 {
        self.threads as i64 * self.daemons as i64
    }

    /// The part that decides where sessions are kept.
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
