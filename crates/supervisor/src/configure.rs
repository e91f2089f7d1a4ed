//! What httpd's parent says: configurations, and to stop.
//!
//! Responsible for: a configuration taking effect whole or not at all. Called by: the event loop.
use crate::group::plan;
use crate::log::Sink;
use crate::messages::Code;
use crate::pool::Event;
use crate::settings::Settings;
use crate::store::Stored;
use crate::supervisor::Supervisor;
use drover_sys::memfile;
use drover_wire::VERSION;
use drover_wire::control::{Configuration, Script, decode};
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// A configuration is a few hundred bytes a group.
const LARGEST: usize = 64 << 20;

impl Supervisor {
    /// Reads the configuration from its memory file. The error is for the log.
    pub fn read_configuration(&self, file: &OwnedFd, len: u32) -> Result<Configuration, String> {
        let bytes = memfile::read(file, usize::try_from(len).unwrap_or(usize::MAX), LARGEST).map_err(|e| e.to_string())?;
        let configuration: Configuration = decode(&bytes).map_err(|e| e.to_string())?;
        if configuration.version != VERSION {
            self.main.message(Code::VersionMismatch, None, None, &[VERSION.to_owned(), configuration.version.clone()]);
            return Err("it comes from another version".to_owned());
        }
        Ok(configuration)
    }

    /// Puts a configuration into effect. `taken` are the queues of an earlier droverd.
    pub fn configure(&mut self, configuration: Configuration, logs: Vec<OwnedFd>, taken: Vec<Stored>) {
        let words = [configuration.generation.to_string(), configuration.groups.len().to_string()];
        let mut logs: Vec<Option<OwnedFd>> = logs.into_iter().map(Some).collect();
        // The first log is the main server's; it is another one than before when logs were rotated.
        if let Some(Ok(copy)) = logs.first().and_then(Option::as_ref).map(OwnedFd::try_clone) {
            self.main = Rc::new(Sink::new(copy, configuration.log_level));
        } else {
            self.main = Rc::new(Sink::standard_error(configuration.log_level));
        }
        self.main.message(Code::Configured, None, None, &words);
        self.httpd_generation = configuration.generation;
        self.sessions.clone_from(&configuration.sessions);
        self.configure_admin(configuration.control_socket.as_deref());
        let plan = plan(&configuration, self.index.keys());

        let mut sinks: Vec<((u16, u8), Rc<Sink>)> = Vec::new();
        let mut groups = std::collections::BTreeMap::new();
        for spec in configuration.groups {
            let which = (spec.log, spec.log_level);
            let known = sinks.iter().find(|(w, _)| *w == which).map(|(_, sink)| sink.clone());
            let sink = known.unwrap_or_else(|| {
                let file = logs.get_mut(usize::from(spec.log)).and_then(|l| l.as_ref().and_then(|l| l.try_clone().ok()));
                let sink = Rc::new(file.map_or_else(|| Sink::standard_error(spec.log_level), |f| Sink::new(f, spec.log_level)));
                sinks.push((which, sink.clone()));
                sink
            });
            groups.insert(spec.name.clone(), Rc::new(Settings { spec, sink }));
        }
        self.groups = groups;
        self.halted.clear();

        let (kept, gone): (Vec<_>, Vec<_>) = taken.into_iter().partition(|s| self.groups.contains_key(&s.key.group));
        if !plan.retire.is_empty() || !gone.is_empty() {
            let groups = &self.groups;
            if let Err(e) = self.store.round(|key| groups.contains_key(&key.group)) {
                self.main.message(Code::Store, None, None, &["that is gone".to_owned(), e.to_string()]);
            }
        }
        drop(gone);
        for key in &plan.retire {
            self.retire(key);
        }
        for key in &plan.renew {
            let Some(id) = self.index.get(key).copied() else { continue };
            let (Some(unit), Some(settings)) = (self.units.get_mut(&id), self.groups.get(&key.group)) else { continue };
            unit.settings = settings.clone();
            unit.scripts.configure(&key.application, &settings.spec.preload);
            let limits = settings.limits();
            self.feed(id, Event::Configure(limits));
        }
        let mut wanted = Vec::new();
        for stored in kept {
            if let Some(settings) = self.groups.get(&stored.key.group).cloned() {
                wanted.push(self.adopt(stored, &settings));
            }
        }
        for key in plan.preload {
            let Some(settings) = self.groups.get(&key.group).cloned() else { continue };
            let id = match self.index.get(&key) {
                Some(id) => Ok(*id),
                None => self.create(key, Script { path: vec![], callable: vec![] }, &settings),
            };
            match id {
                Ok(id) => wanted.push(id),
                Err(e) => settings.log(Code::System, None, &["cannot make the group's queue".into(), e.to_string()]),
            }
        }
        for id in wanted {
            let on_demand = self.units.get(&id).is_some_and(|u| u.settings.spec.least_processes == 0);
            // A group that starts on demand only has its queue watched.
            self.feed(id, if on_demand { Event::Tick } else { Event::Wanted });
        }
    }
}
