//! The replacement for signal.signal under WSGIRestrictSignal.
//!
//! Responsible for: reporting each signal handler that is refused. Must never: refuse one in a
//! forked child. Called by: the application, once `setup` has installed it.
use crate::log::stderr;
use crate::process::fork;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// Replaces signal.signal.
#[pyclass(frozen, module = "mod_wsgi", name = "SignalIntercept")]
pub struct SignalIntercept {
    /// The original function.
    pub wrapped: Py<PyAny>,
}

#[pymethods]
impl SignalIntercept {
    #[pyo3(signature = (*args, **kwargs))]
    fn __call__<'py>(&self, args: &Bound<'py, PyTuple>, kwargs: Option<&Bound<'py, PyDict>>) -> PyResult<Bound<'py, PyAny>> {
        let py = args.py();
        if fork::is_child() {
            return self.wrapped.bind(py).call(args, kwargs);
        }
        let named = |at: usize, name: &str| -> PyResult<Bound<'py, PyAny>> {
            match args.get_item(at) {
                Ok(item) => Ok(item),
                Err(e) => kwargs.map(|k| k.get_item(name)).transpose()?.flatten().ok_or(e),
            }
        };
        let (signal, handler) = (named(0, "signalnum")?, named(1, "handler")?);
        let frame = py.import("sys")?.call_method1("_getframe", (0,))?;
        let file = frame.getattr("f_code")?.getattr("co_filename")?;
        let line = frame.getattr("f_lineno")?;
        let number = signal.extract::<i32>().map_or_else(|_| signal.to_string(), |n| n.to_string());
        let text = format!("{file}:{line}: signal.signal({number}, …) is ignored: mod_drover manages signals (WSGIRestrictSignal)\n");
        py.detach(|| stderr::write(text.as_bytes()));
        Ok(handler)
    }
}
