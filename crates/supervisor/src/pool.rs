//! One pool: the workers of one application group in one daemon group, as a state machine.
//!
//! Responsible for: every decision about when a worker starts, serves, drains and is killed, and about handed-back requests.
//! Must never: do I/O, read a clock, know a process id. Called by: the supervisor, which turns descriptors into [`Event`]s and
//! carries out [`Action`]s. `generation.rs` has the life of a generation, `ending.rs` that of workers which have to go, `replace.rs`
//! that of workers which are replaced one by one, and the pool's size.
//!
//! Phases: `Idle` until somebody wants the pool, and again when an elastic pool has shrunk to nothing; the queue is watched. `Rising`: a new generation is being started, an older one may serve meanwhile.
//! `Steady`: the newest generation serves. `Waiting`: the last try failed; an older generation may serve; the next try has its
//! time. `Halted`: an administrator stopped it. `Stopped`: httpd stops or restarts. `Retired`: the group is in the configuration no more.
#![forbid(unsafe_code)]
use crate::backoff::Backoff;
pub use crate::events::{Action, Event, Limits, Now, Number, Path, ScriptFailure, Token, Why};
use crate::messages::Code;
use crate::scale::Scale;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// So many handed-back requests wait for a new generation; with more, the old one serves them.
pub const MAX_HELD: usize = 64;
/// So many files are remembered by name at most, each in so many bytes (PATH_MAX): workers name them.
pub const MOST_FILES: usize = 256;
const LONGEST_PATH: usize = 4096;
/// So long a handed-back request waits for a new generation; then the old one serves it.
pub const HOLD: Duration = Duration::from_secs(10);
/// So long it is tried to put a request on a full queue again.
pub const RESEND_FOR: Duration = Duration::from_secs(10);
const RESEND_EVERY: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Waits for its turn to be forked.
    Queued,
    Starting {
        until: Option<Now>,
    },
    Serving {
        /// It goes when its replacement is up.
        leaving: bool,
    },
    /// It has been told to go.
    Ending {
        term_at: Option<Now>,
        kill_at: Option<Now>,
    },
}

#[derive(Debug, Clone)]
pub(crate) struct Worker {
    pub generation: u64,
    pub slot: usize,
    pub state: State,
    /// We have sent it a signal: that it dies is no news.
    pub signalled: bool,
    /// Its stacks stand in the log.
    pub dumped: bool,
    /// Set when its control socket was closed.
    pub lost_kill_at: Option<Now>,
    /// When it came up.
    pub since: Now,
    /// When it had something to do last.
    pub active_at: Now,
    /// It has had a request that counts against inactivity-timeout.
    pub counted: bool,
    /// Requests it runs, and those it has taken.
    pub running: u32,
    pub taken: u64,
    /// When it is too old.
    pub interval_at: Option<Now>,
}

/// Why a generation is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    Wanted,
    Configure,
    Changed,
    /// Some scripts cannot be loaded in the generation that serves.
    Degraded,
}

#[derive(Debug, Clone)]
pub(crate) struct Rising {
    pub reason: Reason,
    pub first_up: Option<Now>,
    /// When the last of its workers came up.
    pub last_up: Now,
    /// After a failure one worker shows the way before the others are started.
    pub probe: bool,
    /// A start has failed: no more are made until it is known how the others fare.
    pub failed: bool,
    /// What its workers could not load.
    pub broken: Broken,
}

/// Scripts that a generation could not load.
#[derive(Debug, Clone, Default)]
pub(crate) struct Broken {
    pub paths: BTreeSet<Path>,
    /// No script could be loaded: nobody is served, whatever runs.
    pub all: bool,
    /// In one line.
    pub reason: String,
}

#[derive(Debug, Clone)]
pub(crate) enum Phase {
    Idle,
    Rising(Rising),
    Steady,
    Waiting,
    Halted,
    Stopped { active: bool },
    Retired { until: Option<Now> },
}

#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub token: Token,
    pub path: Path,
    pub mtime_us: u64,
    pub until: Now,
}

