//! Starts the request threads.
//!
//! Responsible for: threads that Python knows, and that wait for work before the worker reports
//! Loaded; the process being replaced if one ends by itself. Must never: report a worker whose
//! threads do not run. Called by: `lifecycle`.
use crate::log::stream::{Log, Target};
use crate::log::{stderr, traceback};
use crate::messages::Code;
use crate::request::base_environ;
use crate::threads::serve::Server;
use crate::threads::spawn::{self, ThreadError};
use crate::threads::threading;
use crate::worker::Worker;
use crossbeam_channel::Sender;
use pyo3::prelude::*;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Starts the request threads one after the other, and waits until each is ready for
/// [`Worker::allow`].
pub fn start(py: Python<'_>, worker: &Arc<Worker>) -> Result<(), ThreadError> {
    let timeout = py.import("mod_wsgi").and_then(|m| m.getattr("RequestTimeout")).map_err(ThreadError::Python)?;
    let stack = spawn::request_stack(worker.config.options.stack_size);
    for slot in &worker.slots {
        let log = Bound::new(py, Log::new(Target::Requests(Arc::clone(slot)), "<wsgi.errors>")).map_err(ThreadError::Python)?;
        let base = base_environ::new(py, &worker.config, slot.index, &log).map_err(ThreadError::Python)?;
        let server = Server::new(py, Arc::clone(worker), Arc::clone(slot), &base, log.unbind(), timeout.clone().unbind());
        let name = format!("mod_drover-{}", slot.index);
        let (ready, wait) = crossbeam_channel::bounded(1);
        let (ours, known_as) = (Arc::clone(worker), name.clone());
        spawn::start(&name, stack, move || run(&ours, server, &known_as, &ready))?;
        // startup-timeout bounds how long an interpreter may be busy here.
        py.detach(move || wait.recv()).map_err(|_| ThreadError::Lost { name })?;
    }
    Ok(())
}

/// Counts a request thread for as long as it runs, however it ends.
struct Life<'a> {
    worker: &'a Worker,
    name: &'a str,
}

impl<'a> Life<'a> {
    fn begin(worker: &'a Worker, name: &'a str) -> Self {
        worker.alive.fetch_add(1, Ordering::AcqRel);
        Self { worker, name }
    }
}

impl Drop for Life<'_> {
    fn drop(&mut self) {
        if !self.worker.is_stopping() {
            let line =
                format!("{}: request thread {} ended unexpectedly; the worker process exits to be replaced\n", Code::ThreadLost, self.name);
            stderr::write(line.as_bytes());
            self.worker.stop();
        }
        self.worker.thread_ended();
    }
}

/// A request thread from its start to its end.
fn run(worker: &Worker, mut server: Server, name: &str, ready: &Sender<()>) {
    let _life = Life::begin(worker, name);
    Python::attach(|py| {
        let thread = threading::module(py).and_then(|m| m.call_method1("adopt", (name,)));
        if let Err(e) = &thread {
            // It serves all the same; Python calls it a dummy thread.
            stderr::write(traceback::format(py, e).as_bytes());
        }
        // The receiver waits for this one word.
        let _ = ready.send(());
        server.run(py);
        if let Ok(thread) = thread
            && let Err(e) = threading::module(py).and_then(|m| m.call_method1("release", (thread,)))
        {
            stderr::write(traceback::format(py, &e).as_bytes());
        }
        drop(server);
    });
}
