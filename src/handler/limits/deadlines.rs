//! The time limits of one request, and the deadline that follows from what happened so far.
//!
//! Responsible for: which limit applies when. Must never: read a clock. Called by: `exchange::relay`.
use crate::dispatch::DispatchError;
use crate::handler::failure::RequestError;

/// The time limits of one request: durations in nanoseconds, deadlines in CLOCK_MONOTONIC nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct TimeLimits {
    /// The longest silence of the worker.
    pub silence: u64,
    /// The longest silence of the client: while its body is read, or while it accepts nothing of the response.
    pub client_silence: u64,
    /// When a worker must have taken the request.
    pub take_by: Option<u64>,
    /// When the response must be complete.
    pub answer_by: Option<u64>,
}

/// How much later than `take_by` a request counts as not taken: the worker reports by then.
const TAKE_GRACE_NS: u64 = 250_000_000;

/// What the deadlines depend on besides the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Situation {
    /// A worker reported that it runs the request.
    pub taken: bool,
    /// The client's body is being sent.
    pub uploading: bool,
    /// The worker finished its response.
    pub ended: bool,
    /// Since when the client accepts nothing of a kept response; `None` when it has accepted all of it.
    pub stalled_since: Option<u64>,
    /// When the client last accepted something of a kept response.
    pub accepted_at: u64,
    /// The client received part of the response, so sending shows whether it is connected.
    pub sent: bool,
}

/// The time limits of a running request, and when each side last made progress.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    limits: TimeLimits,
    worker_at: u64,
    client_at: u64,
    connected_at: u64,
}

impl Deadlines {
    /// For a request that was sent at `now`.
    #[must_use]
    pub const fn start(limits: TimeLimits, now: u64) -> Self {
        Self { limits, worker_at: now, client_at: now, connected_at: now }
    }

    /// The worker made progress.
    pub const fn worker_progressed(&mut self, now: u64) {
        self.worker_at = now;
    }

    /// The client sent part of its body.
    pub const fn client_progressed(&mut self, now: u64) {
        self.client_at = now;
    }

    /// The client is still connected.
    pub const fn client_connected(&mut self, now: u64) {
        self.connected_at = now;
    }

    /// When the client last sent part of its body.
    #[must_use]
    pub const fn client_at(&self) -> u64 {
        self.client_at
    }

    /// Whether the client was silent for too long while its body was read.
    #[must_use]
    pub const fn is_client_late(&self, now: u64) -> bool {
        now.saturating_sub(self.client_at) > self.limits.client_silence
    }

    /// Until when the current silence is allowed.
    #[must_use]
    pub fn next(&self, s: &Situation) -> u64 {
        let answer_by = self.answer_by(s);
        if let Some(since) = s.stalled_since {
            // Only the client is waited for, not the worker.
            let client = since.saturating_add(self.limits.client_silence);
            return answer_by.map_or(client, |by| client.min(by));
        }
        // While the client's body is awaited, the worker may be silent: it waits too.
        let since = if s.uploading { self.worker_at.max(self.client_at) } else { self.worker_at };
        let until = since.max(s.accepted_at).saturating_add(self.limits.silence);
        let until = self.take_by(s).map_or(until, |by| until.min(by.saturating_add(TAKE_GRACE_NS)));
        answer_by.map_or(until, |by| until.min(by))
    }

    /// The error when the current silence lasted too long.
    pub fn check_silence(&self, s: &Situation, now: u64) -> Result<(), RequestError> {
        if now < self.next(s) || (s.ended && s.stalled_since.is_none()) {
            return Ok(());
        }
        self.check_total(s, now)?;
        if s.stalled_since.is_some() {
            return Err(RequestError::ClientGone);
        }
        let is_untaken = self.take_by(s).is_some_and(|by| now >= by);
        Err(if is_untaken { DispatchError::QueueTimeout } else { DispatchError::Silent }.into())
    }

    /// The error when the request took too long in total. The worker has until then; afterwards only the client is slow.
    pub fn check_total(&self, s: &Situation, now: u64) -> Result<(), RequestError> {
        if self.answer_by(s).is_some_and(|by| now >= by) { Err(DispatchError::RequestTimeout.into()) } else { Ok(()) }
    }

    /// When to check whether the client is still connected.
    #[must_use]
    pub const fn check_client_at(&self, s: &Situation) -> u64 {
        if s.sent { u64::MAX } else { self.connected_at.saturating_add(self.limits.client_silence) }
    }

    fn answer_by(&self, s: &Situation) -> Option<u64> {
        self.limits.answer_by.filter(|_| !s.ended)
    }

    fn take_by(&self, s: &Situation) -> Option<u64> {
        self.limits.take_by.filter(|_| !s.taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TimeLimits = TimeLimits { silence: 100, client_silence: 10, take_by: Some(50), answer_by: Some(1000) };
    const RUNNING: Situation = Situation { taken: true, uploading: false, ended: false, stalled_since: None, accepted_at: 0, sent: false };

    #[test]
    fn each_situation_has_its_deadline() {
        let mut deadlines = Deadlines::start(LIMITS, 0);
        deadlines.client_progressed(40);
        let table = [
            (RUNNING, 100),
            (Situation { uploading: true, ..RUNNING }, 140),
            (Situation { accepted_at: 70, ..RUNNING }, 170),
            (Situation { stalled_since: Some(70), ..RUNNING }, 80),
            (Situation { stalled_since: Some(2000), ..RUNNING }, 1000),
            (Situation { stalled_since: Some(2000), ended: true, ..RUNNING }, 2010),
            (Situation { accepted_at: 950, ..RUNNING }, 1000),
        ];
        for (situation, expected) in table {
            assert_eq!(deadlines.next(&situation), expected, "{situation:?}");
        }
        let late = Deadlines::start(TimeLimits { silence: u64::MAX, answer_by: None, ..LIMITS }, 0);
        assert_eq!(late.next(&Situation { taken: false, ..RUNNING }), 50 + TAKE_GRACE_NS);
    }

    #[test]
    fn each_silence_has_its_error() {
        let deadlines = Deadlines::start(LIMITS, 0);
        let table = [
            (RUNNING, 99, Ok(())),
            (RUNNING, 100, Err(DispatchError::Silent.into())),
            (RUNNING, 1000, Err(DispatchError::RequestTimeout.into())),
            (Situation { taken: false, ..RUNNING }, 100, Err(DispatchError::QueueTimeout.into())),
            (Situation { stalled_since: Some(20), ..RUNNING }, 30, Err(RequestError::ClientGone)),
            (Situation { ended: true, ..RUNNING }, 5000, Ok(())),
            (Situation { ended: true, stalled_since: Some(5000), ..RUNNING }, 5010, Err(RequestError::ClientGone)),
        ];
        for (situation, now, expected) in table {
            assert_eq!(deadlines.check_silence(&situation, now), expected, "{situation:?} at {now}");
        }
        assert_eq!((deadlines.is_client_late(10), deadlines.is_client_late(11)), (false, true));
        assert_eq!(deadlines.check_client_at(&RUNNING), 10);
        assert_eq!(deadlines.check_client_at(&Situation { sent: true, ..RUNNING }), u64::MAX);
    }
}
