//! How many requests of one group httpd may hold at once.
//!
//! Responsible for: `queue-depth=`, `listen-backlog=` and `DroverMaxWaiting`: one group's overload not taking all of httpd's threads. Must
//! never: refuse anything when the shared counters cannot be had. Called by: `handler::mod`.
use super::failure::Failed;
use crate::dispatch::{DispatchError, Key, Wake};
use crate::resolved::Group;
use drover_sys::clock::{monotonic_ns, realtime_ns};
use drover_sys::tally::{Column, Row, Tally};
use drover_sys::wait::{PollFd, PollFlags, poll_until};

/// How long to wait before looking again whether there is room; nobody tells.
const LOOK_AGAIN_NS: u64 = 10_000_000;

/// How often it is asked which children are dead, at most.
pub(super) const LOOK_FOR_DEAD_NS: u64 = 100_000_000;

/// The counters as one child of httpd has them.
#[derive(Debug, Clone, Copy)]
pub struct Gate<'c> {
    /// Shared by all children.
    pub tally: Option<&'c Tally>,
    /// This child's.
    pub column: Option<Column>,
    /// Requests that all children can hold together.
    pub slots: u64,
}

/// A request that is counted, until it is dropped.
#[derive(Debug)]
pub struct Ticket<'c> {
    counted: Option<(&'c Tally, Column)>,
    group: Option<Row>,
    queue: Option<Row>,
}

impl Ticket<'_> {
    /// The worker is done with the request; only a thread of httpd is still held.
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

impl<'c> Gate<'c> {
    /// Counts a request, by the place of its application group: clients may make up names without end. Waits for room in the queue (listen-backlog) until `until`, CLOCK_MONOTONIC nanoseconds.
    pub fn enter(
        &self,
        key: &Key,
        place: u32,
        group: &Group,
        most_of_a_group: Option<u64>,
        wake: &Wake,
        until: u64,
    ) -> Result<Ticket<'c>, Failed> {
        let none = Ticket { counted: None, group: None, queue: None };
        let (Some(tally), Some(column)) = (self.tally, self.column) else { return Ok(none) };
        let mut ticket = Ticket { counted: Some((tally, column)), ..none };
        if let (Some(most), Some(row)) = (most_of_a_group, tally.find(&key.group)) {
            ticket.group = Some(row);
            if is_full(tally, column, row, most) {
                let what = format!("group '{}' has its {most} requests (DroverMaxWaiting)", key.group.escape_ascii());
                return Err(refused(tally, row, &what));
            }
        }
        let Some(row) = tally.find(&(&key.group, place)) else { return Ok(ticket) };
        let capacity = group.capacity;
        if let Some(depth) = group.queue_depth {
            ticket.queue = Some(row);
            if is_full(tally, column, row, capacity.saturating_add(depth)) {
                let what = format!("group '{}' has {depth} requests waiting (queue-depth)", key.group.escape_ascii());
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
                // Only a stop is waited for; room is not announced.
                let waited = poll_until(&mut [PollFd::new(wake.fd(), PollFlags::IN)], Some(until.min(now + LOOK_AGAIN_NS)));
                if wake.is_stopping() || waited.is_err() {
                    return Err(DispatchError::Stopping.into());
                }
            }
            ticket.queue = Some(row);
        }
        Ok(ticket)
    }
}

/// Counts one more, and says whether that is too many. What dead children have left does not count.
fn is_full(tally: &Tally, column: Column, row: Row, most: u64) -> bool {
    tally.enter(column, row) > most && tally.exceeds(column, row, most, monotonic_ns() / LOOK_FOR_DEAD_NS)
}

fn refused(tally: &Tally, row: Row, what: &str) -> Failed {
    let said = tally.may_say(row, realtime_ns() / 1_000_000_000);
    Failed::Overloaded(said.map(|more| if more > 0 { format!("{what}; and {more} requests before this one") } else { what.to_owned() }))
}
