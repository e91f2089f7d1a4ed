//! `_drover`: the extension module that makes a Python interpreter a worker of mod_drover.
//!
//! Responsible for: taking requests from the group's queue, running the application, and sending
//! its responses. Must never: link against one Python (the module is abi3, for CPython 3.9 and
//! later), trust a message. Loaded by: `python/mod_drover/boot.py`.
//!
//! One request: `threads::serve` → `request::environ` → `request::application` →
//! `request::response` → `request::reply_socket`. One worker's life: `process::start` →
//! `process::lifecycle` → `process::shutdown`.

mod cpython;
mod log;
mod messages;
mod process;
mod request;
mod threads;
mod worker;

use pyo3::prelude::*;

/// The extension module.
#[pymodule]
mod _drover {
    #[pymodule_export]
    use super::request::file_wrapper::FileWrapper;
    #[pymodule_export]
    use super::request::input::Input;
    #[pymodule_export]
    use super::request::session_calls::{SessionCalls, current_session};
    use super::{PyResult, Python, process, pyfunction};

    /// The release this file belongs to.
    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = drover_wire::VERSION;

    /// Closes the process to other processes of its user. Call it before any code of the
    /// application runs.
    #[pyfunction]
    fn protect_process() {
        process::protect::close();
    }

    /// Serves on these descriptors until the process ends.
    #[pyfunction]
    fn run(py: Python<'_>, control: i32, queue: i32, tokens: i32) -> PyResult<()> {
        process::start::run(py, control, queue, tokens)
    }
}
