//! When the monitor checks the requests next.
//!
//! Responsible for: the time, and no check without a reason. Must never: read a clock or touch a
//! thread. Called by: `monitor`, before each sleep.

/// How often to check a leader that a follower could replace, nanoseconds.
pub const TICK_NS: u64 = 1_000_000;
/// How often droverd is told about activity, nanoseconds.
pub const TELL_NS: u64 = 200_000_000;
/// Checks in a row after the last reason. Requests that follow each other closely find the monitor
/// awake and need not wake it.
const LINGERING_TICKS: u32 = 20;
/// No check until woken.
pub const NEVER: u64 = u64::MAX;

/// The reasons to check again; times are CLOCK_MONOTONIC nanoseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reasons {
    /// A leader runs a request, and a follower could take the queue.
    pub promotable: bool,
    /// droverd must be told something, from this time on.
    pub untold: Option<u64>,
    /// A running request reaches one of its limits.
    pub due: Option<u64>,
}

impl Reasons {
    /// The next check that they require, at least a tick from now; [`NEVER`] if there is none.
    pub fn at(&self, now: u64) -> u64 {
        let soonest = now.saturating_add(TICK_NS);
        let tick = self.promotable.then_some(soonest);
        tick.into_iter().chain(self.untold).chain(self.due).min().map_or(NEVER, |at| at.max(soonest))
    }
}

/// The decisions so far.
#[derive(Debug, Default)]
pub struct Schedule {
    lingering: u32,
}

impl Schedule {
    /// The time of the next check; [`NEVER`] means not before a request begins or ends.
    pub fn next(&mut self, now: u64, reasons: &Reasons) -> u64 {
        self.lingering = if reasons.promotable { LINGERING_TICKS } else { self.lingering.saturating_sub(1) };
        let at = reasons.at(now);
        if self.lingering > 0 { at.min(now.saturating_add(TICK_NS)) } else { at }
    }
}
