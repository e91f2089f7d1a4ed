//! From a Python exception to what httpd and its log are told.
//!
//! Responsible for: each failure being told once, with its true cause. Called by: `serve`, `scripts`, `process`.
use crate::errors::{self, ERROR, INFO};
use crate::exchange::Exchange;
use crate::session;
use drover_wire::frame::{Failure, Kind, MAX_FAIL};
use drover_wire::text;
use pyo3::exceptions::{PyOSError, PySystemExit};
use pyo3::prelude::*;
use std::sync::atomic::Ordering;

/// A longer line is cut.
const LONGEST_LINE: usize = 1000;

/// The exception with its traceback, as the interpreter prints it.
pub fn traceback(py: Python<'_>, error: &PyErr) -> String {
    let format = || -> PyResult<String> {
        let lines = py.import("traceback")?.call_method1("format_exception", (error.get_type(py), error.value(py), error.traceback(py)))?;
        // Lone surrogates in a message are possible; they are shown as escapes.
        let text = pyo3::types::PyString::new(py, "").call_method1("join", (lines,))?;
        let bytes = text.call_method1("encode", ("utf-8", "backslashreplace"))?;
        Ok(String::from_utf8_lossy(bytes.extract::<&[u8]>()?).into_owned())
    };
    format().unwrap_or_else(|_| line(py, error))
}

/// The exception in one line.
pub fn line(py: Python<'_>, error: &PyErr) -> String {
    let name = error.get_type(py).name().map_or_else(|_| "exception".to_owned(), |n| n.to_string());
    let message = error.value(py).str().map_or_else(|_| String::new(), |s| s.to_string_lossy().into_owned());
    one_line(&if message.is_empty() { name } else { format!("{name}: {message}") })
}

/// Text as one line of bounded length.
pub fn one_line(text: &str) -> String {
    text::one_line(text, LONGEST_LINE)
}

/// What an exception that left the application means.
pub fn classify(py: Python<'_>, exchange: &Exchange, error: &PyErr, timeout: &Bound<'_, PyAny>) -> Failure {
    if error.is_instance_of::<PySystemExit>(py) {
        Failure::SystemExit
    } else if error.is_instance(py, timeout) {
        Failure::Timeout
    } else if error.is_instance_of::<PyOSError>(py) && exchange.client_gone.load(Ordering::Relaxed) {
        Failure::ClientGone
    } else if session::is_unavailable(py, exchange, error) {
        Failure::Session
    } else {
        Failure::Exception
    }
}

/// One line that says what ended a request, in the words that mod_wsgi's users look for in their logs.
pub fn summary(py: Python<'_>, exchange: &Exchange, failure: Failure, error: &PyErr) -> String {
    let path = String::from_utf8_lossy(&exchange.script.path);
    let text = match failure {
        Failure::SystemExit => format!("SystemExit exception raised by WSGI script '{path}' ignored"),
        Failure::ClientGone | Failure::Session => line(py, error),
        Failure::Timeout => format!("a request for WSGI script '{path}' was interrupted"),
        _ => {
            let name = error.get_type(py).name().map_or_else(|_| "unknown".to_owned(), |n| n.to_string());
            format!("{name} exception raised processing WSGI script '{path}': {}", line(py, error))
        }
    };
    one_line(&text)
}

/// Logs an exception of a request.
pub fn log_exception(py: Python<'_>, exchange: &Exchange, failure: Failure, error: &PyErr) {
    match failure {
        Failure::ClientGone => errors::log(py, exchange, INFO, line(py, error).as_bytes()),
        Failure::Timeout => errors::log(py, exchange, INFO, b"Request interrupted by RequestTimeout; thread recovered."),
        // httpd logs the one line that this failure is.
        Failure::Session => {}
        _ => errors::log(py, exchange, ERROR, traceback(py, error).as_bytes()),
    }
}

/// Ends a request with a failure.
pub fn fail(py: Python<'_>, exchange: &Exchange, failure: Failure, text: &str) {
    errors::finish_line(py, exchange);
    // A character has at most four bytes.
    let line = text::one_line(text, MAX_FAIL / 4);
    let line = line.as_bytes();
    let header = exchange.way.header(Kind::Fail, failure as u16, line.len());
    // Whoever does not read any more needs no reason either.
    let _ = exchange.way.send_last(py, &[&header, line], false);
}
