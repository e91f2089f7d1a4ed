//! Replaces a queue that a worker has shut down.
//!
//! A worker needs the receiving end of its group's queue. With it, it can shut the queue down for
//! everybody (shutdown(2)) or make it drop messages. droverd therefore checks a queue before it
//! passes it on. httpd's children ask again when they see that a queue was shut down. They do not
//! notice a queue that drops messages; it is replaced when the next process starts, at the latest
//! with `drover reload`.
//!
//! Responsible for: restoring service in the time that new workers need to start, without losing
//! waiting requests. Must never: replace a working queue. Called by: `broker.rs` and `children.rs`
//! before they pass a queue on, and `refuse.rs` when it cannot read one.
use crate::log::messages::Code;
use crate::pool::Event;
use crate::queue::drain_queue::{QueuedRequest, answer, take_waiting};
use crate::queue::store::Queue;
use crate::supervisor::Supervisor;
use drover_sys::Errno;
use drover_sys::channel::{ask_for_nothing_beside, send};
use drover_sys::credentials::is_deaf;
use drover_sys::wait::ended_now;
use drover_wire::control::Script;
use drover_wire::frame::Failure;
use rustix::net::{Shutdown, shutdown};
use std::os::fd::AsFd;

/// Rounds of reading from the old queue; it holds fewer messages than these rounds take.
const MAX_ROUNDS: usize = 1000;

impl Supervisor {
    /// Replaces a unit's queue if it was shut down. True if it was replaced.
    pub fn repair_queue(&mut self, id: u32) -> bool {
        let Some(unit) = self.units.get_mut(&id) else { return false };
        if let Some(queue) = &unit.queue {
            // A socket option that a worker set stays with the queue, for all later workers.
            ask_for_nothing_beside(&queue.receive);
        }
        if !unit.queue.as_ref().is_some_and(|q| ended_now(&q.receive) || is_deaf(&q.receive)) {
            return false;
        }
        unit.settings.log(Code::QueueShutDown, None, &[]);
        self.replace_queue(id, Vec::new())
    }

    /// Replaces a unit's queue. `taken` was already read from the old queue and comes first. False
    /// if no queue could be created.
    pub fn replace_queue(&mut self, id: u32, taken: Vec<QueuedRequest>) -> bool {
        let Some(unit) = self.units.get_mut(&id) else { return false };
        let new = match Queue::new() {
            Ok(new) => new,
            Err(e) => {
                unit.settings.log(Code::System, None, &["cannot create the group's queue".into(), e.to_string()]);
                return false;
            }
        };
        put(taken, &new);
        let script = unit.scripts.required().into_iter().next().unwrap_or(Script { path: vec![], callable: vec![] });
        if let Err(e) = self.store.replace(&unit.key, &script, &new) {
            self.main.message(Code::Store, None, None, &[format!("group '{}'", String::from_utf8_lossy(&unit.key.group)), e.to_string()]);
        }
        if let Some(old) = unit.queue.take() {
            self.poller.remove(&old.receive);
            // This affects every holder of the old queue: senders then ask for the new one.
            let _ = shutdown(&old.receive, Shutdown::Both);
            move_waiting(&old, &new);
        }
        unit.queue_watched = false;
        unit.queue = Some(new);
        self.feed(id, Event::QueueReplaced);
        self.terminate_fork_servers(id);
        true
    }

    /// Stops watching a queue that cannot be read although it was not shut down.
    pub fn abandon_queue(&mut self, id: u32, why: Errno) {
        let Some(unit) = self.units.get(&id) else { return };
        unit.settings.log(Code::System, None, &["cannot read the queue".into(), why.to_string()]);
        if let Some(queue) = &unit.queue {
            self.poller.remove(&queue.receive);
        }
    }
}

/// Moves the waiting requests from one queue to another.
fn move_waiting(old: &Queue, new: &Queue) {
    for _ in 0..MAX_ROUNDS {
        let Ok(waiting) = take_waiting(&old.receive) else { return };
        if waiting.is_empty() {
            return;
        }
        put(waiting, new);
    }
}

fn put(waiting: Vec<QueuedRequest>, queue: &Queue) {
    for (message, fds) in waiting {
        let with: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        if send(&queue.send, &[&message], &with, false).is_err() {
            answer(&message, &fds, Failure::Stopping, "the group's queue was shut down and is being replaced");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_kept_when_a_queue_was_shut_down() {
        for how in [Shutdown::Read, Shutdown::Both] {
            let (old, new) = (Queue::new().unwrap(), Queue::new().unwrap());
            let (near, far) = drover_sys::channel::stream_pair().unwrap();
            for n in 0..100u8 {
                send(&old.send, &[&[n; 10]], &[far.as_fd()], false).unwrap();
            }
            drop(far);
            assert!(!ended_now(&old.receive));
            shutdown(&old.receive, how).unwrap();
            assert!(ended_now(&old.receive));
            assert_eq!(send(&old.send, &[b"x"], &[], false), Err(Errno::PIPE));
            move_waiting(&old, &new);
            drop(old);
            let mut moved = Vec::new();
            while let Some(more) = take_waiting(&new.receive).ok().filter(|more| !more.is_empty()) {
                moved.extend(more.into_iter().map(|(message, fds)| (message[0], fds.len())));
            }
            assert_eq!(moved, (0..100).map(|n| (n, 1)).collect::<Vec<_>>());
            assert!(ended_now(&near), "the old queue holds no reply socket");
        }
        let quiet = Queue::new().unwrap();
        shutdown(&quiet.receive, Shutdown::Write).unwrap();
        assert!(!ended_now(&quiet.receive), "it still works");
        send(&quiet.send, &[b"x"], &[], false).unwrap();
    }
}
