//! Rotation: replaces healthy workers that asked for it, are too old, use too much memory or were
//! idle; and adapts the pool's size to its load.
//!
//! Responsible for: replacing one worker at a time, successor first, and for the pool's size. Must
//! never: drain a worker before its successor serves, except after a signal. Called by:
//! [`crate::pool`].
#![forbid(unsafe_code)]
use crate::log::messages::Code;
use crate::pool::scale::{CHECK_EVERY, CHECK_FOR, DEFAULT_IDLE, Observation, REPORT_LAG};
use crate::pool::{Action, Now, Number, Phase, Pool, ReplaceReason, State, Worker, log};
use drover_wire::control::Activity;
use std::time::Duration;

impl Pool {
    /// A worker is to be replaced.
    pub(super) fn being_replaced(&mut self, worker: Number, why: ReplaceReason, now: Now, out: &mut Vec<Action>) {
        let Some(w) = self.workers.get(&worker).cloned() else { return };
        let starts = matches!(w.state, State::Starting { .. });
        if !(matches!(w.state, State::Serving { .. }) || starts && why == ReplaceReason::Signal) {
            return;
        }
        if why == ReplaceReason::Signal {
            log(out, Code::Replacing, Some(worker), [why.to_string()]);
            let patience = self.limits.eviction.or(self.limits.graceful);
            self.drain_within(worker, patience, now, out);
            if starts {
                // It exits after it has imported the application, and must not be counted as
                // serving.
                self.start_failed(&w, "a worker received a signal before it was ready".to_owned(), true, now, out);
            }
            self.fill(now, out);
        } else if w.state == (State::Serving { being_replaced: false }) && !self.outgoing.iter().any(|(n, _)| *n == worker) {
            self.outgoing.push_back((worker, why));
            self.start_next_replacement(now, out);
        }
    }

    /// Starts the next replacement, unless one is in progress.
    pub(super) fn start_next_replacement(&mut self, now: Now, out: &mut Vec<Action>) {
        let newest = self.generation;
        let busy = |w: &Worker| matches!(w.state, State::Queued | State::Starting { .. } | State::Serving { being_replaced: true });
        if !matches!(self.phase, Phase::Steady) || self.workers.values().any(|w| w.generation == newest && busy(w)) {
            return;
        }
        while let Some((worker, why)) = self.outgoing.pop_front() {
            if let Some(w) =
                self.workers.get_mut(&worker).filter(|w| w.generation == newest && w.state == State::Serving { being_replaced: false })
            {
                w.state = State::Serving { being_replaced: true };
                log(out, Code::Replacing, Some(worker), [why.to_string()]);
                return self.fill(now, out);
            }
        }
    }

    /// Finds workers that are too old or were idle too long.
    pub(super) fn plan_replacements(&mut self, now: Now, out: &mut Vec<Action>) {
        if !matches!(self.phase, Phase::Steady) {
            return;
        }
        let (newest, idle) = (self.generation, self.limits.inactivity.filter(|_| !self.is_elastic()));
        for (number, w) in &mut self.workers {
            if w.generation != newest || w.state != (State::Serving { being_replaced: false }) {
                continue;
            }
            if w.interval_at.is_some_and(|at| at <= now) {
                w.interval_at = None;
                self.outgoing.push_back((*number, ReplaceReason::RestartInterval));
            }
            if w.idle_since().zip(idle).is_some_and(|(since, idle)| w.counted && since + idle <= now) {
                w.counted = false;
                self.outgoing.push_back((*number, ReplaceReason::Inactivity));
            }
        }
        self.start_next_replacement(now, out);
    }

    /// When [`Pool::plan_replacements`] or a check of the size is due.
    pub(super) fn replacement_deadline(&self) -> Option<Now> {
        if !matches!(self.phase, Phase::Steady) {
            return None;
        }
        let idle = self.limits.inactivity.filter(|_| !self.is_elastic());
        let replaceable = |w: &&Worker| w.generation == self.generation && w.state == State::Serving { being_replaced: false };
        let of_worker = |w: &Worker| {
            let idle = w.idle_since().zip(idle).filter(|_| w.counted).map(|(since, idle)| since + idle);
            w.interval_at.into_iter().chain(idle).min()
        };
        let replace = self.workers.values().filter(replaceable).filter_map(of_worker).min();
        let shrink = match (self.check_at, self.least_used()) {
            (None, Some((_, since))) if self.target > self.limits.least && self.is_complete() => {
                Some(self.scale.deadline(since, self.patience()))
            }
            _ => None,
        };
        replace.into_iter().chain(shrink).chain(self.check_at).min()
    }

