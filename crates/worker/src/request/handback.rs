//! Hands a request back to droverd when its script's file has changed: droverd starts a new
//! generation for it.
//!
//! Responsible for: this process reporting each change once, and no request being lost for it. Must
//! never: import or reload a script. Called by: `threads::serve`; `process::control_thread` (Keep).
use crate::cpython;
use crate::log::level::ERROR;
use crate::log::traceback;
use crate::process::child_exit;
use crate::process::control::Control;
use crate::process::scripts::mtime_us;
use crate::request::reply_fd::ReplyFd;
use crate::request::running::Request;
use drover_wire::control::FromWorker;
use drover_wire::request::RESENT;
use parking_lot::Mutex;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt};
use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A larger message is not sent twice: the loaded code serves it. Bytes.
const MAX_MESSAGE: usize = 128 * 1024;

/// The changes that this process knows of.
#[derive(Debug, Default)]
pub struct Handbacks {
    /// Path and file time of the changes that droverd was told.
    told: Mutex<HashSet<(Vec<u8>, u64)>>,
    /// Path and file time of files that are known to fail: the loaded code serves their requests.
    kept: Mutex<HashSet<(Vec<u8>, u64)>>,
    /// Scripts that have asked for a new process themselves.
    asked: Mutex<HashSet<Vec<u8>>>,
}

impl Handbacks {
    /// From now on the loaded code serves requests that show this file time.
    pub fn keep(&self, path: &[u8], mtime_us: u64) {
        self.kept.lock().insert((path.to_vec(), mtime_us));
    }

    /// Whether the request should wait for a new generation; `loaded` is the time of the file that
    /// this process runs.
    pub fn is_changed(&self, request: &Request, loaded: u64) -> bool {
        let seen = request.prefix.script_mtime_us;
        // The file may have changed since httpd looked at it.
        if seen == 0 || seen == loaded || mtime_us(&request.script.path) == loaded {
            return false;
        }
        // The first request that shows the change, and each that droverd has sent again until it
        // says Keep. Such a request comes here if this process has not read Drain yet.
        let key = (request.script.path.clone(), seen);
        !self.kept.lock().contains(&key) && (self.told.lock().insert(key) || is_resent(request))
    }

    /// Whether the script itself asks for a new process: its module has lost `__mtime__`, or its
    /// `reload_required(resource)` returns true (mod_wsgi's release notes of 3.0).
    pub fn does_script_ask(&self, py: Python<'_>, request: &Request, module: &Bound<'_, PyDict>) -> bool {
        let (path, seen) = (&request.script.path, request.prefix.script_mtime_us);
        // Without script reloading httpd sends no file time.
        if seen == 0 {
            return false;
        }
        // Of a resent request the script is not asked again: any process may serve it but the one
        // that has asked.
        let asks = if is_resent(request) {
            self.asked.lock().contains(path)
        } else {
            let asks = asks(py, request, module);
            if asks {
                self.asked.lock().insert(path.clone());
            }
            asks
        };
        asks && !self.kept.lock().contains(&(path.clone(), seen))
    }

    /// Sends the request to droverd. False: it must be served here.
    pub fn give(&self, control: &Control, request: &Request, message: &[u8], socket: &ReplyFd, fds: &[OwnedFd]) -> bool {
        let (path, mtime_us) = (&request.script.path, request.prefix.script_mtime_us);
        let changed = |request: &[u8]| FromWorker::Changed { path: path.clone(), mtime_us, request: request.to_vec() };
        let with: Vec<BorrowedFd<'_>> = std::iter::once(socket.as_fd()).chain(fds.iter().map(AsFd::as_fd)).collect();
        if message.len() < MAX_MESSAGE {
            request.reply.tell_held();
            if control.send(&changed(message), &with).is_ok() {
                return true;
            }
            request.reply.tell_taken();
        }
        if control.send(&changed(&[]), &[]).is_err() {
            // droverd did not receive it: the next request reports the change again.
            self.told.lock().remove(&(path.clone(), mtime_us));
        }
        false
    }
}

fn is_resent(request: &Request) -> bool {
    request.prefix.flags & RESENT != 0
}

/// An exception here is logged and asks for nothing: else one mistake would restart for ever.
fn asks(py: Python<'_>, request: &Request, module: &Bound<'_, PyDict>) -> bool {
    let item = |name| module.get_item(name).ok().flatten();
    if item(intern!(py, "__mtime__")).is_none_or(|mtime| !mtime.is_instance_of::<PyInt>()) {
        return true;
    }
    let Some(callback) = item(intern!(py, "reload_required")) else { return false };
    let asked = cpython::path(py, &request.script.path).and_then(|resource| callback.call1((resource,))).and_then(|said| said.is_truthy());
    let asked = child_exit::parent_only(py, asked);
    asked.unwrap_or_else(|e| {
        request.write_log(py, ERROR, traceback::format(py, &e).as_bytes());
        false
    })
}
