//! The threads of a worker, started by the system and never by Python's `threading`, whatever the application has made of that.
//!
//! Responsible for: each thread having a stack that suffices; request threads that Python knows and that wait for work before the
//! worker says that it is ready. Must never: report a worker whose threads do not run. Called by: `process`, and who needs a helper.
use crate::errors::{self, Log, Target};
use crate::failure;
use crate::messages::Code;
use crate::process::template;
use crate::serve::Server;
use crate::worker::Worker;
use pyo3::prelude::*;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Sender};

/// Stack of a thread that never runs Python code.
const NATIVE_STACK: usize = 256 << 10;
/// Stack of a thread that may run Python code, without `stack-size=`: what Linux gives a main thread, for which CPython's recursion
/// limit is made. Attaching to the interpreter may run finalizers of the application.
const PYTHON_STACK: usize = 8 << 20;
/// A smaller `stack-size=` counts as this: with less, ordinary applications overflow the stack.
const MIN_REQUEST_STACK: usize = 256 << 10;
/// Python's module beside us.
const MODULE: &str = "mod_drover._threads";

/// Why a worker has not all the threads it needs.
#[derive(Debug)]
pub enum ThreadError {
    /// The system refuses one.
    Refused {
        /// What it is called.
        name: String,
        /// The system's reason.
        reason: io::Error,
    },
    /// It ended before it was ready.
    Lost {
        /// What it is called.
        name: String,
    },
    /// Its objects could not be made.
    Python(PyErr),
}

impl fmt::Display for ThreadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { name, reason } => write!(
                f,
                "cannot start the worker's thread {name}: {reason}; raise the limit of processes and threads of its user (ulimit -u) or \
                 control group (pids.max), or its memory limit, or lower threads= or stack-size="
            ),
            Self::Lost { name } => write!(f, "the worker's thread {name} ended before it was ready; its reason is in the log"),
            Self::Python(e) => write!(f, "cannot prepare the request threads: {e}"),
        }
    }
}

fn start(name: &str, stack: usize, body: impl FnOnce() + Send + 'static) -> Result<(), ThreadError> {
    // The handle is dropped: these threads end with the process.
    let started = std::thread::Builder::new().name(name.to_owned()).stack_size(stack).spawn(body);
    started.map(drop).map_err(|reason| ThreadError::Refused { name: name.to_owned(), reason })
}

/// Starts a thread that never runs Python code.
pub fn start_native(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), ThreadError> {
    start(name, NATIVE_STACK, body)
}

/// Starts a thread that may attach to Python.
pub fn start_python(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), ThreadError> {
    start(name, PYTHON_STACK, body)
}

/// The size of a request thread's stack.
pub fn request_stack(stack_size: Option<u64>) -> usize {
    stack_size.map_or(PYTHON_STACK, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX).max(MIN_REQUEST_STACK))
}

/// Our Python module. Its first import has to come before any code of the application.
pub fn module(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import(MODULE)
}

/// Threads that are started until the value is dropped inherit what they would in a request, and do not keep the process.
pub struct Importing<'py>(Python<'py>);

impl<'py> Importing<'py> {
    /// The application's code is about to be imported.
    pub fn begin(py: Python<'py>) -> Self {
        call(py, "begin_import");
        Self(py)
    }
}

impl Drop for Importing<'_> {
    fn drop(&mut self) {
        call(self.0, "end_import");
    }
}

fn call(py: Python<'_>, function: &str) {
    if let Err(e) = module(py).and_then(|m| m.call_method0(function)) {
        errors::write_plainly(failure::traceback(py, &e).as_bytes());
    }
}

/// Starts the request threads, one after the other, and waits for each until it is ready for [`Worker::allow`].
pub fn start_requests(py: Python<'_>, worker: &Arc<Worker>) -> Result<(), ThreadError> {
    let timeout = py.import("mod_wsgi").and_then(|m| m.getattr("RequestTimeout")).map_err(ThreadError::Python)?;
    let stack = request_stack(worker.config.options.stack_size);
    for slot in &worker.slots {
        let log = Bound::new(py, Log::new(Target::Requests(Arc::clone(slot)), "<wsgi.errors>")).map_err(ThreadError::Python)?;
        let template = template(py, worker, slot.index, &log).map_err(ThreadError::Python)?;
        let server = Server::new(py, Arc::clone(worker), Arc::clone(slot), &template, log.unbind(), timeout.clone().unbind());
        let name = format!("mod_drover-{}", slot.index);
        let (ready, wait) = mpsc::channel();
        let (ours, known_as) = (Arc::clone(worker), name.clone());
        start(&name, stack, move || run(&ours, server, &known_as, &ready))?;
        // How long an interpreter may be busy at its start is startup-timeout's business.
        py.detach(move || wait.recv()).map_err(|_| ThreadError::Lost { name })?;
    }
    Ok(())
}

/// Counts a request thread for as long as it runs, however it ends.
struct Life<'a> {
    worker: &'a Worker,
    name: &'a str,
}

impl<'a> Life<'a> {
    fn begin(worker: &'a Worker, name: &'a str) -> Self {
        worker.alive.fetch_add(1, Ordering::AcqRel);
        Self { worker, name }
    }
}

impl Drop for Life<'_> {
    fn drop(&mut self) {
        if !self.worker.is_stopping() {
            let line =
                format!("{}: request thread {} ended by itself; the worker process exits to be replaced\n", Code::ThreadLost, self.name);
            errors::write_plainly(line.as_bytes());
            self.worker.stop();
        }
        self.worker.thread_ended();
    }
}

/// A request thread from its start to its end.
fn run(worker: &Worker, mut server: Server, name: &str, ready: &Sender<()>) {
    let _life = Life::begin(worker, name);
    Python::attach(|py| {
        let thread = module(py).and_then(|m| m.call_method1("adopt", (name,)));
        if let Err(e) = &thread {
            // It serves all the same; Python calls it a dummy.
            errors::write_plainly(failure::traceback(py, e).as_bytes());
        }
        // The receiver waits for this one word.
        let _ = ready.send(());
        server.run(py);
        if let Ok(thread) = thread
            && let Err(e) = module(py).and_then(|m| m.call_method1("release", (thread,)))
        {
            errors::write_plainly(failure::traceback(py, &e).as_bytes());
        }
        drop(server);
    });
}
