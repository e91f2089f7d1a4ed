//! The life of a generation: it begins, its workers become ready, it takes over or fails.
//!
//! Responsible for: the old generation serving until the new one does, and back-off between failed
//! starts. Must never: drain an old worker before a new one serves. Called by: [`crate::pool`].
#![forbid(unsafe_code)]
use crate::log::messages::Code;
use crate::pool::reload::remember;
use crate::pool::{Action, FailedScripts, Limits, Now, Number, Path, Phase, Pool, Reason, Rising, ScriptFailure, State, Worker, log};
use drover_wire::admin::Service;
use std::collections::BTreeSet;
use std::time::Duration;

/// Minimum time between two starts for one slot.
const SLOT_PAUSE: Duration = Duration::from_secs(1);
/// Starts killed from outside that are retried at once. After that many in a row, something kills
/// every process that starts.
const MAX_KILLED_STARTS: u32 = 3;
/// How long to wait for the last worker of a new generation after its first, when startup-timeout
/// is off.
const RISING_CAP: Duration = Duration::from_secs(60);

impl Pool {
    pub(super) fn configure(&mut self, limits: Limits, now: Now, out: &mut Vec<Action>) {
        self.limits = limits;
        match self.phase {
            Phase::Idle | Phase::Retired { .. } => {}
            Phase::Stopped { active: false } => self.phase = Phase::Idle,
            _ => {
                self.resume();
                self.backoff.reset();
                self.begin(Reason::Configure, now, out);
            }
        }
    }

    /// Begins a new generation. One that is still starting is abandoned.
    pub(super) fn begin(&mut self, reason: Reason, now: Now, out: &mut Vec<Action>) {
        self.terminate_unready(now, out);
        if matches!(self.phase, Phase::Rising(_)) {
            let older = self.workers.values().any(|w| matches!(w.state, State::Serving { .. }) && w.generation < self.generation);
            if older {
                self.drain_where(|w, newest| w.generation == newest, now, out);
            }
        }
        self.generation += 1;
        self.last_begin = Some(now);
        self.next_begin = None;
        // An elastic pool keeps its size.
        self.target = self.target.clamp(self.limits.least.max(1), self.limits.processes);
        self.slots = vec![Now::ZERO; self.target];
        self.outgoing.clear();
        self.check_at = None;
        let rising = Rising {
            reason,
            first_up: None,
            last_up: now,
            probe: self.backoff.waiting(),
            failed: false,
            failed_scripts: FailedScripts::default(),
        };
        self.phase = Phase::Rising(rising);
        self.fill(now, out);
    }

    /// Whether this slot may have another worker, apart from its delay.
    pub(super) fn may_fill(&self, slot: usize) -> bool {
        match &self.phase {
            Phase::Rising(r) if r.first_up.is_none() && (r.failed || (r.probe && slot > 0)) => return false,
            Phase::Rising(_) | Phase::Steady => {}
            _ => return false,
        }
        if self.rolls() && self.workers.len() > self.target {
            return false; // one at a time: another has to exit first
        }
        !self.workers.values().any(|w| {
            let occupies = matches!(w.state, State::Queued | State::Starting { .. } | State::Serving { being_replaced: false });
            w.generation == self.generation && w.slot == slot && occupies
        })
    }

    /// Starts a worker for each empty slot whose delay is over.
    pub(super) fn fill(&mut self, now: Now, out: &mut Vec<Action>) {
        for slot in 0..self.slots.len() {
            if self.slots.get(slot).is_none_or(|at| *at > now) || !self.may_fill(slot) {
                continue;
            }
            if let Some(at) = self.slots.get_mut(slot) {
                *at = now + SLOT_PAUSE;
            }
            let worker = self.next_worker;
            self.next_worker = self.next_worker.wrapping_add(1);
            let generation = self.generation;
            let new = Worker {
                generation,
                slot,
                state: State::Queued,
                signalled: false,
                dumped: false,
                closed_kill_at: None,
                since: now,
                active_at: now,
                counted: false,
                running: 0,
                taken: 0,
                interval_at: None,
            };
            self.workers.insert(worker, new);
            out.push(Action::Start { worker, generation });
        }
    }

