//! Starts the worker's threads by the system, never by Python's `threading`: an application may
//! have replaced that.
//!
//! Responsible for: each thread having a large enough stack. Must never: hide that the system
//! refuses a thread. Called by: `lifecycle`, `request_threads`, and every file that needs a helper.
use pyo3::PyErr;
use std::fmt;
use std::io;

/// Stack of a thread that never runs Python code, bytes.
const NATIVE_STACK: usize = 256 << 10;
/// Stack of a thread that may run Python code, without `stack-size=`, bytes. Linux gives a main
/// thread as much, and CPython's recursion limit fits it. Attaching to the interpreter may run
/// finalizers of the application.
const PYTHON_STACK: usize = 8 << 20;
/// A smaller `stack-size=` counts as this, bytes: with less, ordinary applications overflow.
const MIN_REQUEST_STACK: usize = 256 << 10;

/// Why a worker lacks a thread it needs.
#[derive(Debug)]
pub enum ThreadError {
    /// The system refuses it.
    Refused {
        /// Its name.
        name: String,
        /// The system's reason.
        reason: io::Error,
    },
    /// It ended before it was ready.
    Lost {
        /// Its name.
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
            Self::Lost { name } => write!(f, "the worker's thread {name} ended before it was ready; the log has the reason"),
            Self::Python(e) => write!(f, "cannot prepare the request threads: {e}"),
        }
    }
}

/// Starts a thread with a stack of this size.
pub fn start(name: &str, stack: usize, body: impl FnOnce() + Send + 'static) -> Result<(), ThreadError> {
    // The handle is dropped: these threads end with the process.
    let started = std::thread::Builder::new().name(name.to_owned()).stack_size(stack).spawn(body);
    started.map(drop).map_err(|reason| ThreadError::Refused { name: name.to_owned(), reason })
}

/// Starts a thread that never runs Python code.
pub fn native(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), ThreadError> {
    start(name, NATIVE_STACK, body)
}

/// Starts a thread that may attach to Python.
pub fn python(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), ThreadError> {
    start(name, PYTHON_STACK, body)
}

/// The size of a request thread's stack, bytes.
pub fn request_stack(stack_size: Option<u64>) -> usize {
    stack_size.map_or(PYTHON_STACK, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX).max(MIN_REQUEST_STACK))
}
