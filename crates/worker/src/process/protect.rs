//! Which other processes may inspect this one: trace it, read its memory, take its descriptors.
//!
//! Without this, groups of one user could reach each other's queues, requests and sessions. exec(2)
//! opens every process to its user's other processes again, so the worker closes itself. Until then a
//! capability that droverd has left it keeps them out (`drover_sys::spawn`).
//!
//! Responsible for: the process being closed before any code of the application runs, and open only
//! if the group's options say so. Must never: open a process for longer than its options say; a
//! forked process inherits the state. Called by: `boot.py` as the first step; `start`, with the
//! configuration.
use crate::log::stderr;
use crate::messages::Code;
use rustix::process::{DumpableBehavior, geteuid, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

/// Closes the process, and only then drops the capability that protected it. The kernel always
/// permits both. A worker of root keeps root's capabilities.
pub fn close() {
    set(DumpableBehavior::NotDumpable);
    if geteuid().is_root() {
        return;
    }
    let none = CapabilitySet::empty();
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    // A kernel drops a capability from the ambient set with the permitted one.
    if let Err(e) = set_capabilities(None, none) {
        stderr::write(format!("{}: capabilities cannot be dropped: {e}\n", Code::OptionUnavailable).as_bytes());
    }
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