    /// A worker has tried to load all scripts.
    pub(super) fn loaded(&mut self, worker: Number, failures: Vec<ScriptFailure>, good: usize, now: Now, out: &mut Vec<Action>) {
        let Some(w) = self.workers.get(&worker).filter(|w| matches!(w.state, State::Starting { .. })).cloned() else { return };
        let failures = each_once(failures);
        let failed: BTreeSet<Path> = failures.iter().map(|f| f.path.clone()).collect();
        let others = self.any_serving();
        // Some(true): the worker serves. Some(false): this worker is at fault. None: the generation
        // is.
        let verdict = match &self.phase {
            Phase::Rising(r) if r.first_up.is_none() => {
                let worse = !failed.is_subset(&self.failed_scripts.paths);
                let no_gain =
                    r.reason == Reason::Degraded && !self.failed_scripts.paths.is_empty() && failed.is_superset(&self.failed_scripts.paths);
                if others && (worse || no_gain) { None } else { Some(true) }
            }
            Phase::Rising(r) => Some(failed.is_subset(&r.failed_scripts.paths)),
            Phase::Steady => Some(!others || failed.is_subset(&self.failed_scripts.paths)),
            _ => Some(false),
        };
        let news = matches!(&self.phase, Phase::Rising(r) if r.first_up.is_none()) || verdict != Some(true) || !others;
        if !failures.is_empty() {
            let texts: Vec<&str> = failures.iter().map(|f| f.text.trim_end()).collect();
            self.failure = Some(texts.join("\n"));
        }
        if news {
            for f in failures.iter().filter(|f| self.failure_log.is_new(f)) {
                log(out, Code::ScriptFailed, Some(worker), [String::from_utf8_lossy(&f.path).into_owned(), f.text.clone()]);
            }
        }
        let summary = || {
            failures.iter().map(|f| format!("{}: {}", String::from_utf8_lossy(&f.path), last_line(&f.text))).collect::<Vec<_>>().join("; ")
        };
        match verdict {
            None => {
                self.drain(worker, now, out);
                self.fail(summary(), &failures, now, out);
            }
            Some(false) => {
                self.drain(worker, now, out);
                self.start_failed(&w, summary(), false, now, out);
            }
            Some(true) => {
                let failed_scripts = FailedScripts { all: good == 0 && !failed.is_empty(), reason: summary(), paths: failed };
                self.up(worker, &w, failed_scripts, others, now, out);
            }
        }
    }

    fn up(&mut self, worker: Number, w: &Worker, failed_scripts: FailedScripts, others: bool, now: Now, out: &mut Vec<Action>) {
        // Up to a tenth earlier than restart-interval, different for each worker.
        let interval = self.limits.restart_interval.map(|i| now + i.mul_f64(1.0 - 0.1 * self.refill.random()));
        if let Some(w) = self.workers.get_mut(&worker) {
            w.state = State::Serving { being_replaced: false };
            (w.since, w.active_at, w.interval_at) = (now, now, interval);
        }
        out.push(Action::Serve(worker));
        log(out, Code::WorkerUp, Some(worker), [w.generation.to_string()]);
        self.failing = None;
        self.killed = 0;
        self.refill.reset();
        let slot = w.slot;
        self.drain_where(
            |o, newest| o.generation == newest && o.slot == slot && o.state == State::Serving { being_replaced: true },
            now,
            out,
        );
        match &mut self.phase {
            Phase::Rising(r) => {
                if r.first_up.is_none() {
                    r.first_up = Some(now);
                    r.failed_scripts = failed_scripts;
                }
                r.last_up = now;
                if self.limits.rolling {
                    self.drain_one_old(now, out);
                }
                self.fill(now, out);
                let up = |slot| {
                    let newest = self.generation;
                    self.workers.values().any(|w| w.generation == newest && w.slot == slot && matches!(w.state, State::Serving { .. }))
                };
                if !others || (0..self.slots.len()).all(up) {
                    self.take_over(now, out);
                } else if self.serves_new_code() {
                    self.release(out);
                }
            }
            _ if !others => {
                self.failed_scripts = failed_scripts;
                self.plan_after_success(now, out);
            }
            _ => {}
        }
        if self.is_complete() {
            self.log_recovery(out);
        }
        self.start_next_replacement(now, out);
    }

