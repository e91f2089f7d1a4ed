//! What a child that the application forks must not do: act for its parent, or wait for its
//! parent's threads.
//!
//! Responsible for: the child losing the queue, the control socket and every reply socket, and
//! signals having their default action there. Must never: wait, allocate or take a lock in
//! [`in_child`]; touch a worker that a fork server forks. Called by: the C library's fork(),
//! through pthread_atfork; `worker` and `request::reply_fd`, which own the descriptors.
//!
//! The child has one thread. A lock that another thread of the parent held at the fork stays locked
//! in the child, and unlocking a lock with waiters may wait in parking_lot's table. So
//! [`is_child`] is asked before any lock that a thread may hold without the GIL: in
//! `reply_socket`, `slot`, `input`, `session_calls`. All other locks are held only with the GIL,
//! which the forking thread has.
use crate::process::native;
use drover_sys::Errno;
use parking_lot::Mutex;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

static CHILD: AtomicBool = AtomicBool::new(false);
/// The fork in progress makes a worker.
static FORKING_WORKER: AtomicBool = AtomicBool::new(false);

/// The most descriptors that [`hold`] takes.
pub const MAX_HELD: usize = 7;
/// The descriptors that a child loses, besides the reply sockets; -1 is none.
static HELD: [AtomicI32; MAX_HELD] = [const { AtomicI32::new(-1) }; MAX_HELD];
/// The open reply sockets. The list changes only in threads that hold the GIL, as the thread that
/// forks does. So no other thread holds this lock at a fork.
static REPLY_SOCKETS: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

/// From now on [`in_child`] runs in each forked child, before anything else does.
pub fn watch() -> Result<(), Errno> {
    native::at_fork(in_child)
}

/// Replaces the list of descriptors that a forked child loses. They must stay open until the list
/// is replaced or the process ends.
pub fn hold<const N: usize>(descriptors: [RawFd; N]) {
    const { assert!(N <= MAX_HELD) };
    for (place, fd) in HELD.iter().zip(descriptors.into_iter().chain(std::iter::repeat(-1))) {
        place.store(fd, Ordering::Relaxed);
    }
}

/// Adds a reply socket. The GIL must be held.
pub fn add_reply_socket(fd: RawFd) {
    REPLY_SOCKETS.lock().push(fd);
}

/// Removes a reply socket, before its number is free for another file. The GIL must be held.
pub fn remove_reply_socket(fd: RawFd) {
    let mut open = REPLY_SOCKETS.lock();
    if let Some(at) = open.iter().position(|known| *known == fd) {
        open.swap_remove(at);
    }
}

/// Says whether the fork in progress makes a worker, not a child that the application wants.
pub fn set_forking_worker(on: bool) {
    FORKING_WORKER.store(on, Ordering::Relaxed);
}

/// Whether this process is a forked child of the worker.
pub fn is_child() -> bool {
    CHILD.load(Ordering::Relaxed)
}

/// Runs in the child. The descriptors keep their numbers, as other code may still use them, but
/// lead nowhere. A child's child loses nothing: its numbers may belong to the application.
extern "C" fn in_child() {
    if FORKING_WORKER.load(Ordering::Relaxed) || CHILD.swap(true, Ordering::Relaxed) {
        return;
    }
    native::default_signals();
    let Some(nowhere) = native::Nowhere::open() else { return };
    let held = HELD.iter().map(|place| place.load(Ordering::Relaxed)).chain([native::bell()]);
    held.filter(|fd| *fd >= 0).for_each(|fd| nowhere.replace(fd));
    if let Some(open) = REPLY_SOCKETS.try_lock() {
        open.iter().for_each(|fd| nowhere.replace(*fd));
        // Unlocking could wake a thread that is not in this process.
        std::mem::forget(open);
    }
}
