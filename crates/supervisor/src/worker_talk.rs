//! What workers say.
//!
//! Responsible for: taking their messages as data that may be anything, and turning them into events. Called by: the event loop.
use crate::genuine::{is_request, made_by_httpd};
use crate::messages::Code;
use crate::pool::{Event, Number, Pool, Why};
use crate::scripts::Outcome;
use crate::settings::Settings;
use crate::supervisor::{HandedBack, Supervisor, now};
use drover_sys::Errno;
use drover_sys::channel::{Seen, dispose, look, may_wait, receive};
use drover_wire::VERSION;
use drover_wire::control::{FromWorker, Leave, Loaded, ToWorker, decode};
use drover_wire::request::MAX_INLINE;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

/// A handed-back request and what stands around it.
const LARGEST: usize = MAX_INLINE + 16 * 1024;
/// So many messages of one worker are read before the loop looks at something else.
const AT_ONCE: usize = 32;

impl Supervisor {
    /// Reads what a worker has sent.
    pub fn worker_says(&mut self, pid: u32) {
        let mut buffer = vec![0; LARGEST];
        for _ in 0..AT_ONCE {
            let Some(process) = self.processes.get_mut(&pid).filter(|p| !p.distrusted) else { return };
            let (unit, number) = (process.unit, process.number);
            let Some(control) = &process.control else { return };
            // A descriptor that has no use is not even opened: nothing may be able to close it (`peer.rs`).
            if let Ok(Seen { bytes, has_descriptors: true }) = look(control, &mut buffer)
                && !decode::<FromWorker>(buffer.get(..bytes).unwrap_or_default()).is_ok_and(|m| takes_descriptors(&m))
            {
                return self.misunderstood(pid, "descriptors came with a message that has no use for them");
            }
            let mut fds = Vec::new();
            match receive(control, &mut buffer, &mut fds, false) {
                Ok(0) | Err(Errno::CONNRESET) => {
                    self.poller.remove(control);
                    process.control = None;
                    self.feed(unit, Event::Lost(number));
                    return;
                }
                Ok(n) => {
                    if fds.iter().any(may_wait) {
                        process.signal(Signal::KILL);
                    }
                    match decode::<FromWorker>(buffer.get(..n).unwrap_or_default()) {
                        Ok(message) if fds.len() > allowed_descriptors(&message) => {
                            self.misunderstood(pid, &format!("{} descriptors came with a message that has no use for them", fds.len()));
                        }
                        Ok(message) => self.heard(pid, message, &mut fds),
                        Err(e) => self.misunderstood(pid, &e.to_string()),
                    }
                    dispose(fds);
                }
                // Without memory the kernel gives nothing; what is there stays there.
                Err(Errno::AGAIN | Errno::NOMEM | Errno::NOBUFS) => return,
                Err(e) => {
                    self.misunderstood(pid, &e.to_string());
                    return;
                }
            }
        }
    }

    /// It is replaced, and not listened to any more: whatever else it says is not worth a line in the log.
    fn misunderstood(&mut self, pid: u32, why: &str) {
        let Some(process) = self.processes.get_mut(&pid).filter(|p| !p.distrusted) else { return };
        process.distrusted = true;
        if let Some(control) = &process.control {
            self.poller.remove(control);
        }
        process.settings.log(Code::BadMessage, Some(pid), &[format!("worker {pid}"), why.to_owned()]);
        let (unit, worker) = (process.unit, process.number);
        self.feed(unit, Event::Unfit { worker, reason: why.to_owned() });
    }