    /// Logs that the failures logged before are over.
    fn log_recovery(&mut self, out: &mut Vec<Action>) {
        if self.failed_scripts.paths.is_empty()
            && let Some((count, last)) = self.failure_log.over()
        {
            log(out, Code::Recovered, None, [format!("{count} failure{}", if count == 1 { "" } else { "s" }), last]);
        }
    }

    /// Whether a new generation replaces the old one worker by worker.
    fn rolls(&self) -> bool {
        let newest = self.generation;
        let older = |w: &Worker| w.generation != newest;
        self.limits.rolling && matches!(self.phase, Phase::Rising(_)) && self.workers.values().any(older)
    }

    /// A new worker serves: drain the last of the old ones.
    fn drain_one_old(&mut self, now: Now, out: &mut Vec<Action>) {
        let newest = self.generation;
        let old = |w: &Worker| w.generation < newest && matches!(w.state, State::Serving { .. });
        let last = self.workers.iter().filter(|(_, w)| old(w)).max_by_key(|(n, w)| (w.slot, **n)).map(|(n, _)| *n);
        if let Some(worker) = last {
            self.drain(worker, now, out);
        }
    }

    /// The new generation now serves alone.
    fn take_over(&mut self, now: Now, out: &mut Vec<Action>) {
        let Phase::Rising(rising) = std::mem::replace(&mut self.phase, Phase::Steady) else { return };
        self.drain_where(|w, newest| w.generation < newest, now, out);
        self.failed_scripts = rising.failed_scripts;
        self.known_bad.clear();
        if self.failed_scripts.paths.is_empty() {
            self.failure = None;
        }
        log(out, Code::GenerationUp, None, [self.generation.to_string()]);
        self.log_recovery(out);
        self.plan_after_success(now, out);
        if self.next_begin.is_none_or(|(_, reason)| reason != Reason::Changed) {
            self.changed.clear();
        }
        self.release(out);
    }

    fn plan_after_success(&mut self, now: Now, out: &mut Vec<Action>) {
        let touched = self.next_begin.filter(|(_, reason)| *reason == Reason::Changed);
        if self.failed_scripts.paths.is_empty() {
            self.backoff.reset();
            self.next_begin = touched;
        } else if touched.is_none() {
            let pause = self.backoff.pause();
            self.next_begin = Some((now + pause, Reason::Degraded));
            let reason = self.failure_log.met(&self.failed_scripts.reason);
            let code = if self.failed_scripts.all { Code::CannotStart } else { Code::Degraded };
            log(out, code, None, [seconds(pause), reason]);
        }
    }

    /// The deadline for the last workers has passed: the generation takes over with those it has,
    /// or has failed.
    pub(super) fn finish_rising(&mut self, now: Now, out: &mut Vec<Action>) {
        let newest = self.generation;
        if self.workers.values().any(|w| w.generation == newest && matches!(w.state, State::Serving { .. })) {
            self.take_over(now, out);
        } else {
            self.fail("its workers do not keep running".to_owned(), &[], now, out);
        }
    }

    /// The result of the newest generation's start; `None` while it is unknown.
    pub fn outcome(&self) -> Option<Result<(), String>> {
        let failure = || self.failure().unwrap_or(&self.failed_scripts.reason).to_owned();
        match &self.phase {
            Phase::Rising(_) => None,
            Phase::Steady if !self.failed_scripts.paths.is_empty() => Some(Err(failure())),
            Phase::Steady | Phase::Idle => Some(Ok(())),
            Phase::Waiting => Some(Err(failure())),
            Phase::Halted => Some(Err("the group was stopped by an administrator".to_owned())),
            Phase::Stopped { .. } | Phase::Retired { .. } => Some(Err("httpd is stopping or restarting".to_owned())),
        }
    }

    /// Which generation serves after the start that [`Pool::outcome`] reports.
    pub fn service(&self) -> Service {
        match &self.phase {
            Phase::Idle => Service::OnDemand,
            // A worker that could load no script runs, and answers every request with the failure.
            _ if self.failed_scripts.all || !self.any_serving() => Service::Nobody,
            Phase::Steady if self.failed_scripts.paths.is_empty() => Service::New,
            Phase::Steady => Service::Partial,
            _ => Service::Old,
        }
    }

