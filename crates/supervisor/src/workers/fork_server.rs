//! Fork servers: processes that import a group's application and fork its workers (`preload=On`).
//! Administrators know them as templates.
//!
//! Responsible for: one fork server for each generation that may start workers, and none for
//! others; and for forking every worker that waits for one, or reporting why not. Must never:
//! decide when a worker starts. The pool does; to it, a worker that waits for its fork server is
//! starting. Called by: `supervisor.rs`, the event loop. `forked_worker.rs` handles the forked
//! workers.
use crate::log::messages::Code;
use crate::pool::{Event, Now, Number};
use crate::reactor::poller::Source;
use crate::supervisor::{Supervisor, now};
use crate::workers::messages::log_loaded;
use crate::workers::process::{Ended, Process, start};
use drover_sys::Errno;
use drover_wire::VERSION;
use drover_wire::control::{FromWorker, Loaded, MAX_CONTROL, ToWorker, decode};
use rustix::process::{Signal, WaitStatus, kill_process};
use std::collections::VecDeque;
use std::time::Duration;

/// Messages read before the loop serves another descriptor.
const MAX_PER_TURN: usize = 32;
/// A fork server has no requests to finish: its time to exit.
const PATIENCE: Duration = Duration::from_secs(1);

/// A fork server. Its process has the number of the worker that needed it first.
#[derive(Debug)]
pub struct ForkServer {
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
    Exiting,
}

impl ForkServer {
    /// Whether a worker of this generation can be forked from it, now or later.
    fn serves(&self, unit: u32, generation: u64) -> bool {
        let p = &self.process;
        p.unit == unit && p.generation == generation && self.state != State::Exiting && p.control.is_some()
    }
}

