//! The worker's life: greeting, set-up, imports, service, end.
//!
//! Responsible for: the steps and their order, in a worker that droverd has started and in one that a template has forked. Must never:
//! serve. Called by: `boot.py`, in the first thread; `template`, in a forked worker.
use crate::control::{self, Control, ControlError};
use crate::environ;
use crate::errors::{self, Log};
use crate::failure;
use crate::file_wrapper::FileWrapper;
use crate::fork;
use crate::hooks;
use crate::input::Input;
use crate::memory;
use crate::messages::Code;
use crate::monitor;
use crate::native;
use crate::protect;
use crate::scripts::{Found, Scripts};
use crate::setup::{MOD_WSGI_VERSION, set_up};
use crate::shutdown;
use crate::streams;
use crate::template;
use crate::threads::{self, Importing, ThreadError};
use crate::watchdog;
use crate::worker::{Queue, Worker};
use drover_sys::roster::Roster;
use drover_sys::token::Board;
use drover_sys::wait::{PollFd, PollFlags, poll_until};
use drover_wire::VERSION;
use drover_wire::control::{FromWorker, Loaded, MAX_CONTROL, ToWorker, WorkerConfig};
use drover_wire::frame::Failure;
use drover_wire::text;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bytes of what droverd is told of a start that failed.
pub const LONGEST_REASON: usize = 32 * 1024;

/// The whole life of a worker. Does not return.
pub fn run(py: Python<'_>, control: RawFd, queue: RawFd, tokens: RawFd) -> PyResult<()> {
    let (control, queue, tokens) = (native::adopt(control), native::adopt(queue), native::adopt(tokens));
    for fd in [&control, &queue] {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC).map_err(system)?;
    }
    let roster = Roster::map(&tokens).map_err(system)?;
    let queue = Queue { socket: queue, tokens: Arc::new(Board::map(tokens).map_err(system)?), roster };
    let control = Control::new(control);
    let hello = hello(py)?;
    control.insist(&hello).map_err(|e| PyRuntimeError::new_err(e.to_string()))?;
    let config = hear_start(py, &control);
    protect::configure(config.options.dumpable);
    if config.is_template {
        return template::run(py, control, queue, config);
    }
    let scripts = Scripts::new(config.options.ignore_case);
    live(py, config, queue, control, scripts, set_up)
}

/// What a worker says first.
pub fn hello(py: Python<'_>) -> PyResult<FromWorker> {
    let sys = py.import("sys")?;
    let python = format!("{} ({})", sys.getattr("version")?, sys.getattr("prefix")?);
    Ok(FromWorker::Hello { version: VERSION.to_owned(), python })
}

/// Waits for droverd's first word.
pub fn hear_start(py: Python<'_>, control: &Control) -> WorkerConfig {
    let config = match py.detach(|| control.receive()) {
        Ok(ToWorker::Start(config)) => *config,
        Ok(ToWorker::Drain | ToWorker::LastWords { .. }) | Err(ControlError::Closed) => native::leave(0),
        Ok(_) => refuse(control, "droverd began with something else than Start"),
        Err(e) => refuse(control, &e.to_string()),
    };
    if config.version != VERSION {
        let theirs = &config.version;
        refuse(
            control,
            &format!(
                "droverd is version {theirs}, the worker's extension {VERSION}: two installations are mixed; install again and restart httpd"
            ),
        );
    }
    config
}

