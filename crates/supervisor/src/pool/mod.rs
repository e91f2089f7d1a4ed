//! One pool: the workers of one application group in one daemon group, as a state machine.
//!
//! Responsible for: every decision about when a worker starts, serves, drains and is killed, and
//! about returned requests. Must never: do I/O, read a clock, know a process id. Called by: the
//! supervisor, which turns descriptors into [`Event`]s and performs [`Action`]s.
//!
//! Child modules: `generation` (the life of a generation), `reload` (changed files and parked
//! requests), `drain` (draining and termination), `rotation` (one-by-one replacement and the pool's
//! size), `scale`, `backoff`, `start_limit`, `failure_log`.
//!
//! Phases: `Idle`: no workers until a request arrives; the queue is watched. An elastic pool
//! returns to it when it has shrunk to nothing. `Rising`: a new generation is starting; an older
//! one may serve meanwhile. `Steady`: the newest generation serves. `Waiting`: the last attempt
//! failed; an older generation may serve until the next attempt. `Halted`: stopped by an
//! administrator. `Stopped`: httpd stops or restarts. `Retired`: the group is no longer configured.
#![forbid(unsafe_code)]
mod backoff;
mod drain;
mod events;
mod failure_log;
mod generation;
mod reload;
mod report;
mod rotation;
mod scale;
pub mod start_limit;
#[cfg(test)]
mod tests;

use crate::log::messages::Code;
use crate::pool::backoff::Backoff;
pub use crate::pool::events::{Action, Event, Limits, Now, Number, Path, ReplaceReason, ScriptFailure, Token};
use crate::pool::failure_log::FailureLog;
use crate::pool::reload::ParkedRequest;
use crate::pool::scale::Scale;
pub use report::WorkerReport;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Waits for the start limiter.
    Queued,
    Starting {
        until: Option<Now>,
    },
    Serving {
        /// It drains once its replacement is ready.
        being_replaced: bool,
    },
    /// It was told to drain or to exit.
    Draining {
        term_at: Option<Now>,
        kill_at: Option<Now>,
    },
}

#[derive(Debug, Clone)]
struct Worker {
    pub generation: u64,
    pub slot: usize,
    pub state: State,
    /// droverd sent it a signal: its exit is expected.
    pub signalled: bool,
    /// Its stacks were logged.
    pub dumped: bool,
    /// Set when its control socket was closed.
    pub closed_kill_at: Option<Now>,
    /// When it became ready.
    pub since: Now,
    /// Its last activity.
    pub active_at: Now,
    /// It has had a request that counts for inactivity-timeout.
    pub counted: bool,
    /// Requests that it is running, and requests it has taken so far.
    pub running: u32,
    pub taken: u64,
    /// When restart-interval is over.
    pub interval_at: Option<Now>,
}

/// Why a generation is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    Wanted,
    Configure,
    Changed,
    /// Some scripts cannot be loaded in the serving generation.
    Degraded,
}

#[derive(Debug, Clone)]
struct Rising {
    pub reason: Reason,
    pub first_up: Option<Now>,
    /// When its last worker became ready.
    pub last_up: Now,
    /// After a failure one worker is started first; the others follow if it succeeds.
    pub probe: bool,
    /// A start failed: no more workers are started until the others have reported.
    pub failed: bool,
    /// Scripts that its workers could not load.
    pub failed_scripts: FailedScripts,
}

/// Scripts that a generation could not load.
#[derive(Debug, Clone, Default)]
struct FailedScripts {
    pub paths: BTreeSet<Path>,
    /// No script could be loaded, so no request is served although workers run.
    pub all: bool,
    /// The reason in one line.
    pub reason: String,
}

#[derive(Debug, Clone)]
enum Phase {
    Idle,
    Rising(Rising),
    Steady,
    Waiting,
    Halted,
    Stopped { active: bool },
    Retired { until: Option<Now> },
}

