//! The end of the process.
//!
//! Responsible for: what the application registered for the end being run whatever its threads do, the end coming all the same, and
//! the log naming what holds it up. Must never: tear the interpreter down: a request thread that is cut off in there would unwind
//! through our frames. Called by: `process`; `control` tells when droverd kills the process.
//!
//! The order: `mod_wsgi.subscribe_shutdown`; executors end (at most a second); `atexit`; non-daemon threads end. Python itself
//! waits for threads before `atexit`, so that functions there could not stop them. Threads that were started while a script was
//! imported are not waited for, as with mod_wsgi.
use crate::errors;
use crate::failure;
use crate::fast;
use crate::fork;
use crate::messages::Code;
use crate::native;
use crate::threads;
use crate::worker::Worker;
use drover_sys::clock;
use parking_lot::{Condvar, Mutex};
use pyo3::prelude::*;
use std::ffi::c_long;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// How long callbacks, atexit and threads of the application have together, while droverd has not said when it kills the process.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long executors have before the functions registered with atexit run, which may be what ends their work.
const EXECUTORS: Duration = Duration::from_secs(1);
/// How long before SIGKILL the process ends itself, at most; a quarter of the time left when that is less.
const MARGIN: Duration = Duration::from_millis(500);
/// How long the thread that ends the process waits for the GIL, to say what holds it up.
const NAMING: Duration = Duration::from_millis(200);

/// When this process has to be gone.
#[derive(Debug, Default)]
pub struct Deadline {
    /// CLOCK_MONOTONIC nanoseconds; `None`: droverd has not said when it kills the process.
    at: Mutex<Option<u64>>,
    changed: Condvar,
}

impl Deadline {
    /// droverd sends SIGKILL after this time.
    pub fn killed_within(&self, within: Duration) {
        let at = clock::monotonic_ns().saturating_add(nanoseconds(within.saturating_sub((within / 4).min(MARGIN))));
        let mut known = self.at.lock();
        *known = Some(known.map_or(at, |before| before.min(at)));
        self.changed.notify_all();
    }

    /// How long from now until then; until `otherwise` while droverd has said nothing.
    fn left(&self, otherwise: u64) -> Duration {
        let at = self.at.lock().unwrap_or(otherwise);
        Duration::from_nanos(at.saturating_sub(clock::monotonic_ns()))
    }

    /// Waits until then; until `otherwise` while droverd has said nothing.
    fn wait(&self, otherwise: u64) {
        let mut known = self.at.lock();
        loop {
            let left = known.unwrap_or(otherwise).saturating_sub(clock::monotonic_ns());
            if left == 0 {
                return;
            }
            self.changed.wait_for(&mut known, Duration::from_nanos(left));
        }
    }
}

/// Runs what is registered for the end, and ends the process.
pub fn leave(py: Python<'_>, worker: &Arc<Worker>) -> ! {
    let otherwise = clock::monotonic_ns().saturating_add(nanoseconds(PATIENCE));
    let (ours, main) = (Arc::clone(worker), fast::thread_ident());
    // If the system has no thread for this, the end is bounded by droverd.
    let _ = threads::start_native("drover-exit", move || {
        ours.deadline.wait(otherwise);
        force(main);
    });
    report(py, py.import("mod_wsgi").and_then(|m| m.call_method0("_stopping")).map(drop));
    report(py, end_executors(py));
    report(py, threads::module(py).and_then(|m| m.call_method0("shut_down")).map(drop));
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
    let ours = threads::module(py)?;
    let functions: Vec<Py<PyAny>> = ours.call_method0("exit_functions")?.extract()?;
    let run = |py: Python<'_>, functions: &[Py<PyAny>]| functions.iter().for_each(|f| report(py, f.call0(py).map(drop)));
    // Green threads run in the thread that waits for them.
    if functions.is_empty() || ours.call_method0("is_green")?.extract()? {
        run(py, &functions);
        return Ok(());
    }
    let (says, hears) = mpsc::channel();
    let started = threads::start_python("drover-executors", move || {
        Python::attach(|py| {
            // The main thread may have stopped listening.
            let _ = says.send(fast::thread_ident());
            run(py, &functions);
        });
    });
    if let Err(e) = started {
        errors::write_plainly(format!("{}: {e}\n", Code::ExitWaits).as_bytes());
        return Ok(());
    }
    let end = clock::monotonic_ns().saturating_add(nanoseconds(EXECUTORS));
    // The thread's number while it works, `None` when it has finished.
    let working = py.detach(move || {
        let mut thread = None;
        loop {
            match hears.recv_timeout(Duration::from_nanos(end.saturating_sub(clock::monotonic_ns()))) {
                Ok(ident) => thread = Some(ident),
                Err(RecvTimeoutError::Timeout) => return thread,
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    });
    let Some(thread) = working else { return Ok(()) };
    let what = held_by(py, thread);
    let line = format!("{}: an executor of the application still works and keeps the process from exiting: {what}\n", Code::ExitWaits);
    errors::write_plainly(line.as_bytes());
    Ok(())
}

/// Waits for the threads that would keep a Python program; names those that do not end.
fn wait_for_threads(py: Python<'_>, patience: Duration) -> PyResult<()> {
    let rest: Vec<String> = threads::module(py)?.call_method1("wait", (patience.as_secs_f64(),))?.extract()?;
    if !rest.is_empty() {
        say_forced(&rest.join(", "));
    }
    Ok(())
}

/// Ends the process, whose `main` thread has not come to its end; says what it waits for.
fn force(main: c_long) -> ! {
    let (says, hears) = mpsc::channel();
    let _ = threads::start_python("drover-exit-why", move || {
        let why = Python::attach(|py| held_by(py, main));
        let _ = says.send(why);
    });
    let why = hears.recv_timeout(NAMING).unwrap_or_else(|_| "C code that does not release Python's lock".to_owned());
    say_forced(&why);
    native::leave(0)
}

fn held_by(py: Python<'_>, ident: c_long) -> String {
    let text = threads::module(py).and_then(|m| m.call_method1("held_by", (ident,))).and_then(|text| text.extract());
    text.unwrap_or_else(|e| e.to_string())
}

fn say_forced(what: &str) {
    errors::write_plainly(format!("{}: the process exits although this still runs: {what}\n", Code::ExitForced).as_bytes());
}

fn report(py: Python<'_>, result: PyResult<()>) {
    if let Err(e) = fork::parent_only(py, result) {
        errors::write_plainly(failure::traceback(py, &e).as_bytes());
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