/// The state; see the head of this file.
#[derive(Debug, Clone)]
pub struct Pool {
    pub(crate) limits: Limits,
    pub(crate) phase: Phase,
    pub(crate) workers: BTreeMap<Number, Worker>,
    pub(crate) next_worker: Number,
    /// The newest generation's number.
    pub(crate) generation: u64,
    /// Workers wanted of the newest generation; within the limits, but for 0 before the first.
    pub(crate) target: usize,
    pub(crate) scale: Scale,
    /// When the queue is looked at next, and when a worker last said that it does something.
    pub(crate) look_at: Option<Now>,
    pub(crate) active_at: Now,
    /// Workers that are to be replaced, in turn.
    pub(crate) outgoing: VecDeque<(Number, Why)>,
    /// Per slot of the newest generation: not to be filled before.
    pub(crate) slots: Vec<Now>,
    pub(crate) backoff: Backoff,
    pub(crate) refill: Backoff,
    /// Starts in a row that were killed by another's hand.
    pub(crate) killed: u32,
    /// Why the last try failed; while no worker serves, this is what requests are answered with.
    pub(crate) failing: Option<String>,
    /// The same with the tracebacks; kept for the status until a generation succeeds.
    pub(crate) failure: Option<String>,
    /// When the next generation is to be started, and why.
    pub(crate) next_begin: Option<(Now, Reason)>,
    pub(crate) last_begin: Option<Now>,
    pub(crate) held: VecDeque<Held>,
    /// Requests that found the queue full, at most [`MAX_HELD`]: until when it is tried.
    pub(crate) full: Vec<(Token, Now)>,
    pub(crate) resend_at: Option<Now>,
    /// When it was last said that a request was given up for want of room.
    full_told: Option<Now>,
    /// Files, at most [`MOST_FILES`], known to have changed since the last generation was started.
    pub(crate) changed: BTreeMap<Path, u64>,
    /// Files, as many, known to fail, which the old generation was told not to mind.
    pub(crate) kept: BTreeMap<Path, u64>,
    /// Scripts that the generation that serves could not load.
    pub(crate) broken: Broken,
    /// The requests of the last round of trying again, with the time until which they are tried.
    pub(crate) resending: BTreeMap<Token, Now>,
}

impl Pool {
    /// A pool that nobody has asked for yet. `seed` makes its pauses differ from other pools'.
    pub fn new(limits: Limits, seed: u64) -> Self {
        Self {
            limits,
            phase: Phase::Idle,
            workers: BTreeMap::new(),
            next_worker: 0,
            generation: 0,
            target: 0,
            scale: Scale::default(),
            look_at: None,
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
            held: VecDeque::new(),
            full: Vec::new(),
            resend_at: None,
            full_told: None,
            changed: BTreeMap::new(),
            kept: BTreeMap::new(),
            broken: Broken::default(),
            resending: BTreeMap::new(),
        }
    }

    /// No process is left.
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    pub const fn is_retired(&self) -> bool {
        matches!(self.phase, Phase::Retired { .. })
    }

    /// Whether workers of this generation may still be started.
    pub const fn may_start(&self, generation: u64) -> bool {
        generation == self.generation && matches!(self.phase, Phase::Rising(_) | Phase::Steady)
    }

    /// The text to answer queued requests with at once, when nobody can serve them.
    pub fn refusal(&self) -> Option<&str> {
        self.failing.as_deref().filter(|_| !self.any_serving() && !matches!(self.phase, Phase::Stopped { .. }))
    }

    /// Why the last start failed, at length.
    pub fn failure(&self) -> Option<&str> {
        let failing = self.failing.as_deref().filter(|_| !matches!(self.phase, Phase::Halted));
        self.failure.as_deref().or(failing)
    }

