//! Forked workers between the fork request and their first message.
//!
//! Responsible for: learning a forked worker's process id in a way that no application can forge;
//! and for turning each such worker into a [`Process`], or failing, within a bounded time. Must
//! never: accept a process that is not a child of droverd. Called by: `fork_server.rs`, the event
//! loop.
//!
//! A fork server forks twice, and the intermediate process exits at once. The kernel then makes the
//! worker a child of droverd, which is a subreaper. The worker sends Hello before it runs Python
//! code, and the kernel attaches the sender's process id.
use crate::control::settings::Settings;
use crate::log::messages::Code;
use crate::pool::{Now, Number};
use crate::reactor::poller::Source;
use crate::supervisor::{Supervisor, now};
use crate::workers::process::{Ends, Process, ends};
use drover_sys::Errno;
use drover_sys::channel::{name_senders, receive_named, send};
use drover_wire::control::{FromWorker, MAX_CONTROL, ToWorker, decode, encode};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

/// A fork takes milliseconds; `mod_drover.before_fork` may take longer. This limit applies when
/// startup-timeout is off or shorter; otherwise the pool enforces startup-timeout.
const FORK_TIMEOUT: Duration = Duration::from_secs(60);

/// A worker that a fork server was told to fork.
#[derive(Debug)]
pub struct ForkedWorker {
    /// The fork server's process id.
    pub fork_server: u32,
    unit: u32,
    number: Number,
    generation: u64,
    settings: Rc<Settings>,
    ends: Ends,
    until: Now,
    /// The worker is no longer wanted: it is killed once it sends its process id.
    abandoned: bool,
}

impl Supervisor {
    /// Tells a fork server to fork a worker.
    pub fn fork(&mut self, fork_server: u32, number: Number) {
        let Some(process) = self.fork_servers.get(&fork_server).map(|t| &t.process) else { return };
        let (unit, generation, settings) = (process.unit, process.generation, process.settings.clone());
        let (ours, theirs) = match ends() {
            Ok(made) => made,
            Err(e) => return self.unstarted(unit, number, e.to_string(), false),
        };
        let told = process.control.as_ref().ok_or(Errno::PIPE).and_then(|control| {
            name_senders(&ours.control, true)?;
            let message = encode(&ToWorker::Fork).map_err(|_| Errno::INVAL)?;
            self.poller.add(&ours.control, Source::ForkedWorker(self.next_forked_worker))?;
            send(control, &[&message], &theirs.each_ref().map(AsFd::as_fd), false)
        });
        match told {
            Ok(_) => {
                let until = now() + settings.limits().startup.map_or(FORK_TIMEOUT, |startup| startup.max(FORK_TIMEOUT));
                let forked_worker = ForkedWorker { fork_server, unit, number, generation, settings, ends: ours, until, abandoned: false };
                self.forked_workers.insert(self.next_forked_worker, forked_worker);
                self.next_forked_worker = self.next_forked_worker.wrapping_add(1);
            }
            Err(Errno::PIPE | Errno::CONNRESET) => self.fork_server_hung_up(fork_server, Some(number)),
            Err(e) => self.unstarted(unit, number, format!("cannot tell the template to fork: {e}"), false),
        }
    }

