//! The state of droverd, and how the pools' decisions are carried out.
//!
//! Responsible for: units (a pool with its queue), processes, returned requests, and performing
//! every action. Must never: make decisions; those are the pool's. Called by: `event_loop.rs` and
//! the files that read sockets.
use crate::control::admin::Admin;
use crate::control::commands::PendingReload;
use crate::control::plan::PoolKey;
use crate::control::settings::Settings;
use crate::log::Sink;
use crate::log::messages::Code;
use crate::log::setup_failures::SetupFailureLog;
use crate::pool::start_limit::StartLimiter;
use crate::pool::{Action, Event, Now, Number, Pool, Token};
use crate::queue::drain_queue::answer;
use crate::queue::refuse::Refusals;
use crate::queue::store::{Queue, Store};
use crate::reactor::poller::Poller;
use crate::workers::fork_server::ForkServer;
use crate::workers::forked_worker::ForkedWorker;
use crate::workers::process::{Output, Process};
use crate::workers::scripts::Scripts;
use crate::workers::spawn::SpawnContext;
use drover_sys::channel::send;
use drover_sys::{Errno, clock};
use drover_wire::control::{Script, ToWorker};
use drover_wire::frame::Failure;
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// A pool and its resources outside the state machine.
#[derive(Debug)]
pub struct Unit {
    pub key: PoolKey,
    pub pool: Pool,
    pub settings: Rc<Settings>,
    pub scripts: Scripts,
    /// The setup failures of its workers, as logged.
    pub setup_failures: SetupFailureLog,
    /// `None`: the group is no longer configured.
    pub queue: Option<Queue>,
    /// Process ids.
    pub pids: BTreeMap<Number, u32>,
    /// The generation of each worker that waits for the start limiter.
    pub waiting: BTreeMap<Number, u64>,
    /// The number by which httpd counts its requests.
    pub counter_slot: u32,
    /// When a queue was last opened for a request, or a worker last reported a request.
    pub used_at: Now,
    /// Used since the last configuration.
    pub used: bool,
    /// The queue is watched, because no worker can serve it.
    pub queue_watched: bool,
}