    /// Takes one event; appends what is to be done.
    pub fn step(&mut self, event: Event, now: Now, out: &mut Vec<Action>) {
        match event {
            Event::Wanted => match &mut self.phase {
                Phase::Idle => self.begin(Reason::Wanted, now, out),
                Phase::Stopped { active } => *active = true,
                _ => {}
            },
            Event::Configure(limits) => self.configure(limits, now, out),
            Event::Started(number) => {
                let until = self.limits.startup.map(|s| now + s);
                if let Some(w) = self.workers.get_mut(&number).filter(|w| w.state == State::Queued) {
                    w.state = State::Starting { until };
                    log(out, Code::Started, Some(number), []);
                }
            }
            Event::Unstarted { worker, reason, killed } => {
                if let Some(w) = self.workers.remove(&worker).filter(|w| matches!(w.state, State::Queued | State::Starting { .. })) {
                    self.start_failed(&w, reason, killed, now, out);
                }
            }
            Event::Unfit { worker, reason } => {
                if let Some(w) = self.workers.get(&worker).filter(|w| matches!(w.state, State::Starting { .. })).cloned() {
                    self.terminate(worker, now, out);
                    self.start_failed(&w, reason, false, now, out);
                } else if self.is_serving(worker) {
                    // What it has taken it may finish.
                    self.drain(worker, now, out);
                    self.fill(now, out);
                }
            }
            Event::Loaded { worker, failures, good } => self.loaded(worker, failures, good, now, out),
            Event::AlsoLoaded => self.broken.all = false,
            Event::Exited { worker, how, clean, killed } => self.exited(worker, how, (clean, killed), now, out),
            Event::Lost(worker) => {
                let kill_at = now + self.limits.shutdown;
                if let Some(w) = self.workers.get_mut(&worker) {
                    w.lost_kill_at.get_or_insert(kill_at);
                }
            }
            Event::Changed { worker, path, mtime_us, request } => self.changed(worker, path, mtime_us, request, now, out),
            Event::Leaving { worker, why } => self.leaving(worker, why, now, out),
            Event::Activity { worker, activity } => self.activity(worker, activity, now),
            Event::Looked { waiting } => self.looked(waiting, now, out),
            Event::Touched { path, mtime_us, request } => self.touched(path, mtime_us, request, now, out),
            Event::Reload => self.reload(now, out),
            Event::Halt => self.halt(now, out),
            Event::Stuck { worker, what, deadlocked } => {
                if self.is_serving(worker) {
                    log(out, Code::Stuck, Some(worker), [what]);
                    // It has written its stacks itself.
                    if let Some(w) = self.workers.get_mut(&worker) {
                        w.dumped = true;
                    }
                    if deadlocked {
                        self.terminate(worker, now, out); // it will finish nothing
                    } else {
                        self.drain(worker, now, out);
                    }
                    self.fill(now, out);
                }
            }
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
                State::Ending { term_at, kill_at } => (term_at, kill_at),
                _ => (None, None),
            };
            [a, b, w.lost_kill_at]
        });
        let (phase, begin) = match &self.phase {
            Phase::Rising(r) => (r.first_up.map(|_| r.last_up + self.rising_cap()), None),
            Phase::Retired { until } => (*until, None),
            _ => (None, self.next_begin.map(|(at, _)| at)),
        };
        let slots = (0..self.slots.len()).filter(|slot| self.may_fill(*slot)).filter_map(|slot| self.slots.get(slot).copied());
        let held = self.held.front().map(|h| h.until);
        workers.flatten().chain(phase).chain(begin).chain(slots).chain(held).chain(self.resend_at).chain(self.replacement_deadline()).min()
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Action>) {
        self.time_out_workers(now, out);
        match &self.phase {
            Phase::Rising(r) if r.first_up.is_some() && r.last_up + self.rising_cap() <= now => {
                self.end_of_rising(now, out);
            }
            Phase::Retired { until } if until.is_some_and(|at| at <= now) => {
                self.phase = Phase::Retired { until: None };
                self.end_all(Some(self.limits.shutdown), now, out);
            }
            _ => {}
        }
        if !matches!(self.phase, Phase::Rising(_))
            && let Some((_, reason)) = self.next_begin.filter(|(at, _)| *at <= now)
        {
            self.begin(reason, now, out);
        }
        self.fill(now, out);
        self.plan_replacements(now, out);
        self.look(now, out);
        while self.held.front().is_some_and(|h| h.until <= now) {
            if let Some(h) = self.held.pop_front() {
                self.serve_with_old_code(h, out);
            }
        }
        if self.resend_at.is_some_and(|at| at <= now) {
            self.resend_at = None;
            // Whatever of the last round was not answered by `Full` has been taken.
            self.resending.clear();
            for (token, until) in std::mem::take(&mut self.full) {
                self.resending.insert(token, until);
                out.push(Action::Resend(token));
            }
        }
    }

    fn changed(&mut self, worker: Number, path: Path, mtime_us: u64, request: Option<Token>, now: Now, out: &mut Vec<Action>) {
        let Some(w) = self.workers.get(&worker) else {
            out.extend(request.map(Action::Resend));
            return;
        };
        if path.len() > LONGEST_PATH {
            out.extend(request.map(Action::Answer)); // no file has such a name
            return;
        }
        let (newest, ending) = (w.generation == self.generation, matches!(w.state, State::Ending { .. }));
        match self.phase {
            Phase::Stopped { .. } | Phase::Retired { .. } | Phase::Halted | Phase::Idle => {
                out.extend(request.map(Action::Answer));
                return;
            }
            _ if self.kept.get(&path) == Some(&mtime_us) => {
                // It had not read our word yet when it handed the request back.
                out.push(Action::Keep { worker, path, mtime_us });
                out.extend(request.map(Action::Resend));
                return;
            }
            // It had not read yet that it should take no more; the new generation is there or on its way.
            Phase::Steady | Phase::Waiting if ending => {
                out.extend(request.map(Action::Resend));
                return;
            }
            Phase::Rising(_) if !newest || ending => {}
            _ => {
                // At most one line for each file, and for each generation that is started for it.
                let first = self.next_begin.is_none_or(|(_, reason)| reason != Reason::Changed) || !self.changed.contains_key(&path);
                if first && self.changed.get(&path) != Some(&mtime_us) && may_remember(&self.changed, &path) {
                    log(out, Code::Changed, None, [String::from_utf8_lossy(&path).into_owned()]);
                }
                // At most one generation a second, however often the file is touched.
                let at = self.last_begin.map_or(now, |last| now.max(last + Duration::from_secs(1)));
                let at = self.next_begin.map_or(at, |(then, _)| then.min(at));
                self.next_begin = Some((at, Reason::Changed));
                self.backoff.reset();
            }
        }
        let remembered = remember(&mut self.changed, &path, mtime_us);
        if let Some(token) = request {
            let held = Held { token, path, mtime_us, until: now + HOLD };
            if self.held.len() >= MAX_HELD || !remembered { self.serve_with_old_code(held, out) } else { self.held.push_back(held) }
        }
        if !matches!(self.phase, Phase::Rising(_)) && self.next_begin.is_some_and(|(at, _)| at <= now) {
            self.begin(Reason::Changed, now, out);
        }
    }

    /// The file of a script that could not be loaded has another time now, as a request shows that nobody can serve.
    fn touched(&mut self, path: Path, mtime_us: u64, token: Token, now: Now, out: &mut Vec<Action>) {
        let known = self.changed.get(&path) == Some(&mtime_us);
        let waits = matches!(self.phase, Phase::Waiting | Phase::Rising(_)) && self.held.len() < MAX_HELD;
        if !waits || !remember(&mut self.changed, &path, mtime_us) {
            out.push(Action::Answer(token));
            return;
        }
        if !known {
            log(out, Code::Changed, None, [String::from_utf8_lossy(&path).into_owned()]);
        }
        self.held.push_back(Held { token, path, mtime_us, until: now + HOLD });
        if matches!(self.phase, Phase::Waiting) {
            self.backoff.reset();
            let at = self.last_begin.map_or(now, |last| now.max(last + Duration::from_secs(1)));
            self.next_begin = Some((at, Reason::Changed));
            if at <= now {
                self.begin(Reason::Changed, now, out);
            }
        }
    }

    /// Whether a request that nobody can serve shows a time of its script that is not known to fail. A script that failed without
    /// saying so (its process died) is known from now on.
    pub fn is_news(&mut self, path: &[u8], mtime_us: u64) -> bool {
        match self.kept.get(path) {
            _ if mtime_us == 0 || !matches!(self.phase, Phase::Waiting | Phase::Rising(_)) => false,
            Some(known) => *known != mtime_us,
            None if matches!(self.phase, Phase::Rising(_)) => false,
            None => {
                remember(&mut self.kept, path, mtime_us);
                false
            }
        }
    }

    /// An administrator wants a new generation.
    fn reload(&mut self, now: Now, out: &mut Vec<Action>) {
        if !matches!(self.phase, Phase::Idle | Phase::Stopped { .. } | Phase::Retired { .. }) {
            self.end_halt();
            self.backoff.reset();
            self.begin(Reason::Configure, now, out);
        }
    }

    /// Requests wait for the new processes from now on, instead of being refused.
    pub(crate) fn end_halt(&mut self) {
        if matches!(self.phase, Phase::Halted) {
            self.failing = None;
        }
    }

    /// An administrator wants no worker.
    fn halt(&mut self, now: Now, out: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Stopped { .. } | Phase::Retired { .. }) {
            return;
        }
        self.phase = Phase::Halted;
        self.next_begin = None;
        self.answer_held(out);
        self.end_unready(now, out);
        self.drain_where(|_, _| true, now, out);
        self.failing = Some("the group was stopped by an administrator".to_owned());
        self.failure = None;
        log(out, Code::Halted, None, []);
    }

    /// Nobody runs and nobody has to: whoever sends a request should be noticed.
    pub const fn sleeps(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    /// A request has waited for the new generation too long, or too many do: whoever serves shall not mind the file's time.
    fn serve_with_old_code(&mut self, held: Held, out: &mut Vec<Action>) {
        let Held { token, path, mtime_us, .. } = held;
        for (number, _) in self.workers.iter().filter(|(_, w)| matches!(w.state, State::Serving { .. })) {
            out.push(Action::Keep { worker: *number, path: path.clone(), mtime_us });
        }
        out.push(Action::Resend(token));
    }

    fn queue_was_full(&mut self, token: Token, now: Now, out: &mut Vec<Action>) {
        let until = self.resending.remove(&token).unwrap_or(now + RESEND_FOR);
        let over = until <= now || self.full.len() >= MAX_HELD;
        if over || matches!(self.phase, Phase::Stopped { .. } | Phase::Retired { .. }) {
            // A worker can hand back as many as it likes: one line a second.
            if self.full_told.is_none_or(|at| at + Duration::from_secs(1) <= now) {
                self.full_told = Some(now);
                log(out, Code::HeldTooLong, None, []);
            }
            out.push(Action::Answer(token));
            return;
        }
        self.full.push((token, until));
        self.resend_at.get_or_insert(now + RESEND_EVERY);
    }

    /// The new generation serves or has failed: handed-back requests go on the queue again.
    pub(crate) fn release(&mut self, out: &mut Vec<Action>) {
        out.extend(self.held.drain(..).map(|h| Action::Resend(h.token)));
    }

    /// Nobody will run them.
    pub(crate) fn answer_held(&mut self, out: &mut Vec<Action>) {
        out.extend(self.held.drain(..).map(|h| Action::Answer(h.token)));
        out.extend(self.full.drain(..).map(|(token, _)| Action::Answer(token)));
        self.resend_at = None;
    }

    pub(crate) fn is_starting(&self, worker: Number) -> bool {
        self.workers.get(&worker).is_some_and(|w| matches!(w.state, State::Starting { .. }))
    }

    pub(crate) fn is_serving(&self, worker: Number) -> bool {
        self.workers.get(&worker).is_some_and(|w| matches!(w.state, State::Serving { .. }))
    }

    pub(crate) fn any_serving(&self) -> bool {
        self.workers.values().any(|w| matches!(w.state, State::Serving { .. }))
    }
}

fn may_remember(files: &BTreeMap<Path, u64>, path: &[u8]) -> bool {
    path.len() <= LONGEST_PATH && (files.len() < MOST_FILES || files.contains_key(path))
}

/// Puts a file's time down. False: there is no room for another file.
pub(crate) fn remember(files: &mut BTreeMap<Path, u64>, path: &[u8], mtime_us: u64) -> bool {
    let may = may_remember(files, path);
    if may {
        files.insert(path.to_vec(), mtime_us);
    }
    may
}

pub(crate) fn log<const N: usize>(out: &mut Vec<Action>, code: Code, worker: Option<Number>, words: [String; N]) {
    out.push(Action::Log { code, worker, words: words.into() });
}
