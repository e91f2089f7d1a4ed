//! Files that have changed, and the requests that showed it: they wait for the new code.
//!
//! Responsible for: a changed file starting one new generation and not more, however often it is touched and whoever names it; every handed-back
//! request going on the queue again, or being answered, in time. Must never: hold or remember without bound. Called by: [`crate::pool`].
#![forbid(unsafe_code)]
use crate::messages::Code;
use crate::pool::{Action, Now, Number, Path, Phase, Pool, Reason, State, Token, Worker, log};
use std::collections::BTreeMap;
use std::time::Duration;

/// So many handed-back requests wait for a new generation; with more, the old one serves them.
pub const MAX_HELD: usize = 64;
/// So many files are remembered by name at most, each in so many bytes (PATH_MAX): workers name them.
pub const MOST_FILES: usize = 256;
const LONGEST_PATH: usize = 4096;
/// So long a handed-back request waits for a new generation; then the old one serves it. One that an old worker hands back once more begins anew.
pub const HOLD: Duration = Duration::from_secs(10);
/// So long it is tried to put a request on a full queue again.
pub const RESEND_FOR: Duration = Duration::from_secs(10);
const RESEND_EVERY: Duration = Duration::from_millis(20);

#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub token: Token,
    pub path: Path,
    pub mtime_us: u64,
    pub until: Now,
    /// Workers with the new code serve beside old ones: the queue may give it to one of those then.
    pub resend_at: Option<Now>,
}

impl Pool {
    /// A worker has seen a file with another time, perhaps by a request that it hands back for the new code.
    pub(crate) fn changed(&mut self, worker: Number, path: Path, mtime_us: u64, request: Option<Token>, now: Now, out: &mut Vec<Action>) {
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
            let resend_at = self.serves_new_code().then(|| now + RESEND_EVERY);
            let held = Held { token, path, mtime_us, until: now + HOLD, resend_at };
            if self.held.len() >= MAX_HELD || !remembered { self.serve_with_old_code(held, out) } else { self.held.push_back(held) }
        }
        if self.may_begin_next() && self.next_begin.is_some_and(|(at, _)| at <= now) {
            self.begin(Reason::Changed, now, out);
        }
    }

    /// Whether a generation that is planned may begin when its time has come. One that rises is completed first, unless its own workers say
    /// that its code is out of date; but one that was started for a change is completed, or a file that changes all the time would keep all
    /// of them from serving.
    pub(crate) const fn may_begin_next(&self) -> bool {
        match (&self.phase, self.next_begin) {
            (Phase::Rising(r), Some((_, Reason::Changed))) => r.first_up.is_some() && !matches!(r.reason, Reason::Changed),
            (Phase::Rising(_), _) => false,
            _ => true,
        }
    }

    /// The file of a script that could not be loaded has another time now, as a request shows that nobody can serve.
    pub(crate) fn touched(&mut self, path: Path, mtime_us: u64, token: Token, now: Now, out: &mut Vec<Action>) {
        let known = self.changed.get(&path) == Some(&mtime_us);
        let waits = matches!(self.phase, Phase::Waiting | Phase::Rising(_)) && self.held.len() < MAX_HELD;
        if !waits || !remember(&mut self.changed, &path, mtime_us) {
            out.push(Action::Answer(token));
            return;
        }
        if !known {
            log(out, Code::Changed, None, [String::from_utf8_lossy(&path).into_owned()]);
        }
        self.held.push_back(Held { token, path, mtime_us, until: now + HOLD, resend_at: None });
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

    /// Workers of a generation that rises serve already, beside those of an older one, and no file is known to have changed since they were
    /// started.
    pub(crate) fn serves_new_code(&self) -> bool {
        let newest = |w: &Worker| w.generation == self.generation && matches!(w.state, State::Serving { .. });
        matches!(self.phase, Phase::Rising(_))
            && self.next_begin.is_none_or(|(_, reason)| reason != Reason::Changed)
            && self.workers.values().any(newest)
    }

    /// Requests that have waited for the new generation too long, and those whose turn it is to be put on the queue again.
    pub(crate) fn time_out_held(&mut self, now: Now, out: &mut Vec<Action>) {
        while self.held.front().is_some_and(|h| h.until <= now) {
            if let Some(h) = self.held.pop_front() {
                self.serve_with_old_code(h, out);
            }
        }
        let due = |h: &Held| h.resend_at.is_some_and(|at| at <= now);
        out.extend(self.held.iter().filter(|h| due(h)).map(|h| Action::Resend(h.token)));
        self.held.retain(|h| !due(h));
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

    /// A request has waited for the new generation too long, or too many do: whoever serves shall not mind the file's time.
    fn serve_with_old_code(&mut self, held: Held, out: &mut Vec<Action>) {
        let Held { token, path, mtime_us, .. } = held;
        for (number, _) in self.workers.iter().filter(|(_, w)| matches!(w.state, State::Serving { .. })) {
            out.push(Action::Keep { worker: *number, path: path.clone(), mtime_us });
        }
        out.push(Action::Resend(token));
    }

    /// A request did not fit on its queue again.
    pub(crate) fn queue_was_full(&mut self, token: Token, now: Now, out: &mut Vec<Action>) {
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
