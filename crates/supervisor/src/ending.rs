//! Workers that have to go: told, reminded, killed.
//!
//! Responsible for: every worker that was told to go being gone within its limits. Must never: start one. Called by:
//! [`crate::pool`] and [`crate::generation`].
#![forbid(unsafe_code)]
use crate::messages::Code;
use crate::pool::{Action, Event, Now, Number, Phase, Pool, State, Worker, log};
use std::time::Duration;

impl Pool {
    /// The worker takes no more requests and has graceful-timeout to finish.
    pub(crate) fn drain(&mut self, worker: Number, now: Now, out: &mut Vec<Action>) {
        let patience = self.limits.graceful;
        self.drain_within(worker, patience, now, out);
    }

    /// The same with another time than graceful-timeout.
    pub(crate) fn drain_within(&mut self, worker: Number, patience: Option<Duration>, now: Now, out: &mut Vec<Action>) {
        let term_at = patience.map(|g| now + g);
        if let Some(w) = self.workers.get_mut(&worker) {
            w.state = State::Ending { term_at, kill_at: None };
            out.push(Action::Drain(worker));
        }
        self.hurry(now);
    }

    /// Drains every serving worker that `which` (given the newest generation) says.
    pub(crate) fn drain_where(&mut self, which: impl Fn(&Worker, u64) -> bool, now: Now, out: &mut Vec<Action>) {
        let newest = self.generation;
        let serving = |w: &Worker| matches!(w.state, State::Serving { .. });
        let going: Vec<Number> = self.workers.iter().filter(|(_, w)| serving(w) && which(w, newest)).map(|(n, _)| *n).collect();
        for worker in going {
            self.drain(worker, now, out);
        }
    }

    /// The worker has nothing to finish: SIGTERM now, SIGKILL after shutdown-timeout.
    pub(crate) fn terminate(&mut self, worker: Number, now: Now, out: &mut Vec<Action>) {
        let kill_at = Some(now + self.limits.shutdown);
        if let Some(w) = self.workers.get_mut(&worker) {
            w.state = State::Ending { term_at: None, kill_at };
            w.signalled = true;
            out.push(Action::Terminate(worker));
        }
        self.hurry(now);
    }

    pub(crate) fn cancel_queued(&mut self, out: &mut Vec<Action>) {
        self.workers.retain(|number, w| {
            let queued = w.state == State::Queued;
            if queued {
                out.push(Action::Cancel(*number));
            }
            !queued
        });
    }

    /// Ends whatever has not come up.
    pub(crate) fn end_unready(&mut self, now: Now, out: &mut Vec<Action>) {
        self.cancel_queued(out);
        let starting = |w: &Worker| matches!(w.state, State::Starting { .. });
        let going: Vec<Number> = self.workers.iter().filter(|(_, w)| starting(w)).map(|(n, _)| *n).collect();
        for worker in going {
            self.terminate(worker, now, out);
        }
    }

    /// Ends everything; what still runs after `within` is killed (`None`: after graceful-timeout comes SIGTERM as usual).
    pub(crate) fn end_all(&mut self, within: Option<Duration>, now: Now, out: &mut Vec<Action>) {
        self.end_unready(now, out);
        self.drain_where(|_, _| true, now, out);
        let Some(within) = within else { return };
        for w in self.workers.values_mut() {
            if let State::Ending { term_at, kill_at } = &mut w.state {
                // A kill that was sent already is not sent again: then both are None.
                if term_at.is_some() || kill_at.is_some() || self.limits.graceful.is_none() {
                    *kill_at = Some(kill_at.map_or(now + within, |at| at.min(now + within)));
                }
                *term_at = None;
            }
        }
    }

    /// Whoever has a process has a queue on which nothing comes any more: it finishes what it has, and others take its place.
    pub(crate) fn queue_replaced(&mut self, now: Now, out: &mut Vec<Action>) {
        let starting = |w: &Worker| matches!(w.state, State::Starting { .. });
        let going: Vec<Number> = self.workers.iter().filter(|(_, w)| starting(w)).map(|(n, _)| *n).collect();
        for worker in going {
            self.terminate(worker, now, out);
        }
        self.drain_where(|_, _| true, now, out);
        if let Phase::Rising(rising) = &mut self.phase {
            // Nobody is left of whom it could be learned how the generation fares.
            rising.failed = false;
        }
        self.hurry(now);
        self.fill(now, out);
    }

    pub(crate) fn stop(&mut self, within: Option<Duration>, now: Now, out: &mut Vec<Action>) {
        let active = !matches!(self.phase, Phase::Idle | Phase::Retired { .. } | Phase::Stopped { active: false });
        self.outgoing.clear();
        self.look_at = None;
        if !self.is_retired() {
            self.phase = Phase::Stopped { active };
        }
        self.next_begin = None;
        self.failing = None;
        self.backoff.reset();
        self.answer_held(out);
        let shutdown = within.map_or(self.limits.shutdown, |w| w.min(self.limits.shutdown));
        self.end_all(Some(shutdown), now, out);
    }

    pub(crate) fn retire(&mut self, now: Now, out: &mut Vec<Action>) {
        let until = self.limits.graceful.map(|g| now + g);
        self.phase = Phase::Retired { until };
        self.next_begin = None;
        self.failing = None;
        self.answer_held(out);
        self.end_unready(now, out);
    }

    /// Looks for workers whose time is over.
    pub(crate) fn time_out_workers(&mut self, now: Now, out: &mut Vec<Action>) {
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
                State::Ending { term_at, .. } if due(term_at) => {
                    w.state = State::Ending { term_at: None, kill_at: Some(now + self.limits.shutdown) };
                    w.signalled = true;
                    log(out, Code::SlowToEnd, Some(number), []);
                    if !std::mem::replace(&mut w.dumped, true) {
                        out.push(Action::Dump(number));
                    }
                    out.push(Action::Terminate(number));
                }
                State::Ending { kill_at, .. } if due(kill_at) => {
                    w.state = State::Ending { term_at: None, kill_at: None };
                    w.signalled = true;
                    log(out, Code::Killed, Some(number), []);
                    out.push(Action::Kill(number));
                }
                _ => {}
            }
            let Some(w) = self.workers.get_mut(&number) else { continue };
            if due(w.lost_kill_at) {
                w.lost_kill_at = None;
                w.signalled = true;
                log(out, Code::Lost, Some(number), []);
                out.push(Action::Kill(number));
            }
        }
    }
}
