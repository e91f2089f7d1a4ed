//! The application's functions around a fork: `mod_drover.before_fork` and `mod_drover.after_fork`.
//!
//! Responsible for: calling them. Must never: know what they do. Called by: `fork_server` (before a
//! fork), `lifecycle` (in each worker before it reports Loaded), `scripts` (for a script that is
//! imported later).
use crate::process::child_exit;
use pyo3::prelude::*;

/// Says whether this process is a fork server, which leaves the after_fork functions to its
/// workers.
pub fn set_fork_server(py: Python<'_>, is: bool) -> PyResult<()> {
    py.import("mod_drover")?.setattr("_is_fork_server", is)
}

/// Calls the before_fork functions, the last one registered first.
pub fn before_fork(py: Python<'_>) -> PyResult<()> {
    child_exit::parent_only(py, py.import("mod_drover")?.call_method0("_run_before_fork").map(drop))
}

/// In a worker, calls the after_fork functions that have not run in it. Does nothing in a fork
/// server.
pub fn after_fork(py: Python<'_>) -> PyResult<()> {
    child_exit::parent_only(py, py.import("mod_drover")?.call_method0("_run_after_fork").map(drop))
}