/// The state machine; the module documentation describes its phases.
#[derive(Debug, Clone)]
pub struct Pool {
    limits: Limits,
    phase: Phase,
    workers: BTreeMap<Number, Worker>,
    next_worker: Number,
    /// Number of the newest generation.
    generation: u64,
    /// Wanted workers of the newest generation: within the limits, and 0 before the first.
    target: usize,
    scale: Scale,
    /// When the queue is checked next, and when a worker last reported activity.
    check_at: Option<Now>,
    active_at: Now,
    /// Workers to be replaced, in order.
    outgoing: VecDeque<(Number, ReplaceReason)>,
    /// For each slot of the newest generation: the earliest time of the next start.
    slots: Vec<Now>,
    backoff: Backoff,
    refill: Backoff,
    /// Consecutive starts that were killed from outside.
    killed: u32,
    /// Why the last attempt failed. While no worker serves, requests are refused with this text.
    failing: Option<String>,
    /// The same with tracebacks, for `drover status`, until a generation succeeds.
    failure: Option<String>,
    /// When the next generation begins, and why.
    next_begin: Option<(Now, Reason)>,
    last_begin: Option<Now>,
    parked: VecDeque<ParkedRequest>,
    /// Requests that found the queue full, and their deadlines; at most
    /// [`MAX_PARKED`](crate::pool::reload::MAX_PARKED).
    full: Vec<(Token, Now)>,
    requeue_at: Option<Now>,
    /// When a request refused because of a full queue was last logged.
    full_logged_at: Option<Now>,
    /// Files known to have changed since the last generation began; at most
    /// [`MAX_FILES`](crate::pool::reload::MAX_FILES).
    changed: BTreeMap<Path, u64>,
    /// File times known to fail, which the old generation was told to ignore; bounded likewise.
    known_bad: BTreeMap<Path, u64>,
    /// Scripts that the serving generation could not load.
    failed_scripts: FailedScripts,
    /// The failures that were logged and are not over.
    failure_log: FailureLog,
    /// The requests of the last requeue round, with their deadlines.
    requeueing: BTreeMap<Token, Now>,
}

impl Pool {
    /// A pool that no request has needed yet. `seed` makes its back-off differ from other pools'.
    pub fn new(limits: Limits, seed: u64) -> Self {
        Self {
            limits,
            phase: Phase::Idle,
            workers: BTreeMap::new(),
            next_worker: 0,
            generation: 0,
            target: 0,
            scale: Scale::default(),
            check_at: None,
            active_at: Now::ZERO,
            outgoing: VecDeque::new(),
            slots: Vec::new(),
            backoff: Backoff::new(seed),
            refill: Backoff::new(seed ^ 0x5555),
            killed: 0,
            failing: None,
            failure: None,
            next_begin: None,
            last_begin: None,
            parked: VecDeque::new(),
            full: Vec::new(),
            requeue_at: None,
            full_logged_at: None,
            changed: BTreeMap::new(),
            known_bad: BTreeMap::new(),
            failed_scripts: FailedScripts::default(),
            failure_log: FailureLog::default(),
            requeueing: BTreeMap::new(),
        }
    }

    /// No process is left.
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// httpd stops or restarts.
    pub const fn is_stopped(&self) -> bool {
        matches!(self.phase, Phase::Stopped { .. })
    }

    /// No request is running or parked, as far as reported, and no worker is starting.
    pub fn is_idle(&self) -> bool {
        let busy = |w: &Worker| w.running > 0 || matches!(w.state, State::Queued | State::Starting { .. });
        self.parked.is_empty() && self.full.is_empty() && !matches!(self.phase, Phase::Rising(_)) && !self.workers.values().any(busy)
    }

    pub const fn is_retired(&self) -> bool {
        matches!(self.phase, Phase::Retired { .. })
    }

    /// Whether workers of this generation may still be started.
    pub const fn may_start(&self, generation: u64) -> bool {
        generation == self.generation && matches!(self.phase, Phase::Rising(_) | Phase::Steady)
    }

