//! The end of the process.
//!
//! Responsible for: what the application registered for the end being run whatever its threads do, the end coming all the same, and
//! the log naming what holds it up. Must never: tear the interpreter down: a request thread that is cut off in there would unwind
//! through our frames. Called by: `process`; `control` tells when droverd kills the process.
//!
//! The order: `mod_wsgi.subscribe_shutdown`; executors end (at most a second); `atexit`; non-daemon threads end. Python itself
//! waits for threads before `atexit`, so that functions there could not stop them. Threads that were started while a script was
//! imported are not waited for, as with mod_wsgi.
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

/// How long callbacks, atexit and threads of the application have together, while droverd has not said when it kills the process.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long executors have before the functions registered with atexit run, which may be what ends their work.
const EXECUTORS: Duration = Duration::from_secs(1);
/// How long the thread that ends the process waits for the GIL, to say what holds it up.
const NAMING: Duration = Duration::from_millis(200);

/// Runs what is registered for the end, and ends the process.
pub fn leave(py: Python<'_>, worker: &Arc<Worker>) -> ! {
    let otherwise = clock::monotonic_ns().saturating_add(clock_ns(PATIENCE));
    let (ours, main) = (Arc::clone(worker), cpython::thread_ident());
    // If the system has no thread for this, the end is bounded by droverd.
    let _ = spawn::native("drover-exit", move || {
        ours.deadline.wait(otherwise);
        force(main);
    });
    report(py, py.import("mod_wsgi").and_then(|m| m.call_method0("_stopping")).map(drop));
    report(py, end_executors(py));
    report(py, threading::module(py).and_then(|m| m.call_method0("shut_down")).map(drop));
    report(py, py.import("atexit").and_then(|m| m.call_method0("_run_exitfuncs")).map(drop));
    report(py, wait_for_threads(py, worker.deadline.left(otherwise).saturating_sub(NAMING)));
    for stream in ["stdout", "stderr", "__stdout__", "__stderr__"] {
        // A stream that the application has closed or taken away needs no flush.
        let _ = py.import("sys").and_then(|sys| sys.getattr(stream)).and_then(|s| s.call_method0("flush"));
    }
    native::leave(0)
}

/// Has executors finish, in a thread of its own, as their work may never end.
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
            // The main thread may have stopped listening.
            let _ = sender.send(cpython::thread_ident());
            run(py, &functions);
        });
    });
    if let Err(e) = started {
        stderr::write(format!("{}: {e}\n", Code::ExitWaits).as_bytes());
        return Ok(());
    }
    let end = clock::monotonic_ns().saturating_add(clock_ns(EXECUTORS));
    // The thread's number while it works, `None` when it has finished.
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

/// Waits for the threads that would keep a Python program; names those that do not end.
fn wait_for_threads(py: Python<'_>, patience: Duration) -> PyResult<()> {
    let rest: Vec<String> = threading::module(py)?.call_method1("wait", (patience.as_secs_f64(),))?.extract()?;
    if !rest.is_empty() {
        say_forced(&rest.join(", "));
    }
    Ok(())
}

/// Ends the process, whose `main` thread has not come to its end; sender what it waits for.
fn force(main: c_long) -> ! {
    let (sender, receiver) = crossbeam_channel::unbounded();
    let _ = spawn::python("drover-exit-why", move || {
        let why = Python::attach(|py| held_by(py, main));
        let _ = sender.send(why);
    });
    let why = receiver.recv_timeout(NAMING).unwrap_or_else(|_| "C code that does not release Python's lock".to_owned());
    say_forced(&why);
    native::leave(0)
}

fn held_by(py: Python<'_>, ident: c_long) -> String {
    let text = threading::module(py).and_then(|m| m.call_method1("held_by", (ident,))).and_then(|text| text.extract());
    text.unwrap_or_else(|e| e.to_string())
}

fn say_forced(what: &str) {
    stderr::write(format!("{}: the process exits although this still runs: {what}\n", Code::ExitForced).as_bytes());
}

fn report(py: Python<'_>, result: PyResult<()>) {
    if let Err(e) = child_exit::parent_only(py, result) {
        stderr::write(traceback::format(py, &e).as_bytes());
    }
}
