//! The callables that the application gets: start_response and write.
//!
//! Responsible for: PEP 3333's rules for the order of calls; both having no effect once the request
//! is over. Must never: keep a request alive that is over. Called by: the application.
use crate::cpython;
use crate::process::fork;
use crate::request::headers;
use crate::request::response::SendError;
use crate::request::running::Request;
use crate::request::session_calls;
use parking_lot::Mutex;
use pyo3::exceptions::{PyConnectionResetError, PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// start_response of one request.
#[pyclass(frozen, module = "mod_wsgi", name = "Adapter")]
pub struct StartResponse {
    request: Mutex<Option<Arc<Request>>>,
}

/// The application's exception for a block that cannot be sent.
pub fn exception(error: SendError) -> PyErr {
    match error {
        SendError::NotStarted => PyRuntimeError::new_err("start_response() must be called before response content is produced"),
        SendError::Disconnected => PyConnectionResetError::new_err("client connection closed"),
    }
}

impl StartResponse {
    /// For one request.
    pub const fn new(request: Arc<Request>) -> Self {
        Self { request: Mutex::new(Some(request)) }
    }

    /// The request is over.
    pub fn close(&self, py: Python<'_>) {
        let request = cpython::lock(py, &self.request).take();
        drop(request);
    }

    fn request(&self, py: Python<'_>, who: &str) -> PyResult<Arc<Request>> {
        let request = cpython::lock(py, &self.request).clone();
        request.ok_or_else(|| PyRuntimeError::new_err(format!("{who}() called after request completed")))
    }
}

#[pymethods]
impl StartResponse {
    #[pyo3(signature = (status, headers, exc_info=None, /))]
    fn __call__<'py>(
        slf: &Bound<'py, Self>,
        status: &Bound<'py, PyAny>,
        headers: &Bound<'py, PyAny>,
        exc_info: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let request = slf.get().request(py, "start_response")?;
        let committed = request.response.are_headers_sent(py);
        if let Some(exc_info) = exc_info {
            let Ok(exc_info) = exc_info.cast::<PyTuple>() else {
                return Err(PyRuntimeError::new_err("start_response() argument 'exc_info' must be a 3-tuple or None"));
            };
            if committed {
                return Err(raised(exc_info)?);
            }
        } else if committed {
            return Err(PyRuntimeError::new_err("start_response() called more than once without exc_info"));
        }
        // A second call before anything was sent replaces the first, as in mod_wsgi, also without
        // exc_info.
        request.response.start(py, headers::check(status, headers)?);
        slf.getattr(pyo3::intern!(py, "write"))
    }

    #[pyo3(signature = (data, /))]
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        if fork::is_child() {
            return Err(PyRuntimeError::new_err(
                "write() called in a forked child process: only the process that took the request responds",
            ));
        }
        let request = self.request(py, "write")?;
        let Ok(data) = data.cast::<PyBytes>() else {
            let name = data.get_type().name()?;
            return Err(PyTypeError::new_err(format!("write() argument must be bytes, not {name}")));
        };
        session_calls::before_headers(py, &request, false)?;
        match request.send_block(py, data.as_bytes(), false) {
            Ok(_) => Ok(()),
            Err(error) => {
                request.client_gone.fetch_or(error == SendError::Disconnected, Ordering::Relaxed);
                Err(exception(error))
            }
        }
    }
}

/// The exception of an exc_info tuple.
fn raised(exc_info: &Bound<'_, PyTuple>) -> PyResult<PyErr> {
    if exc_info.len() != 3 {
        return Err(PyRuntimeError::new_err("start_response() argument 'exc_info' must be a 3-tuple or None"));
    }
    let (value, traceback) = (exc_info.get_item(1)?, exc_info.get_item(2)?);
    if !traceback.is_none() && value.hasattr("with_traceback")? {
        return Ok(PyErr::from_value(value.call_method1("with_traceback", (traceback,))?));
    }
    Ok(PyErr::from_value(value))
}
