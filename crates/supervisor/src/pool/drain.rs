//! Draining and termination of workers.
//!
//! Responsible for: the exit of every draining worker within its limits. Must never: start a
//! worker. Called by: [`crate::pool`] and [`crate::pool::generation`].
#![forbid(unsafe_code)]
use crate::log::messages::Code;
use crate::pool::{Action, Event, Now, Number, Phase, Pool, State, Worker, log};
use std::time::Duration;

impl Pool {
    /// Tells a worker to take no more requests and to finish within graceful-timeout.
    pub(super) fn drain(&mut self, worker: Number, now: Now, out: &mut Vec<Action>) {
        let patience = self.limits.graceful;
        self.drain_within(worker, patience, now, out);
    }

    /// Drains a worker with a limit other than graceful-timeout.
    pub(super) fn drain_within(&mut self, worker: Number, patience: Option<Duration>, now: Now, out: &mut Vec<Action>) {
        let term_at = patience.map(|g| now + g);
        if let Some(w) = self.workers.get_mut(&worker) {
            w.state = State::Draining { term_at, kill_at: None };
            out.push(Action::Drain(worker));
        }
        self.hurry(now);
    }

    /// Drains every serving worker for which `which` is true, given the newest generation.
    pub(super) fn drain_where(&mut self, which: impl Fn(&Worker, u64) -> bool, now: Now, out: &mut Vec<Action>) {
        let newest = self.generation;
        let serving = |w: &Worker| matches!(w.state, State::Serving { .. });
        let going: Vec<Number> = self.workers.iter().filter(|(_, w)| serving(w) && which(w, newest)).map(|(n, _)| *n).collect();
        for worker in going {
            self.drain(worker, now, out);
        }
    }

    /// Terminates a worker that has nothing to finish: SIGTERM now, SIGKILL after shutdown-timeout.
    pub(super) fn terminate(&mut self, worker: Number, now: Now, out: &mut Vec<Action>) {
        let kill_at = Some(now + self.limits.shutdown);
        if let Some(w) = self.workers.get_mut(&worker) {
            w.state = State::Draining { term_at: None, kill_at };
            w.signalled = true;
            out.push(Action::Terminate(worker));
        }
        self.hurry(now);
    }

    pub(super) fn cancel_queued(&mut self, out: &mut Vec<Action>) {
        self.workers.retain(|number, w| {
            let queued = w.state == State::Queued;
            if queued {
                out.push(Action::Cancel(*number));
            }
            !queued
        });
    }

    /// Terminates all workers that are not ready.
    pub(super) fn terminate_unready(&mut self, now: Now, out: &mut Vec<Action>) {
        self.cancel_queued(out);
        let starting = |w: &Worker| matches!(w.state, State::Starting { .. });
        let going: Vec<Number> = self.workers.iter().filter(|(_, w)| starting(w)).map(|(n, _)| *n).collect();
        for worker in going {
            self.terminate(worker, now, out);
        }
    }

    /// Drains all workers and kills those that still run after `within`. With `None`, SIGTERM
    /// follows after graceful-timeout as usual.
    pub(super) fn drain_all(&mut self, within: Option<Duration>, now: Now, out: &mut Vec<Action>) {
        self.terminate_unready(now, out);
        self.drain_where(|_, _| true, now, out);
        let Some(within) = within else { return };
        for w in self.workers.values_mut() {
            if let State::Draining { term_at, kill_at } = &mut w.state {
                // Both are `None` once SIGKILL was sent, so it is not sent again.
                if term_at.is_some() || kill_at.is_some() || self.limits.graceful.is_none() {
                    *kill_at = Some(kill_at.map_or(now + within, |at| at.min(now + within)));
                }
                *term_at = None;
            }
        }
    }

    /// All running workers have the old queue, on which nothing arrives. They finish their requests
    /// and are replaced.
    pub(super) fn queue_replaced(&mut self, now: Now, out: &mut Vec<Action>) {
        let starting = |w: &Worker| matches!(w.state, State::Starting { .. });
        let going: Vec<Number> = self.workers.iter().filter(|(_, w)| starting(w)).map(|(n, _)| *n).collect();
        for worker in going {
            self.terminate(worker, now, out);
        }
        self.drain_where(|_, _| true, now, out);
        if let Phase::Rising(rising) = &mut self.phase {
            // No worker is left that could report how the generation fares.
            rising.failed = false;
        }
        self.hurry(now);
        self.fill(now, out);
    }

    pub(super) fn stop(&mut self, within: Option<Duration>, now: Now, out: &mut Vec<Action>) {
        let active = !matches!(self.phase, Phase::Idle | Phase::Retired { .. } | Phase::Stopped { active: false });
        self.outgoing.clear();
        self.check_at = None;
        if !self.is_retired() {
            self.phase = Phase::Stopped { active };
        }
        self.next_begin = None;
        self.failing = None;
        self.backoff.reset();
        self.refuse_parked(out);
        let shutdown = within.map_or(self.limits.shutdown, |w| w.min(self.limits.shutdown));
        self.drain_all(Some(shutdown), now, out);
    }

    pub(super) fn retire(&mut self, now: Now, out: &mut Vec<Action>) {
        let until = self.limits.graceful.map(|g| now + g);
        self.phase = Phase::Retired { until };
        self.next_begin = None;
        self.failing = None;
        self.refuse_parked(out);
        self.terminate_unready(now, out);
    }

    /// Signals workers whose deadline has passed.
    pub(super) fn time_out_workers(&mut self, now: Now, out: &mut Vec<Action>) {
        let due = |at: Option<Now>| at.is_some_and(|at| at <= now);
        let numbers: Vec<Number> = self.workers.keys().copied().collect();
        for number in numbers {
            let Some(w) = self.workers.get_mut(&number) else { continue };
            match w.state {
                State::Starting { until } if due(until) => {
                    let limit = self.limits.startup.unwrap_or_default().as_secs_f64();
                    log(out, Code::StartTimeout, Some(number), [format!("{limit}")]);
                    out.push(Action::Dump(number));
                    self.step(Event::Unfit { worker: number, reason: "startup-timeout".to_owned() }, now, out);
                }
                State::Draining { term_at, .. } if due(term_at) => {
                    w.state = State::Draining { term_at: None, kill_at: Some(now + self.limits.shutdown) };
                    w.signalled = true;
                    log(out, Code::DrainTimeout, Some(number), []);
                    if !std::mem::replace(&mut w.dumped, true) {
                        out.push(Action::Dump(number));
                    }
                    out.push(Action::Terminate(number));
                }
                State::Draining { kill_at, .. } if due(kill_at) => {
                    w.state = State::Draining { term_at: None, kill_at: None };
                    w.signalled = true;
                    log(out, Code::Killed, Some(number), []);
                    out.push(Action::Kill(number));
                }
                _ => {}
            }
            let Some(w) = self.workers.get_mut(&number) else { continue };
            if due(w.closed_kill_at) {
                w.closed_kill_at = None;
                w.signalled = true;
                log(out, Code::ControlClosed, Some(number), []);
                out.push(Action::Kill(number));
            }
        }
    }
}
