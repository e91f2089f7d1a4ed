//! Limits application groups whose names come from requests, as with `%{RESOURCE}` and `%{HOST}`.
//!
//! Responsible for: evicting the least recently used application group at the limit, and removing
//! those that were unused during a whole configuration. Must never: evict an application group that
//! has requests; evict a configured name while one known only from requests is idle. Called by:
//! `broker.rs`, `configure.rs`.
use crate::control::plan::PoolKey;
use crate::control::settings::Settings;
use crate::log::messages::Code;
use crate::pool::Now;
use crate::queue::drain_queue::take_waiting;
use crate::supervisor::{Supervisor, Unit, now};
use rustix::net::{Shutdown, shutdown};
use std::collections::BTreeSet;
use std::time::Duration;

/// An application group is idle this long after its last request.
const IDLE: Duration = Duration::from_secs(1);
fn is_demanded(settings: &Settings, key: &PoolKey) -> bool {
    settings.spec.preload.iter().any(|p| p.application_group == key.application)
}

impl Unit {
    /// No request is running, waiting or recent, and no worker is starting.
    fn is_idle(&self, now: Now) -> bool {
        self.used_at + IDLE <= now && !self.has_waiting() && self.pool.is_idle()
    }

    /// Requests wait in its queue.
    fn has_waiting(&self) -> bool {
        self.queue.as_ref().is_some_and(|q| drover_sys::wait::readable_now(&q.receive))
    }
}

impl Supervisor {
    /// The smallest number that no other application group of the group has; httpd counts requests
    /// by it.
    pub fn free_counter_slot(&self, group: &[u8]) -> u32 {
        let units = self.index.iter().filter(|(key, _)| key.group == group).filter_map(|(_, id)| self.units.get(id));
        let taken: BTreeSet<u32> = units.map(|u| u.counter_slot).collect();
        (0..).find(|slot| !taken.contains(slot)).unwrap_or(u32::MAX)
    }

    /// Evicts the group's least recently used idle application group. False if none is idle.
    pub fn evict_least_used(&mut self, group: &[u8]) -> bool {
        let now = now();
        let units = self.index.iter().filter(|(key, _)| key.group == group);
        let idle = units.filter_map(|(key, id)| {
            let unit = self.units.get(id).filter(|u| u.is_idle(now))?;
            Some((is_demanded(&unit.settings, key), unit.used_at, *id, key.clone()))
        });
        let mut idle: Vec<_> = idle.collect();
        idle.sort();
        for (_, _, id, key) in idle {
            if self.close_queue(id) {
                self.evict_application(&key);
                return true;
            }
        }
        false
    }

    /// Shuts down an idle unit's queue, so that httpd's children ask for a new one. False if a
    /// request arrived meanwhile; it waits in a new queue of the unit.
    fn close_queue(&mut self, id: u32) -> bool {
        let Some(queue) = self.units.get(&id).and_then(|u| u.queue.as_ref()) else { return false };
        let _ = shutdown(&queue.receive, Shutdown::Both);
        let waiting = take_waiting(&queue.receive).unwrap_or_default();
        if !waiting.is_empty() {
            self.replace_queue(id, waiting);
            return false;
        }
        true
    }

    fn evict_application(&mut self, key: &PoolKey) {
        if let Some(unit) = self.index.get(key).and_then(|id| self.units.get(id)) {
            unit.settings.log(Code::ApplicationEvicted, None, &[String::from_utf8_lossy(&key.application).into_owned()]);
        }
        self.retire(key);
        let index = &self.index;
        if let Err(e) = self.store.round(|key| index.contains_key(key)) {
            self.main.message(Code::Store, None, None, &[format!("group '{}'", String::from_utf8_lossy(&key.group)), e.to_string()]);
        }
    }

    /// Application groups to remove with a new configuration: not configured, and unused since the
    /// last configuration or restart. Starts a new period of use.
    pub fn unused(&mut self) -> Vec<PoolKey> {
        let Self { units, index, groups, .. } = self;
        let mut unused = Vec::new();
        for (key, id) in &*index {
            let (Some(unit), Some(settings)) = (units.get_mut(id), groups.get(&key.group)) else { continue };
            let used = (std::mem::take(&mut unit.used) && !unit.pool.is_stopped()) || unit.has_waiting();
            if !used && !is_demanded(settings, key) {
                unused.push(key.clone());
            }
        }
        unused
    }
}
