//! One call of the application: the call, its blocks, its close().
//!
//! Responsible for: calling close() exactly once, after the last block, whatever happens; reporting
//! how the call went. Must never: hold a lock while Python code runs. Called by: `threads::serve`.
use crate::cpython;
use crate::process::child_exit;
use crate::request::response::{End, SendError};
use crate::request::running::Request;
use crate::request::session_calls;
use crate::request::start_response;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

/// How a call of the application ended.
#[derive(Debug)]
pub enum Outcome {
    /// END was sent.
    Responded,
    /// httpd does not read any more.
    Disconnected,
    /// The application raised.
    Raised(PyErr),
    /// The application broke PEP 3333; the exception says how.
    Broke(PyErr),
    /// Fewer bytes than Content-Length says.
    Short(String),
}

impl From<SendError> for Outcome {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Disconnected => Self::Disconnected,
            SendError::NotStarted => Self::Broke(start_response::exception(error)),
        }
    }
}

/// Calls the application and sends what it returns. `log` receives an exception in close(), which
/// does not affect the response.
pub fn run<'py>(
    request: &Request,
    application: &Bound<'py, PyAny>,
    environ: &Bound<'py, PyDict>,
    start_response: &Bound<'py, PyAny>,
    log: impl FnOnce(&PyErr),
) -> Outcome {
    let py = application.py();
    let result = match child_exit::parent_only(py, cpython::call(application, environ, start_response)) {
        Ok(result) => result,
        Err(e) => return Outcome::Raised(e),
    };
    // Exactly a list or a tuple: no code of the application runs between its blocks, and there is
    // no close().
    if let Ok(list) = result.cast_exact::<PyList>() {
        return listed(py, request, list.len(), |at| list.get_item(at)).unwrap_or_else(|outcome| outcome);
    }
    if let Ok(tuple) = result.cast_exact::<PyTuple>() {
        return listed(py, request, tuple.len(), |at| tuple.get_item(at)).unwrap_or_else(|outcome| outcome);
    }
    let sent = iterate(request, &result);
    if let Err(e) = child_exit::parent_only(py, close(&result)) {
        log(&e);
    }
    match sent {
        Ok(()) => end(py, request),
        Err(outcome) => outcome,
    }
}

fn bytes<'a, 'py>(block: &'a Bound<'py, PyAny>) -> Result<&'a Bound<'py, PyBytes>, Outcome> {
    block.cast::<PyBytes>().map_err(|_| {
        let name = block.get_type().name().map_or_else(|_| "object".to_owned(), |n| n.to_string());
        Outcome::Broke(PyTypeError::new_err(format!("response iterable must yield bytes, not {name}")))
    })
}

fn listed<'py>(
    py: Python<'py>,
    request: &Request,
    len: usize,
    item: impl Fn(usize) -> PyResult<Bound<'py, PyAny>>,
) -> Result<Outcome, Outcome> {
    session_calls::before_headers(py, request, true).map_err(Outcome::Raised)?;
    for at in 0..len {
        let block = item(at).map_err(Outcome::Raised)?;
        let block = bytes(&block)?.as_bytes();
        if len == 1 && request.send_only_block(py, block)? {
            return Ok(Outcome::Responded);
        }
        if !block.is_empty() && !request.send_block(py, block, len == 1)? {
            break;
        }
    }
    Ok(end(py, request))
}

fn iterate(request: &Request, result: &Bound<'_, PyAny>) -> Result<(), Outcome> {
    let py = result.py();
    let blocks = child_exit::parent_only(py, result.try_iter()).map_err(Outcome::Raised)?;
    for block in blocks {
        let block = child_exit::parent_only(py, block).map_err(Outcome::Raised)?;
        let block = bytes(&block)?.as_bytes();
        if block.is_empty() {
            continue;
        }
        session_calls::before_headers(py, request, false).map_err(Outcome::Raised)?;
        if !request.send_block(py, block, false)? {
            break;
        }
    }
    child_exit::parent_only(py, Ok(())).map_err(Outcome::Raised)
}

fn close(result: &Bound<'_, PyAny>) -> PyResult<()> {
    match result.getattr_opt(pyo3::intern!(result.py(), "close"))? {
        Some(close) => close.call0().map(drop),
        None => Ok(()),
    }
}

fn end(py: Python<'_>, request: &Request) -> Outcome {
    if let Err(e) = session_calls::before_end(py, request) {
        return Outcome::Raised(e);
    }
    match request.end(py) {
        Ok(End::Complete) => Outcome::Responded,
        Ok(End::Short { promised, sent }) => {
            Outcome::Short(format!("Content-Length promised {promised} bytes, the application produced {sent}"))
        }
        Err(error) => error.into(),
    }
}
