//! `sys.stdin`, `sys.stdout`, `sys.stderr` and `wsgi.errors` as the application sees them.
//!
//! Responsible for: text streams with the whole interface of io.TextIOBase. Under WSGIRestrictStdin
//! or WSGIRestrictStdout only reading or writing raises. Must never: put a buffer with a lock below
//! one ([`crate::log::stream`]). Called by: `setup`, `request::base_environ`, `threads::serve`.
use crate::log::stream::{Log, Target, restricted, unsupported};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// A text stream over a binary one. Characters that the encoding cannot represent are shown as
/// escapes.
fn text<'py>(binary: &Bound<'py, PyAny>, encoding: &Bound<'py, PyAny>, mode: &str, how: &str) -> PyResult<Bound<'py, PyAny>> {
    let py = binary.py();
    let options = PyDict::new(py);
    options.set_item("encoding", encoding)?;
    options.set_item("errors", "backslashreplace")?;
    options.set_item("newline", "\n")?;
    options.set_item(how, true)?;
    let stream = py.import("io")?.getattr("TextIOWrapper")?.call((binary,), Some(&options))?;
    stream.setattr("mode", mode)?;
    Ok(stream)
}

/// A text stream over a log. The log collects lines, not the stream: so a crash loses nothing, and
/// the end of a request finds the rest.
pub fn errors<'py>(log: &Bound<'py, Log>) -> PyResult<Bound<'py, PyAny>> {
    text(log, pyo3::types::PyString::new(log.py(), "utf-8").as_any(), "w", "write_through")
}

/// Replaces the standard streams.
pub fn set_up(py: Python<'_>, restrict_stdin: bool, restrict_stdout: bool) -> PyResult<()> {
    let (sys, io) = (py.import("sys")?, py.import("io")?);
    io.getattr("RawIOBase")?.call_method1("register", (py.get_type::<Log>(),))?;
    io.getattr("RawIOBase")?.call_method1("register", (py.get_type::<RestrictedInput>(),))?;
    let (stdin, stdout) = (sys.getattr("stdin")?, sys.getattr("stdout")?);
    if restrict_stdin && !stdin.is_none() {
        let encoding = stdin.getattr("encoding")?;
        sys.setattr("stdin", text(Bound::new(py, RestrictedInput {})?.as_any(), &encoding, "r", "line_buffering")?)?;
    }
    if !stdout.is_none() {
        let encoding = stdout.getattr("encoding")?;
        let output = |target, how| text(Bound::new(py, Log::new(target, "<stdout>"))?.as_any(), &encoding, "w", how);
        let open = output(Target::Output, "line_buffering")?;
        sys.setattr("__stdout__", &open)?;
        // The first character raises, not the first whole line.
        sys.setattr("stdout", if restrict_stdout { output(Target::Refused, "write_through")? } else { open })?;
    }
    let errors = errors(&Bound::new(py, Log::new(Target::Thread, "<stderr>"))?)?;
    sys.setattr("__stderr__", &errors)?;
    sys.setattr("stderr", errors)
}

/// The binary stream below `sys.stdin` with WSGIRestrictStdin.
#[pyclass(frozen, module = "mod_wsgi", name = "Restricted")]
struct RestrictedInput {}

#[pymethods]
impl RestrictedInput {
    #[pyo3(signature = (*_arguments))]
    fn read(&self, _arguments: &Bound<'_, PyTuple>) -> PyResult<()> {
        Err(restricted("<stdin>"))
    }

    #[pyo3(signature = (*_arguments))]
    fn read1(&self, _arguments: &Bound<'_, PyTuple>) -> PyResult<()> {
        Err(restricted("<stdin>"))
    }

    #[pyo3(signature = (*_arguments))]
    fn readinto(&self, _arguments: &Bound<'_, PyTuple>) -> PyResult<()> {
        Err(restricted("<stdin>"))
    }

    #[pyo3(signature = (*_arguments))]
    fn readline(&self, _arguments: &Bound<'_, PyTuple>) -> PyResult<()> {
        Err(restricted("<stdin>"))
    }

    #[pyo3(signature = (*_arguments))]
    fn readlines(&self, _arguments: &Bound<'_, PyTuple>) -> PyResult<()> {
        Err(restricted("<stdin>"))
    }

    const fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self) -> PyResult<()> {
        Err(restricted("<stdin>"))
    }

    #[pyo3(signature = (*_arguments))]
    fn write(&self, py: Python<'_>, _arguments: &Bound<'_, PyTuple>) -> PyResult<()> {
        unsupported(py, "write")
    }

    const fn flush(&self) {}

    const fn close(&self) {}

    #[getter]
    const fn closed(&self) -> bool {
        false
    }

    #[getter]
    const fn name(&self) -> &'static str {
        "<stdin>"
    }

    #[getter]
    const fn mode(&self) -> &'static str {
        "rb"
    }

    const fn isatty(&self) -> bool {
        false
    }

    const fn readable(&self) -> bool {
        true
    }

    const fn writable(&self) -> bool {
        false
    }

    const fn seekable(&self) -> bool {
        false
    }

    /// Descriptor 0 is an empty file in any case.
    const fn fileno(&self) -> i32 {
        0
    }
}
