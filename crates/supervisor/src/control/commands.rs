//! Administrators' commands: `drover reload` and `drover stop`.
//!
//! Responsible for: applying a stop to the whole group, including applications first requested
//! later; and for reporting the result of a reload, not only that it began. Must never: wait for
//! that result: the client is remembered and answered later. Called by: `admin.rs`, and the event
//! loop after each turn ([`Supervisor::answer_reloads`]).
use crate::control::admin::reply_to;
use crate::control::report::cut;
use crate::log::messages::Code;
use crate::pool::Event;
use crate::reactor::peer::Peer;
use crate::supervisor::Supervisor;
use drover_wire::admin::{Reloaded, Reply};

/// Clients waiting for a reload at once; with more, the oldest is dropped without a reply.
const MAX_PENDING_RELOADS: usize = 16;

/// A client that waits for the result of a reload.
#[derive(Debug)]
pub struct PendingReload {
    client: Peer,
    units: Vec<u32>,
}

impl Supervisor {
    /// The group's applications that are in use.
    fn units_of(&self, group: &[u8]) -> Vec<u32> {
        self.index.iter().filter(|(key, _)| key.group == group).map(|(_, id)| *id).collect()
    }

    /// Drains the group's workers; replies for how many applications there were any.
    pub fn stop_group(&mut self, group: &[u8]) -> Reply {
        let units = self.units_of(group);
        let first = self.halted.insert(group.to_vec());
        if units.is_empty()
            && first
            && let Some(settings) = self.groups.get(group)
        {
            settings.log(Code::Halted, None, &[]);
        }
        let with_processes = units.iter().filter(|id| self.units.get(id).is_some_and(|u| !u.pool.is_empty())).count();
        for id in &units {
            self.feed(*id, Event::Halt);
        }
        Reply::Done(u32::try_from(with_processes).unwrap_or(u32::MAX))
    }

    /// Starts new workers; the client is answered when the result is known.
    pub fn reload_group(&mut self, group: &[u8], client: Peer) {
        self.halted.remove(group);
        if let Some(settings) = self.groups.get(group) {
            settings.log(Code::Reloaded, None, &[]);
        }
        for id in self.units_of(group) {
            self.feed(id, Event::Reload);
        }
        self.await_group(group, client);
    }

    /// Answers the client when it is known whether the group's workers serve.
    pub fn await_group(&mut self, group: &[u8], client: Peer) {
        let units = self.units_of(group);
        self.pending_reloads.push_back(PendingReload { client, units });
        if self.pending_reloads.len() > MAX_PENDING_RELOADS {
            self.pending_reloads.pop_front();
        }
        self.answer_reloads();
    }

    /// Answers clients whose new workers serve or have failed.
    pub fn answer_reloads(&mut self) {
        for waiting in std::mem::take(&mut self.pending_reloads) {
            let rises = |id: &u32| self.units.get(id).is_some_and(|u| u.pool.outcome().is_none());
            if waiting.units.iter().any(rises) {
                self.pending_reloads.push_back(waiting);
                continue;
            }
            let told = waiting.units.iter().filter_map(|id| self.reloaded(*id)).collect();
            reply_to(&waiting.client, &Reply::Reloaded(told));
        }
    }

    fn reloaded(&self, id: u32) -> Option<Reloaded> {
        let unit = self.units.get(&id)?;
        let failure = unit.pool.outcome()?.err().map(|why| cut(&why));
        let name = String::from_utf8_lossy(&unit.key.application).into_owned();
        Some(Reloaded { name, failure, service: unit.pool.service() })
    }
}
