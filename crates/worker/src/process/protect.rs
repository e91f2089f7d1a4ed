//! Who else may look into the process: trace it, read its memory, take its descriptors.
//!
//! Groups that run as one user would otherwise reach each other's queues, requests and sessions. exec(2) makes every process of a user
//! open to that user's other processes again, so the worker closes itself.
//!
//! Responsible for: the process being closed before any of the application's code runs, and open only where the group's options say so.
//! Must never: be undone by a fork (a forked process is what its parent is). Called by: `boot.py` as the first thing; `process` and
//! `template`, with the configuration.
use crate::log::stderr;
use crate::messages::Code;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// Closes the process. The kernel refuses this to nobody.
pub fn close() {
    set(DumpableBehavior::NotDumpable);
}

/// Opens it if the group is configured so (`dumpable=On`).
pub fn configure(dumpable: bool) {
    if dumpable {
        set(DumpableBehavior::Dumpable);
    }
}

fn set(behavior: DumpableBehavior) {
    if let Err(e) = set_dumpable_behavior(behavior) {
        stderr::write(format!("{}: dumpable=: {e}\n", Code::OptionUnavailable).as_bytes());
    }
}
