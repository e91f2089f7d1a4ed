//! The entry point from Python: becomes a worker or a fork server.
//!
//! Responsible for: the descriptors that droverd passed, the greeting, and the choice of the role.
//! Must never: run code of the application. Called by: `boot.py`, in the first thread.
use crate::cpython::os_error;
use crate::process::control::Control;
use crate::process::lifecycle::{hello, receive_start, run_worker};
use crate::process::scripts::Scripts;
use crate::process::setup::set_up;
use crate::process::{fork_server, native, protect};
use crate::worker::Queue;
use drover_sys::roster::Roster;
use drover_sys::token::Board;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use std::os::fd::RawFd;
use std::sync::Arc;

/// The whole life of a worker or a fork server. Does not return.
pub fn run(py: Python<'_>, control: RawFd, queue: RawFd, tokens: RawFd) -> PyResult<()> {
    let (control, queue, tokens) = (native::adopt(control), native::adopt(queue), native::adopt(tokens));
    for fd in [&control, &queue] {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC).map_err(os_error)?;
    }
    let roster = Roster::map(&tokens).map_err(os_error)?;
    let queue = Queue { socket: queue, tokens: Arc::new(Board::map(tokens).map_err(os_error)?), roster };
    let control = Control::new(control);
    let hello = hello(py)?;
    control.insist(&hello).map_err(|e| PyRuntimeError::new_err(e.to_string()))?;
    let config = receive_start(py, &control);
    protect::configure(config.options.dumpable);
    if config.is_template {
        return fork_server::run(py, control, queue, config);
    }
    let scripts = Scripts::new(config.options.ignore_case);
    run_worker(py, config, queue, control, scripts, set_up)
}
