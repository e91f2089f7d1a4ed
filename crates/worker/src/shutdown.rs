//! The end of the process.
//!
//! Responsible for: what the application registered for the end being run, and the end coming all the same. Must never: tear the
//! interpreter down: a request thread that is cut off in there would unwind through our frames. Called by: `process`.
use crate::errors;
use crate::failure;
use crate::fork;
use crate::native;
use pyo3::prelude::*;
use std::time::Duration;

/// How long callbacks, threads of the application and atexit have together.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs what is registered for the end, and ends the process.
pub fn leave(py: Python<'_>) -> ! {
    // If the system has no thread for this, the end is bounded by droverd.
    let _ = std::thread::Builder::new().stack_size(64 * 1024).spawn(|| {
        std::thread::sleep(PATIENCE);
        native::leave(0);
    });
    let steps: [(&str, &str); 3] = [("mod_wsgi", "_stopping"), ("threading", "_shutdown"), ("atexit", "_run_exitfuncs")];
    for (module, function) in steps {
        report(py, py.import(module).and_then(|m| m.call_method0(function)).map(drop));
    }
    for stream in ["stdout", "stderr", "__stdout__", "__stderr__"] {
        // A stream that the application has closed or taken away needs no flush.
        let _ = py.import("sys").and_then(|sys| sys.getattr(stream)).and_then(|s| s.call_method0("flush"));
    }
    native::leave(0)
}

fn report(py: Python<'_>, result: PyResult<()>) {
    if let Err(e) = fork::parent_only(py, result) {
        errors::write_plainly(failure::traceback(py, &e).as_bytes());
    }
}
