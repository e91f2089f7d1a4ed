//! Fork servers: processes that import a group's application and fork its workers (`preload=On`).
//! Administrators know them as templates.
//!
//! Responsible for: one fork server for each generation that may start workers, and none for
//! others; and for forking every worker that waits for one, or reporting why not. Must never:
//! decide when a worker starts. The pool does; to it, a worker that waits for its fork server is
//! starting. Called by: `supervisor.rs`, the event loop. `forked_worker.rs` handles the forked
//! workers.
use crate::messages::Code;
use crate::poller::Source;
use crate::pool::{Event, Now, Number};
use crate::process::{Ended, Process, start};
use crate::supervisor::{Supervisor, now};
use crate::worker_talk::log_loaded;
use drover_sys::Errno;
use drover_wire::VERSION;
use drover_wire::control::{FromWorker, Loaded, MAX_CONTROL, ToWorker, decode};
use rustix::process::{Signal, WaitStatus, kill_process};
use std::collections::VecDeque;
use std::time::Duration;

/// Messages read before the loop serves another descriptor.
const AT_ONCE: usize = 32;
/// A fork server has no requests to finish: its time to exit.
const PATIENCE: Duration = Duration::from_secs(1);

/// A fork server. Its process has the number of the worker that needed it first.
#[derive(Debug)]
pub struct Template {
    pub process: Process,
    /// When it was started.
    pub since: Now,
    state: State,
    /// Workers to fork, in order.
    waiting: VecDeque<Number>,
    /// It was asked for its stacks and must live long enough to write them.
    dumped: bool,
    /// When it is killed if it still runs.
    kill_at: Option<Now>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is importing the application.
    Loading,
    Ready,
    /// It was told to exit.
    Ending,
}

impl Template {
    /// Whether a worker of this generation can be forked from it, now or later.
    fn serves(&self, unit: u32, generation: u64) -> bool {
        let p = &self.process;
        p.unit == unit && p.generation == generation && self.state != State::Ending && p.control.is_some()
    }
}

impl Supervisor {
    /// Starts a worker from its generation's fork server, as soon as there is one.
    pub fn launch_from_template(&mut self, id: u32, number: Number, generation: u64) {
        self.feed(id, Event::Started(number));
        if let Some((pid, template)) = self.templates.iter_mut().find(|(_, t)| t.serves(id, generation)) {
            let pid = *pid;
            template.waiting.push_back(number);
            if template.state == State::Loading {
                // Only the importing fork server counts for the start limiter, not the workers that
                // wait for it.
                self.gate.leave((id, number));
            }
            return self.fork_next(pid);
        }
        let Some(unit) = self.units.get(&id) else { return };
        let Some(queue) = &unit.queue else { return self.unstarted(id, number, "the group is gone".to_owned(), false) };
        match start(id, number, generation, &unit.settings, queue, &self.place) {
            Ok((process, outputs)) => {
                let pid = process.pid().as_raw_nonzero().get().unsigned_abs();
                unit.settings.log(Code::ForkServerStarted, Some(pid), &[]);
                let watched = process.control.as_ref().map_or(Ok(()), |c| self.poller.add(c, Source::Template(pid)));
                let watched = watched.and(self.read_from(outputs));
                let template = Template {
                    process,
                    since: now(),
                    state: State::Loading,
                    waiting: VecDeque::from([number]),
                    dumped: false,
                    kill_at: None,
                };
                self.templates.insert(pid, template);
                if let Err(e) = watched {
                    self.template_failed(pid, &format!("cannot watch it: {e}"));
                }
            }
            Err(e) => {
                unit.settings.log(Code::SpawnFailed, None, &[e.to_string()]);
                self.unstarted(id, number, e.to_string(), false);
            }
        }
    }

    /// Makes a ready fork server fork the next worker. It forks one at a time: the next request
    /// waits for the Hello of the previous worker.
    pub fn fork_next(&mut self, pid: u32) {
        while !self.newborns.values().any(|n| n.template == pid) {
            let can = |t: &&mut Template| t.state == State::Ready && t.process.control.is_some();
            let Some(template) = self.templates.get_mut(&pid).filter(can) else { return };
            let Some(number) = template.waiting.pop_front() else { return };
            self.fork(pid, number);
        }
    }