    /// The text to refuse queued requests with at once, when no worker can serve them.
    pub fn refusal(&self) -> Option<&str> {
        self.failing.as_deref().filter(|_| !self.any_serving() && !matches!(self.phase, Phase::Stopped { .. }))
    }

    /// Why the last start failed, with tracebacks.
    fn failure(&self) -> Option<&str> {
        let failing = self.failing.as_deref().filter(|_| !matches!(self.phase, Phase::Halted));
        self.failure.as_deref().or(failing)
    }

    /// Handles one event and appends the resulting actions.
    pub fn step(&mut self, event: Event, now: Now, out: &mut Vec<Action>) {
        match event {
            Event::Wanted => match &mut self.phase {
                Phase::Idle => self.begin(Reason::Wanted, now, out),
                Phase::Stopped { active } => *active = true,
                _ => {}
            },
            Event::Configure(limits) => self.configure(limits, now, out),
            Event::Started(number) => self.started(number, now, out),
            Event::Unstarted { worker, reason, killed } => {
                if let Some(w) = self.workers.remove(&worker).filter(|w| matches!(w.state, State::Queued | State::Starting { .. })) {
                    self.start_failed(&w, reason, killed, now, out);
                }
            }
            Event::Unfit { worker, reason } => self.unfit(worker, reason, now, out),
            Event::Loaded { worker, failures, good } => self.loaded(worker, failures, good, now, out),
            Event::AlsoLoaded => self.failed_scripts.all = false,
            Event::Exited { worker, how, clean, killed } => self.exited(worker, how, (clean, killed), now, out),
            Event::ControlClosed(worker) => {
                let kill_at = now + self.limits.shutdown;
                if let Some(w) = self.workers.get_mut(&worker) {
                    w.closed_kill_at.get_or_insert(kill_at);
                }
            }
            Event::Changed { worker, path, mtime_us, request } => self.changed(worker, path, mtime_us, request, now, out),
            Event::Replace { worker, why } => self.being_replaced(worker, why, now, out),
            Event::Activity { worker, activity } => self.activity(worker, activity, now),
            Event::QueueChecked { waiting } => self.queue_checked(waiting, now, out),
            Event::Touched { path, mtime_us, request } => self.touched(path, mtime_us, request, now, out),
            Event::Reload => self.reload(now, out),
            Event::Halt => self.halt(now, out),
            Event::Stuck { worker, what, deadlocked } => self.stuck(worker, what, deadlocked, now, out),
            Event::Full(token) => self.queue_was_full(token, now, out),
            Event::QueueReplaced => self.queue_replaced(now, out),
            Event::Stop { within } => self.stop(within, now, out),
            Event::Retire => self.retire(now, out),
            Event::Tick => self.tick(now, out),
        }
    }

    /// When [`Event::Tick`] is due.
    pub fn deadline(&self) -> Option<Now> {
        let workers = self.workers.values().flat_map(|w| {
            let (a, b) = match w.state {
                State::Starting { until } => (until, None),
                State::Draining { term_at, kill_at } => (term_at, kill_at),
                _ => (None, None),
            };
            [a, b, w.closed_kill_at]
        });
        let phase = match &self.phase {
            Phase::Rising(r) => r.first_up.map(|_| r.last_up + self.rising_cap()),
            Phase::Retired { until } => *until,
            _ => None,
        };
        let begin = self.next_begin.filter(|_| !self.is_retired() && self.may_begin_next()).map(|(at, _)| at);
        let slots = (0..self.slots.len()).filter(|slot| self.may_fill(*slot)).filter_map(|slot| self.slots.get(slot).copied());
        let parked = self.parked.iter().filter_map(|h| h.requeue_at).chain(self.parked.front().map(|h| h.until)).min();
        workers
            .flatten()
            .chain(phase)
            .chain(begin)
            .chain(slots)
            .chain(parked)
            .chain(self.requeue_at)
            .chain(self.replacement_deadline())
            .min()
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Action>) {
        self.time_out_workers(now, out);
        match &self.phase {
            Phase::Rising(r) if r.first_up.is_some() && r.last_up + self.rising_cap() <= now => {
                self.finish_rising(now, out);
            }
            Phase::Retired { until } if until.is_some_and(|at| at <= now) => {
                self.phase = Phase::Retired { until: None };
                self.drain_all(Some(self.limits.shutdown), now, out);
            }
            _ => {}
        }
        if self.may_begin_next()
            && let Some((_, reason)) = self.next_begin.filter(|(at, _)| *at <= now)
        {
            self.begin(reason, now, out);
        }
        self.fill(now, out);
        self.plan_replacements(now, out);
        self.check_queue(now, out);
        self.time_out_parked(now, out);
    }

