//! Python exceptions as text for the log and for httpd.
//!
//! Responsible for: bounded lines, and text even when formatting fails. Must never: log anything.
//! Called by: every file that reports an exception.
use drover_wire::text;
use pyo3::prelude::*;

/// A longer line is cut, bytes.
const MAX_LINE: usize = 1000;

/// The exception with its traceback, as the interpreter prints it.
pub fn format(py: Python<'_>, error: &PyErr) -> String {
    let format = || -> PyResult<String> {
        let lines = py.import("traceback")?.call_method1("format_exception", (error.get_type(py), error.value(py), error.traceback(py)))?;
        // A message may hold lone surrogates; they are shown as escapes.
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
    text::one_line(text, MAX_LINE)
}
