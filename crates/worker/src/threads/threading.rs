//! The Python module `mod_drover._threads`: the worker's threads as `threading` sees them.
//!
//! Responsible for: importing it before any code of the application runs. Must never: depend on
//! what an application replaces in `threading`. Called by: `setup`, `lifecycle`, `fork_server`,
//! `request_threads`, `shutdown`.
use crate::log::{stderr, traceback};
use pyo3::prelude::*;

const MODULE: &str = "mod_drover._threads";

/// The module.
pub fn module(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import(MODULE)
}

/// Until the value is dropped, new threads inherit what they would inherit in a request, and do not
/// keep the process from exiting.
pub struct Importing<'py>(Python<'py>);

impl<'py> Importing<'py> {
    /// The application's code is about to be imported.
    pub fn begin(py: Python<'py>) -> Self {
        call(py, "begin_import");
        Self(py)
    }
}

impl Drop for Importing<'_> {
    fn drop(&mut self) {
        call(self.0, "end_import");
    }
}

fn call(py: Python<'_>, function: &str) {
    if let Err(e) = module(py).and_then(|m| m.call_method0(function)) {
        stderr::write(traceback::format(py, &e).as_bytes());
    }
}
