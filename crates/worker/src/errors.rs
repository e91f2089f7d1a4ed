//! `wsgi.errors` and `sys.stderr`: lines that go to the error log of the request that wrote them.
//!
//! Responsible for: whole lines, none lost: what cannot go to a request's log goes to descriptor 2, the group's. Must never: write
//! to the way back of a request that is over. Called by: io.TextIOWrapper, which the application sees; `serve` at a request's end.
use crate::exchange::{Exchange, Slot};
use crate::fork;
use crate::gil;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyInt, PyString};
use std::os::fd::AsFd;
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

/// The binary stream below the text stream.
#[pyclass(frozen, module = "mod_wsgi", name = "Log")]
pub struct Log {
    /// `None`: the request of whichever thread writes.
    slot: Option<Arc<Slot>>,
    name: &'static str,
    touched: AtomicBool,
}

/// Writes all of it to descriptor 2, which is droverd's pipe.
pub fn write_plainly(bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        match drover_sys::write_once(rustix::stdio::stderr().as_fd(), rest) {
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
    /// For one request thread's requests, or (`None`) for whichever request the writing thread serves.
    pub const fn new(slot: Option<Arc<Slot>>, name: &'static str) -> Self {
        Self { slot, name, touched: AtomicBool::new(false) }
    }

    /// Whether it was used since this was last asked.
    pub fn was_touched(&self) -> bool {
        self.touched.load(Ordering::Relaxed) && self.touched.swap(false, Ordering::Relaxed)
    }

    fn put(&self, py: Python<'_>, bytes: &[u8]) {
        self.touched.store(true, Ordering::Relaxed);
        let slot = self.slot.clone().or_else(Slot::mine);
        let Some(exchange) = slot.filter(|_| !fork::is_child()).and_then(|slot| slot.exchange()) else {
            py.detach(|| write_plainly(bytes));
            return;
        };
        let whole = gather(&mut gil::lock(py, &exchange.partial), bytes);
        if !whole.is_empty() {
            log(py, &exchange, ERROR, &whole);
        }
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

/// The text stream that an application sees. Characters that UTF-8 cannot write are shown as escapes.
pub fn text_stream<'py>(log: &Bound<'py, Log>) -> PyResult<Bound<'py, PyAny>> {
    let py = log.py();
    let options = PyDict::new(py);
    options.set_item("encoding", "utf-8")?;
    options.set_item("errors", "backslashreplace")?;
    options.set_item("newline", "\n")?;
    // Lines are gathered here, not there: then a crash loses nothing, and the end of a request finds the rest.
    options.set_item("write_through", true)?;
    py.import("io")?.getattr("TextIOWrapper")?.call((log,), Some(&options))
}

#[pymethods]
impl Log {
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        if let Ok(bytes) = data.cast::<PyBytes>() {
            self.put(py, bytes.as_bytes());
            return Ok(bytes.as_bytes().len());
        }
        if data.is_instance_of::<PyString>() || data.is_instance_of::<PyInt>() {
            return Err(PyTypeError::new_err(format!("a bytes-like object is required, not '{}'", data.get_type().name()?)));
        }
        let bytes = py.get_type::<PyBytes>().call1((pyo3::types::PyMemoryView::from(data)?,))?;
        let bytes = bytes.cast::<PyBytes>()?;
        self.put(py, bytes.as_bytes());
        Ok(bytes.as_bytes().len())
    }

    fn writelines(&self, py: Python<'_>, lines: &Bound<'_, PyAny>) -> PyResult<()> {
        for line in lines.try_iter()? {
            self.write(py, &line?)?;
        }
        Ok(())
    }

    fn flush(&self, py: Python<'_>) {
        self.touched.store(true, Ordering::Relaxed);
        if let Some(exchange) = self.slot.clone().or_else(Slot::mine).and_then(|slot| slot.exchange()) {
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

    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        Err(PyErr::from_value(py.import("io")?.getattr("UnsupportedOperation")?.call1(("fileno",))?))
    }
}
