//! One request while it runs, and the place of the thread that runs it.
//!
//! Responsible for: what several threads may want to know of a running request: the one that serves it, those the application
//! gave its objects to, the monitor. Must never: be reachable after its end (a slot forgets it). Called by: nearly everybody.
use crate::body::Body;
use crate::fork;
use crate::leader::Parker;
use crate::native::ThreadClock;
use crate::response::Response;
use crate::scripts::Script;
use crate::session::Sessions;
use crate::way::Way;
use drover_wire::request::Prefix;
use parking_lot::Mutex;
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// One request while it runs.
#[derive(Debug)]
pub struct Exchange {
    /// What httpd said about it.
    pub prefix: Prefix,
    /// Where its answer goes.
    pub way: Way,
    /// The answer as the application has made it so far.
    pub response: Mutex<Response>,
    /// Its body, if it has one.
    pub body: Option<Arc<Mutex<Body>>>,
    /// What it has asked of its session.
    pub sessions: Sessions,
    /// The script that answers it.
    pub script: Arc<Script>,
    /// The beginning of a line for the log that has no end yet.
    pub partial: Mutex<Vec<u8>>,
    /// HEAD, as the application sees it.
    pub is_head: AtomicBool,
    /// What was asked for, for the log; filled only when a request may become too old.
    pub what: OnceLock<Box<[u8]>>,
    /// The client's going away has been noticed.
    pub client_gone: AtomicBool,
    /// The application's code runs ([`crate::interrupt`]).
    pub in_application: AtomicBool,
    /// RequestTimeout was raised in its thread.
    pub interrupted: AtomicBool,
    /// The monitor has told httpd that the request runs.
    pub told_taken: AtomicBool,
    /// The monitor has had RequestTimeout raised.
    pub told_interrupt: AtomicBool,
    /// The monitor has told droverd that the request runs too long.
    pub told_stuck: AtomicBool,
}

/// The place of a request thread.
#[derive(Debug)]
pub struct Slot {
    /// Number of the thread, from 0.
    pub index: usize,
    /// Nanoseconds of CLOCK_MONOTONIC at which the running request was begun; 0: none runs.
    pub since: AtomicU64,
    /// What Python calls the thread.
    pub ident: OnceLock<std::ffi::c_long>,
    /// The thread's CPU clock.
    pub clock: OnceLock<ThreadClock>,
    /// The running request.
    current: Mutex<Option<Arc<Exchange>>>,
    /// Where the thread sleeps when it is not needed.
    pub parker: Parker,
}

thread_local! {
    static MINE: RefCell<Option<Arc<Slot>>> = const { RefCell::new(None) };
}

impl Slot {
    /// An empty place.
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

    /// The calling thread is this place's from now on.
    pub fn occupy(self: &Arc<Self>) {
        if let Some(clock) = ThreadClock::mine() {
            // A place is occupied once.
            let _ = self.clock.set(clock);
        }
        MINE.with(|mine| *mine.borrow_mut() = Some(Arc::clone(self)));
    }

    /// The place of the calling thread, if it is a request thread.
    pub fn mine() -> Option<Arc<Self>> {
        MINE.with(|mine| mine.borrow().clone())
    }

    /// The running request; none in a forked child. The lock is held for an instant only, never over a call of Python or a wait, but
    /// also by threads without the GIL.
    pub fn exchange(&self) -> Option<Arc<Exchange>> {
        if fork::is_child() {
            return None;
        }
        self.current.lock().clone()
    }

    /// A request begins.
    pub fn begin(&self, exchange: &Arc<Exchange>, now: u64) {
        *self.current.lock() = Some(Arc::clone(exchange));
        self.since.store(now, Ordering::SeqCst);
    }

    /// The request is over.
    pub fn end(&self) {
        self.since.store(0, Ordering::SeqCst);
        let last = self.current.lock().take();
        drop(last);
    }
}
