//! `mod_wsgi.RequestTimeout`, raised in the thread of a request that has run too long.
//!
//! Responsible for: the exception reaching that request and no other one. Must never: make the monitor wait for the GIL. Called by:
//! `monitor` (when it is time), `serve` (around the application).
//!
//! The exception is delivered when the thread next runs Python code. Both sides hold the GIL when they touch `in_application`, so a
//! request that has just come back from its application cannot be hit; what was raised and not delivered is taken back there.
use crate::cpython;
use crate::log::level::INFO;
use crate::messages::Code;
use crate::request::running::Request;
use crate::threads::slot::Slot;
use crate::threads::spawn;
use pyo3::prelude::*;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Has the exception raised in the thread of `slot`, soon, if it still runs `request` then.
pub fn raise_in(slot: Arc<Slot>, request: Arc<Request>) {
    // A system that has no more threads raises nothing; the time after which the process is replaced goes on.
    let _ = spawn::python("drover-interrupt", move || {
        Python::attach(|py| {
            let runs = slot.request().is_some_and(|now| Arc::ptr_eq(&now, &request));
            if !runs || !request.in_application.load(Ordering::Acquire) {
                return;
            }
            let Some(thread) = slot.ident.get() else { return };
            // Without the class there is nothing to raise.
            if let Ok(class) = py.import("mod_wsgi").and_then(|m| m.getattr("RequestTimeout")) {
                request.interrupted.store(true, Ordering::Release);
                cpython::raise_in_thread(*thread, Some(&class));
                let line = format!(
                    "{}: Injected RequestTimeout into thread {}, as its request runs longer than request-timeout.",
                    Code::Interrupted,
                    slot.index + 1
                );
                request.write_log(py, INFO, line.as_bytes());
            }
        });
    });
}

/// The application runs from here on, until the value is dropped; the GIL is held at both times.
pub struct InApplication<'a> {
    request: &'a Request,
    slot: &'a Slot,
}

impl<'a> InApplication<'a> {
    /// It begins.
    pub fn begin(request: &'a Request, slot: &'a Slot, _: Python<'_>) -> Self {
        request.in_application.store(true, Ordering::Release);
        Self { request, slot }
    }

    /// It has ended.
    pub fn end(self, _: Python<'_>) {
        self.request.in_application.store(false, Ordering::Release);
        if self.request.interrupted.load(Ordering::Acquire)
            && let Some(thread) = self.slot.ident.get()
        {
            cpython::raise_in_thread(*thread, None);
        }
    }
}
