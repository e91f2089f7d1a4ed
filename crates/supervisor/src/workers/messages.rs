//! Messages from workers.
//!
//! Responsible for: treating them as untrusted input and turning them into events. Called by: the
//! event loop.
use crate::control::settings::Settings;
use crate::log::messages::Code;
use crate::pool::{Event, Number, Pool, ReplaceReason};
use crate::supervisor::{ReturnedRequest, Supervisor, now};
use crate::workers::provenance::{is_request, made_by_httpd};
use crate::workers::scripts::Outcome;
use drover_sys::Errno;
use drover_sys::channel::{Seen, dispose, look, may_wait, receive};
use drover_wire::VERSION;
use drover_wire::control::{FromWorker, Leave, Loaded, ToWorker, decode};
use drover_wire::request::MAX_INLINE;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

/// A returned request with its overhead.
const MAX_MESSAGE_BYTES: usize = MAX_INLINE + 16 * 1024;
/// Messages of one worker read before the loop serves another descriptor.
const MAX_PER_TURN: usize = 32;

impl Supervisor {
    /// Reads a worker's messages.
    pub fn read_worker(&mut self, pid: u32) {
        let mut buffer = vec![0; MAX_MESSAGE_BYTES];
        for _ in 0..MAX_PER_TURN {
            let Some(process) = self.processes.get_mut(&pid).filter(|p| !p.distrusted) else { return };
            let (unit, number) = (process.unit, process.number);
            let Some(control) = &process.control else { return };
            // An unexpected descriptor is not even opened: closing it may never end (`peer.rs`).
            if let Ok(Seen { bytes, has_descriptors: true }) = look(control, &mut buffer)
                && !decode::<FromWorker>(buffer.get(..bytes).unwrap_or_default()).is_ok_and(|m| takes_descriptors(&m))
            {
                return self.reject_worker(pid, "descriptors came with a message that may not carry them");
            }
            let mut fds = Vec::new();
            match receive(control, &mut buffer, &mut fds, false) {
                Ok(0) | Err(Errno::CONNRESET) => {
                    self.poller.remove(control);
                    process.control = None;
                    self.feed(unit, Event::ControlClosed(number));
                    return;
                }
                Ok(n) => {
                    if fds.iter().any(may_wait) {
                        process.signal(Signal::KILL);
                    }
                    match decode::<FromWorker>(buffer.get(..n).unwrap_or_default()) {
                        Ok(message) if fds.len() > allowed_descriptors(&message) => {
                            self.reject_worker(pid, &format!("{} descriptors with a message that may not carry them", fds.len()));
                        }
                        Ok(message) => self.on_message(pid, message, &mut fds),
                        Err(e) => self.reject_worker(pid, &e.to_string()),
                    }
                    dispose(fds);
                }
                // The kernel is out of memory; the message stays queued.
                Err(Errno::AGAIN | Errno::NOMEM | Errno::NOBUFS) => return,
                Err(e) => {
                    self.reject_worker(pid, &e.to_string());
                    return;
                }
            }
        }
    }

    /// Replaces a worker that sent an invalid message and ignores its further messages.
    fn reject_worker(&mut self, pid: u32, why: &str) {
        let Some(process) = self.processes.get_mut(&pid).filter(|p| !p.distrusted) else { return };
        process.distrusted = true;
        if let Some(control) = &process.control {
            self.poller.remove(control);
        }
        process.settings.log(Code::BadMessage, Some(pid), &[format!("worker {pid}"), why.to_owned()]);
        let (unit, worker) = (process.unit, process.number);
        self.feed(unit, Event::Unfit { worker, reason: why.to_owned() });
    }