    /// Reads what a fork server has sent.
    pub fn template_says(&mut self, pid: u32) {
        let mut buffer = vec![0; MAX_CONTROL];
        for _ in 0..AT_ONCE {
            let Some(template) = self.templates.get_mut(&pid) else { return };
            let Some(control) = &template.process.control else { return };
            match control.receive(&mut buffer) {
                Ok(0) | Err(Errno::CONNRESET) => return self.template_hung_up(pid, None),
                Ok(n) => match decode::<FromWorker>(buffer.get(..n).unwrap_or_default()) {
                    Ok(message) => self.heard_from_template(pid, message),
                    Err(e) => self.template_failed(pid, &e.to_string()),
                },
                Err(Errno::AGAIN) => return,
                Err(e) => return self.template_failed(pid, &e.to_string()),
            }
        }
    }

    /// Its exit tells more and follows at once; otherwise it is killed. `unheard`: a worker whose
    /// fork request was not delivered; it learns the reason from the exit.
    pub fn template_hung_up(&mut self, pid: u32, unheard: Option<Number>) {
        let Some(template) = self.templates.get_mut(&pid) else { return };
        if let Some(control) = template.process.control.take() {
            self.poller.remove(&control);
        }
        if let Some(number) = unheard {
            template.waiting.push_front(number);
        }
        template.kill_at = Some(now() + PATIENCE);
    }

    fn heard_from_template(&mut self, pid: u32, message: FromWorker) {
        let Some(template) = self.templates.get(&pid) else { return };
        match message {
            FromWorker::Hello { version, .. } if version != VERSION => {
                template.process.settings.log(Code::WorkerVersion, Some(pid), &[version.clone(), VERSION.to_owned()]);
                self.template_failed(pid, &format!("the worker extension is version {version}, droverd is version {VERSION}"));
            }
            FromWorker::Hello { .. } => {
                let Some(mut config) = self.worker_config(&template.process) else { return };
                config.is_template = true;
                // A fork server that is exiting is detected when it is reaped.
                if let Err(e) = template.process.tell(&ToWorker::Start(Box::new(config)))
                    && !matches!(e, Errno::PIPE | Errno::CONNRESET)
                {
                    self.template_failed(pid, &format!("cannot send the configuration: {e}"));
                }
            }
            FromWorker::Loaded(loaded) => self.template_loaded(pid, &loaded),
            FromWorker::SetupFailed(text) => self.template_failed(pid, &text),
            FromWorker::Memory(bytes) => self.memory_reported(pid, bytes),
            _ => self.template_failed(pid, "it said something that only a worker may say"),
        }
    }

    /// The application is imported as far as possible. Each worker reports failures again, for the
    /// pool.
    fn template_loaded(&mut self, pid: u32, loaded: &[Loaded]) {
        let Some(template) = self.templates.get_mut(&pid).filter(|t| t.state == State::Loading) else { return };
        template.state = State::Ready;
        let process = &template.process;
        process.is_ready();
        log_loaded(&process.settings, loaded);
        process.settings.log(Code::ForkServerUp, Some(pid), &[process.generation.to_string()]);
        self.fork_next(pid);
    }

    /// The fork server is unusable: the workers that wait for it fail with the reason, and it is
    /// terminated.
    fn template_failed(&mut self, pid: u32, why: &str) {
        let Some(template) = self.templates.get(&pid) else { return };
        if template.state != State::Ending {
            let told = self.units.get_mut(&template.process.unit).map_or_else(|| why.to_owned(), |u| u.told.text(why));
            template.process.settings.log(Code::ForkServerFailed, Some(pid), &[told]);
        }
        self.end_template(pid);
        let reason = why.trim_end().rsplit('\n').next().unwrap_or_default();
        self.disappoint(pid, reason, false);
    }

    /// Fails all workers that wait for this fork server.
    fn disappoint(&mut self, pid: u32, reason: &str, killed: bool) {
        let Some(template) = self.templates.get_mut(&pid) else { return };
        let (unit, waiting) = (template.process.unit, std::mem::take(&mut template.waiting));
        for worker in waiting {
            self.unstarted(unit, worker, reason.to_owned(), killed);
        }
    }

