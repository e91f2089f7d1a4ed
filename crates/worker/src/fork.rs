//! What a child that the application forks must not do: speak for its parent.
//!
//! Responsible for: the child giving up queue, control socket and every way back, and dying of signals as any program. Must never: do
//! so in a worker that a template forks. Called by: os.fork and `birth`, through os.register_at_fork.
//!
//! What a child takes away is locked before the fork: a lock that another thread held at that moment would stay locked in the child.
use crate::exchange::Exchange;
use crate::native;
use crate::way::Out;
use crate::worker::Worker;
use parking_lot::{ArcMutexGuard, RawMutex};
use std::cell::RefCell;
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

/// A request thread's place, and what its request sends on, unless another thread is sending and waits for httpd just then: that socket
/// stays open in the child, unused.
type Held = (ArcMutexGuard<RawMutex, Option<Arc<Exchange>>>, Option<ArcMutexGuard<RawMutex, Out>>);

thread_local! {
    /// What the forking thread holds, in the parent and in the child.
    static HELD: RefCell<Vec<Held>> = const { RefCell::new(Vec::new()) };
}

/// Runs before a fork.
pub fn before() {
    let Some(worker) = WORKER.get().filter(|_| !is_child()) else { return };
    let hold = |slot: &Arc<crate::exchange::Slot>| {
        let current = slot.current.lock_arc();
        let way = current.as_ref().and_then(|exchange| exchange.way.hold());
        (current, way)
    };
    HELD.with(|held| held.borrow_mut().extend(worker.slots.iter().map(hold)));
}

/// Runs in the parent, after a fork or when it has failed.
pub fn in_parent() {
    drop(HELD.take());
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

/// Runs in the child. The descriptors keep their numbers, as other code thinks to own them, but lead nowhere.
pub fn in_child() {
    if BIRTH.load(Ordering::Relaxed) {
        return in_parent();
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
    for (_, way) in &mut HELD.take() {
        if let Some(fd) = way.as_mut().and_then(|out| out.abandon()) {
            let fd: &OwnedFd = &fd;
            native::neutralise(fd.as_raw_fd());
        }
    }
}
