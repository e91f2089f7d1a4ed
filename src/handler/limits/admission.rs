//! The number of requests that httpd accepts for one group at a time.
//!
//! Responsible for: `queue-depth=`, `listen-backlog=` and `DroverMaxWaiting`, so that one overloaded group does not occupy all
//! threads of httpd. Must never: refuse anything when the shared counters are not available. Called by: `handler`.
use crate::dispatch::{DispatchError, Key, Wake};
use crate::handler::failure::RequestError;
use crate::resolved::Group;
use drover_sys::clock::{monotonic_ns, realtime_ns};
use drover_sys::counters::{ChildSlot, Counter, SharedCounters};
use drover_sys::wait::{PollFd, PollFlags, poll_until};

/// How often a waiting request checks for room; no event announces it.
const RECHECK_NS: u64 = 10_000_000;

/// The minimum interval between checks for dead children.
pub(super) const LOOK_FOR_DEAD_NS: u64 = 100_000_000;

/// The shared counters, as one child of httpd uses them.
#[derive(Debug, Clone, Copy)]
pub struct AdmissionCounters<'c> {
    /// Shared by all children.
    pub shared: Option<&'c SharedCounters>,
    /// This child's slot.
    pub child_slot: Option<ChildSlot>,
    /// The number of requests that all children can run at once.
    pub slots: u64,
}

/// A counted request. Dropping it ends the count.
#[derive(Debug)]
pub struct Ticket<'c> {
    counted: Option<(&'c SharedCounters, ChildSlot)>,
    group: Option<Counter>,
    queue: Option<Counter>,
}

impl Ticket<'_> {
    /// The worker finished; the request occupies only a thread of httpd.
    pub fn leave_queue(&mut self) {
        if let (Some((counters, slot)), Some(counter)) = (self.counted, self.queue.take()) {
            counters.leave(slot, counter);
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if let Some((counters, slot)) = self.counted {
            self.group.into_iter().chain(self.queue).for_each(|counter| counters.leave(slot, counter));
        }
    }
}

impl<'c> AdmissionCounters<'c> {
    /// Counts a request by the place of its application group, because clients may invent names. Waits for room in the queue (listen-backlog) until `until`, CLOCK_MONOTONIC nanoseconds.
    pub fn enter(
        &self,
        key: &Key,
        place: u32,
        group: &Group,
        most_of_a_group: Option<u64>,
        wake: &Wake,
        until: u64,
    ) -> Result<Ticket<'c>, RequestError> {
        let none = Ticket { counted: None, group: None, queue: None };
        let (Some(counters), Some(slot)) = (self.shared, self.child_slot) else { return Ok(none) };
        let mut ticket = Ticket { counted: Some((counters, slot)), ..none };
        if let (Some(most), Some(counter)) = (most_of_a_group, counters.find(&key.group)) {
            ticket.group = Some(counter);
            if is_full(counters, slot, counter, most) {
                let what = format!("at its limit of {most} requests (DroverMaxWaiting)");
                return Err(refused(counters, counter, &what));
            }
        }
        let Some(counter) = counters.find(&(&key.group, place)) else { return Ok(ticket) };
        let capacity = group.capacity;
        if let Some(depth) = group.queue_depth {
            ticket.queue = Some(counter);
            if is_full(counters, slot, counter, capacity.saturating_add(depth)) {
                let what = format!("at its limit of {depth} waiting requests (queue-depth)");
                return Err(refused(counters, counter, &what));
            }
        } else {
            let most = capacity.saturating_add(group.listen_backlog);
            while is_full(counters, slot, counter, most) {
                counters.leave(slot, counter);
                let now = monotonic_ns();
                if now >= until {
                    return Err(DispatchError::QueueTimeout.into());
                }
                // Only a stop of httpd wakes this wait.
                let waited = poll_until(&mut [PollFd::new(wake.fd(), PollFlags::IN)], Some(until.min(now + RECHECK_NS)));
                if wake.is_stopping() || waited.is_err() {
                    return Err(DispatchError::Stopping.into());
                }
            }
            ticket.queue = Some(counter);
        }
        Ok(ticket)
    }
}

/// Counts one more request. Returns whether that exceeds the limit; requests of dead children do not count.
fn is_full(counters: &SharedCounters, slot: ChildSlot, counter: Counter, most: u64) -> bool {
    counters.enter(slot, counter) > most && counters.exceeds(slot, counter, most, monotonic_ns() / LOOK_FOR_DEAD_NS)
}

fn refused(counters: &SharedCounters, counter: Counter, what: &str) -> RequestError {
    // Once a second, with the number of refusals since the last message.
    let logged = counters.may_log(counter, realtime_ns() / 1_000_000_000);
    RequestError::Overloaded(logged.map(|more| match more {
        0 => format!("{what}, request refused"),
        more => format!("{what}, request refused ({more} earlier requests were refused)"),
    }))
}
