//! Sets up the interpreter as WSGIDaemonProcess says.
//!
//! Responsible for: standard streams, sys.path, names and hooks, before any script runs. Must
//! never: import a script. Called by: `start` and `fork_server`, once in a process that was not
//! forked.
use crate::cpython::os_error;
use crate::log::restrict::SignalIntercept;
use crate::log::{stderr, streams};
use crate::messages::Code;
use crate::process::{fork, native};
use crate::threads::{spawn, threading};
use drover_wire::control::WorkerConfig;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use std::ffi::CString;

/// The mod_wsgi version whose Python API this follows; `mod_wsgi.version` returns it.
pub const MOD_WSGI_VERSION: (u32, u32, u32) = (6, 1, 1);

/// Applies the configuration to the interpreter.
pub fn set_up(py: Python<'_>, config: &WorkerConfig) -> PyResult<()> {
    let options = &config.options;
    let sys = py.import("sys")?;
    threading::module(py)?;
    if let Some(name) = options.display_name.as_ref().and_then(|n| CString::new(n.as_slice()).ok()) {
        native::set_title(&name);
    }
    if let Some(locale) = &options.locale {
        let module = py.import("locale")?;
        if module.call_method1("setlocale", (module.getattr("LC_ALL")?, String::from_utf8_lossy(locale))).is_err() {
            warn(&format!("locale {} is not installed", String::from_utf8_lossy(locale)));
        }
    }
    if let Some(us) = options.switch_interval_us.filter(|&us| us > 0) {
        sys.call_method1("setswitchinterval", (us as f64 / 1e6,))?;
    }
    if let Some(bytes) = options.stack_size {
        let pages = spawn::request_stack(Some(bytes)).div_ceil(4096).saturating_mul(4096);
        if py.import("threading")?.call_method1("stack_size", (pages,)).is_err() {
            warn(&format!("Python refuses stack-size={bytes}"));
        }
    }
    sys.setattr("argv", ["mod_wsgi"])?;
    set_streams(py, config)?;
    set_path(py, config)?;
    let module = py.import("mod_wsgi")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    module.call_method1(
        "_configure",
        (MOD_WSGI_VERSION, text(&config.group), text(&config.application_group), config.processes, config.threads),
    )?;
    if options.restrict_signal {
        let signal = py.import("signal")?;
        let wrapped = signal.getattr("signal")?.unbind();
        signal.setattr("signal", Bound::new(py, SignalIntercept { wrapped })?)?;
    }
    let faulthandler = py.import("faulthandler")?;
    faulthandler.call_method1("enable", (2,))?;
    faulthandler.call_method1("register", (drover_sys::signals::dump().as_raw(), 2, true, false))?;
    fork::watch().map_err(os_error)
}

fn warn(what: &str) {
    stderr::write(format!("{}: {what}\n", Code::OptionUnavailable).as_bytes());
}

fn set_streams(py: Python<'_>, config: &WorkerConfig) -> PyResult<()> {
    let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty())
        // A chroot may not have /dev/null.
        .or_else(|_| rustix::fs::memfd_create("nothing", rustix::fs::MemfdFlags::CLOEXEC))
        .map_err(os_error)?;
    rustix::stdio::dup2_stdin(&null).map_err(os_error)?;
    streams::set_up(py, config.options.restrict_stdin, config.options.restrict_stdout)
}

/// sys.path: the home directory, then each directory of python-path with the entries of its .pth
/// files, then the previous entries.
fn set_path(py: Python<'_>, config: &WorkerConfig) -> PyResult<()> {
    let path = py.import("sys")?.getattr("path")?.cast_into::<PyList>()?;
    let (os, site) = (py.import("os")?, py.import("site")?);
    let decode = |bytes: &[u8]| os.call_method1("fsdecode", (PyBytes::new(py, bytes),));
    let before = PyList::new(py, path.iter())?;
    let front = PyList::empty(py);
    let mut wanted = Vec::new();
    if let Some(home) = &config.home {
        wanted.push(decode(home)?);
    }
    for directory in &config.options.python_path {
        let directory = decode(directory)?;
        let known = PyList::new(py, path.iter())?;
        site.call_method1("addsitedir", (&directory,))?;
        wanted.push(directory);
        wanted.extend(path.iter().filter(|entry| !known.contains(entry).unwrap_or(false)));
    }
    for entry in wanted {
        if !front.contains(&entry)? {
            front.append(entry)?;
        }
    }
    for entry in before.iter() {
        if !front.contains(&entry)? {
            front.append(entry)?;
        }
    }
    path.set_slice(0, path.len(), front.as_any())
}
