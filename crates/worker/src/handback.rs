//! A request that shows that its script's file has changed goes to droverd, which starts a new generation for it.
//!
//! Responsible for: each change being reported once by this process, and no request being lost for it. Called by: `serve`.
use crate::errors::{self, ERROR};
use crate::exchange::Exchange;
use crate::failure;
use crate::fast;
use crate::fork;
use crate::reply::ReplySocket;
use crate::scripts;
use crate::worker::Worker;
use drover_wire::control::FromWorker;
use drover_wire::request::RESENT;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Larger messages do not travel twice: they are served by the old code.
const LARGEST: usize = 128 * 1024;

/// Whether the request should wait for a new generation. `loaded` is the time of the file that this process runs.
pub fn wanted(worker: &Worker, exchange: &Exchange, loaded: u64) -> bool {
    let seen = exchange.prefix.script_mtime_us;
    let (path, resent) = (&exchange.script.path, exchange.prefix.flags & RESENT != 0);
    // httpd's look at the file may be older than ours.
    seen != 0 && seen != loaded && scripts::mtime_us(path) != loaded && worker.scripts.hands_back(path, seen, resent)
}

/// Whether the script itself asks for a new process: its module has lost `__mtime__`, or its `reload_required(resource)` says so
/// (mod_wsgi's release notes of 3.0). An exception in there is logged and asks for nothing, or one mistake would restart for ever.
pub fn script_asks(py: Python<'_>, worker: &Worker, exchange: &Exchange, module: &Bound<'_, PyDict>) -> bool {
    let (path, seen, resent) = (&exchange.script.path, exchange.prefix.script_mtime_us, exchange.prefix.flags & RESENT != 0);
    // Without script reloading httpd says no time.
    seen != 0 && worker.scripts.wants_new_process(path, seen, resent, || asks(py, exchange, module))
}

fn asks(py: Python<'_>, exchange: &Exchange, module: &Bound<'_, PyDict>) -> bool {
    let item = |name| module.get_item(name).ok().flatten();
    if item(intern!(py, "__mtime__")).is_none_or(|mtime| !mtime.is_instance_of::<PyInt>()) {
        return true;
    }
    let Some(callback) = item(intern!(py, "reload_required")) else { return false };
    let asked = fast::path(py, &exchange.script.path).and_then(|resource| callback.call1((resource,))).and_then(|said| said.is_truthy());
    let asked = fork::parent_only(py, asked);
    asked.unwrap_or_else(|e| {
        errors::log(py, exchange, ERROR, failure::traceback(py, &e).as_bytes());
        false
    })
}

/// Gives the request to droverd. False: it has to be served here.
pub fn give(worker: &Worker, exchange: &Exchange, message: &[u8], way: &ReplySocket, fds: &[OwnedFd]) -> bool {
    let mtime_us = exchange.prefix.script_mtime_us;
    let changed = |request: &[u8]| FromWorker::Changed { path: exchange.script.path.clone(), mtime_us, request: request.to_vec() };
    let with: Vec<BorrowedFd<'_>> = std::iter::once(way.as_fd()).chain(fds.iter().map(AsFd::as_fd)).collect();
    if message.len() < LARGEST {
        exchange.way.tell_held();
        if worker.control.send(&changed(message), &with).is_ok() {
            return true;
        }
        exchange.way.tell_taken();
    }
    if worker.control.send(&changed(&[]), &[]).is_err() {
        // Nobody has heard it: the next request says it again.
        worker.scripts.untell(&exchange.script.path, mtime_us);
    }
    false
}
