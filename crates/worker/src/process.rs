//! The worker's life: greeting, set-up, imports, service, end.
//!
//! Responsible for: the interpreter being as WSGIDaemonProcess describes it before any script runs. Must never: serve. Called by:
//! `boot.py`, in the first thread.
use crate::control::{self, Control, ControlError};
use crate::environ;
use crate::errors::{self, Log};
use crate::failure;
use crate::file_wrapper::FileWrapper;
use crate::fork;
use crate::input::Input;
use crate::monitor;
use crate::native;
use crate::restrict::{Restricted, SignalIntercept};
use crate::scripts::Found;
use crate::serve::Server;
use crate::shutdown;
use crate::worker::Worker;
use drover_sys::wait::{PollFd, PollFlags, poll_until};
use drover_wire::VERSION;
use drover_wire::control::{FromWorker, Loaded, MAX_CONTROL, ToWorker, WorkerConfig};
use drover_wire::frame::Failure;
use parking_lot::Mutex;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The mod_wsgi whose Python API ours follows; `mod_wsgi.version` says it.
const MOD_WSGI_VERSION: (u32, u32, u32) = (6, 1, 1);

/// The whole life of a worker. Does not return.
pub fn run(py: Python<'_>, control: RawFd, queue: RawFd) -> PyResult<()> {
    let (control, queue) = (native::adopt(control), native::adopt(queue));
    for fd in [&control, &queue] {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC).map_err(system)?;
    }
    let control = Control::new(control);
    let sys = py.import("sys")?;
    let python = format!("{} ({})", sys.getattr("version")?, sys.getattr("prefix")?);
    let hello = FromWorker::Hello { version: VERSION.to_owned(), python };
    control.insist(&hello).map_err(|e| PyRuntimeError::new_err(e.to_string()))?;
    let config = match py.detach(|| control.receive()) {
        Ok(ToWorker::Start(config)) => *config,
        Ok(ToWorker::Drain) | Err(ControlError::Closed) => native::leave(0),
        Ok(_) => refuse(&control, "droverd began with something else than Start"),
        Err(e) => refuse(&control, &e.to_string()),
    };
    if config.version != VERSION {
        let theirs = &config.version;
        refuse(
            &control,
            &format!(
                "droverd is version {theirs}, the worker's extension {VERSION}: two installations are mixed; install again and restart httpd"
            ),
        );
    }
    let signals = match control::signals() {
        Ok(signals) => signals,
        Err(e) => refuse(&control, &format!("signals: {e}")),
    };
    let worker = match set_up(py, &config) {
        Ok(()) => Worker::new(config, queue, control).map(Arc::new).map_err(system)?,
        Err(e) => refuse(&control, &failure::traceback(py, &e)),
    };
    start_native("drover-control", &worker, move |worker| control::run(worker, &signals))?;
    fork::remember(&worker);
    load(py, &worker);
    if let Err(e) = serve(py, &worker) {
        // Some threads may serve already; the interpreter is not torn down below them.
        errors::write_plainly(failure::traceback(py, &e).as_bytes());
        native::leave(1);
    }
    shutdown::leave(py)
}

fn system(e: drover_sys::Errno) -> PyErr {
    PyErr::from(std::io::Error::from(e))
}

/// Tells droverd why there will be no worker, and goes.
fn refuse(control: &Control, why: &str) -> ! {
    errors::write_plainly(format!("mod_drover worker: {}\n", why.trim_end()).as_bytes());
    let why = String::from_utf8_lossy(why.as_bytes().get(..32 * 1024).unwrap_or(why.as_bytes()));
    // If droverd does not take it, it sees the end of this process.
    let _ = control.insist(&FromWorker::SetupFailed(why.into_owned()));
    native::leave(1)
}

fn start_native(name: &str, worker: &Arc<Worker>, body: impl FnOnce(&Worker) + Send + 'static) -> PyResult<()> {
    let worker = Arc::clone(worker);
    // The handle is dropped: these threads end with the process.
    std::thread::Builder::new().name(name.to_owned()).stack_size(256 * 1024).spawn(move || body(&worker)).map(drop).map_err(PyErr::from)
}

