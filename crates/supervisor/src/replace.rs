//! Workers that serve well and are replaced nevertheless: they asked for it, are too old, too large, or have been idle.
//!
//! Responsible for: one at a time, the successor first; and for the pool's size following its load. Must never: end a worker before
//! its successor serves, but for one that was sent a signal. Called by: [`crate::pool`].
#![forbid(unsafe_code)]
use crate::messages::Code;
use crate::pool::{Action, Now, Number, Phase, Pool, State, Why, Worker, log};
use crate::scale::{DEFAULT_IDLE, LOOK_EVERY, LOOK_FOR, REPORT_LAG, Seen};
use drover_wire::control::Activity;
use std::time::Duration;

impl Pool {
    /// A worker is to be replaced.
    pub(crate) fn leaving(&mut self, worker: Number, why: Why, now: Now, out: &mut Vec<Action>) {
        let Some(w) = self.workers.get(&worker).cloned() else { return };
        let starts = matches!(w.state, State::Starting { .. });
        if !(matches!(w.state, State::Serving { .. }) || starts && why == Why::Signal) {
            return;
        }
        if why == Why::Signal {
            log(out, Code::Leaving, Some(worker), [why.to_string()]);
            let patience = self.limits.eviction.or(self.limits.graceful);
            self.drain_within(worker, patience, now, out);
            if starts {
                // It goes when it has imported the application, and must not be taken for one that serves.
                self.start_failed(&w, "a process was sent a signal before it was ready".to_owned(), true, now, out);
            }
            self.fill(now, out);
        } else if w.state == (State::Serving { leaving: false }) && !self.outgoing.iter().any(|(n, _)| *n == worker) {
            self.outgoing.push_back((worker, why));
            self.next_out(now, out);
        }
    }

    /// Lets the next of those that are to be replaced go, when no other is on its way.
    pub(crate) fn next_out(&mut self, now: Now, out: &mut Vec<Action>) {
        let newest = self.generation;
        let busy = |w: &Worker| matches!(w.state, State::Queued | State::Starting { .. } | State::Serving { leaving: true });
        if !matches!(self.phase, Phase::Steady) || self.workers.values().any(|w| w.generation == newest && busy(w)) {
            return;
        }
        while let Some((worker, why)) = self.outgoing.pop_front() {
            if let Some(w) =
                self.workers.get_mut(&worker).filter(|w| w.generation == newest && w.state == State::Serving { leaving: false })
            {
                w.state = State::Serving { leaving: true };
                log(out, Code::Leaving, Some(worker), [why.to_string()]);
                return self.fill(now, out);
            }
        }
    }

    /// Finds those that are too old or have been idle too long.
    pub(crate) fn plan_replacements(&mut self, now: Now, out: &mut Vec<Action>) {
        if !matches!(self.phase, Phase::Steady) {
            return;
        }
        let (newest, idle) = (self.generation, self.limits.inactivity.filter(|_| !self.is_elastic()));
        for (number, w) in &mut self.workers {
            if w.generation != newest || w.state != (State::Serving { leaving: false }) {
                continue;
            }
            if w.interval_at.is_some_and(|at| at <= now) {
                w.interval_at = None;
                self.outgoing.push_back((*number, Why::RestartInterval));
            }
            if w.idle_since().zip(idle).is_some_and(|(since, idle)| w.counted && since + idle <= now) {
                w.counted = false;
                self.outgoing.push_back((*number, Why::Inactivity));
            }
        }
        self.next_out(now, out);
    }

    /// When [`Pool::plan_replacements`] or a look at the size is due.
    pub(crate) fn replacement_deadline(&self) -> Option<Now> {
        if !matches!(self.phase, Phase::Steady) {
            return None;
        }
        let idle = self.limits.inactivity.filter(|_| !self.is_elastic());
        let replaceable = |w: &&Worker| w.generation == self.generation && w.state == State::Serving { leaving: false };
        let of_worker = |w: &Worker| {
            let idle = w.idle_since().zip(idle).filter(|_| w.counted).map(|(since, idle)| since + idle);
            w.interval_at.into_iter().chain(idle).min()
        };
        let replace = self.workers.values().filter(replaceable).filter_map(of_worker).min();
        let shrink = match (self.look_at, self.coldest()) {
            (None, Some((_, since))) if self.target > self.limits.least && self.is_complete() => {
                Some(self.scale.deadline(since, self.patience()))
            }
            _ => None,
        };
        replace.into_iter().chain(shrink).chain(self.look_at).min()
    }