    /// Understands a message; takes those of its descriptors that belong to it.
    pub fn heard(&mut self, pid: u32, message: FromWorker, fds: &mut Vec<OwnedFd>) {
        let Some(process) = self.processes.get(&pid) else { return };
        let (unit, worker) = (process.unit, process.number);
        let pool = self.units.get(&unit).map(|u| &u.pool);
        let is = |which: fn(&Pool, Number) -> bool| pool.is_some_and(|p| which(p, worker));
        let (starts, serves) = (is(Pool::is_starting), is(Pool::is_serving));
        match message {
            FromWorker::Hello { .. } | FromWorker::SetupFailed(_) | FromWorker::Loaded(_) if serves => {
                self.misunderstood(pid, "a worker that serves said what one says while it starts");
            }
            // One that was overtaken while it started.
            FromWorker::SetupFailed(_) | FromWorker::Loaded(_) if !starts => {}
            FromWorker::Hello { version, .. } if !starts && version != VERSION => {}
            FromWorker::Hello { version, .. } => self.greeted(pid, &version),
            FromWorker::SetupFailed(text) => {
                let told = self.units.get_mut(&unit).map_or_else(|| text.clone(), |u| u.told.text(&text));
                process.settings.log(Code::StartFailed, Some(pid), &[told]);
                let reason = text.trim_end().rsplit('\n').next().unwrap_or_default().to_owned();
                self.feed(unit, Event::Unfit { worker, reason });
            }
            FromWorker::Loaded(loaded) => self.has_loaded(pid, loaded),
            FromWorker::AlsoLoaded(script) => {
                if let Some(u) = self.units.get_mut(&unit) {
                    u.scripts.add(script);
                }
                self.feed(unit, Event::AlsoLoaded);
            }
            FromWorker::Changed { path, mtime_us, request } => {
                let request = self.handed_back(request, fds);
                self.feed(unit, Event::Changed { worker, path, mtime_us, request });
            }
            FromWorker::Leaving(why) => {
                let why = match why {
                    Leave::MaximumRequests => Why::MaximumRequests,
                    Leave::CpuTime => Why::CpuTime,
                    Leave::Signal => Why::Signal,
                };
                self.feed(unit, Event::Leaving { worker, why });
            }
            FromWorker::Stuck { what, deadlocked } => self.feed(unit, Event::Stuck { worker, what, deadlocked }),
            FromWorker::Activity(activity) => {
                if let Some(u) = self.units.get_mut(&unit).filter(|_| activity.taken > 0) {
                    (u.used_at, u.used) = (now(), true);
                }
                self.feed(unit, Event::Activity { worker, activity });
                self.look_at_memory(pid);
            }
            FromWorker::Memory(bytes) => self.memory_reported(pid, bytes),
        }
    }

    /// A worker's first word: it gets its configuration.
    fn greeted(&mut self, pid: u32, version: &str) {
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
                // One that another generation has overtaken is gone already; its end is reaped like any other. It must not wait for ever.
                process.signal(Signal::KILL);
            } else {
                self.misunderstood(pid, &format!("cannot send the configuration: {e}"));
            }
        }
    }

    /// A worker has imported what it was told to.
    fn has_loaded(&mut self, pid: u32, loaded: Vec<Loaded>) {
        let Some(process) = self.processes.get(&pid) else { return };
        let (unit, worker) = (process.unit, process.number);
        let Some(u) = self.units.get_mut(&unit) else { return };
        process.is_ready();
        // Else its template has imported them.
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

    /// A request is kept only if it is one, as far as that can be seen; else its way back is closed here, which httpd sees.
    fn handed_back(&mut self, message: Vec<u8>, fds: &mut Vec<OwnedFd>) -> Option<u64> {
        is_request(&message, fds, made_by_httpd).then(|| self.keep_request(HandedBack { message, fds: std::mem::take(fds) }))
    }
}

/// A request that is handed back has its reply socket, and perhaps a memory file.
const fn allowed_descriptors(message: &FromWorker) -> usize {
    if takes_descriptors(message) { 2 } else { 0 }
}

const fn takes_descriptors(message: &FromWorker) -> bool {
    matches!(message, FromWorker::Changed { .. })
}

/// Says which scripts were imported.
pub fn log_loaded(settings: &Settings, loaded: &[Loaded]) {
    // A script is known once for each name of a callable in it, and loaded once.
    let good: BTreeSet<_> = loaded.iter().filter(|l| l.failure.is_none()).map(|l| &l.script.path).collect();
    for path in good {
        settings.log(Code::ScriptLoaded, None, &[String::from_utf8_lossy(path).into_owned()]);
    }
}
