//! Raises `mod_wsgi.RequestTimeout` in the thread of a request that exceeds its time limit.
//!
//! Responsible for: the exception reaching that request and no other. Must never: make the monitor
//! wait for the GIL. Called by: `monitor` (at the time limit), `serve` (around the application).
//!
//! The exception is delivered when the thread next runs Python code. Both sides hold the GIL when
//! they touch `in_application`, so it cannot hit a request that has just returned from its
//! application. An exception that was raised and not delivered is withdrawn there.
use crate::cpython;
use crate::log::level::INFO;
use crate::messages::Code;
use crate::request::running::Request;
use crate::threads::slot::Slot;
use crate::threads::spawn;
use pyo3::prelude::*;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Raises the exception in the thread of `slot`, soon, if it still runs `request` then.
pub fn raise_in(slot: Arc<Slot>, request: Arc<Request>) {
    // If the system has no thread left nothing is raised; the process is still replaced later.
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
                    "{}: raised RequestTimeout in thread {}: its request exceeded request-timeout",
                    Code::Interrupted,
                    slot.index + 1
                );
                request.write_log(py, INFO, line.as_bytes());
            }
        });
    });
}

/// The application runs from [`begin`](Self::begin) to [`end`](Self::end), which both need the GIL.
pub struct InApplication<'a> {
    request: &'a Request,
    slot: &'a Slot,
}

impl<'a> InApplication<'a> {
    /// The application is about to be called.
    pub fn begin(request: &'a Request, slot: &'a Slot, _: Python<'_>) -> Self {
        request.in_application.store(true, Ordering::Release);
        Self { request, slot }
    }

    /// The application has returned.
    pub fn end(self, _: Python<'_>) {
        self.request.in_application.store(false, Ordering::Release);
        if self.request.interrupted.load(Ordering::Acquire)
            && let Some(thread) = self.slot.ident.get()
        {
            cpython::raise_in_thread(*thread, None);
        }
    }
}