    /// A worker reports its activity.
    pub(super) fn activity(&mut self, worker: Number, activity: Activity, now: Now) {
        let Some(w) = self.workers.get_mut(&worker) else { return };
        w.running = activity.running;
        w.taken = w.taken.saturating_add(activity.taken);
        if activity.counted > 0 || activity.running > 0 {
            w.active_at = now;
            w.counted |= activity.counted > 0;
        }
        self.active_at = now;
        let waited = Duration::from_micros(activity.waited_us);
        // Requests queued before the last worker was ready waited for that worker, not for lack of
        // workers.
        if now.saturating_sub(waited).saturating_sub(REPORT_LAG) >= self.complete_since() {
            self.scale.waited(waited);
        }
        if self.is_elastic() && self.target < self.limits.processes {
            self.check_at.get_or_insert(now + CHECK_EVERY);
        }
    }

    /// Checks the queue if it is time to.
    pub(super) fn check_queue(&mut self, now: Now, out: &mut Vec<Action>) {
        let due = |at: Option<Now>| at.is_some_and(|at| at <= now);
        let shrink = || self.least_used().filter(|_| self.target > self.limits.least && self.is_complete());
        let idle = self.check_at.is_none() && due(shrink().map(|(_, since)| self.scale.deadline(since, self.patience())));
        if self.is_elastic() && (due(self.check_at) || idle) {
            self.check_at = None;
            out.push(Action::CheckQueue);
        }
    }

    /// The result of checking the queue.
    pub(super) fn queue_checked(&mut self, waiting: bool, now: Now, out: &mut Vec<Action>) {
        if !self.is_elastic() || !matches!(self.phase, Phase::Steady) {
            return;
        }
        let seen = Observation {
            now,
            target: self.target,
            least: self.limits.least,
            most: self.limits.processes,
            complete: self.is_complete(),
            waiting,
            idle: self.least_used().map_or(Duration::ZERO, |(_, since)| now.saturating_sub(since)),
            patience: self.patience(),
        };
        let target = self.scale.decide(&seen);
        match target.cmp(&self.target) {
            std::cmp::Ordering::Greater => {
                log(out, Code::ScaleUp, None, [self.target.to_string(), target.to_string()]);
                self.target = target;
                self.slots.resize(target, Now::ZERO);
                self.fill(now, out);
            }
            std::cmp::Ordering::Less => self.shrink(now, out),
            std::cmp::Ordering::Equal => {}
        }
        let running = self.workers.values().any(|w| w.running > 0);
        let may_grow = self.target < self.limits.processes && (running || self.active_at + CHECK_FOR > now);
        // Requests are queueing, which keeps an idle worker from being drained: check again.
        if waiting || may_grow {
            self.check_at.get_or_insert(now + CHECK_EVERY);
        }
    }

    /// Drains the least used worker. The worker of the last slot takes its slot.
    fn shrink(&mut self, now: Now, out: &mut Vec<Action>) {
        let Some((worker, _)) = self.least_used() else { return };
        log(out, Code::ScaleDown, Some(worker), [self.target.to_string(), (self.target - 1).to_string()]);
        self.drain(worker, now, out);
        let last = self.target - 1;
        if let Some(slot) = self.workers.get(&worker).map(|w| w.slot).filter(|slot| *slot != last) {
            let newest = self.generation;
            for w in self.workers.values_mut().filter(|w| w.generation == newest && w.slot == last) {
                w.slot = slot;
            }
        }
        self.target = last;
        self.slots.truncate(last);
        if last == 0 {
            self.phase = Phase::Idle;
            self.next_begin = None;
            self.check_at = None;
        }
    }

    /// The worker with the longest idle time, and since when it is idle.
    fn least_used(&self) -> Option<(Number, Now)> {
        let newest = self.generation;
        let stays = |w: &Worker| w.generation == newest && w.state == State::Serving { being_replaced: false };
        let idle = self.workers.iter().filter(|(_, w)| stays(w)).filter_map(|(n, w)| w.idle_since().map(|since| (*n, since)));
        // Among equally idle workers the newest: the kernel wakes the oldest first.
        idle.min_by_key(|(n, since)| (*since, std::cmp::Reverse(*n)))
    }

    /// All wanted workers serve.
    pub(super) fn is_complete(&self) -> bool {
        let newest = self.generation;
        let staying =
            self.workers.values().filter(|w| w.generation == newest && w.state == State::Serving { being_replaced: false }).count();
        matches!(self.phase, Phase::Steady) && staying == self.target
    }

    /// When the last serving worker became ready.
    fn complete_since(&self) -> Now {
        let serving = |w: &&Worker| matches!(w.state, State::Serving { .. });
        self.workers.values().filter(serving).map(|w| w.since).max().unwrap_or_default()
    }

    /// The pool's size follows its load.
    pub(super) const fn is_elastic(&self) -> bool {
        self.limits.least < self.limits.processes
    }

    fn patience(&self) -> Duration {
        self.limits.inactivity.unwrap_or(DEFAULT_IDLE)
    }
}

impl Worker {
    /// Since when it has had no request; `None` while one is running.
    fn idle_since(&self) -> Option<Now> {
        (self.running == 0).then_some(self.active_at)
    }
}