    /// Reads a forked worker's first message.
    pub fn read_forked_worker(&mut self, id: u32) {
        let Some(forked_worker) = self.forked_workers.get(&id) else { return };
        let mut buffer = vec![0; MAX_CONTROL];
        let got = receive_named(&forked_worker.ends.control, &mut buffer);
        let (message, sender) = match got {
            Err(Errno::AGAIN) => return,
            Ok((0, _)) | Err(Errno::CONNRESET) => return self.fail_forked_worker(id, "a worker exited before its first message", true),
            Ok((n, sender)) => (decode::<FromWorker>(buffer.get(..n).unwrap_or_default()), sender),
            Err(e) => return self.fail_forked_worker(id, &format!("invalid first message: {e}"), false),
        };
        match (message, sender.filter(|pid| self.is_new_child(*pid))) {
            (Ok(FromWorker::SetupFailed(text)), _) => {
                // The fork server reports that it did not fork.
                forked_worker.settings.log(Code::StartFailed, Some(forked_worker.fork_server), std::slice::from_ref(&text));
                let reason = text.trim_end().rsplit('\n').next().unwrap_or_default().to_owned();
                self.fail_forked_worker(id, &reason, false);
            }
            (Ok(hello @ FromWorker::Hello { .. }), Some(pid)) => self.register_forked_worker(id, pid, hello),
            // Or it was a child, and has exited and been reaped.
            (Ok(FromWorker::Hello { .. }), None) => {
                self.fail_forked_worker(id, "the process that sent Hello was not forked by the template", true)
            }
            (Ok(_), _) => self.fail_forked_worker(id, "its first message was not Hello", false),
            (Err(e), _) => self.fail_forked_worker(id, &format!("invalid first message: {e}"), false),
        }
    }

    /// Whether it is a child of droverd that is not registered yet.
    fn is_new_child(&self, pid: Pid) -> bool {
        let number = pid.as_raw_nonzero().get().unsigned_abs();
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !self.processes.contains_key(&number) && !self.fork_servers.contains_key(&number) && waitid(WaitId::Pid(pid), look).is_ok()
    }

    /// Registers the forked worker like any other worker.
    fn register_forked_worker(&mut self, id: u32, pid: Pid, hello: FromWorker) {
        let Some(forked_worker) = self.forked_workers.remove(&id) else { return };
        let ForkedWorker { fork_server, unit, number, generation, settings, ends, abandoned, .. } = forked_worker;
        self.poller.remove(&ends.control);
        if abandoned {
            let _ = kill_process(pid, Signal::KILL);
            return self.fork_next(fork_server);
        }
        // Later messages may carry descriptors, for which the sender's credentials would leave no
        // space.
        let named = name_senders(&ends.control, false);
        let (process, outputs) = Process::new(unit, number, generation, &settings, ends, pid, None);
        let watched = named.and(self.attach(process, outputs));
        let pid = pid.as_raw_nonzero().get().unsigned_abs();
        settings.log(Code::Started, Some(pid), &[]);
        self.unfit_unless(watched, unit, number);
        self.on_message(pid, hello, &mut Vec::new());
        self.fork_next(fork_server);
    }

    /// The worker will not start. `killed`: no application code ran that could be at fault.
    fn fail_forked_worker(&mut self, id: u32, reason: &str, killed: bool) {
        let Some(forked_worker) = self.forked_workers.remove(&id) else { return };
        self.poller.remove(&forked_worker.ends.control);
        if !forked_worker.abandoned {
            self.unstarted(forked_worker.unit, forked_worker.number, reason.to_owned(), killed);
        }
        self.fork_next(forked_worker.fork_server);
    }

    /// A fork server exited. Its forked workers have sent Hello by now or soon will; otherwise
    /// their sockets are closed.
    pub fn read_forked_workers_of(&mut self, fork_server: u32) {
        for id in self.forked_workers.iter().filter(|(_, n)| n.fork_server == fork_server).map(|(id, _)| *id).collect::<Vec<_>>() {
            self.read_forked_worker(id);
        }
    }

    /// Withdraws a worker. False if it is not being forked.
    pub fn withdraw_forked_worker(&mut self, unit: u32, number: Number) -> bool {
        let mut own = self.forked_workers.values_mut().filter(|n| n.unit == unit && n.number == number && !n.abandoned);
        own.next().map(|forked_worker| forked_worker.abandoned = true).is_some()
    }

    pub fn tick_forked_workers(&mut self, now: Now) {
        for id in self.forked_workers.iter().filter(|(_, n)| n.until <= now).map(|(id, _)| *id).collect::<Vec<_>>() {
            self.fail_forked_worker(id, "the template did not fork a worker in time", false);
        }
    }

    pub fn forked_workers_deadline(&self) -> Option<Now> {
        self.forked_workers.values().map(|n| n.until).min()
    }
}
