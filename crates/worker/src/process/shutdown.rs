//! The end of the process.
//!
//! Responsible for: running the application's exit functions whatever its threads do, exiting in
//! time, and logging what delays the exit. Must never: finalize the interpreter: a request thread
//! that is cut off there would unwind through this library's frames. Called by: `lifecycle`.
//!
//! The order: `mod_wsgi.subscribe_shutdown`; executors finish (within a second); `atexit`;
//! non-daemon threads end. Python itself waits for threads before `atexit`, so that functions there
//! could not stop them. Threads that were started during an import are not waited for, as with
//! mod_wsgi.
use crate::cpython;
use crate::log::{stderr, traceback};
use crate::messages::Code;
use crate::process::deadline::clock_ns;
use crate::process::{child_exit, native};
use crate::threads::{spawn, threading};
use crate::worker::Worker;
use crossbeam_channel::RecvTimeoutError;
use drover_sys::clock;
use pyo3::prelude::*;
use std::ffi::c_long;
use std::sync::Arc;
use std::time::Duration;

/// The time for callbacks, atexit and threads of the application together, unless droverd has said
/// when it kills the process.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);
/// The time for executors before the functions registered with atexit run, which may end their
/// work.
const EXECUTOR_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the thread that ends the process waits for the GIL, to find out what delays the exit.
const GIL_TIMEOUT: Duration = Duration::from_millis(200);

/// Runs the application's exit functions and exits.
pub fn run(py: Python<'_>, worker: &Arc<Worker>) -> ! {
    let otherwise = clock::monotonic_ns().saturating_add(clock_ns(EXIT_TIMEOUT));
    let (ours, main) = (Arc::clone(worker), cpython::thread_ident());
    // If the system has no thread for this, droverd bounds the exit.
    let _ = spawn::native("drover-exit", move || {
        ours.deadline.wait(otherwise);
        force(main);
    });
    report(py, py.import("mod_wsgi").and_then(|m| m.call_method0("_stopping")).map(drop));
    report(py, end_executors(py));
    report(py, threading::module(py).and_then(|m| m.call_method0("shut_down")).map(drop));
    report(py, py.import("atexit").and_then(|m| m.call_method0("_run_exitfuncs")).map(drop));
    report(py, wait_for_threads(py, worker.deadline.left(otherwise).saturating_sub(GIL_TIMEOUT)));
    for stream in ["stdout", "stderr", "__stdout__", "__stderr__"] {
        // A stream that the application has closed or taken away needs no flush.
        let _ = py.import("sys").and_then(|sys| sys.getattr(stream)).and_then(|s| s.call_method0("flush"));
    }
    native::exit(0)
}

/// Waits for executors in a separate thread, as their work may never end.
fn end_executors(py: Python<'_>) -> PyResult<()> {
    let ours = threading::module(py)?;
    let functions: Vec<Py<PyAny>> = ours.call_method0("exit_functions")?.extract()?;
    let run = |py: Python<'_>, functions: &[Py<PyAny>]| functions.iter().for_each(|f| report(py, f.call0(py).map(drop)));
    // Green threads run in the thread that waits for them.
    if functions.is_empty() || ours.call_method0("is_green")?.extract()? {
        run(py, &functions);
        return Ok(());
    }
    let (sender, receiver) = crossbeam_channel::unbounded();
    let started = spawn::python("drover-executors", move || {
        Python::attach(|py| {
            // The main thread may have stopped waiting.
            let _ = sender.send(cpython::thread_ident());
            run(py, &functions);
        });
    });
    if let Err(e) = started {
        stderr::write(format!("{}: {e}\n", Code::ExitWaits).as_bytes());
        return Ok(());
    }
    let end = clock::monotonic_ns().saturating_add(clock_ns(EXECUTOR_TIMEOUT));
    // The thread's identifier while it works, `None` once it has finished.
    let working = py.detach(move || {
        let mut thread = None;
        loop {
            match receiver.recv_timeout(Duration::from_nanos(end.saturating_sub(clock::monotonic_ns()))) {
                Ok(ident) => thread = Some(ident),
                Err(RecvTimeoutError::Timeout) => return thread,
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    });
    let Some(thread) = working else { return Ok(()) };
    let what = held_by(py, thread);
    let line = format!("{}: an executor of the application still works and keeps the process from exiting: {what}\n", Code::ExitWaits);
    stderr::write(line.as_bytes());
    Ok(())
}

/// Waits for the threads that would keep a Python program from exiting; logs those that do not end.
fn wait_for_threads(py: Python<'_>, patience: Duration) -> PyResult<()> {
    let rest: Vec<String> = threading::module(py)?.call_method1("wait", (patience.as_secs_f64(),))?.extract()?;
    if !rest.is_empty() {
        log_forced(&rest.join(", "));
    }
    Ok(())
}

/// Exits although the main thread has not finished; logs what it waits for.
fn force(main: c_long) -> ! {
    let (sender, receiver) = crossbeam_channel::unbounded();
    let _ = spawn::python("drover-exit-why", move || {
        let why = Python::attach(|py| held_by(py, main));
        let _ = sender.send(why);
    });
    let why = receiver.recv_timeout(GIL_TIMEOUT).unwrap_or_else(|_| "C code that does not release Python's lock".to_owned());
    log_forced(&why);
    native::exit(0)
}

fn held_by(py: Python<'_>, ident: c_long) -> String {
    let text = threading::module(py).and_then(|m| m.call_method1("held_by", (ident,))).and_then(|text| text.extract());
    text.unwrap_or_else(|e| e.to_string())
}

fn log_forced(what: &str) {
    stderr::write(format!("{}: the process exits although this still runs: {what}\n", Code::ExitForced).as_bytes());
}

fn report(py: Python<'_>, result: PyResult<()>) {
    if let Err(e) = child_exit::parent_only(py, result) {
        stderr::write(traceback::format(py, &e).as_bytes());
    }
}