impl Supervisor {
    /// Starts a worker from its generation's fork server, as soon as there is one.
    pub fn launch_from_fork_server(&mut self, id: u32, number: Number, generation: u64) {
        self.feed(id, Event::Started(number));
        if let Some((pid, fork_server)) = self.fork_servers.iter_mut().find(|(_, t)| t.serves(id, generation)) {
            let pid = *pid;
            fork_server.waiting.push_back(number);
            if fork_server.state == State::Loading {
                // Only the importing fork server counts for the start limiter, not the workers that
                // wait for it.
                self.start_limiter.release((id, number));
            }
            return self.fork_next(pid);
        }
        let Some(unit) = self.units.get(&id) else { return };
        let Some(queue) = &unit.queue else { return self.unstarted(id, number, "the group is no longer configured".to_owned(), false) };
        match start(id, number, generation, &unit.settings, queue, &self.spawn_context) {
            Ok((process, outputs)) => {
                let pid = process.pid().as_raw_nonzero().get().unsigned_abs();
                unit.settings.log(Code::ForkServerStarted, Some(pid), &[]);
                let watched = process.control.as_ref().map_or(Ok(()), |c| self.poller.add(c, Source::ForkServer(pid)));
                let watched = watched.and(self.read_from(outputs));
                let fork_server = ForkServer {
                    process,
                    since: now(),
                    state: State::Loading,
                    waiting: VecDeque::from([number]),
                    dumped: false,
                    kill_at: None,
                };
                self.fork_servers.insert(pid, fork_server);
                if let Err(e) = watched {
                    self.fork_server_failed(pid, &format!("cannot watch its descriptors: {e}"));
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
        while !self.forked_workers.values().any(|n| n.fork_server == pid) {
            let can = |t: &&mut ForkServer| t.state == State::Ready && t.process.control.is_some();
            let Some(fork_server) = self.fork_servers.get_mut(&pid).filter(can) else { return };
            let Some(number) = fork_server.waiting.pop_front() else { return };
            self.fork(pid, number);
        }
    }

    /// Reads what a fork server has sent.
    pub fn read_fork_server(&mut self, pid: u32) {
        let mut buffer = vec![0; MAX_CONTROL];
        for _ in 0..MAX_PER_TURN {
            let Some(fork_server) = self.fork_servers.get_mut(&pid) else { return };
            let Some(control) = &fork_server.process.control else { return };
            match control.receive(&mut buffer) {
                Ok(0) | Err(Errno::CONNRESET) => return self.fork_server_hung_up(pid, None),
                Ok(n) => match decode::<FromWorker>(buffer.get(..n).unwrap_or_default()) {
                    Ok(message) => self.on_fork_server_message(pid, message),
                    Err(e) => self.fork_server_failed(pid, &e.to_string()),
                },
                Err(Errno::AGAIN) => return,
                Err(e) => return self.fork_server_failed(pid, &e.to_string()),
            }
        }
    }

    /// Its exit tells more and follows at once; otherwise it is killed. `unheard`: a worker whose
    /// fork request was not delivered; it learns the reason from the exit.
    pub fn fork_server_hung_up(&mut self, pid: u32, unheard: Option<Number>) {
        let Some(fork_server) = self.fork_servers.get_mut(&pid) else { return };
        if let Some(control) = fork_server.process.control.take() {
            self.poller.remove(&control);
        }
        if let Some(number) = unheard {
            fork_server.waiting.push_front(number);
        }
        fork_server.kill_at = Some(now() + PATIENCE);
    }

    fn on_fork_server_message(&mut self, pid: u32, message: FromWorker) {
        let Some(fork_server) = self.fork_servers.get(&pid) else { return };
        match message {
            FromWorker::Hello { version, .. } if version != VERSION => {
                fork_server.process.settings.log(Code::WorkerVersion, Some(pid), &[version.clone(), VERSION.to_owned()]);
                self.fork_server_failed(pid, &format!("the worker extension is version {version}, droverd is version {VERSION}"));
            }
            FromWorker::Hello { .. } => {
                let Some(mut config) = self.worker_config(&fork_server.process) else { return };
                config.is_template = true;
                // A fork server that is exiting is detected when it is reaped.
                if let Err(e) = fork_server.process.tell(&ToWorker::Start(Box::new(config)))
                    && !matches!(e, Errno::PIPE | Errno::CONNRESET)
                {
                    self.fork_server_failed(pid, &format!("cannot send the configuration: {e}"));
                }
            }
            FromWorker::Loaded(loaded) => self.fork_server_loaded(pid, &loaded),
            FromWorker::SetupFailed(text) => self.fork_server_failed(pid, &text),
            FromWorker::Memory(bytes) => self.memory_reported(pid, bytes),
            _ => self.fork_server_failed(pid, "it sent a message that only a worker may send"),
        }
    }

    /// The application is imported as far as possible. Each worker reports failures again, for the
    /// pool.
    fn fork_server_loaded(&mut self, pid: u32, loaded: &[Loaded]) {
        let Some(fork_server) = self.fork_servers.get_mut(&pid).filter(|t| t.state == State::Loading) else { return };
        fork_server.state = State::Ready;
        let process = &fork_server.process;
        process.is_ready();
        log_loaded(&process.settings, loaded);
        process.settings.log(Code::ForkServerUp, Some(pid), &[process.generation.to_string()]);
        self.fork_next(pid);
    }

    /// The fork server is unusable: the workers that wait for it fail with the reason, and it is
    /// terminated.
    fn fork_server_failed(&mut self, pid: u32, why: &str) {
        let Some(fork_server) = self.fork_servers.get(&pid) else { return };
        if fork_server.state != State::Exiting {
            let told = self.units.get_mut(&fork_server.process.unit).map_or_else(|| why.to_owned(), |u| u.setup_failures.text(why));
            fork_server.process.settings.log(Code::ForkServerFailed, Some(pid), &[told]);
        }
        self.terminate_fork_server(pid);
        let reason = why.trim_end().rsplit('\n').next().unwrap_or_default();
        self.fail_waiting(pid, reason, false);
    }

    /// Fails all workers that wait for this fork server.
    fn fail_waiting(&mut self, pid: u32, reason: &str, killed: bool) {
        let Some(fork_server) = self.fork_servers.get_mut(&pid) else { return };
        let (unit, waiting) = (fork_server.process.unit, std::mem::take(&mut fork_server.waiting));
        for worker in waiting {
            self.unstarted(unit, worker, reason.to_owned(), killed);
        }
    }

    /// A fork server has exited.
    pub fn fork_server_exited(&mut self, pid: u32, status: WaitStatus) {
        self.read_fork_server(pid);
        self.read_last_output(pid);
        let Some(fork_server) = self.fork_servers.get(&pid) else { return };
        let process = &fork_server.process;
        if let Some(control) = &process.control {
            self.poller.remove(control);
        }
        let (key, settings) = ((process.unit, process.number), process.settings.clone());
        let was_dumped = fork_server.dumped;
        let (reason, killed) = match (process.ended(status), fork_server.state) {
            (Ended::NeverRan(e), _) => {
                settings.log(Code::SpawnFailed, None, &[e.to_string()]);
                (e.to_string(), false)
            }
            (Ended::Ran { how, killed, .. }, state) => {
                let code = match state {
                    State::Loading => Code::ForkServerFailed,
                    State::Ready => Code::ForkServerExited,
                    State::Exiting => Code::Exited,
                };
                settings.log(code, Some(pid), std::slice::from_ref(&how));
                (format!("the template process {how}{}", process.last_words()), killed)
            }
        };
        self.start_limiter.release(key);
        // droverd asked for its stacks because startup-timeout was over. Before Python's fault handler
        // is installed, that signal kills it.
        let (reason, killed) = if was_dumped { ("startup-timeout".to_owned(), false) } else { (reason, killed) };
        self.fail_waiting(pid, &reason, killed);
        self.fork_servers.remove(&pid);
        self.read_forked_workers_of(pid);
    }

    /// Terminates a unit's fork servers that are no longer needed. Called after every step of its
    /// pool.
    pub fn review_fork_servers(&mut self, id: u32) {
        let pool = self.units.get(&id).map(|u| &u.pool);
        let useless = |t: &ForkServer| {
            let over = !pool.is_some_and(|p| p.may_start(t.process.generation));
            let idle = t.state == State::Loading && t.waiting.is_empty();
            t.process.unit == id && t.state != State::Exiting && (over || idle)
        };
        for pid in self.fork_servers.iter().filter(|(_, t)| useless(t)).map(|(pid, _)| *pid).collect::<Vec<_>>() {
            self.terminate_fork_server(pid);
        }
    }

    /// Terminates all fork servers of a unit, which have its old queue. The pool terminates the
    /// workers that wait for them.
    pub fn terminate_fork_servers(&mut self, id: u32) {
        for pid in self.fork_servers.iter().filter(|(_, t)| t.process.unit == id).map(|(pid, _)| *pid).collect::<Vec<_>>() {
            self.terminate_fork_server(pid);
        }
    }

    fn terminate_fork_server(&mut self, pid: u32) {
        let Some(fork_server) = self.fork_servers.get_mut(&pid) else { return };
        if fork_server.state == State::Exiting {
            return;
        }
        // A fork server that cannot be told is killed.
        let _ = fork_server.process.tell(&ToWorker::Drain);
        if fork_server.state == State::Loading && !fork_server.dumped {
            fork_server.process.signal(Signal::TERM);
        }
        fork_server.state = State::Exiting;
        fork_server.kill_at = Some(now() + PATIENCE);
        self.start_limiter.release((fork_server.process.unit, fork_server.process.number));
    }

    /// Withdraws a worker that has no process yet.
    pub fn withdraw(&mut self, id: u32, worker: Number) {
        let mut found = false;
        for fork_server in self.fork_servers.values_mut().filter(|t| t.process.unit == id) {
            let before = fork_server.waiting.len();
            fork_server.waiting.retain(|w| *w != worker);
            found |= fork_server.waiting.len() < before;
        }
        if self.withdraw_forked_worker(id, worker) || found {
            self.post(id, Event::Exited { worker, how: "was not forked".to_owned(), clean: false, killed: false });
        }
    }

    /// Makes the fork server that a worker waits for write its stacks. It reads no messages during
    /// the import, but Python's fault handler handles this signal.
    pub fn dump_fork_server(&mut self, id: u32, worker: Number) {
        let waits = |t: &ForkServer| t.process.unit == id && t.waiting.contains(&worker);
        if let Some(fork_server) = self.fork_servers.values_mut().find(|t| waits(t))
            && !std::mem::replace(&mut fork_server.dumped, true)
        {
            let _ = kill_process(fork_server.process.pid(), drover_sys::signals::dump());
        }
    }

    pub fn tick_fork_servers(&mut self, now: Now) {
        for fork_server in self.fork_servers.values_mut() {
            if fork_server.kill_at.is_some_and(|at| at <= now) {
                fork_server.kill_at = None;
                fork_server.process.signal(Signal::KILL);
            }
        }
    }

    pub fn fork_servers_deadline(&self) -> Option<Now> {
        self.fork_servers.values().filter_map(|t| t.kill_at).min()
    }
}
