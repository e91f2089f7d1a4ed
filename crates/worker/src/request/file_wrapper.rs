//! `wsgi.file_wrapper`.
//!
//! Responsible for: iterating over any object with `read`, with or without `close` and `fileno`.
//! Must never: read ahead. Called by: the application, and `application` as any iterable.
use parking_lot::Mutex;
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// An iterable over the blocks of a file-like object.
#[pyclass(frozen, subclass, module = "mod_wsgi", name = "FileWrapper")]
pub struct FileWrapper {
    filelike: Mutex<Option<Py<PyAny>>>,
    #[pyo3(get)]
    blksize: isize,
}

impl FileWrapper {
    fn open(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let filelike = self.filelike.lock().as_ref().map(|f| f.clone_ref(py));
        filelike.ok_or_else(|| PyValueError::new_err("I/O operation on closed file"))
    }
}

#[pymethods]
impl FileWrapper {
    #[new]
    #[pyo3(signature = (filelike, blksize=8192))]
    fn new(filelike: Py<PyAny>, blksize: isize) -> PyResult<Self> {
        if blksize < 0 {
            return Err(PyValueError::new_err("blksize must not be negative"));
        }
        Ok(Self { filelike: Mutex::new(Some(filelike)), blksize })
    }

    #[getter]
    fn filelike(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.open(py)
    }

    const fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let block = self.open(py)?.bind(py).call_method1(pyo3::intern!(py, "read"), (self.blksize,))?;
        let Ok(bytes) = block.cast::<PyBytes>() else {
            return Err(PyTypeError::new_err(format!("file wrapper read() must return bytes, not {}", block.get_type().name()?)));
        };
        Ok((!bytes.as_bytes().is_empty()).then_some(block))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.filelike.try_lock() {
            Some(filelike) => filelike.as_ref().map_or(Ok(()), |f| visit.call(f)),
            None => Ok(()),
        }
    }

    fn __clear__(&self) {
        let filelike = self.filelike.lock().take();
        drop(filelike);
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let filelike = self.filelike.lock().take();
        let Some(filelike) = filelike else { return Ok(()) };
        match filelike.bind(py).getattr_opt("close")? {
            Some(close) => close.call0().map(drop),
            None => Ok(()),
        }
    }
}