/// Makes the interpreter what the configuration says.
fn set_up(py: Python<'_>, config: &WorkerConfig) -> PyResult<()> {
    let options = &config.options;
    let sys = py.import("sys")?;
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
        let pages = bytes.div_ceil(4096).saturating_mul(4096);
        if py.import("threading")?.call_method1("stack_size", (pages,)).is_err() {
            warn(&format!("stack-size={bytes} is refused by Python"));
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
    faulthandler.call_method1("register", (native::dump_signal(), 2, true, false))?;
    let hooks = PyDict::new(py);
    hooks.set_item("after_in_child", pyo3::wrap_pyfunction!(in_child, py)?)?;
    py.import("os")?.getattr("register_at_fork")?.call((), Some(&hooks))?;
    Ok(())
}

#[pyfunction]
fn in_child() {
    fork::in_child();
}

fn warn(what: &str) {
    errors::write_plainly(format!("mod_drover worker: {what}\n").as_bytes());
}

fn set_streams(py: Python<'_>, config: &WorkerConfig) -> PyResult<()> {
    let sys = py.import("sys")?;
    let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty())
        // A root directory of its own (chroot=) need not have it.
        .or_else(|_| rustix::fs::memfd_create("nothing", rustix::fs::MemfdFlags::CLOEXEC))
        .map_err(system)?;
    rustix::stdio::dup2_stdin(&null).map_err(system)?;
    if config.options.restrict_stdin {
        sys.setattr("stdin", Bound::new(py, Restricted { name: "sys.stdin" })?)?;
    }
    let stdout = sys.getattr("stdout")?;
    if config.options.restrict_stdout {
        sys.setattr("stdout", Bound::new(py, Restricted { name: "sys.stdout" })?)?;
    } else if !stdout.is_none() {
        let how = PyDict::new(py);
        how.set_item("line_buffering", true)?;
        how.set_item("errors", "backslashreplace")?;
        stdout.call_method("reconfigure", (), Some(&how))?;
    }
    let log = Bound::new(py, Log::new(None, "<stderr>"))?;
    sys.setattr("stderr", errors::text_stream(&log)?)
}

/// sys.path: the home directory, then python-path and what its .pth files name, then what was there.
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
        site.call_method1("addsitedir", (&directory,))?;
        wanted.push(directory);
    }
    let added = path.iter().filter(|entry| !before.contains(entry).unwrap_or(false));
    for entry in wanted.into_iter().chain(added) {
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

/// Imports the scripts that droverd names, and reports.
fn load(py: Python<'_>, worker: &Worker) {
    let room = MAX_CONTROL / 2 / worker.config.scripts.len().max(1);
    let mut report = Vec::new();
    for script in &worker.config.scripts {
        let found = worker.scripts.find(&script.path).module(py, true);
        let (mtime_us, failure) = match found {
            Found::Loaded { module, mtime_us, .. } => {
                let name = String::from_utf8_lossy(&script.callable);
                let missing = !name.is_empty() && !module.bind(py).contains(&*name).unwrap_or(false);
                let text = || format!("{} has no callable '{name}'", String::from_utf8_lossy(&script.path));
                (mtime_us, missing.then(|| (Failure::NoCallable as u16, text())))
            }
            Found::Broken { broken, .. } => {
                let text = &broken.text;
                // The end of a traceback says more than its beginning.
                let end = text.as_bytes().get(text.len().saturating_sub(room)..).unwrap_or_default();
                (broken.mtime_us, Some((broken.failure as u16, String::from_utf8_lossy(end).into_owned())))
            }
        };
        report.push(Loaded { script: script.clone(), mtime_us, failure });
    }
    let _ = py.detach(|| worker.control.insist(&FromWorker::Loaded(report))); // droverd's end is seen by the control thread
}

/// Starts the threads when droverd says so, and waits until all have ended.
fn serve(py: Python<'_>, worker: &Arc<Worker>) -> PyResult<()> {
    let (wake, waker) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK).map_err(system)?;
    // Handlers that the application installed run in this thread, which has to be woken for them.
    let silent = PyDict::new(py);
    silent.set_item("warn_on_full_buffer", false)?;
    py.import("signal")?.getattr("set_wakeup_fd")?.call((waker.as_raw_fd(),), Some(&silent))?;
    wait(py, worker, &wake, || worker.may_serve() || worker.is_stopping());
    if worker.is_stopping() {
        return Ok(());
    }
    start_native("drover-monitor", worker, monitor::run)?;
    start_threads(py, worker)?;
    wait(py, worker, &wake, || worker.is_stopping() && worker.alive.load(Ordering::Acquire) == 0);
    Ok(())
}

