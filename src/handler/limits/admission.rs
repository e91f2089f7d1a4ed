//! The number of requests that httpd accepts for one group at a time.
//!
//! Responsible for: `queue-depth=`, `listen-backlog=` and `DroverMaxWaiting`, so that one overloaded group does not occupy all
//! threads of httpd. Must never: refuse anything when the shared counters are not available. Called by: `handler`.
use crate::dispatch::{DispatchError, Key, Wake};
use crate::handler::failure::RequestError;
use crate::resolved::Group;
use drover_sys::clock::{monotonic_ns, realtime_ns};
use drover_sys::tally::{Column, Row, Tally};
use drover_sys::wait::{PollFd, PollFlags, poll_until};

/// How often a waiting request checks for room; no event announces it.
const RECHECK_NS: u64 = 10_000_000;

/// The minimum interval between checks for dead children.
pub(super) const LOOK_FOR_DEAD_NS: u64 = 100_000_000;

/// The shared counters, as one child of httpd uses them.
#[derive(Debug, Clone, Copy)]
pub struct AdmissionCounters<'c> {
    /// Shared by all children.
    pub tally: Option<&'c Tally>,
    /// This child's column.
    pub column: Option<Column>,
    /// The number of requests that all children can run at once.
    pub slots: u64,
}

/// A counted request. Dropping it ends the count.
#[derive(Debug)]
pub struct Ticket<'c> {
    counted: Option<(&'c Tally, Column)>,
    group: Option<Row>,
    queue: Option<Row>,
}

impl Ticket<'_> {
    /// The worker finished; the request occupies only a thread of httpd.
    pub fn leave_queue(&mut self) {
        if let (Some((tally, column)), Some(row)) = (self.counted, self.queue.take()) {
            tally.leave(column, row);
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if let Some((tally, column)) = self.counted {
            self.group.into_iter().chain(self.queue).for_each(|row| tally.leave(column, row));
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
        let (Some(tally), Some(column)) = (self.tally, self.column) else { return Ok(none) };
        let mut ticket = Ticket { counted: Some((tally, column)), ..none };
        if let (Some(most), Some(row)) = (most_of_a_group, tally.find(&key.group)) {
            ticket.group = Some(row);
            if is_full(tally, column, row, most) {
                let what = format!("at its limit of {most} requests (DroverMaxWaiting)");
                return Err(refused(tally, row, &what));
            }
        }
        let Some(row) = tally.find(&(&key.group, place)) else { return Ok(ticket) };
        let capacity = group.capacity;
        if let Some(depth) = group.queue_depth {
            ticket.queue = Some(row);
            if is_full(tally, column, row, capacity.saturating_add(depth)) {
                let what = format!("at its limit of {depth} waiting requests (queue-depth)");
                return Err(refused(tally, row, &what));
            }
        } else {
            let most = capacity.saturating_add(group.listen_backlog);
            while is_full(tally, column, row, most) {
                tally.leave(column, row);
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
            ticket.queue = Some(row);
        }
        Ok(ticket)
    }
}

/// Counts one more request. Returns whether that exceeds the limit; requests of dead children do not count.
fn is_full(tally: &Tally, column: Column, row: Row, most: u64) -> bool {
    tally.enter(column, row) > most && tally.exceeds(column, row, most, monotonic_ns() / LOOK_FOR_DEAD_NS)
}

fn refused(tally: &Tally, row: Row, what: &str) -> RequestError {
    // Once a second, with the number of refusals since the last message.
    let logged = tally.may_say(row, realtime_ns() / 1_000_000_000);
    RequestError::Overloaded(logged.map(|more| match more {
        0 => format!("{what}, request refused"),
        more => format!("{what}, request refused ({more} earlier requests were refused)"),
    }))
}
