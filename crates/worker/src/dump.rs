//! The stacks of all Python threads, written to the group's log.
//!
//! Responsible for: a dump also when the GIL cannot be had. Must never: make anybody wait. Called by: `control` (Dump),
//! `monitor` (request-timeout).
use crate::native;
use pyo3::prelude::*;
use std::sync::mpsc;
use std::time::Duration;

/// How long to wait for the GIL. Whoever holds it longer is in C code and runs no Python.
const PATIENCE: Duration = Duration::from_secs(2);

/// Writes the stacks to descriptor 2, soon.
///
/// With the GIL no frame changes while it is read; reading them without it has crashed 3.13. When the GIL is not to be had its
/// holder is stuck in C, so that again no frame changes: then faulthandler's signal handler does it, which needs no GIL.
pub fn all_stacks() {
    // A system that has no more threads gives no dump.
    let _ = std::thread::Builder::new().stack_size(256 * 1024).spawn(|| {
        let (done, wait) = mpsc::channel();
        let dumper = std::thread::Builder::new().spawn(move || {
            let dumped = Python::attach(|py| py.import("faulthandler")?.call_method1("dump_traceback", (2, true)).map(drop));
            // Nobody listens any more when it took too long.
            let _ = done.send(dumped.is_ok());
        });
        if dumper.is_ok() && wait.recv_timeout(PATIENCE) != Ok(true) {
            native::raise(native::dump_signal());
        }
    });
}
