//! When a follower should take the queue in place of a leader that runs a request.
//!
//! Responsible for: the decision, from figures. Must never: read a clock or touch a thread. Called
//! by: `monitor`, once a tick.
//!
//! Two running threads of one interpreter compete for the GIL and lose up to 5 ms each time. So a
//! second thread runs only when the first has released the GIL: its CPU clock stands still while it
//! waits for a database, a disk, a slow client. Otherwise it runs only when a request has waited
//! for a while, because all workers of the group are busy too.

/// CPU time within a tick that does not count, nanoseconds: handling a signal, a spurious wake-up.
const NOISE_NS: u64 = 20_000;
/// How long a leader may compute before a waiting request is worth the competition, nanoseconds.
pub const FAIR_NS: u64 = 10_000_000;
/// The queue must have a request on this many ticks in a row.
const WAITING_TICKS: u32 = 2;

/// The observations of one tick.
#[derive(Debug, Clone, Copy)]
pub struct Observation {
    /// When the leader's request began, which identifies the request.
    pub since: u64,
    /// The CPU clock of the leader's thread.
    pub cpu: u64,
    /// CPU time of all other request threads together.
    pub others_cpu: u64,
    /// Time now.
    pub now: u64,
    /// The queue has a request.
    pub waiting: bool,
}

/// The observations of earlier ticks.
#[derive(Debug, Default)]
pub struct Watch {
    before: Option<(u64, u64, u64)>,
    waiting: u32,
}

impl Watch {
    /// The leader is not running: there is nothing to compare with.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// One tick. True: a follower should take the queue.
    pub fn tick(&mut self, seen: &Observation) -> bool {
        self.waiting = if seen.waiting { self.waiting.saturating_add(1) } else { 0 };
        let before = self.before.replace((seen.since, seen.cpu, seen.others_cpu));
        let overdue = seen.now.saturating_sub(seen.since) > FAIR_NS && self.waiting >= WAITING_TICKS;
        let Some((_, cpu, others)) = before.filter(|(since, ..)| *since == seen.since) else { return overdue };
        let still = seen.cpu.saturating_sub(cpu) <= NOISE_NS;
        // While another thread computes, the leader may only be waiting for the GIL.
        let alone = seen.others_cpu.saturating_sub(others) <= NOISE_NS;
        (still && alone) || overdue
    }
}
