//! What a child that the application forks must not do: speak for its parent.
//!
//! Responsible for: the child giving up queue, control socket and every way back, and dying of signals as any program. Must never: do
//! so in a worker that a template forks. Called by: os.fork and `birth`, through os.register_at_fork.
use crate::native;
use crate::worker::Worker;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};

static CHILD: AtomicBool = AtomicBool::new(false);
/// The one worker of this process.
static WORKER: OnceLock<Arc<Worker>> = OnceLock::new();

/// In a template: its control socket and its queue; -1 elsewhere.
static TEMPLATE: [AtomicI32; 2] = [const { AtomicI32::new(-1) }; 2];
/// The fork that goes on now makes a worker.
static BIRTH: AtomicBool = AtomicBool::new(false);

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

/// Runs in the child. The descriptors keep their numbers, as other code thinks to own them, but lead nowhere.
pub fn in_child() {
    if BIRTH.load(Ordering::Relaxed) {
        return;
    }
    for place in &TEMPLATE {
        let fd = place.load(Ordering::Relaxed);
        if fd >= 0 {
            native::neutralise(fd);
        }
    }
    CHILD.store(true, Ordering::Relaxed);
    native::default_signals();
    let Some(worker) = WORKER.get() else { return };
    for fd in worker.descriptors() {
        native::neutralise(fd.as_raw_fd());
    }
    for slot in &worker.slots {
        // A lock that another thread held at the fork stays locked: that request's socket stays open here, unused.
        let exchange = slot.current.try_lock().and_then(|current| current.clone());
        if let Some(fd) = exchange.and_then(|exchange| exchange.way.abandon()) {
            let fd: &OwnedFd = &fd;
            native::neutralise(fd.as_raw_fd());
        }
    }
}
