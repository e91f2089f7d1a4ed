//! The worker's life: greeting, setup, imports, service, exit.
//!
//! Responsible for: the steps and their order, in workers that droverd has started and in forked
//! ones. Must never: serve a request. Called by: `start`; `fork_server`, also in a forked worker.
use crate::cpython::os_error;
use crate::log::{stderr, traceback};
use crate::messages::Code;
use crate::process::control::{Control, ControlError};
use crate::process::scripts::{Found, Scripts};
use crate::process::{child_exit, control_thread, fork, hooks, memory, native, shutdown};
use crate::threads::spawn::{self, ThreadError};
use crate::threads::threading::Importing;
use crate::threads::{monitor, request_threads};
use crate::worker::{Queue, Worker};
use drover_sys::wait::{PollFd, PollFlags, poll_until};
use drover_wire::VERSION;
use drover_wire::control::{FromWorker, Loaded, MAX_CONTROL, ToWorker, WorkerConfig};
use drover_wire::frame::Failure;
use drover_wire::text;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The longest reason of a failed start that droverd gets, bytes.
pub const MAX_REASON: usize = 32 * 1024;

/// The first message of a worker.
pub fn hello(py: Python<'_>) -> PyResult<FromWorker> {
    let sys = py.import("sys")?;
    let python = format!("{} ({})", sys.getattr("version")?, sys.getattr("prefix")?);
    Ok(FromWorker::Hello { version: VERSION.to_owned(), python })
}

/// Waits for droverd's first message.
pub fn receive_start(py: Python<'_>, control: &Control) -> WorkerConfig {
    let config = match py.detach(|| control.receive()) {
        Ok(ToWorker::Start(config)) => *config,
        Ok(ToWorker::Drain | ToWorker::LastWords { .. }) | Err(ControlError::Closed) => native::exit(0),
        Ok(_) => refuse(control, "the first message from droverd was not Start"),
        Err(e) => refuse(control, &e.to_string()),
    };
    if config.version != VERSION {
        let theirs = &config.version;
        refuse(
            control,
            &format!(
                "droverd is version {theirs}, the worker's extension {VERSION}: two installations are mixed; reinstall mod_drover and restart httpd"
            ),
        );
    }
    config
}

/// A worker from droverd's first message to its exit. `prepare` applies the configuration to the
/// interpreter; `scripts` are those imported already. Does not return.
pub fn run_worker(
    py: Python<'_>,
    config: WorkerConfig,
    queue: Queue,
    control: Control,
    scripts: Scripts,
    prepare: impl FnOnce(Python<'_>, &WorkerConfig) -> PyResult<()>,
) -> PyResult<()> {
    let signals = match control_thread::signals() {
        Ok(signals) => signals,
        Err(e) => refuse(&control, &format!("signals: {e}")),
    };
    let worker = match prepare(py, &config) {
        Ok(()) => Worker::new(config, queue, control, scripts).map(Arc::new).map_err(os_error)?,
        Err(e) => refuse(&control, &traceback::format(py, &e)),
    };
    if let Err(e) = worker.dumps.register(py) {
        refuse(&worker.control, &traceback::format(py, &e));
    }
    let ours = || Arc::clone(&worker);
    let mine = ours();
    require(&worker, spawn::native("drover-control", move || control_thread::run(&mine, &signals)));
    fork::hold(worker.descriptors());
    let importing = Importing::begin(py);
    // The hooks of a fork server's imports; then those that the imports below add.
    run_hooks(py, &worker);
    let report = load(py, &worker.config, &worker.scripts);
    run_hooks(py, &worker);
    drop(importing);
    let mine = ours();
    require(&worker, spawn::native("drover-monitor", move || monitor::run(&mine)));
    let mine = ours();
    require(&worker, spawn::native("drover-memory", move || memory::run(&mine.control, &mine.gauge, mine.config.has_memory_soft)));
    if worker.watchdog.interval().is_some() {
        let mine = ours();
        require(&worker, spawn::python("drover-watchdog", move || mine.watchdog.run()));
    }
    // A worker reports Loaded once all of its threads run.
    require(&worker, request_threads::start(py, &worker));
    let _ = py.detach(|| worker.control.insist(&FromWorker::Loaded(report))); // the control thread notices that droverd has exited
    if let Err(e) = serve(py, &worker) {
        // Some threads may be serving: the interpreter must not be finalized.
        stderr::write(traceback::format(py, &e).as_bytes());
        native::exit(1);
    }
    shutdown::run(py, &worker)
}

/// The worker cannot work without this thread.
fn require(worker: &Worker, started: Result<(), ThreadError>) {
    if let Err(e) = started {
        refuse(&worker.control, &e.to_string());
    }
}

/// If a function given to `mod_drover.after_fork` fails, the start fails.
fn run_hooks(py: Python<'_>, worker: &Worker) {
    if let Err(e) = hooks::after_fork(py) {
        refuse(&worker.control, &traceback::format(py, &e));
    }
}

/// Reports to droverd why the worker cannot start, and exits.
pub fn refuse(control: &Control, why: &str) -> ! {
    let why = text::end(why, MAX_REASON);
    // droverd logs it. If it is not sent, droverd sees that this process exits.
    if control.insist(&FromWorker::SetupFailed(why.clone().into_owned())).is_err() {
        stderr::write(format!("{}: {}\n", Code::SetupFailed, why.trim_end()).as_bytes());
    }
    native::exit(1)
}

/// Imports the scripts that droverd names, unless they are imported already. Returns a report on
/// each.
pub fn load(py: Python<'_>, config: &WorkerConfig, scripts: &Scripts) -> Vec<Loaded> {
    let room = MAX_CONTROL / 2 / (config.scripts.len() + config.optional.len()).max(1);
    let mut report = Vec::new();
    let required = config.scripts.iter().map(|script| (script, true));
    for (script, lasts) in required.chain(config.optional.iter().map(|script| (script, false))) {
        let entry = scripts.find(&script.path);
        let found = entry.module(py, true);
        if !lasts {
            entry.forget_failure();
        }
        let (mtime_us, failure) = match found {
            Found::Loaded { module, mtime_us, .. } => {
                let name = String::from_utf8_lossy(&script.callable);
                let missing = !name.is_empty() && !module.bind(py).contains(&*name).unwrap_or(false);
                let text = || format!("{} has no callable '{name}'", String::from_utf8_lossy(&script.path));
                (mtime_us, missing.then(|| (Failure::NoCallable as u16, text())))
            }
            Found::Failed { error, .. } => (error.mtime_us, Some((error.failure as u16, text::end(&error.text, room).into_owned()))),
        };
        report.push(Loaded { script: script.clone(), mtime_us, failure });
    }
    report
}

/// Waits until the worker stops and all request threads have ended.
fn serve(py: Python<'_>, worker: &Arc<Worker>) -> PyResult<()> {
    let (wake, waker) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK).map_err(os_error)?;
    // Signal handlers of the application run in this thread, which must be woken for them.
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
            // Whatever ends the wait is readable on one of the two; an error needs no action.
            let _ = poll_until(&mut [PollFd::new(&worker.main_bell, PollFlags::IN), PollFd::new(wake, PollFlags::IN)], None);
        });
        let _ = rustix::io::read(&worker.main_bell, &mut scratch);
        let _ = rustix::io::read(wake, &mut scratch);
        if let Err(e) = child_exit::parent_only(py, py.check_signals()) {
            stderr::write(traceback::format(py, &e).as_bytes());
        }
    }
}