    fn started(&mut self, worker: Number, now: Now, out: &mut Vec<Action>) {
        let until = self.limits.startup.map(|s| now + s);
        if let Some(w) = self.workers.get_mut(&worker).filter(|w| w.state == State::Queued) {
            w.state = State::Starting { until };
            log(out, Code::Started, Some(worker), []);
        }
    }

    fn unfit(&mut self, worker: Number, reason: String, now: Now, out: &mut Vec<Action>) {
        if let Some(w) = self.workers.get(&worker).filter(|w| matches!(w.state, State::Starting { .. })).cloned() {
            self.terminate(worker, now, out);
            self.start_failed(&w, reason, false, now, out);
        } else if self.is_serving(worker) {
            // It may finish the requests that it has taken.
            self.drain(worker, now, out);
            self.fill(now, out);
        }
    }

    fn stuck(&mut self, worker: Number, what: String, deadlocked: bool, now: Now, out: &mut Vec<Action>) {
        let Some(w) = self.workers.get_mut(&worker).filter(|w| matches!(w.state, State::Serving { .. })) else { return };
        log(out, Code::Stuck, Some(worker), [what]);
        // The worker wrote its stacks itself.
        w.dumped = true;
        if deadlocked {
            self.terminate(worker, now, out); // it cannot finish anything
        } else {
            self.drain(worker, now, out);
        }
        self.fill(now, out);
    }

    /// An administrator requested new workers.
    fn reload(&mut self, now: Now, out: &mut Vec<Action>) {
        if !matches!(self.phase, Phase::Idle | Phase::Stopped { .. } | Phase::Retired { .. }) {
            self.resume();
            self.backoff.reset();
            self.begin(Reason::Configure, now, out);
        }
    }

    /// Requests are no longer refused: they wait for the new workers.
    fn resume(&mut self) {
        if matches!(self.phase, Phase::Halted) {
            self.failing = None;
        }
    }

    /// An administrator stopped the group.
    fn halt(&mut self, now: Now, out: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Stopped { .. } | Phase::Retired { .. }) {
            return;
        }
        self.phase = Phase::Halted;
        self.next_begin = None;
        self.refuse_parked(out);
        self.terminate_unready(now, out);
        self.drain_where(|_, _| true, now, out);
        self.failing = Some("the group was stopped by an administrator".to_owned());
        self.failure = None;
        log(out, Code::Halted, None, []);
    }

    /// No worker runs and none is needed: the next request has to be noticed.
    pub const fn sleeps(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    pub fn is_starting(&self, worker: Number) -> bool {
        self.workers.get(&worker).is_some_and(|w| matches!(w.state, State::Starting { .. }))
    }

    pub fn is_serving(&self, worker: Number) -> bool {
        self.workers.get(&worker).is_some_and(|w| matches!(w.state, State::Serving { .. }))
    }

    fn any_serving(&self) -> bool {
        self.workers.values().any(|w| matches!(w.state, State::Serving { .. }))
    }
}

fn log<const N: usize>(out: &mut Vec<Action>, code: Code, worker: Option<Number>, args: [String; N]) {
    out.push(Action::Log { code, worker, args: args.into() });
}