    /// A fork server has exited.
    pub fn template_ended(&mut self, pid: u32, status: WaitStatus) {
        self.template_says(pid);
        self.read_last_output(pid);
        let Some(template) = self.templates.get(&pid) else { return };
        let process = &template.process;
        if let Some(control) = &process.control {
            self.poller.remove(control);
        }
        let (key, settings) = ((process.unit, process.number), process.settings.clone());
        let (reason, killed) = match (process.ended(status), template.state) {
            (Ended::NeverRan(e), _) => {
                settings.log(Code::SpawnFailed, None, &[e.to_string()]);
                (e.to_string(), false)
            }
            (Ended::Ran { how, killed, .. }, state) => {
                let code = match state {
                    State::Loading => Code::ForkServerFailed,
                    State::Ready => Code::ForkServerExited,
                    State::Ending => Code::Exited,
                };
                settings.log(code, Some(pid), std::slice::from_ref(&how));
                (format!("the template process {how}{}", process.last_words()), killed)
            }
        };
        self.gate.leave(key);
        self.disappoint(pid, &reason, killed);
        self.templates.remove(&pid);
        self.newborns_of_dead_template(pid);
    }

    /// Terminates a unit's fork servers that are no longer needed. Called after every step of its
    /// pool.
    pub fn review_templates(&mut self, id: u32) {
        let pool = self.units.get(&id).map(|u| &u.pool);
        let useless = |t: &Template| {
            let over = !pool.is_some_and(|p| p.may_start(t.process.generation));
            let idle = t.state == State::Loading && t.waiting.is_empty();
            t.process.unit == id && t.state != State::Ending && (over || idle)
        };
        for pid in self.templates.iter().filter(|(_, t)| useless(t)).map(|(pid, _)| *pid).collect::<Vec<_>>() {
            self.end_template(pid);
        }
    }

    /// Terminates all fork servers of a unit, which have its old queue. The pool terminates the
    /// workers that wait for them.
    pub fn end_templates(&mut self, id: u32) {
        for pid in self.templates.iter().filter(|(_, t)| t.process.unit == id).map(|(pid, _)| *pid).collect::<Vec<_>>() {
            self.end_template(pid);
        }
    }

    fn end_template(&mut self, pid: u32) {
        let Some(template) = self.templates.get_mut(&pid) else { return };
        if template.state == State::Ending {
            return;
        }
        // A fork server that cannot be told is killed.
        let _ = template.process.tell(&ToWorker::Drain);
        if template.state == State::Loading && !template.dumped {
            template.process.signal(Signal::TERM);
        }
        template.state = State::Ending;
        template.kill_at = Some(now() + PATIENCE);
        self.gate.leave((template.process.unit, template.process.number));
    }

    /// Withdraws a worker that has no process yet.
    pub fn withdraw(&mut self, id: u32, worker: Number) {
        let mut found = false;
        for template in self.templates.values_mut().filter(|t| t.process.unit == id) {
            let before = template.waiting.len();
            template.waiting.retain(|w| *w != worker);
            found |= template.waiting.len() < before;
        }
        if self.abandon_newborn(id, worker) || found {
            self.inbox.push_back((id, Event::Exited { worker, how: "was not forked".to_owned(), clean: false, killed: false }));
        }
    }

    /// Makes the fork server that a worker waits for write its stacks. It reads no messages during
    /// the import, but Python's fault handler handles this signal.
    pub fn dump_template(&mut self, id: u32, worker: Number) {
        let waits = |t: &Template| t.process.unit == id && t.waiting.contains(&worker);
        if let Some(template) = self.templates.values_mut().find(|t| waits(t))
            && !std::mem::replace(&mut template.dumped, true)
        {
            let _ = kill_process(template.process.pid(), drover_sys::signals::dump());
        }
    }

    pub fn tick_templates(&mut self, now: Now) {
        for template in self.templates.values_mut() {
            if template.kill_at.is_some_and(|at| at <= now) {
                template.kill_at = None;
                template.process.signal(Signal::KILL);
            }
        }
    }

    pub fn templates_deadline(&self) -> Option<Now> {
        self.templates.values().filter_map(|t| t.kill_at).min()
    }
}
