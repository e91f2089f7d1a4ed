//! When a follower should take the queue in place of a leader that runs a request.
//!
//! Responsible for: the decision, from figures. Must never: read a clock or touch a thread. Called by: `monitor`, once a tick.
//!
//! Two running threads of one interpreter fight for the GIL and lose up to 5 ms a turn. So a second one is let in when the
//! first has let the GIL go (its CPU clock stands still: it waits for a database, a disk, a slow client), and otherwise only
//! when a request has been waiting for a while, because all processes of the group are busy too.

/// CPU time that does not count within a tick: taking a signal, a spurious wake-up.
const NOISE_NS: u64 = 20_000;
/// How long a leader may compute before a waiting request is worth a fight.
pub const FAIR_NS: u64 = 10_000_000;
/// On so many ticks in a row the queue must have something.
const WAITING_TICKS: u32 = 2;

/// What is seen at one tick.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// Which request the leader runs (the time it began tells one from another).
    pub since: u64,
    /// The leader's thread's CPU clock.
    pub cpu: u64,
    /// CPU time of all other request threads together.
    pub others_cpu: u64,
    /// Time now.
    pub now: u64,
    /// The queue has a request.
    pub waiting: bool,
}

/// What was seen before.
#[derive(Debug, Default)]
pub struct Watch {
    before: Option<(u64, u64, u64)>,
    waiting: u32,
}

impl Watch {
    /// Nothing to compare with: the leader is not running.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// One tick; true: a follower should take the queue.
    pub fn tick(&mut self, seen: &Seen) -> bool {
        self.waiting = if seen.waiting { self.waiting.saturating_add(1) } else { 0 };
        let before = self.before.replace((seen.since, seen.cpu, seen.others_cpu));
        let overdue = seen.now.saturating_sub(seen.since) > FAIR_NS && self.waiting >= WAITING_TICKS;
        let Some((_, cpu, others)) = before.filter(|(since, ..)| *since == seen.since) else { return overdue };
        let still = seen.cpu.saturating_sub(cpu) <= NOISE_NS;
        // When another thread computes, the leader may stand still only because it waits for the GIL.
        let alone = seen.others_cpu.saturating_sub(others) <= NOISE_NS;
        (still && alone) || overdue
    }
}
