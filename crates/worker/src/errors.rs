//! What the application writes: `wsgi.errors` and `sys.stderr` go to the error log of the request that wrote them, `sys.stdout` to
//! the group's.
//!
//! Responsible for: whole lines, none lost: what cannot go to a request's log goes to descriptor 2, the group's. Must never: write
//! to the reply socket of a request that is over; keep bytes in a buffer with a lock, as io.BufferedWriter does: a forked child would
//! wait for ever for a thread that held it. Called by: io.TextIOWrapper, which the application sees; `serve` at a request's end.
use crate::exchange::{Exchange, Slot};
use crate::gil;
use crate::streams::{restricted, unsupported};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyString, PyTuple};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// httpd's level "error".
pub const ERROR: u16 = 3;
/// httpd's level "warn".
pub const WARNING: u16 = 4;
/// httpd's level "info".
pub const INFO: u16 = 6;
/// A line without an end is cut here.
const LONGEST_LINE: usize = 16 * 1024;

/// Where a stream's bytes go.
pub enum Target {
    /// `wsgi.errors`: to the log of the request that this place serves.
    Requests(Arc<Slot>),
    /// `sys.stderr`: to the log of the request of whichever thread writes.
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

/// Writes all of it to descriptor 2, which is droverd's pipe.
pub fn write_plainly(bytes: &[u8]) {
    write_all(rustix::stdio::stderr().as_fd(), bytes);
}

fn write_all(fd: BorrowedFd<'_>, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        match drover_sys::write_once(fd, rest) {
            Ok(n) if n > 0 => rest = rest.get(n..).unwrap_or_default(),
            Err(drover_sys::Errno::INTR) => {}
            _ => return, // nobody reads it: droverd is gone, and so are we soon
        }
    }
}

/// Sends text to a request's log; to the group's when that cannot be.
pub fn log(py: Python<'_>, exchange: &Exchange, level: u16, text: &[u8]) {
    if u16::from(exchange.prefix.log_level) < level {
        return;
    }
    if exchange.way.log(py, level, text).is_err() && level <= WARNING {
        let mut line = text.to_vec();
        line.push(b'\n');
        py.detach(|| write_plainly(&line));
    }
}

impl Log {
    /// One that is called `name`.
    pub const fn new(target: Target, name: &'static str) -> Self {
        Self { target, name, touched: AtomicBool::new(false) }
    }

    /// Whether it was used since this was last asked.
    pub fn was_touched(&self) -> bool {
        self.touched.load(Ordering::Relaxed) && self.touched.swap(false, Ordering::Relaxed)
    }

    /// The request whose log takes what is written now; none in a forked child.
    fn exchange(&self) -> Option<Arc<Exchange>> {
        match &self.target {
            Target::Requests(slot) => slot.exchange(),
            Target::Thread => Slot::mine().and_then(|slot| slot.exchange()),
            Target::Output | Target::Refused => None,
        }
    }

    fn put(&self, py: Python<'_>, bytes: &[u8]) -> PyResult<()> {
        self.touched.store(true, Ordering::Relaxed);
        match (&self.target, self.exchange()) {
            (Target::Refused, _) => return Err(restricted(self.name)),
            (Target::Output, _) => py.detach(|| write_all(rustix::stdio::stdout().as_fd(), bytes)),
            (_, None) => py.detach(|| write_plainly(bytes)),
            (_, Some(exchange)) => {
                let whole = gather(&mut gil::lock(py, &exchange.partial), bytes);
                if !whole.is_empty() {
                    log(py, &exchange, ERROR, &whole);
                }
            }
        }
        Ok(())
    }
}

/// Adds bytes to the line begun; takes out what is whole.
fn gather(partial: &mut Vec<u8>, bytes: &[u8]) -> Vec<u8> {
    partial.extend_from_slice(bytes);
    let cut = match bytes.iter().rposition(|&b| b == b'\n') {
        Some(at) => partial.len() - bytes.len() + at + 1,
        None if partial.len() > LONGEST_LINE => partial.len(),
        None => return Vec::new(),
    };
    let rest = partial.split_off(cut);
    std::mem::replace(partial, rest)
}

/// Sends the line that a request has begun and not ended.
pub fn finish_line(py: Python<'_>, exchange: &Exchange) {
    let line = std::mem::take(&mut *gil::lock(py, &exchange.partial));
    if !line.is_empty() {
        log(py, exchange, ERROR, &line);
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
        if let Some(exchange) = self.exchange() {
            finish_line(py, &exchange);
        }
    }

    /// The log is httpd's; closing it does nothing.
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

    /// There is no buffer of which this would be the raw stream.
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

    /// The group's log: a descriptor knows no request.
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