    pub(super) fn rising_cap(&self) -> Duration {
        let start = self.limits.startup.unwrap_or(RISING_CAP);
        // In a rolling reload the next worker starts when an old one has exited.
        let end = self.limits.graceful.unwrap_or_default() + self.limits.shutdown;
        if self.limits.rolling { start + end } else { start }
    }

    /// A worker did not become ready. It has left the pool already or is being terminated.
    /// `killed`: it was killed from outside, which says nothing about the application.
    pub(super) fn start_failed(&mut self, w: &Worker, reason: String, killed: bool, now: Now, out: &mut Vec<Action>) {
        if w.generation != self.generation {
            return;
        }
        if !killed {
            out.push(Action::StartFailed);
        }
        let newest = self.generation;
        let unready = |w: &Worker| w.generation == newest && matches!(w.state, State::Queued | State::Starting { .. });
        if let Phase::Rising(r) = &mut self.phase
            && r.first_up.is_none()
        {
            r.failed = true;
            self.cancel_queued(out);
            if !self.workers.values().any(unready) {
                self.not_started(reason, killed, now, out);
            }
            return;
        }
        match &self.phase {
            Phase::Steady if !self.any_serving() && !self.workers.values().any(unready) => self.not_started(reason, killed, now, out),
            Phase::Rising(_) | Phase::Steady => {
                if !killed {
                    self.failure_log.met(&reason);
                }
                let pause = self.refill.pause();
                if let Some(at) = self.slots.get_mut(w.slot) {
                    *at = now + pause;
                }
            }
            _ => {}
        }
    }

    /// No worker of the newest generation became ready.
    fn not_started(&mut self, reason: String, killed: bool, now: Now, out: &mut Vec<Action>) {
        if killed && self.begin_again(now, out) {
            return;
        }
        let failing = self.failing.clone();
        self.fail(reason, &[], now, out);
        if killed && self.any_serving() {
            // The application is not known to be at fault: after the serving workers exit, requests
            // wait for the next attempt.
            self.failing = failing;
            self.killed = 0;
        }
    }

    /// The newest generation was killed before it could prove itself. Another one begins at once,
    /// and no request is refused meanwhile.
    fn begin_again(&mut self, now: Now, out: &mut Vec<Action>) -> bool {
        let again = self.killed < MAX_KILLED_STARTS;
        if again {
            self.killed += 1;
            let why = if let Phase::Rising(r) = &self.phase { r.reason } else { Reason::Wanted };
            self.begin(why, now, out);
        }
        again
    }

    /// The newest generation failed. An older one keeps serving, or requests are refused with the
    /// reason.
    fn fail(&mut self, reason: String, failures: &[ScriptFailure], now: Now, out: &mut Vec<Action>) {
        let why = match &self.phase {
            Phase::Rising(r) => r.reason,
            _ => Reason::Wanted,
        };
        self.terminate_unready(now, out);
        self.phase = Phase::Waiting;
        let mut mended = false;
        for (path, mtime_us) in std::mem::take(&mut self.changed) {
            // The file may have been written again after the new workers read it; that time is not
            // known bad.
            if failures.iter().any(|f| f.path == path && f.mtime_us != mtime_us && f.mtime_us != 0) {
                mended = true;
            } else {
                remember(&mut self.known_bad, &path, mtime_us);
            }
        }
        for f in failures {
            remember(&mut self.known_bad, &f.path, f.mtime_us);
        }
        let serving: Vec<Number> = self.workers.iter().filter(|(_, w)| matches!(w.state, State::Serving { .. })).map(|(n, _)| *n).collect();
        for worker in &serving {
            let keep = |(path, mtime_us): (&Path, &u64)| Action::MarkKnownBad { worker: *worker, path: path.clone(), mtime_us: *mtime_us };
            out.extend(self.known_bad.iter().map(keep));
        }
        let touched = mended || self.next_begin.is_some_and(|(_, reason)| reason == Reason::Changed);
        let pause = if touched { Duration::from_secs(1) } else { self.backoff.pause() };
        self.next_begin = Some((now + pause, if touched { Reason::Changed } else { why }));
        if why == Reason::Degraded && !serving.is_empty() {
            // The service is no worse than before: the serving workers count as the newest
            // generation, and exited ones are replaced.
            let newest = self.generation;
            for worker in &serving {
                if let Some(w) = self.workers.get_mut(worker) {
                    w.generation = newest;
                }
            }
            self.phase = Phase::Steady;
        }
        let code = if serving.is_empty() || self.failed_scripts.all { Code::CannotStart } else { Code::GenerationFailed };
        log(out, code, None, [seconds(pause), self.failure_log.met(&reason)]);
        let texts: Vec<&str> = failures.iter().map(|f| f.text.trim_end()).collect();
        // The last lines of standard error follow as separate log lines; an answer's reason has no
        // space for them.
        self.failing = Some(reason.lines().next().unwrap_or_default().to_owned());
        self.failure = Some(if texts.is_empty() { reason } else { texts.join("\n") });
        self.release(out);
    }

