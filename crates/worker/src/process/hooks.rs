//! What the application wants done around a fork: `mod_drover.before_fork` and `mod_drover.after_fork`.
//!
//! Responsible for: calling them. Must never: know what they do. Called by: `template` (before a fork), `process` (in each worker before
//! it says that it has loaded), `scripts` (for what a script brings that is imported later).
use crate::process::child_exit;
use pyo3::prelude::*;

/// From now on the functions for each worker are kept for the workers.
pub fn set_fork_server(py: Python<'_>, is: bool) -> PyResult<()> {
    py.import("mod_drover")?.setattr("_is_template", is)
}

/// Before a fork, the function that was registered last first.
pub fn before_fork(py: Python<'_>) -> PyResult<()> {
    child_exit::parent_only(py, py.import("mod_drover")?.call_method0("_run_before_fork").map(drop))
}

/// In a worker: those functions that have not run in it yet. In a template nothing.
pub fn after_fork(py: Python<'_>) -> PyResult<()> {
    child_exit::parent_only(py, py.import("mod_drover")?.call_method0("_run_after_fork").map(drop))
}
