//! What a child that the application forks must not do: speak for its parent, or wait for its parent's threads.
//!
//! Responsible for: the child giving up queue, control socket and every reply socket, dying of signals as any program, and ending
//! when the application's code returns. Must never: wait, allocate or take a lock in [`in_child`]; touch a worker that a template
//! forks. Called by: the C library's fork(), through pthread_atfork; whoever calls the application's code.
//!
//! The child has one thread. A lock that another thread of the parent held at the fork stays locked in the child, and unlocking one
//! that had waiters may wait in parking_lot's table. So [`is_child`] is asked before any lock that a thread may hold without the
//! GIL: in `way`, `exchange` (Slot), `input`, `session`. All other locks are held only with the GIL, which the forking thread has.
use crate::errors;
use crate::failure;
use crate::messages::Code;
use crate::native;
use crate::reply;
use crate::worker::Worker;
use drover_sys::Errno;
use pyo3::exceptions::PySystemExit;
use pyo3::prelude::*;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};

static CHILD: AtomicBool = AtomicBool::new(false);
/// The one worker of this process.
static WORKER: OnceLock<Arc<Worker>> = OnceLock::new();

/// In a template: its control socket and its queue; -1 elsewhere.
static TEMPLATE: [AtomicI32; 2] = [const { AtomicI32::new(-1) }; 2];
/// The fork that goes on now makes a worker.
static BIRTH: AtomicBool = AtomicBool::new(false);

/// From now on [`in_child`] runs in each forked child, before anything else does.
pub fn watch() -> Result<(), Errno> {
    native::at_fork(in_child)
}

/// Remembers what a child of a template has to give up; -1: this is no template any more.
pub fn remember_template(descriptors: [i32; 2]) {
    for (place, fd) in TEMPLATE.iter().zip(descriptors) {
        place.store(fd, Ordering::Relaxed);
    }
}

/// Whether the fork that goes on makes a worker, and no child that the application wants.
pub fn set_birth(on: bool) {
    BIRTH.store(on, Ordering::Relaxed);
}

/// Whether this process is a child of the worker.
pub fn is_child() -> bool {
    CHILD.load(Ordering::Relaxed)
}

/// Remembers what a child has to give up.
pub fn remember(worker: &Arc<Worker>) {
    // It is called once.
    let _ = WORKER.set(Arc::clone(worker));
}

/// Runs in the child. The descriptors keep their numbers, as other code thinks to own them, but lead nowhere. A child's child has
/// nothing to give up: the numbers may belong to the application by then.
extern "C" fn in_child() {
    if BIRTH.load(Ordering::Relaxed) || CHILD.swap(true, Ordering::Relaxed) {
        return;
    }
    native::default_signals();
    let Some(nowhere) = native::Nowhere::open() else { return };
    let numbers = TEMPLATE.iter().map(|place| place.load(Ordering::Relaxed)).chain([native::bell()]);
    numbers.filter(|fd| *fd >= 0).for_each(|fd| nowhere.replace(fd));
    if let Some(worker) = WORKER.get() {
        worker.descriptors().iter().for_each(|fd| nowhere.replace(fd.as_fd().as_raw_fd()));
    }
    reply::for_each_open(|fd| nowhere.replace(fd));
}

/// Gives back what the application's code came to, in the process that called it. A child that the application forked in there ends
/// here: it has no request, and no queue to take one from.
pub fn parent_only<T>(py: Python<'_>, result: PyResult<T>) -> PyResult<T> {
    if is_child() {
        end_child(py, result.as_ref().err());
    }
    result
}

/// Ends a forked child as an interpreter would end, but without flushing or calling what the parent registered for its own end.
fn end_child(py: Python<'_>, error: Option<&PyErr>) -> ! {
    let Some(error) = error else {
        let pid = rustix::process::getpid().as_raw_pid();
        let line = format!(
            "{}: a child process that the application forked (pid {pid}) returned from the application's code and was ended; only its parent responds",
            Code::ChildReturned
        );
        errors::write_plainly(format!("{line}\n").as_bytes());
        native::leave(0);
    };
    if !error.is_instance_of::<PySystemExit>(py) {
        errors::write_plainly(failure::traceback(py, error).as_bytes());
        native::leave(1);
    }
    // sys.exit: None is success, a number the status, anything else is shown.
    let code = error.value(py).getattr("code").ok().filter(|code| !code.is_none());
    let Some(code) = code else { native::leave(0) };
    if let Ok(status) = code.extract::<i32>() {
        native::leave(status);
    }
    errors::write_plainly(format!("{}\n", code.str().map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()).as_bytes());
    native::leave(1)
}
