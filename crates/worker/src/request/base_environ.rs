//! The entries that all environs of one thread have in common.
//!
//! Responsible for: the keys of PEP 3333 and mod_wsgi that depend on the configuration. Must never:
//! know a request. Called by: `threads::request_threads`, once for each thread.
use crate::cpython;
use crate::log::stream::Log;
use crate::log::streams;
use crate::process::setup::MOD_WSGI_VERSION;
use crate::request::file_wrapper::FileWrapper;
use crate::request::input::Input;
use drover_wire::control::WorkerConfig;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// The common entries of the thread with this number, whose `wsgi.errors` writes to `log`.
pub fn new<'py>(py: Python<'py>, config: &WorkerConfig, index: usize, log: &Bound<'py, Log>) -> PyResult<Bound<'py, PyDict>> {
    let text = |bytes: &[u8]| cpython::text(py, bytes);
    let base = PyDict::new(py);
    base.set_item("wsgi.version", PyTuple::new(py, [1, 0])?)?;
    base.set_item("wsgi.multithread", config.threads > 1)?;
    base.set_item("wsgi.multiprocess", config.multiprocess)?;
    base.set_item("wsgi.run_once", config.threads == 1 && config.options.maximum_requests == Some(1))?;
    base.set_item("wsgi.errors", streams::errors(log)?)?;
    base.set_item("wsgi.input", Bound::new(py, Input::empty())?)?;
    base.set_item("wsgi.input_terminated", true)?;
    base.set_item("wsgi.file_wrapper", py.get_type::<FileWrapper>())?;
    base.set_item("mod_wsgi.version", MOD_WSGI_VERSION)?;
    base.set_item("mod_wsgi.process_group", text(&config.group)?)?;
    base.set_item("mod_wsgi.application_group", text(&config.application_group)?)?;
    base.set_item("mod_wsgi.thread_id", index + 1)?;
    Ok(base)
}
