//! The fork server: it imports the application once and forks workers (`preload=On`).
//!
//! Responsible for: having one thread for its whole life, so that a fork copies everything;
//! refusing an application that has started other threads. Must never: start a native thread, take
//! a request, run the application's exit functions. Called by: `start`. Signals have their default
//! action, as it has nothing to finish.
use crate::log::traceback;
use crate::process::control::Control;
use crate::process::forked_worker::{Side, fork_worker};
use crate::process::lifecycle::{MAX_REASON, hello, load, receive_start, refuse, run_worker};
use crate::process::scripts::Scripts;
use crate::process::setup::set_up;
use crate::process::{fork, hooks, memory, native};
use crate::threads::threading;
use crate::worker::Queue;
use drover_wire::control::{FromWorker, ToWorker, WorkerConfig, encode};
use drover_wire::text;
use pyo3::prelude::*;
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// A thread that has ended for Python exists a moment longer for the kernel: the time between
/// checks.
const THREAD_END_POLL: Duration = Duration::from_millis(10);
/// Checks before the thread counts as another thread.
const MAX_POLLS: u32 = 100;

/// The whole life of a fork server, and of each worker forked from it. Returns only on an error of
/// Python's.
pub fn run(py: Python<'_>, control: Control, queue: Queue, config: WorkerConfig) -> PyResult<()> {
    fork::hold([control.fd().as_raw_fd(), queue.socket.as_raw_fd()]);
    let name = native::name();
    let prepared = set_up(py, &config).and_then(|()| hooks::set_fork_server(py, true)).and_then(|()| {
        let hello = encode(&hello(py)?).map_err(|e| pyo3::exceptions::PyRuntimeError::new_err(e.to_string()))?;
        set_process_title(&config);
        Ok(hello)
    });
    let hello = match prepared {
        Ok(hello) => hello,
        Err(e) => refuse(&control, &traceback::format(py, &e)),
    };
    let scripts = Scripts::new(config.options.ignore_case);
    let report = load(py, &config, &scripts);
    if let Some(why) = other_threads(py) {
        refuse(&control, &why);
    }
    if let Err(e) = freeze(py) {
        refuse(&control, &traceback::format(py, &e));
    }
    let _ = py.detach(|| control.insist(&FromWorker::Loaded(report))); // the next call notices that droverd has exited
    if let Some(bytes) = memory::proportional() {
        let _ = control.send(&FromWorker::Memory(bytes), &[]); // only displayed
    }
    let own = loop {
        let mut fds = Vec::new();
        match py.detach(|| control.receive_with(&mut fds)) {
            Ok(ToWorker::Fork) => {
                if let Some(own) = fork_one(py, &hello, fds) {
                    break own;
                }
            }
            // The stacks of all threads, from this one: no other may be started.
            Ok(ToWorker::Dump) => native::raise(drover_sys::signals::dump()),
            Ok(ToWorker::Drain) | Err(_) => native::exit(0),
            Ok(_) => {} // it takes no requests
        }
    };
    // From here on this is a worker.
    drop(control);
    fork::hold([]);
    let config = receive_start(py, &own);
    run_worker(py, config, queue, own, scripts, move |py, config| {
        match title(config) {
            Some(title) => native::set_title(&title),
            None => native::set_name(&name),
        }
        hooks::set_fork_server(py, false)
    })
}

/// Forks a worker on these descriptors. Returns its control socket in the worker only.
fn fork_one(py: Python<'_>, hello: &[u8], fds: Vec<OwnedFd>) -> Option<Control> {
    let [control, output, error] = <[OwnedFd; 3]>::try_from(fds).ok()?;
    let why = match hooks::before_fork(py).and_then(|()| flush(py)) {
        Err(e) => traceback::format(py, &e),
        Ok(()) => match other_threads(py) {
            Some(why) => why,
            None => match fork_worker(py, hello, &control, &output, &error) {
                Ok(Side::Worker) => return Some(Control::new(control)),
                Ok(Side::ForkServer) => return None,
                Err(e) => format!("cannot fork: {e}"),
            },
        },
    };
    let why = text::end(&why, MAX_REASON).into_owned();
    // If it is not sent, droverd sees that the socket is closed.
    let _ = Control::new(control).insist(&FromWorker::SetupFailed(why));
    None
}

fn title(config: &WorkerConfig) -> Option<CString> {
    config.options.display_name.as_ref().and_then(|name| CString::new(name.as_slice()).ok())
}

/// Shows in process lists which process is the fork server.
fn set_process_title(config: &WorkerConfig) {
    match title(config).map(|t| CString::new([t.as_bytes(), b" template"].concat())) {
        Some(Ok(title)) => native::set_title(&title),
        _ => native::set_name(c"drover-template"),
    }
}

/// Flushes Python's buffers: else each worker would write their content.
fn flush(py: Python<'_>) -> PyResult<()> {
    let sys = py.import("sys")?;
    for stream in ["stdout", "stderr"] {
        // A stream that the application has closed or taken away needs no flush.
        let _ = sys.getattr(stream).and_then(|s| s.call_method0("flush"));
    }
    Ok(())
}

/// Hides the imported objects from the garbage collector, in this process and its workers. A
/// collection would write to each object, and a page that is written to is not shared any more.
fn freeze(py: Python<'_>) -> PyResult<()> {
    let gc = py.import("gc")?;
    gc.call_method0("collect")?;
    gc.call_method0("freeze").map(drop)
}

/// Why the process cannot be forked: it has more than this thread.
fn other_threads(py: Python<'_>) -> Option<String> {
    let names = |py: Python<'_>| -> PyResult<Vec<String>> { threading::module(py)?.call_method0("other_names")?.extract() };
    let mut polls = 0;
    let (python, all) = loop {
        let python = names(py).unwrap_or_default();
        let all = native::tasks().unwrap_or_else(|| vec![String::new(); python.len() + 1]);
        polls += 1;
        if all.len() <= 1 && python.is_empty() {
            return None;
        }
        if !python.is_empty() || polls == MAX_POLLS {
            break (python, all);
        }
        py.detach(|| std::thread::sleep(THREAD_END_POLL));
    };
    let mut what: Vec<String> = python.iter().map(|name| format!("'{name}'")).collect();
    let native = all.len().saturating_sub(1 + python.len());
    if native > 0 {
        what.push(format!("{native} of C code, as numeric libraries have (OPENBLAS_NUM_THREADS=1 and OMP_NUM_THREADS=1 prevent them)"));
    }
    let what = what.join(", ");
    Some(format!(
        "preload=On: the application has started threads while it was imported, which no fork copies: {what}. Start them in a function given to mod_drover.after_fork, or set preload=Off"
    ))
}
