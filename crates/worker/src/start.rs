//! The callables that the application gets: start_response and write.
//!
//! Responsible for: PEP 3333's rules of the order of calls, and both being inert once the request is over. Called by: the
//! application.
use crate::exchange::Exchange;
use crate::fork;
use crate::gil;
use crate::headers;
use crate::response::Trouble;
use crate::session;
use parking_lot::Mutex;
use pyo3::exceptions::{PyConnectionResetError, PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// start_response of one request.
#[pyclass(frozen, module = "mod_wsgi", name = "Adapter")]
pub struct StartResponse {
    exchange: Mutex<Option<Arc<Exchange>>>,
}

/// What a block that cannot be sent means to the application.
pub fn exception(trouble: Trouble) -> PyErr {
    match trouble {
        Trouble::NotStarted => PyRuntimeError::new_err("start_response() must be called before response content is produced"),
        Trouble::Gone => PyConnectionResetError::new_err("client connection closed"),
    }
}

impl StartResponse {
    /// For one request.
    pub const fn new(exchange: Arc<Exchange>) -> Self {
        Self { exchange: Mutex::new(Some(exchange)) }
    }

    /// The request is over.
    pub fn close(&self, py: Python<'_>) {
        let exchange = gil::lock(py, &self.exchange).take();
        drop(exchange);
    }

    fn exchange(&self, py: Python<'_>, who: &str) -> PyResult<Arc<Exchange>> {
        let exchange = gil::lock(py, &self.exchange).clone();
        exchange.ok_or_else(|| PyRuntimeError::new_err(format!("{who}() called after request completed")))
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
        let exchange = slf.get().exchange(py, "start_response")?;
        let committed = gil::lock(py, &exchange.response).is_head_sent();
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
        // Called again before anything was sent: the later call counts, as in mod_wsgi, also without exc_info.
        let head = headers::check(status, headers)?;
        gil::lock(py, &exchange.response).start(head);
        slf.getattr(pyo3::intern!(py, "write"))
    }

    #[pyo3(signature = (data, /))]
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        if fork::is_child() {
            return Err(PyRuntimeError::new_err(
                "write() called in a forked child process: only the process that took the request responds",
            ));
        }
        let exchange = self.exchange(py, "write")?;
        let Ok(data) = data.cast::<PyBytes>() else {
            let name = data.get_type().name()?;
            return Err(PyTypeError::new_err(format!("write() argument must be bytes, not {name}")));
        };
        session::before_head(py, &exchange, false)?;
        match exchange.block(py, data.as_bytes(), false) {
            Ok(_) => Ok(()),
            Err(trouble) => {
                exchange.client_gone.fetch_or(trouble == Trouble::Gone, Ordering::Relaxed);
                Err(exception(trouble))
            }
        }
    }
}

/// The exception of an exc_info tuple, to be raised again.
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
