//! Messages from httpd's parent: configurations and stop.
//!
//! Responsible for: applying a configuration completely or not at all. Called by: the event loop.
use crate::control::plan::{PoolKey, plan};
use crate::control::settings::Settings;
use crate::log::Sink;
use crate::log::messages::Code;
use crate::pool::Event;
use crate::queue::store::Stored;
use crate::supervisor::Supervisor;
use drover_sys::memfile;
use drover_wire::VERSION;
use drover_wire::control::{Configuration, GroupSpec, Script, Target, decode};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// Size limit of a configuration; a group needs a few hundred bytes.
const MAX_CONFIGURATION_BYTES: usize = 64 << 20;

impl Supervisor {
    /// Reads the configuration from its memory file. The error text is for the log.
    pub fn read_configuration(&self, file: &OwnedFd, len: u32) -> Result<Configuration, String> {
        let bytes = memfile::read(file, usize::try_from(len).unwrap_or(usize::MAX), MAX_CONFIGURATION_BYTES).map_err(|e| e.to_string())?;
        let configuration: Configuration = decode(&bytes).map_err(|e| e.to_string())?;
        if configuration.version != VERSION {
            self.main.message(Code::VersionMismatch, None, None, &[VERSION.to_owned(), configuration.version.clone()]);
            return Err("it was sent by another version".to_owned());
        }
        Ok(configuration)
    }

    /// Applies a configuration. `taken` are the queues of a previous droverd.
    pub fn configure(&mut self, configuration: Configuration, logs: Vec<OwnedFd>, taken: Vec<Stored>) {
        let args = [configuration.generation.to_string(), configuration.groups.len().to_string()];
        // The first log is the main server's. It is a new file after log rotation.
        self.main = sink(logs.first(), configuration.log_level);
        self.main.message(Code::Configured, None, None, &args);
        self.httpd_generation = configuration.generation;
        self.sessions.clone_from(&configuration.sessions);
        self.configure_admin(configuration.control_socket.as_deref());
        let mut plan = plan(&configuration, self.index.keys());
        self.groups = groups(configuration.groups, &configuration.targets.into(), &logs);
        self.check_open_files();
        self.halted.clear();
        let unused = self.unused();
        plan.renew.retain(|key| !unused.contains(key));
        plan.retire.extend(unused);

        let (kept, gone): (Vec<_>, Vec<_>) = taken.into_iter().partition(|s| self.groups.contains_key(&s.key.group));
        let clear = !plan.retire.is_empty() || !gone.is_empty();
        drop(gone);
        for key in &plan.retire {
            self.retire(key);
        }
        for key in &plan.renew {
            self.renew(key);
        }
        let wanted = self.wanted(kept, plan.preload);
        if clear {
            self.clear_store();
        }
        for id in wanted {
            let on_demand = self.units.get(&id).is_some_and(|u| u.settings.spec.least_processes == 0);
            // The queue of a group that starts on demand is only watched.
            self.feed(id, if on_demand { Event::Tick } else { Event::Wanted });
        }
    }

    /// Removes queues from the store that no unit has.
    fn clear_store(&mut self) {
        let index = &self.index;
        if let Err(e) = self.store.round(|key| index.contains_key(key)) {
            self.main.message(Code::Store, None, None, &["groups that were removed".to_owned(), e.to_string()]);
        }
    }

    /// Passes the new configuration to an existing pool.
    fn renew(&mut self, key: &PoolKey) {
        let Some(id) = self.index.get(key).copied() else { return };
        let (Some(unit), Some(settings)) = (self.units.get_mut(&id), self.groups.get(&key.group)) else { return };
        unit.settings = settings.clone();
        unit.scripts.configure(key, settings);
        let limits = settings.limits();
        self.feed(id, Event::Configure(limits));
    }

    /// Starts the pools that need workers: those with queues from a previous droverd, and those
    /// with scripts to preload.
    fn wanted(&mut self, kept: Vec<Stored>, preload: Vec<PoolKey>) -> Vec<u32> {
        let mut wanted = Vec::new();
        for stored in kept {
            if let Some(settings) = self.groups.get(&stored.key.group).cloned() {
                let Stored { key, script, queue } = stored;
                let id = self.adopt(key, queue, &settings);
                if let Some(unit) = self.units.get_mut(&id) {
                    unit.scripts.add_if_configured(script);
                }
                wanted.push(id);
            }
        }
        for key in preload {
            let Some(settings) = self.groups.get(&key.group).cloned() else { continue };
            let id = match self.index.get(&key) {
                Some(id) => Ok(*id),
                None => self.create(key, Script { path: vec![], callable: vec![] }, &settings),
            };
            match id {
                Ok(id) => wanted.push(id),
                Err(e) => settings.log(Code::System, None, &["cannot create the group's queue".into(), e.to_string()]),
            }
        }
        wanted
    }
}

/// The settings of every group by name. Groups with the same log and level share a sink.
fn groups(specs: Vec<GroupSpec>, targets: &Rc<[Target]>, logs: &[OwnedFd]) -> BTreeMap<Vec<u8>, Rc<Settings>> {
    let mut sinks: BTreeMap<(u16, u8), Rc<Sink>> = BTreeMap::new();
    let settings = |spec: GroupSpec| {
        let (log, level) = (spec.log, spec.log_level);
        let sink = sinks.entry((log, level)).or_insert_with(|| sink(logs.get(usize::from(log)), level)).clone();
        (spec.name.clone(), Rc::new(Settings { spec, sink, targets: targets.clone() }))
    };
    specs.into_iter().map(settings).collect()
}

/// A log of httpd's, or standard error if it is not available.
fn sink(log: Option<&OwnedFd>, level: u8) -> Rc<Sink> {
    let copy = log.and_then(|log| log.try_clone().ok());
    Rc::new(copy.map_or_else(|| Sink::standard_error(level), |copy| Sink::new(copy, level)))
}
