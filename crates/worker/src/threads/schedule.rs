//! When the monitor looks at the requests next.
//!
//! Responsible for: the time, from what is known; no look without a reason. Must never: read a clock or touch a thread. Called by:
//! `monitor`, before each sleep.

/// How often a leader is looked at that a follower could replace.
pub const TICK_NS: u64 = 1_000_000;
/// How often droverd is told what was done.
pub const TELL_NS: u64 = 200_000_000;
/// Looks in a row after the last reason. Requests that follow one another closely find the monitor awake and need not wake it.
const LINGERING_TICKS: u32 = 20;
/// No look until woken.
pub const NEVER: u64 = u64::MAX;

/// The reasons to look again; times are nanoseconds of CLOCK_MONOTONIC.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reasons {
    /// A leader runs a request, and a follower could take the queue.
    pub promotable: bool,
    /// droverd has to be told something, from this time on.
    pub untold: Option<u64>,
    /// A running request reaches one of its limits.
    pub due: Option<u64>,
}

impl Reasons {
    /// When they want the next look, at least a tick from now; [`NEVER`] if there is none.
    pub fn at(&self, now: u64) -> u64 {
        let soonest = now.saturating_add(TICK_NS);
        let tick = self.promotable.then_some(soonest);
        tick.into_iter().chain(self.untold).chain(self.due).min().map_or(NEVER, |at| at.max(soonest))
    }
}

/// What was decided before.
#[derive(Debug, Default)]
pub struct Schedule {
    lingering: u32,
}

impl Schedule {
    /// The time of the next look; [`NEVER`]: not before a request begins or ends.
    pub fn next(&mut self, now: u64, reasons: &Reasons) -> u64 {
        self.lingering = if reasons.promotable { LINGERING_TICKS } else { self.lingering.saturating_sub(1) };
        let at = reasons.at(now);
        if self.lingering > 0 { at.min(now.saturating_add(TICK_NS)) } else { at }
    }
}
