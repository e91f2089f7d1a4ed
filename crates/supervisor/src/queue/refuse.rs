//! Refuses requests that no worker can serve, and logs queues refused to httpd's children.
//!
//! Responsible for: answering such requests at once with the reason, unless they show changed code;
//! and logging refused queues at most once a second for each group. Must never: take a request that
//! a worker could serve. Called by: the event loop, `supervisor.rs` and `broker.rs`.
use crate::log::messages::Code;
use crate::pool::{Event, Now};
use crate::queue::drain_queue::{answer, take_waiting};
use crate::reactor::poller::Source;
use crate::supervisor::{ReturnedRequest, Supervisor, now};
use drover_wire::control::OpenReply;
use drover_wire::frame::Failure;
use drover_wire::request::{EXTERNAL, PREFIX, Payload, Prefix};
use std::collections::BTreeMap;
use std::time::Duration;

/// Interval for logging refusals of one group.
const REFUSALS_EVERY: Duration = Duration::from_secs(1);

/// Refusals of each group: when one was last logged, and how many were not since.
#[derive(Debug, Default)]
pub struct Refusals(BTreeMap<Vec<u8>, (Now, u64)>);

impl Refusals {
    /// Whether to log this refusal; returns how many were not logged before it. Only configured
    /// groups are remembered.
    fn may_log(&mut self, group: &[u8], is_known: bool, now: Now) -> Option<u64> {
        let key = if is_known { group } else { &[] };
        let (at, more) = self.0.entry(key.to_vec()).or_insert((Now::ZERO, 0));
        if *at != Now::ZERO && now < *at + REFUSALS_EVERY {
            *more = more.saturating_add(1);
            return None;
        }
        *at = now;
        Some(std::mem::take(more))
    }
}

impl Supervisor {
    /// Watches the queue of a pool only while no worker serves and none can start.
    pub fn watch_queue(&mut self, id: u32) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        let wanted = unit.pool.refusal().is_some() || unit.pool.sleeps();
        let Some(queue) = unit.queue.as_ref().filter(|_| wanted != unit.queue_watched) else { return };
        if wanted {
            unit.queue_watched = self.poller.add(&queue.receive, Source::Queue(id)).is_ok();
        } else {
            self.poller.remove(&queue.receive);
            unit.queue_watched = false;
        }
    }

    /// Requests wait for a pool without serving workers: they start it, or are refused with the
    /// reason.
    pub fn answer_queue(&mut self, id: u32) {
        let Some(unit) = self.units.get_mut(&id) else { return };
        if unit.pool.sleeps() {
            return self.feed(id, Event::Wanted);
        }
        let (Some(reason), Some(queue)) = (unit.pool.refusal().map(str::to_owned), unit.queue.as_ref()) else { return };
        match take_waiting(&queue.receive) {
            Ok(waiting) => {
                for (message, fds) in waiting {
                    self.refuse(id, ReturnedRequest { message, fds }, &reason);
                }
            }
            Err(e) => {
                if !self.repair_queue(id) {
                    self.abandon_queue(id, e);
                }
            }
        }
    }

    /// Refuses a request that no worker can serve, unless it shows a changed script to try.
    fn refuse(&mut self, id: u32, request: ReturnedRequest, reason: &str) {
        let news = script_and_mtime(&request.message).filter(|(path, mtime_us)| {
            let unit = self.units.get_mut(&id);
            unit.is_some_and(|u| u.pool.shows_new_file(path, *mtime_us))
        });
        match news {
            Some((path, mtime_us)) => {
                let request = self.keep_request(request);
                self.feed(id, Event::Touched { path, mtime_us, request });
            }
            None => answer(&request.message, &request.fds, Failure::CannotStart, reason),
        }
    }

    /// Logs that a child of httpd was refused a queue.
    pub fn log_refusal(&mut self, group: &[u8], refusal: &OpenReply) {
        let is_known = self.groups.contains_key(group);
        let Some(more) = self.refusals.may_log(group, is_known, now()) else { return };
        let why = match refusal {
            OpenReply::TooManyApplications { limit } => {
                format!("all {limit} application groups (max-application-groups) are in use")
            }
            OpenReply::UnknownGroup => "no such group in the configuration".to_owned(),
            OpenReply::Refused(why) => why.clone(),
            OpenReply::Opened { .. } => return,
        };
        let more = if more > 0 { format!(" ({more} more refused since the last message)") } else { String::new() };
        self.main.message(Code::Refused, Some(group), None, &[format!("{why}{more}")]);
    }
}

/// The script of a request, and the file time that httpd saw.
fn script_and_mtime(message: &[u8]) -> Option<(Vec<u8>, u64)> {
    let prefix = Prefix::decode(message).ok()?;
    if prefix.flags & EXTERNAL != 0 {
        return None; // the payload is in a memory file
    }
    let payload = Payload::decode(&prefix, message.get(PREFIX..)?).ok()?;
    Some((payload.script.to_vec(), prefix.script_mtime_us))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_logged_once_a_second() {
        let at = |ms: u64| Duration::from_millis(100_000 + ms);
        let mut r = Refusals::default();
        assert_eq!(r.may_log(b"a", true, at(0)), Some(0));
        assert_eq!((r.may_log(b"a", true, at(1)), r.may_log(b"a", true, at(999))), (None, None));
        assert_eq!(r.may_log(b"b", true, at(999)), Some(0), "another group");
        assert_eq!(r.may_log(b"a", true, at(1000)), Some(2));
        for n in 0..1000u32 {
            let _ = r.may_log(&n.to_ne_bytes(), false, at(2000));
        }
        assert_eq!(r.0.len(), 3, "unknown groups are not remembered");
    }
}
