//! Reload: changed files, and requests that are parked until the new code serves.
//!
//! Responsible for: starting exactly one new generation for a changed file, however often it is
//! touched and whoever reports it; and requeueing or answering every returned request in time. Must
//! never: park or remember without bound. Called by: [`crate::pool`].
#![forbid(unsafe_code)]
use crate::log::messages::Code;
use crate::pool::{Action, Now, Number, Path, Phase, Pool, Reason, State, Token, Worker, log};
use std::collections::BTreeMap;
use std::time::Duration;

/// Requests parked for a new generation; any more are served by the old one.
pub const MAX_PARKED: usize = 64;
/// Files remembered by name, each of at most `MAX_PATH_BYTES`. The names come from workers.
pub const MAX_FILES: usize = 256;
/// PATH_MAX.
const MAX_PATH_BYTES: usize = 4096;
/// How long a request stays parked before the old generation serves it. The time starts again when
/// an old worker returns the request again.
pub const PARK_LIMIT: Duration = Duration::from_secs(10);
/// How long droverd tries to requeue a request when the queue is full.
pub const REQUEUE_FOR: Duration = Duration::from_secs(10);
const REQUEUE_EVERY: Duration = Duration::from_millis(20);

#[derive(Debug, Clone)]
pub(super) struct ParkedRequest {
    pub token: Token,
    pub path: Path,
    pub mtime_us: u64,
    pub until: Now,
    /// When to requeue the request although old workers still serve and may take it.
    pub requeue_at: Option<Now>,
}