fn wait(py: Python<'_>, worker: &Worker, wake: &OwnedFd, done: impl Fn() -> bool) {
    while !done() {
        let mut scratch = [0; 64];
        py.detach(|| {
            // Whatever ends the wait is told on one of the two; there is nothing to be done about an error.
            let _ = poll_until(&mut [PollFd::new(&worker.news, PollFlags::IN), PollFd::new(wake, PollFlags::IN)], None);
        });
        let _ = rustix::io::read(&worker.news, &mut scratch);
        let _ = rustix::io::read(wake, &mut scratch);
        if let Err(e) = py.check_signals() {
            errors::write_plainly(failure::traceback(py, &e).as_bytes());
        }
    }
}

/// A request thread's body.
#[pyclass(frozen, module = "_drover")]
struct RequestThread {
    worker: Arc<Worker>,
    server: Mutex<Option<Server>>,
}

#[pymethods]
impl RequestThread {
    fn __call__(&self, py: Python<'_>) {
        struct Ended<'a>(&'a Worker);
        impl Drop for Ended<'_> {
            fn drop(&mut self) {
                self.0.thread_ended();
            }
        }
        let _ended = Ended(&self.worker);
        let server = self.server.lock().take();
        if let Some(mut server) = server {
            server.run(py);
        }
    }
}

fn start_threads(py: Python<'_>, worker: &Arc<Worker>) -> PyResult<()> {
    let thread = py.import("threading")?.getattr("Thread")?;
    let timeout = py.import("mod_wsgi")?.getattr("RequestTimeout")?;
    worker.alive.store(worker.slots.len(), Ordering::Release);
    for slot in &worker.slots {
        let log = Bound::new(py, Log::new(Some(Arc::clone(slot)), "<wsgi.errors>"))?;
        let template = template(py, worker, slot.index, &log)?;
        let server = Server::new(py, Arc::clone(worker), Arc::clone(slot), &template, log.unbind(), timeout.clone().unbind());
        let body = RequestThread { worker: Arc::clone(worker), server: Mutex::new(Some(server)) };
        let arguments = PyDict::new(py);
        arguments.set_item("target", Bound::new(py, body)?)?;
        arguments.set_item("name", format!("mod_drover-{}", slot.index))?;
        arguments.set_item("daemon", true)?;
        thread.call((), Some(&arguments))?.call_method0("start")?;
    }
    Ok(())
}

/// What all environs of one thread have in common.
fn template<'py>(py: Python<'py>, worker: &Worker, index: usize, log: &Bound<'py, Log>) -> PyResult<Bound<'py, PyDict>> {
    let c = &worker.config;
    let text = |bytes: &[u8]| environ::text(py, bytes);
    let t = PyDict::new(py);
    t.set_item("wsgi.version", PyTuple::new(py, [1, 0])?)?;
    t.set_item("wsgi.multithread", c.threads > 1)?;
    t.set_item("wsgi.multiprocess", c.multiprocess)?;
    t.set_item("wsgi.run_once", c.threads == 1 && c.options.maximum_requests == Some(1))?;
    t.set_item("wsgi.errors", errors::text_stream(log)?)?;
    t.set_item("wsgi.input", Bound::new(py, Input::empty())?)?;
    t.set_item("wsgi.input_terminated", true)?;
    t.set_item("wsgi.file_wrapper", py.get_type::<FileWrapper>())?;
    t.set_item("mod_wsgi.version", MOD_WSGI_VERSION)?;
    t.set_item("mod_wsgi.process_group", text(&c.group)?)?;
    t.set_item("mod_wsgi.application_group", text(&c.application_group)?)?;
    t.set_item("mod_wsgi.thread_id", index + 1)?;
    Ok(t)
}
