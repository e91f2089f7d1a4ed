//! What the application writes: `wsgi.errors` and `sys.stderr` go to the error log of the request
//! that wrote them, `sys.stdout` to the group's log.
//!
//! Responsible for: choosing the log. Must never: write to the reply socket of a request that is
//! over; keep bytes in a buffer with a lock, as io.BufferedWriter does: a forked child would wait
//! for ever for a thread that held the lock. Called by: io.TextIOWrapper, which the application
//! sees.
use crate::log::stderr;
use crate::request::running::Request;
use crate::threads::slot::Slot;
use pyo3::exceptions::{PyOSError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyString, PyTuple};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where a stream's bytes go.
pub enum Target {
    /// `wsgi.errors`: to the log of the request in this slot.
    Requests(Arc<Slot>),
    /// `sys.stderr`: to the log of the writing thread's request.
    Thread,
    /// `sys.stdout`: to descriptor 1.
    Output,
    /// `sys.stdout` with WSGIRestrictStdout: writing raises.
    Refused,
}

/// The binary stream below the text stream.
#[pyclass(frozen, module = "mod_wsgi", name = "Log")]
pub struct Log {
    target: Target,
    name: &'static str,
    touched: AtomicBool,
}

/// What using a restricted stream raises, in mod_wsgi's words.
pub fn restricted(name: &str) -> PyErr {
    PyOSError::new_err(format!("sys.{} access restricted by mod_wsgi", name.trim_matches(['<', '>'])))
}

/// What the streams of `io` raise for a call they do not support.
pub fn unsupported(py: Python<'_>, call: &str) -> PyResult<()> {
    Err(PyErr::from_value(py.import("io")?.getattr("UnsupportedOperation")?.call1((call,))?))
}

impl Log {
    /// A stream with this `name` attribute.
    pub const fn new(target: Target, name: &'static str) -> Self {
        Self { target, name, touched: AtomicBool::new(false) }
    }

    /// Whether it was used since the last call.
    pub fn was_touched(&self) -> bool {
        self.touched.load(Ordering::Relaxed) && self.touched.swap(false, Ordering::Relaxed)
    }

    /// The request whose log takes what is written now; `None` in a forked child.
    fn request(&self) -> Option<Arc<Request>> {
        match &self.target {
            Target::Requests(slot) => slot.request(),
            Target::Thread => Slot::mine().and_then(|slot| slot.request()),
            Target::Output | Target::Refused => None,
        }
    }

    fn put(&self, py: Python<'_>, bytes: &[u8]) -> PyResult<()> {
        self.touched.store(true, Ordering::Relaxed);
        match (&self.target, self.request()) {
            (Target::Refused, _) => return Err(restricted(self.name)),
            (Target::Output, _) => py.detach(|| stderr::write_all(rustix::stdio::stdout().as_fd(), bytes)),
            (_, None) => py.detach(|| stderr::write(bytes)),
            (_, Some(request)) => {
                request.log.write(py, &request.reply, bytes);
            }
        }
        Ok(())
    }
}

#[pymethods]
impl Log {
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        if let Ok(bytes) = data.cast::<PyBytes>() {
            return self.put(py, bytes.as_bytes()).map(|()| bytes.as_bytes().len());
        }
        if data.is_instance_of::<PyString>() || data.is_instance_of::<PyInt>() {
            return Err(PyTypeError::new_err(format!("a bytes-like object is required, not '{}'", data.get_type().name()?)));
        }
        let bytes = py.get_type::<PyBytes>().call1((pyo3::types::PyMemoryView::from(data)?,))?;
        let bytes = bytes.cast::<PyBytes>()?;
        self.put(py, bytes.as_bytes()).map(|()| bytes.as_bytes().len())
    }

    fn writelines(&self, py: Python<'_>, lines: &Bound<'_, PyAny>) -> PyResult<()> {
        for line in lines.try_iter()? {
            self.write(py, &line?)?;
        }
        Ok(())
    }

    fn flush(&self, py: Python<'_>) {
        self.touched.store(true, Ordering::Relaxed);
        if let Some(request) = self.request() {
            request.log.finish_line(py, &request.reply);
        }
    }

    /// httpd owns the log; closing it does nothing.
    const fn close(&self) {}

    #[getter]
    const fn closed(&self) -> bool {
        false
    }

    #[getter]
    const fn name(&self) -> &'static str {
        self.name
    }

    #[getter]
    const fn mode(&self) -> &'static str {
        "wb"
    }

    /// There is no buffer, so the stream is its own raw stream.
    #[getter]
    const fn raw(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    const fn isatty(&self) -> bool {
        false
    }

    const fn readable(&self) -> bool {
        false
    }

    const fn writable(&self) -> bool {
        true
    }

    const fn seekable(&self) -> bool {
        false
    }

    /// The group's log, as a descriptor belongs to no request.
    fn fileno(&self) -> PyResult<i32> {
        match self.target {
            Target::Requests(_) | Target::Thread => Ok(2),
            Target::Output => Ok(1),
            Target::Refused => Err(restricted(self.name)),
        }
    }

    const fn __enter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, _exception: &Bound<'_, PyTuple>) {}

    #[pyo3(signature = (*_arguments))]
    fn read(&self, py: Python<'_>, _arguments: &Bound<'_, PyTuple>) -> PyResult<()> {
        unsupported(py, "read")
    }

    #[pyo3(signature = (*_arguments))]
    fn seek(&self, py: Python<'_>, _arguments: &Bound<'_, PyTuple>) -> PyResult<()> {
        unsupported(py, "seek")
    }

    fn tell(&self, py: Python<'_>) -> PyResult<()> {
        unsupported(py, "tell")
    }

    #[pyo3(signature = (*_arguments))]
    fn truncate(&self, py: Python<'_>, _arguments: &Bound<'_, PyTuple>) -> PyResult<()> {
        unsupported(py, "truncate")
    }
}
