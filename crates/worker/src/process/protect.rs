//! Which other processes may inspect this one: trace it, read its memory, take its descriptors.
//!
//! Without this, groups of one user could reach each other's queues, requests and sessions. exec(2)
//! opens every process to its user's other processes again, so the worker closes itself.
//!
//! Responsible for: the process being closed before any code of the application runs, and open only
//! if the group's options say so. Must never: open a process for longer than its options say; a
//! forked process inherits the state. Called by: `boot.py` as the first step; `start`, with the
//! configuration.
use crate::log::stderr;
use crate::messages::Code;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// Closes the process. The kernel always permits this.
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
