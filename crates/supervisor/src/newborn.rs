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
use crate::messages::Code;
use crate::poller::Source;
use crate::pool::{Now, Number};
use crate::process::{Ends, Process, ends};
use crate::settings::Settings;
use crate::supervisor::{Supervisor, now};
use drover_sys::Errno;
use drover_sys::channel::{name_senders, receive_named, send};
use drover_wire::control::{FromWorker, MAX_CONTROL, ToWorker, decode, encode};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

/// A fork takes milliseconds; `mod_drover.before_fork` may take longer. This limit applies when
/// startup-timeout is off or shorter; otherwise the pool enforces startup-timeout.
const LONGEST: Duration = Duration::from_secs(60);

/// A worker that a fork server was told to fork.
#[derive(Debug)]
pub struct Newborn {
    /// The fork server's process id.
    pub template: u32,
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
    pub fn fork(&mut self, template: u32, number: Number) {
        let Some(process) = self.templates.get(&template).map(|t| &t.process) else { return };
        let (unit, generation, settings) = (process.unit, process.generation, process.settings.clone());
        let (ours, theirs) = match ends() {
            Ok(made) => made,
            Err(e) => return self.unstarted(unit, number, e.to_string(), false),
        };
        let told = process.control.as_ref().ok_or(Errno::PIPE).and_then(|control| {
            name_senders(&ours.control, true)?;
            let message = encode(&ToWorker::Fork).map_err(|_| Errno::INVAL)?;
            self.poller.add(&ours.control, Source::Newborn(self.next_newborn))?;
            send(control, &[&message], &theirs.each_ref().map(AsFd::as_fd), false)
        });
        match told {
            Ok(_) => {
                let until = now() + settings.limits().startup.map_or(LONGEST, |startup| startup.max(LONGEST));
                let newborn = Newborn { template, unit, number, generation, settings, ends: ours, until, abandoned: false };
                self.newborns.insert(self.next_newborn, newborn);
                self.next_newborn = self.next_newborn.wrapping_add(1);
            }
            Err(Errno::PIPE | Errno::CONNRESET) => self.template_hung_up(template, Some(number)),
            Err(e) => self.unstarted(unit, number, format!("cannot tell the template to fork: {e}"), false),
        }
    }

    /// Reads a forked worker's first message.
    pub fn newborn_says(&mut self, id: u32) {
        let Some(newborn) = self.newborns.get(&id) else { return };
        let mut buffer = vec![0; MAX_CONTROL];
        let got = receive_named(&newborn.ends.control, &mut buffer);
        let (message, sender) = match got {
            Err(Errno::AGAIN) => return,
            Ok((0, _)) | Err(Errno::CONNRESET) => return self.lose(id, "a process ended before it could say who it is", true),
            Ok((n, sender)) => (decode::<FromWorker>(buffer.get(..n).unwrap_or_default()), sender),
            Err(e) => return self.lose(id, &format!("its first message: {e}"), false),
        };
        match (message, sender.filter(|pid| self.is_new_child(*pid))) {
            (Ok(FromWorker::SetupFailed(text)), _) => {
                // The fork server reports that it did not fork.
                newborn.settings.log(Code::StartFailed, Some(newborn.template), std::slice::from_ref(&text));
                let reason = text.trim_end().rsplit('\n').next().unwrap_or_default().to_owned();
                self.lose(id, &reason, false);
            }
            (Ok(hello @ FromWorker::Hello { .. }), Some(pid)) => self.born(id, pid, hello),
            // Or it was a child, and has exited and been reaped.
            (Ok(FromWorker::Hello { .. }), None) => self.lose(id, "the process that said Hello is not the template's child", true),
            (Ok(_), _) => self.lose(id, "its first message was not Hello", false),
            (Err(e), _) => self.lose(id, &format!("its first message: {e}"), false),
        }
    }

    /// Whether it is a child of droverd that is not registered yet.
    fn is_new_child(&self, pid: Pid) -> bool {
        let number = pid.as_raw_nonzero().get().unsigned_abs();
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !self.processes.contains_key(&number) && !self.templates.contains_key(&number) && waitid(WaitId::Pid(pid), look).is_ok()
    }

    /// Registers the forked worker like any other worker.
    fn born(&mut self, id: u32, pid: Pid, hello: FromWorker) {
        let Some(newborn) = self.newborns.remove(&id) else { return };
        let Newborn { template, unit, number, generation, settings, ends, abandoned, .. } = newborn;
        self.poller.remove(&ends.control);
        if abandoned {
            let _ = kill_process(pid, Signal::KILL);
            return self.fork_next(template);
        }
        // Later messages may carry descriptors, for which the sender's credentials would leave no
        // space.
        let named = name_senders(&ends.control, false);
        let (process, outputs) = Process::new(unit, number, generation, &settings, ends, pid, None);
        let watched = named.and(self.attach(process, outputs));
        let pid = pid.as_raw_nonzero().get().unsigned_abs();
        settings.log(Code::Started, Some(pid), &[]);
        self.unfit_unless(watched, unit, number);
        self.heard(pid, hello, &mut Vec::new());
        self.fork_next(template);
    }

    /// The worker will not start. `killed`: no application code ran that could be at fault.
    fn lose(&mut self, id: u32, reason: &str, killed: bool) {
        let Some(newborn) = self.newborns.remove(&id) else { return };
        self.poller.remove(&newborn.ends.control);
        if !newborn.abandoned {
            self.unstarted(newborn.unit, newborn.number, reason.to_owned(), killed);
        }
        self.fork_next(newborn.template);
    }

    /// A fork server exited. Its forked workers have sent Hello by now or soon will; otherwise
    /// their sockets are closed.
    pub fn newborns_of_dead_template(&mut self, template: u32) {
        for id in self.newborns.iter().filter(|(_, n)| n.template == template).map(|(id, _)| *id).collect::<Vec<_>>() {
            self.newborn_says(id);
        }
    }

    /// Withdraws a worker. False if it is not being forked.
    pub fn abandon_newborn(&mut self, unit: u32, number: Number) -> bool {
        let mut own = self.newborns.values_mut().filter(|n| n.unit == unit && n.number == number && !n.abandoned);
        own.next().map(|newborn| newborn.abandoned = true).is_some()
    }

    pub fn tick_newborns(&mut self, now: Now) {
        for id in self.newborns.iter().filter(|(_, n)| n.until <= now).map(|(id, _)| *id).collect::<Vec<_>>() {
            self.lose(id, "the template did not fork it in time", false);
        }
    }

    pub fn newborns_deadline(&self) -> Option<Now> {
        self.newborns.values().map(|n| n.until).min()
    }
}