/// A request that a worker returned.
#[derive(Debug)]
pub struct ReturnedRequest {
    pub message: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

#[derive(Debug)]
pub struct Supervisor {
    pub spawn_context: SpawnContext,
    pub poller: Poller,
    /// The main server's log.
    pub main: Rc<Sink>,
    pub store: Store,
    pub groups: BTreeMap<Vec<u8>, Rc<Settings>>,
    pub units: BTreeMap<u32, Unit>,
    /// The units that are not retired.
    pub index: BTreeMap<PoolKey, u32>,
    pub processes: BTreeMap<u32, Process>,
    /// By process id, like the workers.
    pub fork_servers: BTreeMap<u32, ForkServer>,
    /// Workers that fork servers were told to fork.
    pub forked_workers: BTreeMap<u32, ForkedWorker>,
    pub admin: Admin,
    /// Groups that an administrator stopped.
    pub halted: BTreeSet<Vec<u8>>,
    /// Clients that wait for the result of a reload.
    pub pending_reloads: VecDeque<PendingReload>,
    /// From the last configuration.
    pub httpd_generation: u64,
    /// httpd's report about sessions.
    pub sessions: Vec<String>,
    pub outputs: BTreeMap<u32, Output>,
    pub start_limiter: StartLimiter<(u32, Number)>,
    pub refusals: Refusals,
    returned: BTreeMap<Token, ReturnedRequest>,
    /// Events caused by actions, delivered by the running [`Supervisor::feed`].
    inbox: VecDeque<(u32, Event)>,
    pub next_forked_worker: u32,
    next_unit: u32,
    pub next_output: u32,
    next_token: Token,
}

pub fn now() -> Now {
    Duration::from_nanos(clock::monotonic_ns())
}

impl Supervisor {
    pub fn new(spawn_context: SpawnContext, poller: Poller, main: Rc<Sink>, store: Store) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            spawn_context,
            poller,
            main,
            store,
            groups: BTreeMap::new(),
            units: BTreeMap::new(),
            index: BTreeMap::new(),
            processes: BTreeMap::new(),
            fork_servers: BTreeMap::new(),
            forked_workers: BTreeMap::new(),
            admin: Admin::default(),
            halted: BTreeSet::new(),
            pending_reloads: VecDeque::new(),
            httpd_generation: 0,
            sessions: Vec::new(),
            outputs: BTreeMap::new(),
            start_limiter: StartLimiter::new(cores.saturating_mul(2)),
            refusals: Refusals::default(),
            returned: BTreeMap::new(),
            inbox: VecDeque::new(),
            next_forked_worker: 0,
            next_unit: 0,
            next_output: 0,
            next_token: 0,
        }
    }

    /// Adds a unit for an existing queue.
    pub fn adopt(&mut self, key: PoolKey, queue: Queue, settings: &Rc<Settings>) -> u32 {
        let id = self.next_unit;
        self.next_unit = self.next_unit.wrapping_add(1);
        let mut scripts = Scripts::default();
        scripts.configure(&key, settings);
        let pool = Pool::new(settings.limits(), clock::monotonic_ns() ^ u64::from(id));
        let unit = Unit {
            key: key.clone(),
            pool,
            settings: settings.clone(),
            scripts,
            setup_failures: SetupFailureLog::default(),
            queue: Some(queue),
            pids: BTreeMap::new(),
            waiting: BTreeMap::new(),
            counter_slot: self.free_counter_slot(&key.group),
            used_at: now(),
            used: false,
            queue_watched: false,
        };
        self.units.insert(id, unit);
        self.index.insert(key, id);
        id
    }

    /// Adds a unit with a new queue, which is saved in the store.
    pub fn create(&mut self, key: PoolKey, script: Script, settings: &Rc<Settings>) -> Result<u32, Errno> {
        let queue = Queue::new()?;
        if let Err(e) = self.store.put(&key, &script, &queue) {
            self.main.message(Code::Store, None, None, &[format!("group '{}'", String::from_utf8_lossy(&key.group)), e.to_string()]);
        }
        let halted = self.halted.contains(&key.group);
        let id = self.adopt(key, queue, settings);
        if let Some(unit) = self.units.get_mut(&id) {
            unit.scripts.add(script);
        }
        if halted {
            self.feed(id, Event::Halt);
        }
        Ok(id)
    }

    /// Closes the queue of a unit whose group is no longer configured. Its workers see the queue
    /// end when the last httpd child has exited.
    pub fn retire(&mut self, key: &PoolKey) {
        let Some(id) = self.index.remove(key) else { return };
        if let Some(unit) = self.units.get_mut(&id) {
            if let Some(queue) = unit.queue.take() {
                self.poller.remove(&queue.receive);
            }
            unit.queue_watched = false;
        }
        self.feed(id, Event::Retire);
    }

    /// Passes an event to a unit's pool and performs the resulting actions.
    pub fn feed(&mut self, id: u32, event: Event) {
        self.inbox.push_back((id, event));
        while let Some((id, event)) = self.inbox.pop_front() {
            let Some(unit) = self.units.get_mut(&id) else { continue };
            let mut actions = Vec::new();
            unit.pool.step(event, now(), &mut actions);
            for action in actions {
                self.perform(id, action);
            }
            self.watch_queue(id);
            self.review_fork_servers(id);
            if self.units.get(&id).is_some_and(|u| u.pool.is_retired() && u.pool.is_empty()) {
                self.units.remove(&id);
            }
        }
    }

    /// Queues an event that an action caused. The running [`Supervisor::feed`] delivers it after the
    /// other actions, so that no step is nested in another.
    pub fn post(&mut self, id: u32, event: Event) {
        self.inbox.push_back((id, event));
    }

    /// Passes an event to every pool.
    pub fn feed_all(&mut self, event: &Event) {
        for id in self.units.keys().copied().collect::<Vec<_>>() {
            self.feed(id, event.clone());
        }
    }

    /// No process is left to wait for.
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty() && self.fork_servers.is_empty() && self.forked_workers.is_empty()
    }

    /// When droverd may exit although processes are left: all of them are unkillable by then. `None`:
    /// one of them was not sent SIGKILL yet.
    pub fn abandon_at(&self) -> Option<Now> {
        let left = self.processes.values().chain(self.fork_servers.values().map(|f| &f.process));
        let last = left.map(Process::unkillable_at).try_fold(Now::ZERO, |last, at| Some(last.max(at?)))?;
        self.forked_workers.is_empty().then_some(last)
    }

    /// Logs the processes that droverd leaves behind as it exits.
    pub fn log_abandoned(&self) {
        for process in self.processes.values().chain(self.fork_servers.values().map(|f| &f.process)) {
            process.settings.log(Code::Unkillable, Some(process.pid().as_raw_nonzero().get().unsigned_abs()), &[]);
        }
    }

    /// Sends a tick to the pools whose deadline has passed, and starts waiting workers.
    pub fn tick(&mut self) {
        let now = now();
        let due = |u: &Unit| u.pool.deadline().is_some_and(|at| at <= now);
        for id in self.units.iter().filter(|(_, u)| due(u)).map(|(id, _)| *id).collect::<Vec<_>>() {
            self.feed(id, Event::Tick);
        }
        self.tick_fork_servers(now);
        self.tick_forked_workers(now);
        while let Some((id, number)) = self.start_limiter.next(now) {
            self.launch(id, number);
        }
    }

    pub fn deadline(&self) -> Option<Now> {
        let forks = self.fork_servers_deadline().into_iter().chain(self.forked_workers_deadline());
        self.units.values().filter_map(|u| u.pool.deadline()).chain(self.start_limiter.deadline()).chain(forks).min()
    }

    fn perform(&mut self, id: u32, action: Action) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        match action {
            Action::Start { worker, generation } => {
                unit.waiting.insert(worker, generation);
                self.start_limiter.enqueue((id, worker));
            }
            Action::Cancel(worker) => {
                unit.waiting.remove(&worker);
                self.start_limiter.release((id, worker));
            }
            Action::Serve(worker) => self.tell(id, worker, &ToWorker::Serve),
            Action::Drain(worker) => self.tell(id, worker, &ToWorker::Drain),
            Action::MarkKnownBad { worker, path, mtime_us } => self.tell(id, worker, &ToWorker::Keep { path, mtime_us }),
            Action::Dump(worker) => {
                self.tell(id, worker, &ToWorker::Dump);
                self.dump_fork_server(id, worker);
            }
            Action::Wake(worker) => self.tell(id, worker, &ToWorker::Look),
            Action::CheckQueue => {
                let waiting = unit.queue.as_ref().is_some_and(|q| drover_sys::wait::readable_now(&q.receive));
                self.post(id, Event::QueueChecked { waiting });
            }
            Action::Terminate(worker) => {
                let within_ms = unit.settings.spec.shutdown_timeout_ms;
                self.tell(id, worker, &ToWorker::LastWords { within_ms });
                self.signal(id, worker, Signal::TERM);
            }
            Action::Kill(worker) => self.signal(id, worker, Signal::KILL),
            Action::Requeue(token) => self.requeue(id, token),
            Action::Refuse(token) => {
                if let Some(h) = self.returned.remove(&token) {
                    answer(&h.message, &h.fds, Failure::Stopping, "the group's workers are being replaced or stopped");
                }
            }
            Action::StartFailed => unit.scripts.forget_optional(),
            Action::Log { code, worker, args } => {
                if matches!(code, Code::WorkerUp) {
                    unit.setup_failures.over();
                }
                let pid = worker.and_then(|w| unit.pids.get(&w)).copied();
                // A worker that waits for its fork server has no process yet; `forked_worker.rs`
                // logs its start.
                if code != Code::Started || pid.is_some() {
                    unit.settings.log(code, pid, &args);
                }
            }
        }
    }

    fn tell(&mut self, id: u32, worker: Number, message: &ToWorker) {
        let must_know = !matches!(message, ToWorker::Dump | ToWorker::Keep { .. } | ToWorker::Look);
        if must_know {
            // It is ready or no longer wanted: others may import.
            self.start_limiter.release((id, worker));
        }
        if let Some(p) = self.process(id, worker)
            && p.tell(message).is_err()
            && must_know
        {
            // The worker would never serve, or never exit. A signal needs no memory: it finishes
            // its requests and is replaced.
            p.signal(Signal::TERM);
        }
    }

    fn signal(&mut self, id: u32, worker: Number, signal: Signal) {
        self.start_limiter.release((id, worker));
        match self.process(id, worker) {
            Some(p) => p.signal(signal),
            None => self.withdraw(id, worker),
        }
    }

    fn process(&self, id: u32, worker: Number) -> Option<&Process> {
        self.processes.get(self.units.get(&id)?.pids.get(&worker)?)
    }

    fn requeue(&mut self, id: u32, token: Token) {
        let Some(h) = self.returned.get_mut(&token) else { return };
        drover_wire::request::mark_resent(&mut h.message);
        let Some(queue) = self.units.get(&id).and_then(|u| u.queue.as_ref()) else {
            self.perform(id, Action::Refuse(token));
            return;
        };
        let fds: Vec<_> = h.fds.iter().map(AsFd::as_fd).collect();
        match send(&queue.send, &[&h.message], &fds, false) {
            Ok(_) => drop(self.returned.remove(&token)),
            Err(Errno::AGAIN | Errno::TOOMANYREFS | Errno::NOBUFS) => self.post(id, Event::Full(token)),
            Err(_) => self.perform(id, Action::Refuse(token)),
        }
    }

    /// Keeps a request until its pool decides about it.
    pub fn keep_request(&mut self, returned: ReturnedRequest) -> Token {
        self.next_token += 1;
        self.returned.insert(self.next_token, returned);
        self.next_token
    }
}