impl Pool {
    /// A worker reports a changed file, and may return a request that needs the new code.
    pub(super) fn changed(&mut self, worker: Number, path: Path, mtime_us: u64, request: Option<Token>, now: Now, out: &mut Vec<Action>) {
        let Some(w) = self.workers.get(&worker) else {
            out.extend(request.map(Action::Requeue));
            return;
        };
        if path.len() > MAX_PATH_BYTES {
            out.extend(request.map(Action::Refuse)); // no file has such a name
            return;
        }
        let (newest, draining) = (w.generation == self.generation, matches!(w.state, State::Draining { .. }));
        match self.phase {
            Phase::Stopped { .. } | Phase::Retired { .. } | Phase::Halted | Phase::Idle => {
                out.extend(request.map(Action::Refuse));
                return;
            }
            _ if self.known_bad.get(&path) == Some(&mtime_us) => {
                // The worker had not yet read that this file is known bad when it returned the
                // request.
                out.push(Action::MarkKnownBad { worker, path, mtime_us });
                out.extend(request.map(Action::Requeue));
                return;
            }
            // The worker had not yet read that it is draining; the new generation serves or is
            // starting.
            Phase::Steady | Phase::Waiting if draining => {
                out.extend(request.map(Action::Requeue));
                return;
            }
            Phase::Rising(_) if !newest || draining => {}
            _ => {
                // One message for each file and each generation started for it.
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
            let requeue_at = self.serves_new_code().then(|| now + REQUEUE_EVERY);
            let parked = ParkedRequest { token, path, mtime_us, until: now + PARK_LIMIT, requeue_at };
            if self.parked.len() >= MAX_PARKED || !remembered {
                self.serve_with_old_code(parked, out)
            } else {
                self.parked.push_back(parked)
            }
        }
        if self.may_begin_next() && self.next_begin.is_some_and(|(at, _)| at <= now) {
            self.begin(Reason::Changed, now, out);
        }
    }

    /// Whether a planned generation may begin once it is due. A generation that is starting is
    /// completed first, unless its own workers report that its code is out of date. A generation
    /// started for a change is always completed: otherwise a file that keeps changing would stop
    /// all of them from serving.
    pub(super) const fn may_begin_next(&self) -> bool {
        match (&self.phase, self.next_begin) {
            (Phase::Rising(r), Some((_, Reason::Changed))) => r.first_up.is_some() && !matches!(r.reason, Reason::Changed),
            (Phase::Rising(_), _) => false,
            _ => true,
        }
    }

    /// A request shows that the file of a script that could not be loaded has changed. No worker
    /// can serve the request.
    pub(super) fn touched(&mut self, path: Path, mtime_us: u64, token: Token, now: Now, out: &mut Vec<Action>) {
        let known = self.changed.get(&path) == Some(&mtime_us);
        let waits = matches!(self.phase, Phase::Waiting | Phase::Rising(_)) && self.parked.len() < MAX_PARKED;
        if !waits || !remember(&mut self.changed, &path, mtime_us) {
            out.push(Action::Refuse(token));
            return;
        }
        if !known {
            log(out, Code::Changed, None, [String::from_utf8_lossy(&path).into_owned()]);
        }
        self.parked.push_back(ParkedRequest { token, path, mtime_us, until: now + PARK_LIMIT, requeue_at: None });
        if matches!(self.phase, Phase::Waiting) {
            self.backoff.reset();
            let at = self.last_begin.map_or(now, |last| now.max(last + Duration::from_secs(1)));
            self.next_begin = Some((at, Reason::Changed));
            if at <= now {
                self.begin(Reason::Changed, now, out);
            }
        }
    }

    /// Whether a request that no worker can serve shows a file time that is not known bad. This
    /// also records the time, for scripts whose failure was never reported because the process
    /// crashed.
    pub fn shows_new_file(&mut self, path: &[u8], mtime_us: u64) -> bool {
        match self.known_bad.get(path) {
            _ if mtime_us == 0 || !matches!(self.phase, Phase::Waiting | Phase::Rising(_)) => false,
            Some(known) => *known != mtime_us,
            None if matches!(self.phase, Phase::Rising(_)) => false,
            None => {
                remember(&mut self.known_bad, path, mtime_us);
                false
            }
        }
    }

    /// Whether workers of a starting generation serve beside an older one, with no file known to
    /// have changed since they were started.
    pub(super) fn serves_new_code(&self) -> bool {
        let newest = |w: &Worker| w.generation == self.generation && matches!(w.state, State::Serving { .. });
        matches!(self.phase, Phase::Rising(_))
            && self.next_begin.is_none_or(|(_, reason)| reason != Reason::Changed)
            && self.workers.values().any(newest)
    }

    /// Handles parked requests that waited too long and those due to be requeued.
    pub(super) fn time_out_parked(&mut self, now: Now, out: &mut Vec<Action>) {
        while self.parked.front().is_some_and(|h| h.until <= now) {
            if let Some(h) = self.parked.pop_front() {
                self.serve_with_old_code(h, out);
            }
        }
        let due = |h: &ParkedRequest| h.requeue_at.is_some_and(|at| at <= now);
        out.extend(self.parked.iter().filter(|h| due(h)).map(|h| Action::Requeue(h.token)));
        self.parked.retain(|h| !due(h));
        if self.requeue_at.is_some_and(|at| at <= now) {
            self.requeue_at = None;
            // Requests of the last round that were not reported as `Full` have been queued.
            self.requeueing.clear();
            for (token, until) in std::mem::take(&mut self.full) {
                self.requeueing.insert(token, until);
                out.push(Action::Requeue(token));
            }
        }
    }

    /// A request was parked for too long, or there are too many. The serving workers are told to
    /// ignore the file's time.
    fn serve_with_old_code(&mut self, parked: ParkedRequest, out: &mut Vec<Action>) {
        let ParkedRequest { token, path, mtime_us, .. } = parked;
        for (number, _) in self.workers.iter().filter(|(_, w)| matches!(w.state, State::Serving { .. })) {
            out.push(Action::MarkKnownBad { worker: *number, path: path.clone(), mtime_us });
        }
        out.push(Action::Requeue(token));
    }

    /// A request did not fit on the full queue.
    pub(super) fn queue_was_full(&mut self, token: Token, now: Now, out: &mut Vec<Action>) {
        let until = self.requeueing.remove(&token).unwrap_or(now + REQUEUE_FOR);
        let over = until <= now || self.full.len() >= MAX_PARKED;
        if over || matches!(self.phase, Phase::Stopped { .. } | Phase::Retired { .. }) {
            // A worker can return any number of requests: log at most once a second.
            if self.full_logged_at.is_none_or(|at| at + Duration::from_secs(1) <= now) {
                self.full_logged_at = Some(now);
                log(out, Code::RequeueFailed, None, []);
            }
            out.push(Action::Refuse(token));
            return;
        }
        self.full.push((token, until));
        self.requeue_at.get_or_insert(now + REQUEUE_EVERY);
    }

    /// Requeues all parked requests, because the new generation serves or has failed.
    pub(super) fn release(&mut self, out: &mut Vec<Action>) {
        out.extend(self.parked.drain(..).map(|h| Action::Requeue(h.token)));
    }

    /// Refuses all parked requests, because no worker will run them.
    pub(super) fn refuse_parked(&mut self, out: &mut Vec<Action>) {
        out.extend(self.parked.drain(..).map(|h| Action::Refuse(h.token)));
        out.extend(self.full.drain(..).map(|(token, _)| Action::Refuse(token)));
        self.requeue_at = None;
    }
}

fn may_remember(files: &BTreeMap<Path, u64>, path: &[u8]) -> bool {
    path.len() <= MAX_PATH_BYTES && (files.len() < MAX_FILES || files.contains_key(path))
}

/// Records a file's time. False if there are too many files.
pub(super) fn remember(files: &mut BTreeMap<Path, u64>, path: &[u8], mtime_us: u64) -> bool {
    let may_control = may_remember(files, path);
    if may_control {
        files.insert(path.to_vec(), mtime_us);
    }
    may_control
}
