//! `mod_wsgi.RequestTimeout`, raised in the thread of a request that has run too long.
//!
//! Responsible for: the exception reaching that request and no other one. Must never: make the monitor wait for the GIL. Called by:
//! `monitor` (when it is time), `serve` (around the application).
//!
//! The exception is delivered when the thread next runs Python code. Both sides hold the GIL when they touch `in_application`, so a
//! request that has just come back from its application cannot be hit; what was raised and not delivered is taken back there.
use crate::errors::{self, INFO};
use crate::exchange::{Exchange, Slot};
use crate::fast;
use crate::messages::Code;
use crate::threads;
use pyo3::prelude::*;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Has the exception raised in the thread of `slot`, soon, if it still runs `exchange` then.
pub fn raise_in(slot: Arc<Slot>, exchange: Arc<Exchange>) {
    // A system that has no more threads raises nothing; the time after which the process is replaced goes on.
    let _ = threads::start_python("drover-interrupt", move || {
        Python::attach(|py| {
            let runs = slot.exchange().is_some_and(|now| Arc::ptr_eq(&now, &exchange));
            if !runs || !exchange.in_application.load(Ordering::Acquire) {
                return;
            }
            let Some(thread) = slot.ident.get() else { return };
            // Without the class there is nothing to raise.
            if let Ok(class) = py.import("mod_wsgi").and_then(|m| m.getattr("RequestTimeout")) {
                exchange.interrupted.store(true, Ordering::Release);
                fast::raise_in_thread(*thread, Some(&class));
                let line = format!(
                    "{}: Injected RequestTimeout into thread {}, as its request runs longer than request-timeout.",
                    Code::Interrupted,
                    slot.index + 1
                );
                errors::log(py, &exchange, INFO, line.as_bytes());
            }
        });
    });
}

/// The application runs from here on, until the value is dropped; the GIL is held at both times.
pub struct Running<'a> {
    exchange: &'a Exchange,
    slot: &'a Slot,
}

impl<'a> Running<'a> {
    /// It begins.
    pub fn begin(exchange: &'a Exchange, slot: &'a Slot, _: Python<'_>) -> Self {
        exchange.in_application.store(true, Ordering::Release);
        Self { exchange, slot }
    }

    /// It has ended.
    pub fn end(self, _: Python<'_>) {
        self.exchange.in_application.store(false, Ordering::Release);
        if self.exchange.interrupted.load(Ordering::Acquire)
            && let Some(thread) = self.slot.ident.get()
        {
            fast::raise_in_thread(*thread, None);
        }
    }
}