/// A worker from droverd's first word to its end; `prepare` makes the interpreter what the configuration says, `scripts` are those
/// that are imported already. Does not return.
pub fn live(
    py: Python<'_>,
    config: WorkerConfig,
    queue: Queue,
    control: Control,
    scripts: Scripts,
    prepare: impl FnOnce(Python<'_>, &WorkerConfig) -> PyResult<()>,
) -> PyResult<()> {
    let signals = match control::signals() {
        Ok(signals) => signals,
        Err(e) => refuse(&control, &format!("signals: {e}")),
    };
    let worker = match prepare(py, &config) {
        Ok(()) => Worker::new(config, queue, control, scripts).map(Arc::new).map_err(system)?,
        Err(e) => refuse(&control, &failure::traceback(py, &e)),
    };
    if let Err(e) = worker.dumps.register(py) {
        refuse(&worker.control, &failure::traceback(py, &e));
    }
    let ours = || Arc::clone(&worker);
    let mine = ours();
    must(&worker, threads::start_native("drover-control", move || control::run(&mine, &signals)));
    fork::remember(&worker);
    let importing = Importing::begin(py);
    // What a template has imported knows its hooks already; what is imported now may bring more.
    run_hooks(py, &worker);
    let report = load(py, &worker.config, &worker.scripts);
    run_hooks(py, &worker);
    drop(importing);
    let mine = ours();
    must(&worker, threads::start_native("drover-monitor", move || monitor::run(&mine)));
    let mine = ours();
    must(&worker, threads::start_native("drover-memory", move || memory::run(&mine)));
    if watchdog::limit(&worker).is_some() {
        let mine = ours();
        must(&worker, threads::start_python("drover-watchdog", move || watchdog::run(&mine)));
    }
    // A worker says that it has loaded when all of its threads run.
    must(&worker, threads::start_requests(py, &worker));
    let _ = py.detach(|| worker.control.insist(&FromWorker::Loaded(report))); // droverd's end is seen by the control thread
    if let Err(e) = serve(py, &worker) {
        // Some threads may serve already; the interpreter is not torn down below them.
        errors::write_plainly(failure::traceback(py, &e).as_bytes());
        native::leave(1);
    }
    shutdown::leave(py, &worker)
}

/// A worker without this thread is none.
fn must(worker: &Worker, started: Result<(), ThreadError>) {
    if let Err(e) = started {
        refuse(&worker.control, &e.to_string());
    }
}

/// A function given to `mod_drover.after_fork` that fails is a start that fails.
fn run_hooks(py: Python<'_>, worker: &Worker) {
    if let Err(e) = hooks::after_fork(py) {
        refuse(&worker.control, &failure::traceback(py, &e));
    }
}

/// The system's reason as an exception.
pub fn system(e: drover_sys::Errno) -> PyErr {
    PyErr::from(std::io::Error::from(e))
}

/// Tells droverd why there will be no worker, and goes.
pub fn refuse(control: &Control, why: &str) -> ! {
    let why = text::end(why, LONGEST_REASON);
    // droverd logs it. If it does not take it, it sees the end of this process.
    if control.insist(&FromWorker::SetupFailed(why.clone().into_owned())).is_err() {
        errors::write_plainly(format!("{}: {}\n", Code::SetupFailed, why.trim_end()).as_bytes());
    }
    native::leave(1)
}

/// Imports the scripts that droverd names, as far as they are not imported yet; gives what is to be said of them.
pub fn load(py: Python<'_>, config: &WorkerConfig, scripts: &Scripts) -> Vec<Loaded> {
    let room = MAX_CONTROL / 2 / (config.scripts.len() + config.optional.len()).max(1);
    let mut report = Vec::new();
    let required = config.scripts.iter().map(|script| (script, true));
    for (script, lasts) in required.chain(config.optional.iter().map(|script| (script, false))) {
        let place = scripts.find(&script.path);
        let found = place.module(py, true);
        if !lasts {
            place.forget_failure();
        }
        let (mtime_us, failure) = match found {
            Found::Loaded { module, mtime_us, .. } => {
                let name = String::from_utf8_lossy(&script.callable);
                let missing = !name.is_empty() && !module.bind(py).contains(&*name).unwrap_or(false);
                let text = || format!("{} has no callable '{name}'", String::from_utf8_lossy(&script.path));
                (mtime_us, missing.then(|| (Failure::NoCallable as u16, text())))
            }
            Found::Broken { broken, .. } => (broken.mtime_us, Some((broken.failure as u16, text::end(&broken.text, room).into_owned()))),
        };
        report.push(Loaded { script: script.clone(), mtime_us, failure });
    }
    report
}

/// Waits until all request threads have ended because the worker stops.
fn serve(py: Python<'_>, worker: &Arc<Worker>) -> PyResult<()> {
    let (wake, waker) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK).map_err(system)?;
    // Handlers that the application installed run in this thread, which has to be woken for them.
    let silent = PyDict::new(py);
    silent.set_item("warn_on_full_buffer", false)?;
    py.import("signal")?.getattr("set_wakeup_fd")?.call((waker.as_raw_fd(),), Some(&silent))?;
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
        if let Err(e) = fork::parent_only(py, py.check_signals()) {
            errors::write_plainly(failure::traceback(py, &e).as_bytes());
        }
    }
}

/// What all environs of one thread have in common.
pub fn template<'py>(py: Python<'py>, worker: &Worker, index: usize, log: &Bound<'py, Log>) -> PyResult<Bound<'py, PyDict>> {
    let c = &worker.config;
    let text = |bytes: &[u8]| environ::text(py, bytes);
    let t = PyDict::new(py);
    t.set_item("wsgi.version", PyTuple::new(py, [1, 0])?)?;
    t.set_item("wsgi.multithread", c.threads > 1)?;
    t.set_item("wsgi.multiprocess", c.multiprocess)?;
    t.set_item("wsgi.run_once", c.threads == 1 && c.options.maximum_requests == Some(1))?;
    t.set_item("wsgi.errors", streams::errors(log)?)?;
    t.set_item("wsgi.input", Bound::new(py, Input::empty())?)?;
    t.set_item("wsgi.input_terminated", true)?;
    t.set_item("wsgi.file_wrapper", py.get_type::<FileWrapper>())?;
    t.set_item("mod_wsgi.version", MOD_WSGI_VERSION)?;
    t.set_item("mod_wsgi.process_group", text(&c.group)?)?;
    t.set_item("mod_wsgi.application_group", text(&c.application_group)?)?;
    t.set_item("mod_wsgi.thread_id", index + 1)?;
    Ok(t)
}
