//! The slot of a request thread: what other threads may know of it.
//!
//! Responsible for: the running request being reachable while it runs, and not after. Must never:
//! hold its lock over a call of Python or a wait. Called by: `serve` (begins and ends), `monitor`,
//! `log`, `request::session_calls`.
use crate::process::fork;
use crate::process::native::ThreadClock;
use crate::request::running::Request;
use crate::threads::leader::Parker;
use parking_lot::Mutex;
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// The slot of one request thread.
#[derive(Debug)]
pub struct Slot {
    /// The thread's number, from 0.
    pub index: usize,
    /// CLOCK_MONOTONIC nanoseconds at which the running request began; 0 when none runs.
    pub since: AtomicU64,
    /// Python's identifier of the thread.
    pub ident: OnceLock<std::ffi::c_long>,
    /// The thread's CPU clock.
    pub clock: OnceLock<ThreadClock>,
    /// The running request.
    current: Mutex<Option<Arc<Request>>>,
    /// Where the thread sleeps while it is not needed.
    pub parker: Parker,
}

thread_local! {
    static MINE: RefCell<Option<Arc<Slot>>> = const { RefCell::new(None) };
}

impl Slot {
    /// An empty slot.
    pub fn new(index: usize) -> Self {
        Self {
            index,
            since: AtomicU64::new(0),
            ident: OnceLock::new(),
            clock: OnceLock::new(),
            current: Mutex::default(),
            parker: Parker::default(),
        }
    }

    /// Gives the slot to the calling thread.
    pub fn occupy(self: &Arc<Self>) {
        if let Some(clock) = ThreadClock::mine() {
            // A slot is occupied once.
            let _ = self.clock.set(clock);
        }
        MINE.with(|mine| *mine.borrow_mut() = Some(Arc::clone(self)));
    }

    /// The calling thread's slot, if it is a request thread.
    pub fn mine() -> Option<Arc<Self>> {
        MINE.with(|mine| mine.borrow().clone())
    }

    /// The running request; `None` in a forked child, because threads without the GIL take the lock
    /// as well.
    pub fn request(&self) -> Option<Arc<Request>> {
        if fork::is_child() {
            return None;
        }
        self.current.lock().clone()
    }

    /// A request begins.
    pub fn begin(&self, request: &Arc<Request>, now: u64) {
        *self.current.lock() = Some(Arc::clone(request));
        self.since.store(now, Ordering::SeqCst);
    }

    /// The request is over.
    pub fn end(&self) {
        self.since.store(0, Ordering::SeqCst);
        let last = self.current.lock().take();
        drop(last);
    }
}
