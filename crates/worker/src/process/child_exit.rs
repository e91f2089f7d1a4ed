//! Ends a child that the application forked, when the application's code returns in it.
//!
//! Responsible for: only the parent continuing after a call of the application's code. Must never:
//! take a lock, flush, or run exit functions of the parent. Called by: every file that calls the
//! application's code.
use crate::log::stderr;
use crate::log::traceback;
use crate::messages::Code;
use crate::process::{fork, native};
use pyo3::exceptions::PySystemExit;
use pyo3::prelude::*;

/// Passes on the result of the application's code in the process that called it. A child that the
/// application forked there ends here: it has no request, and no queue to take one from.
pub fn parent_only<T>(py: Python<'_>, result: PyResult<T>) -> PyResult<T> {
    if fork::is_child() {
        end_child(py, result.as_ref().err());
    }
    result
}

/// Ends a forked child as an interpreter would end, but without flushing or running its parent's
/// exit functions.
fn end_child(py: Python<'_>, error: Option<&PyErr>) -> ! {
    let Some(error) = error else {
        let pid = rustix::process::getpid().as_raw_pid();
        let line = format!(
            "{}: a child process that the application forked (pid {pid}) returned from the application's code and was ended; only its parent responds",
            Code::ChildReturned
        );
        stderr::write(format!("{line}\n").as_bytes());
        native::exit(0);
    };
    if !error.is_instance_of::<PySystemExit>(py) {
        stderr::write(traceback::format(py, error).as_bytes());
        native::exit(1);
    }
    // sys.exit: None is success, a number is the status, anything else is printed.
    let code = error.value(py).getattr("code").ok().filter(|code| !code.is_none());
    let Some(code) = code else { native::exit(0) };
    if let Ok(status) = code.extract::<i32>() {
        native::exit(status);
    }
    stderr::write(format!("{}\n", code.str().map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()).as_bytes());
    native::exit(1)
}