    /// What a worker says it did.
    pub(crate) fn activity(&mut self, worker: Number, activity: Activity, now: Now) {
        let Some(w) = self.workers.get_mut(&worker) else { return };
        w.running = activity.running;
        w.taken = w.taken.saturating_add(activity.taken);
        if activity.counted > 0 || activity.running > 0 {
            w.active_at = now;
            w.counted |= activity.counted > 0;
        }
        self.active_at = now;
        let waited = Duration::from_micros(activity.waited_us);
        // What began to wait before the last worker was up has waited for that one, not for want of others.
        if now.saturating_sub(waited).saturating_sub(REPORT_LAG) >= self.complete_since() {
            self.scale.waited(waited);
        }
        if self.is_elastic() && self.target < self.limits.processes {
            self.look_at.get_or_insert(now + LOOK_EVERY);
        }
    }

    /// It is time to look at the queue.
    pub(crate) fn look(&mut self, now: Now, out: &mut Vec<Action>) {
        let due = |at: Option<Now>| at.is_some_and(|at| at <= now);
        let shrink = || self.coldest().filter(|_| self.target > self.limits.least && self.is_complete());
        let idle = self.look_at.is_none() && due(shrink().map(|(_, since)| self.scale.deadline(since, self.patience())));
        if self.is_elastic() && (due(self.look_at) || idle) {
            self.look_at = None;
            out.push(Action::Look);
        }
    }

    /// What the look has shown.
    pub(crate) fn looked(&mut self, waiting: bool, now: Now, out: &mut Vec<Action>) {
        if !self.is_elastic() || !matches!(self.phase, Phase::Steady) {
            return;
        }
        let seen = Seen {
            now,
            target: self.target,
            least: self.limits.least,
            most: self.limits.processes,
            complete: self.is_complete(),
            waiting,
            idle: self.coldest().map_or(Duration::ZERO, |(_, since)| now.saturating_sub(since)),
            patience: self.patience(),
        };
        let target = self.scale.decide(&seen);
        match target.cmp(&self.target) {
            std::cmp::Ordering::Greater => {
                log(out, Code::Grows, None, [self.target.to_string(), target.to_string()]);
                self.target = target;
                self.slots.resize(target, Now::ZERO);
                self.fill(now, out);
            }
            std::cmp::Ordering::Less => self.shrink(now, out),
            std::cmp::Ordering::Equal => {}
        }
        let running = self.workers.values().any(|w| w.running > 0);
        let may_grow = self.target < self.limits.processes && (running || self.active_at + LOOK_FOR > now);
        // What waits keeps an idle worker from being ended: it is looked again.
        if waiting || may_grow {
            self.look_at.get_or_insert(now + LOOK_EVERY);
        }
    }

    /// Ends the least used worker; the one of the last slot takes its slot.
    fn shrink(&mut self, now: Now, out: &mut Vec<Action>) {
        let Some((worker, _)) = self.coldest() else { return };
        log(out, Code::Shrinks, Some(worker), [self.target.to_string(), (self.target - 1).to_string()]);
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
            self.look_at = None;
        }
    }

    /// The worker that has had nothing to do for the longest time, and since when.
    fn coldest(&self) -> Option<(Number, Now)> {
        let newest = self.generation;
        let stays = |w: &Worker| w.generation == newest && w.state == State::Serving { leaving: false };
        let idle = self.workers.iter().filter(|(_, w)| stays(w)).filter_map(|(n, w)| w.idle_since().map(|since| (*n, since)));
        // Of two that idle alike, the one that came last: the kernel wakes the first.
        idle.min_by_key(|(n, since)| (*since, std::cmp::Reverse(*n)))
    }

    /// Every wanted worker serves.
    pub(crate) fn is_complete(&self) -> bool {
        let newest = self.generation;
        let staying = self.workers.values().filter(|w| w.generation == newest && w.state == State::Serving { leaving: false }).count();
        matches!(self.phase, Phase::Steady) && staying == self.target
    }

    /// When the last of the workers that serve came up.
    fn complete_since(&self) -> Now {
        let serving = |w: &&Worker| matches!(w.state, State::Serving { .. });
        self.workers.values().filter(serving).map(|w| w.since).max().unwrap_or_default()
    }

    /// The size follows the load.
    pub(crate) const fn is_elastic(&self) -> bool {
        self.limits.least < self.limits.processes
    }

    fn patience(&self) -> Duration {
        self.limits.inactivity.unwrap_or(DEFAULT_IDLE)
    }
}

impl Worker {
    /// Since when it has had no request; `None` while one runs.
    fn idle_since(&self) -> Option<Now> {
        (self.running == 0).then_some(self.active_at)
    }
}