    /// A process has exited.
    pub(super) fn exited(&mut self, worker: Number, how: String, (clean, killed): (bool, bool), now: Now, out: &mut Vec<Action>) {
        let Some(w) = self.workers.get(&worker).cloned() else { return };
        let failed = matches!(w.state, State::Starting { .. } | State::Queued);
        let (how, last_words) = how.split_once('\n').unwrap_or((&how, ""));
        // Programs other than Python exit like this, and so do scripts that do not expect to be
        // imported.
        let hint = if failed && clean { " (check that python= is Python 3.9 or newer and that no script exits the process)" } else { "" };
        let code = match w.state {
            _ if failed => Code::StartFailed,
            State::Serving { .. } if !self.is_retired() => Code::Crashed,
            _ if !clean && !w.signalled => Code::CrashedDraining,
            _ => Code::Exited,
        };
        log(out, code, Some(worker), [format!("{how}{hint}")]);
        self.workers.remove(&worker);
        if matches!(w.state, State::Serving { .. }) {
            // The exited worker may have been woken for a request that it did not take: the others
            // check the queue.
            out.extend(self.workers.iter().filter(|(_, w)| matches!(w.state, State::Serving { .. })).map(|(n, _)| Action::Wake(*n)));
        }
        if failed {
            let reason = format!("a worker {how} before it was ready{hint}{}", because(last_words));
            self.start_failed(&w, reason, killed && !w.signalled, now, out);
        }
        if matches!(w.state, State::Serving { .. }) {
            self.hurry(now);
            if code == Code::Crashed && !self.any_serving() {
                self.failure_log.met("a crash left no worker");
            }
        }
        self.fill(now, out);
        self.start_next_replacement(now, out);
    }
}

/// The last output of a process, appended to the message about its exit: the most likely cause
/// first, then all lines.
fn because(last_words: &str) -> String {
    // `ImportError: no such module`, not `<no Python frame>`.
    match last_words.lines().rev().find(|line| line.contains(": ")).or(last_words.lines().last()) {
        None => String::new(),
        Some(cause) if last_words.lines().count() == 1 => format!("; standard error: {cause}"),
        Some(cause) => format!("; standard error: {cause}\n{last_words}"),
    }
}

/// A script is tried, and fails, once for each of its callables; report it once.
fn each_once(mut failures: Vec<ScriptFailure>) -> Vec<ScriptFailure> {
    let mut seen = BTreeSet::new();
    failures.retain(|f| seen.insert((f.path.clone(), f.text.clone())));
    failures
}

impl Pool {
    /// If the last old worker may have exited, the next attempt comes sooner than its back-off, but
    /// still rate-limited.
    pub(super) fn hurry(&mut self, now: Now) {
        if matches!(self.phase, Phase::Waiting) && !self.any_serving() {
            let soon = self.last_begin.map_or(now, |last| now.max(last + SLOT_PAUSE));
            self.next_begin = self.next_begin.map(|(at, reason)| (at.min(soon), reason));
        }
    }
}

/// A delay in seconds for the log.
fn seconds(pause: Duration) -> String {
    format!("{:.0}", pause.as_secs_f64())
}

/// The line of a traceback that names the exception.
fn last_line(text: &str) -> &str {
    text.trim_end().rsplit('\n').next().unwrap_or_default()
}
