//! Checks what the application passes to start_response.
//!
//! Responsible for: PEP 3333's and RFC 9110's rules for the status line and the header fields, with
//! the exception types and texts of mod_wsgi. Must never: accept CR, LF, NUL or a hop-by-hop
//! header. Called by: `start_response`.
use crate::cpython;
use crate::request::response::ResponseHeaders;
use drover_wire::head::{self, MAX_FIELDS, MAX_HEAD};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};

/// A ValueError that shows the offending bytes.
fn refuse(py: Python<'_>, what: &str, bytes: &[u8]) -> PyErr {
    match PyBytes::new(py, bytes).repr() {
        Ok(shown) => PyValueError::new_err(format!("{what}: {shown}")),
        Err(e) => e,
    }
}

fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "object".to_owned(), |n| n.to_string())
}

fn text<'a, 'py>(value: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyString>> {
    value.cast::<PyString>().map_err(|_| PyTypeError::new_err(format!("must be str, not {}", type_name(value))))
}

/// Checks a status line and header fields.
pub fn check<'py>(status: &Bound<'py, PyAny>, headers: &Bound<'py, PyAny>) -> PyResult<ResponseHeaders> {
    let py = status.py();
    let Ok(headers) = headers.cast::<PyList>() else {
        return Err(PyTypeError::new_err(format!("start_response() argument 2 must be list, not {}", type_name(headers))));
    };
    let mut checked = ResponseHeaders::default();
    let mut line = Vec::with_capacity(32);
    cpython::append_latin1(text(status)?, &mut line)?;
    (checked.status, checked.reason) = check_status(py, &line)?;
    checked.fields.reserve(256);
    let mut scratch = line;
    for header in headers.iter() {
        let Ok(pair) = header.cast::<PyTuple>() else {
            return Err(PyTypeError::new_err(format!("each header must be a 2-tuple, not {}", type_name(&header))));
        };
        if pair.len() != 2 {
            return Err(PyValueError::new_err(format!("each header must be a 2-tuple, got length {}", pair.len())));
        }
        scratch.clear();
        cpython::append_latin1(text(&pair.get_borrowed_item(0)?.to_owned())?, &mut scratch)?;
        let cut = scratch.len();
        let (name, _) = scratch.split_at_checked(cut).unwrap_or_default();
        check_name(py, name)?;
        cpython::append_latin1(text(&pair.get_borrowed_item(1)?.to_owned())?, &mut scratch)?;
        let (name, value) = scratch.split_at_checked(cut).unwrap_or_default();
        check_value(py, value)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = content_length(py, value)?;
            if checked.length.is_some_and(|before| before != length) {
                return Err(PyValueError::new_err("two different Content-Length headers"));
            }
            if checked.length.replace(length).is_some() {
                continue; // an identical repetition
            }
        }
        checked.count =
            checked.count.checked_add(1).filter(|count| *count < MAX_FIELDS).ok_or_else(|| PyValueError::new_err("too many headers"))?;
        head::field(&mut checked.fields, name, value).map_err(|e| PyValueError::new_err(e.to_string()))?;
    }
    if checked.fields.len() + checked.reason.len() > MAX_HEAD - 1024 {
        return Err(PyValueError::new_err(format!("headers are larger than {MAX_HEAD} bytes together")));
    }
    Ok(checked)
}

fn check_status(py: Python<'_>, line: &[u8]) -> PyResult<(u16, Vec<u8>)> {
    let digits = line.iter().take_while(|b| b.is_ascii_digit()).count();
    let code = line.get(..digits).and_then(|d| std::str::from_utf8(d).ok()).and_then(|d| d.parse::<u16>().ok());
    let code = code.filter(|code| digits == 3 && *code >= 100);
    let Some(code) = code else { return Err(refuse(py, "status code must be a 3 digit integer", line)) };
    let reason = match line.get(3..).unwrap_or_default() {
        [] => &[][..],
        [b' ', reason @ ..] => reason,
        _ => return Err(refuse(py, "no space following status code", line)),
    };
    if !head::is_field_value(reason) || reason.contains(&b'\t') || reason.len() > 8192 {
        return Err(refuse(py, "control character in status reason phrase", line));
    }
    Ok((code, reason.to_vec()))
}

fn check_name(py: Python<'_>, name: &[u8]) -> PyResult<()> {
    if name.is_empty() {
        return Err(PyValueError::new_err("header name is empty"));
    }
    if !head::is_field_name(name) {
        let what = match name.iter().find(|b| b.is_ascii_control() || **b == b' ') {
            Some(b' ') => "space character in header name",
            Some(_) => "control character in header name",
            None => "invalid character in header name",
        };
        return Err(refuse(py, what, name));
    }
    if head::is_hop_by_hop(name) {
        return Err(refuse(py, "hop-by-hop header is reserved for the server", name));
    }
    Ok(())
}

fn check_value(py: Python<'_>, value: &[u8]) -> PyResult<()> {
    if head::is_field_value(value) {
        return Ok(());
    }
    let line_end = value.iter().any(|b| matches!(b, b'\r' | b'\n'));
    let what = if line_end { "carriage return/line feed character in header value" } else { "control character in header value" };
    Err(refuse(py, what, value))
}

fn content_length(py: Python<'_>, value: &[u8]) -> PyResult<u64> {
    let digits = value.trim_ascii();
    std::str::from_utf8(digits)
        .ok()
        .filter(|d| d.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|d| d.parse().ok())
        .filter(|&n: &u64| i64::try_from(n).is_ok())
        .ok_or_else(|| refuse(py, "invalid Content-Length header value", value))
}
