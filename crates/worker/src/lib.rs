//! `_drover`: what makes a Python interpreter a worker of mod_drover.
//!
//! Responsible for: taking requests from the group's queue, running the application, and sending its answers. Must never: be
//! linked against one Python (it is abi3, for CPython 3.9 and later), trust a message. Loaded by: `python/mod_drover/boot.py`.
//!
//! A request's way: `serve` → `environ` → `application` → `response` → `way`. Unsafe code is in `native`, `fast` and `birth`.

mod application;
mod bell;
mod birth;
mod body;
mod control;
mod dump;
mod environ;
mod errors;
mod exchange;
mod failure;
mod fast;
mod file_wrapper;
mod fork;
mod gil;
mod handback;
mod headers;
mod hooks;
mod input;
mod interrupt;
mod leader;
mod memory;
mod messages;
mod monitor;
mod native;
mod policy;
mod process;
mod protect;
mod reply;
mod response;
mod restrict;
mod schedule;
mod scripts;
mod serve;
mod session;
mod setup;
mod shutdown;
mod start;
mod streams;
mod template;
mod threads;
mod watchdog;
mod way;
mod worker;

use pyo3::prelude::*;

/// The extension module.
#[pymodule]
mod _drover {
    #[pymodule_export]
    use super::file_wrapper::FileWrapper;
    #[pymodule_export]
    use super::input::Input;
    #[pymodule_export]
    use super::session::{SessionCalls, current_session};
    use super::{PyResult, Python, process, protect, pyfunction};

    /// Which release this file belongs to.
    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = drover_wire::VERSION;

    /// Closes the process to others of its user. To be called before any code of the application runs.
    #[pyfunction]
    fn protect_process() {
        protect::close();
    }

    /// Serves on these descriptors until the process ends.
    #[pyfunction]
    fn run(py: Python<'_>, control: i32, queue: i32, tokens: i32) -> PyResult<()> {
        process::run(py, control, queue, tokens)
    }
}
