//! Answers queue requests of httpd's child processes.
//!
//! Responsible for: replying to each request. Must never: wait for a child process. Called by: the
//! event loop.
use crate::control::plan::{PoolKey, admit};
use crate::pool::Event;
use crate::queue::store::Queue;
use crate::supervisor::{Supervisor, now};
use drover_sys::channel::send;
use drover_wire::control::{OpenQueue, OpenReply, encode};
use std::os::fd::{AsFd, OwnedFd};

impl Supervisor {
    /// Replies to a child process on the socket that came with its request.
    pub fn open_queue(&mut self, open: OpenQueue, reply_to: &OwnedFd) {
        let key = PoolKey { group: open.group.clone(), application: open.application_group.clone() };
        let settings = self.groups.get(&key.group).cloned();
        let exists = self.index.get(&key).copied();
        let others = |s: &Self| s.index.keys().filter(|k| k.group == key.group).count();
        let spec = settings.as_ref().map(|s| &s.spec);
        let mut admitted = admit(&open, spec, exists.is_some(), others(self));
        if matches!(admitted, Err(OpenReply::TooManyApplications { .. })) && self.evict_least_used(&key.group) {
            admitted = admit(&open, spec, exists.is_some(), others(self));
        }
        let id = match (admitted, settings, exists) {
            (Err(refusal), ..) => Err(refusal),
            (Ok(()), _, Some(id)) => {
                // The child may be asking because its queue no longer accepts requests.
                self.repair_queue(id);
                Ok(id)
            }
            (Ok(()), None, None) => Err(OpenReply::UnknownGroup),
            (Ok(()), Some(settings), None) => self
                .create(key, open.script.clone(), &settings)
                .map_err(|e| OpenReply::Refused(format!("cannot create the group's queue: {e}"))),
        };
        let id = match id {
            Ok(id) => id,
            Err(refusal) => {
                self.log_refusal(&open.group, &refusal);
                reply(reply_to, &refusal, None);
                return;
            }
        };
        if let Some(unit) = self.units.get_mut(&id) {
            unit.scripts.add(open.script);
            (unit.used_at, unit.used) = (now(), true);
            reply(reply_to, &OpenReply::Opened { place: unit.counter_slot }, unit.queue.as_ref());
        }
        self.feed(id, Event::Wanted);
    }
}

fn reply(to: &OwnedFd, reply: &OpenReply, queue: Option<&Queue>) {
    let Ok(bytes) = encode(reply) else { return };
    let fds: Vec<_> = queue.iter().flat_map(|q| [q.send.as_fd(), q.tokens.as_fd()]).collect();
    // This fails only for a child that closed its end; it asks again if it needs to.
    let _ = send(to, &[&bytes], &fds, false);
}
