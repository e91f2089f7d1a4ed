//! Turns a Python exception into a failure that httpd and its log receive.
//!
//! Responsible for: reporting each failure once, with its true cause. Must never: send a failure
//! after the end of a response. Called by: `threads::serve`.
use crate::log::level::{ERROR, INFO};
use crate::log::traceback;
use crate::request::running::Request;
use crate::request::session_calls;
use drover_wire::frame::{Failure, Kind, MAX_FAIL};
use drover_wire::text;
use pyo3::exceptions::{PyOSError, PySystemExit};
use pyo3::prelude::*;
use std::sync::atomic::Ordering;

/// Classifies an exception that left the application.
pub fn classify(py: Python<'_>, request: &Request, error: &PyErr, timeout: &Bound<'_, PyAny>) -> Failure {
    if error.is_instance_of::<PySystemExit>(py) {
        Failure::SystemExit
    } else if error.is_instance(py, timeout) {
        Failure::Timeout
    } else if error.is_instance_of::<PyOSError>(py) && request.client_gone.load(Ordering::Relaxed) {
        Failure::ClientGone
    } else if session_calls::is_unavailable(py, request, error) {
        Failure::Session
    } else {
        Failure::Exception
    }
}

/// One line that says what ended a request, in mod_wsgi's words: its users search their logs for
/// them.
pub fn summary(py: Python<'_>, request: &Request, failure: Failure, error: &PyErr) -> String {
    let path = String::from_utf8_lossy(&request.script.path);
    let text = match failure {
        Failure::SystemExit => format!("SystemExit exception raised by WSGI script '{path}' ignored"),
        Failure::ClientGone | Failure::Session => traceback::line(py, error),
        Failure::Timeout => format!("a request for WSGI script '{path}' was interrupted"),
        _ => {
            let name = error.get_type(py).name().map_or_else(|_| "unknown".to_owned(), |n| n.to_string());
            format!("{name} exception raised processing WSGI script '{path}': {}", traceback::line(py, error))
        }
    };
    traceback::one_line(&text)
}

/// Logs an exception of a request.
pub fn log_exception(py: Python<'_>, request: &Request, failure: Failure, error: &PyErr) {
    match failure {
        Failure::ClientGone => request.write_log(py, INFO, traceback::line(py, error).as_bytes()),
        Failure::Timeout => request.write_log(py, INFO, b"Request interrupted by RequestTimeout; thread recovered."),
        // httpd logs this failure itself, in one line.
        Failure::Session => {}
        _ => request.write_log(py, ERROR, traceback::format(py, error).as_bytes()),
    }
}

/// Ends a request with a failure.
pub fn fail(py: Python<'_>, request: &Request, failure: Failure, text: &str) {
    request.log.finish_line(py, &request.reply);
    // A character has at most four bytes.
    let line = text::one_line(text, MAX_FAIL / 4);
    let line = line.as_bytes();
    let header = request.reply.header(Kind::Fail, failure as u16, line.len());
    // If httpd does not read any more it needs no reason either.
    let _ = request.reply.send_last(py, &[&header, line], false);
}