    /// Handles a message and takes the descriptors that belong to it.
    pub fn on_message(&mut self, pid: u32, message: FromWorker, fds: &mut Vec<OwnedFd>) {
        let Some(process) = self.processes.get(&pid) else { return };
        let (unit, worker) = (process.unit, process.number);
        let pool = self.units.get(&unit).map(|u| &u.pool);
        let is = |which: fn(&Pool, Number) -> bool| pool.is_some_and(|p| which(p, worker));
        let (starts, serves) = (is(Pool::is_starting), is(Pool::is_serving));
        match message {
            FromWorker::Hello { .. } | FromWorker::SetupFailed(_) | FromWorker::Loaded(_) if serves => {
                self.reject_worker(pid, "a serving worker sent a message that is valid only during its start");
            }
            // The worker was superseded while it started.
            FromWorker::SetupFailed(_) | FromWorker::Loaded(_) if !starts => {}
            FromWorker::Hello { version, .. } if !starts && version != VERSION => {}
            FromWorker::Hello { version, .. } => self.on_hello(pid, &version),
            FromWorker::SetupFailed(text) => {
                let told = self.units.get_mut(&unit).map_or_else(|| text.clone(), |u| u.setup_failures.text(&text));
                process.settings.log(Code::StartFailed, Some(pid), &[told]);
                let reason = text.trim_end().rsplit('\n').next().unwrap_or_default().to_owned();
                self.feed(unit, Event::Unfit { worker, reason });
            }
            FromWorker::Loaded(loaded) => self.on_loaded(pid, loaded),
            FromWorker::AlsoLoaded(script) => {
                if let Some(u) = self.units.get_mut(&unit) {
                    u.scripts.add(script);
                }
                self.feed(unit, Event::AlsoLoaded);
            }
            FromWorker::Changed { path, mtime_us, request } => {
                let request = self.accept_returned(request, fds);
                self.feed(unit, Event::Changed { worker, path, mtime_us, request });
            }
            FromWorker::Leaving(why) => {
                let why = match why {
                    Leave::MaximumRequests => ReplaceReason::MaximumRequests,
                    Leave::CpuTime => ReplaceReason::CpuTime,
                    Leave::Signal => ReplaceReason::Signal,
                };
                self.feed(unit, Event::Replace { worker, why });
            }
            FromWorker::Stuck { what, deadlocked } => self.feed(unit, Event::Stuck { worker, what, deadlocked }),
            FromWorker::Activity(activity) => {
                if let Some(u) = self.units.get_mut(&unit).filter(|_| activity.taken > 0) {
                    (u.used_at, u.used) = (now(), true);
                }
                self.feed(unit, Event::Activity { worker, activity });
                self.check_memory(pid);
            }
            FromWorker::Memory(bytes) => self.memory_reported(pid, bytes),
        }
    }

    /// A worker's first message: send it its configuration.
    fn on_hello(&mut self, pid: u32, version: &str) {
        let Some(process) = self.processes.get(&pid) else { return };
        if version != VERSION {
            process.settings.log(Code::WorkerVersion, Some(pid), &[version.to_owned(), VERSION.to_owned()]);
            let reason = format!("the worker extension is version {version}, droverd is version {VERSION}");
            let (unit, worker) = (process.unit, process.number);
            self.feed(unit, Event::Unfit { worker, reason });
        } else if let Some(config) = self.worker_config(process)
            && let Err(e) = process.tell(&ToWorker::Start(Box::new(config)))
        {
            if matches!(e, Errno::PIPE | Errno::CONNRESET) {
                // A superseded worker may have exited already; it is reaped like any other. Kill
                // it, so that it cannot wait forever.
                process.signal(Signal::KILL);
            } else {
                self.reject_worker(pid, &format!("cannot send the configuration: {e}"));
            }
        }
    }

    /// A worker has imported its scripts.
    fn on_loaded(&mut self, pid: u32, loaded: Vec<Loaded>) {
        let Some(process) = self.processes.get(&pid) else { return };
        let (unit, worker) = (process.unit, process.number);
        let Some(u) = self.units.get_mut(&unit) else { return };
        process.is_ready();
        // Otherwise its fork server imported them.
        if !process.is_forked() {
            log_loaded(&u.settings, &loaded);
        }
        let good = loaded.iter().filter(|l| l.failure.is_none()).count();
        let Outcome { failures, forgotten } = u.scripts.outcome(loaded);
        for f in forgotten {
            u.settings.log(Code::OptionalScript, Some(pid), &[String::from_utf8_lossy(&f.path).into_owned(), f.text]);
        }
        self.feed(unit, Event::Loaded { worker, failures, good });
    }

    /// Accepts a returned request only if it passes the provenance check. Otherwise its reply
    /// socket is closed, which httpd sees.
    fn accept_returned(&mut self, message: Vec<u8>, fds: &mut Vec<OwnedFd>) -> Option<u64> {
        is_request(&message, fds, made_by_httpd).then(|| self.keep_request(ReturnedRequest { message, fds: std::mem::take(fds) }))
    }
}

/// A returned request has its reply socket, and perhaps a memory file.
const fn allowed_descriptors(message: &FromWorker) -> usize {
    if takes_descriptors(message) { 2 } else { 0 }
}

const fn takes_descriptors(message: &FromWorker) -> bool {
    matches!(message, FromWorker::Changed { .. })
}

/// Logs which scripts were imported.
pub fn log_loaded(settings: &Settings, loaded: &[Loaded]) {
    // A script with several callables is listed for each, but loaded once.
    let good: BTreeSet<_> = loaded.iter().filter(|l| l.failure.is_none()).map(|l| &l.script.path).collect();
    for path in good {
        settings.log(Code::ScriptLoaded, None, &[String::from_utf8_lossy(path).into_owned()]);
    }
}
