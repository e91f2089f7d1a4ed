//! One group in one configuration: its options and its log.
//!
//! A worker keeps the settings that it was started with. An old generation therefore keeps its log,
//! which is closed when its last worker has exited. Called by: the supervisor.
use crate::control::plan::limits;
use crate::log::Sink;
use crate::log::messages::Code;
use crate::pool::Limits;
use drover_wire::control::{GroupSpec, Target, WorkerOptions};
use std::rc::Rc;

#[derive(Debug)]
pub struct Settings {
    pub spec: GroupSpec,
    pub sink: Rc<Sink>,
    /// Scripts named by aliases, of all groups.
    pub targets: Rc<[Target]>,
}

impl Settings {
    pub fn limits(&self) -> Limits {
        limits(&self.spec)
    }

    /// The options for a worker of this application group.
    pub fn worker_options(&self, application_group: &[u8]) -> &WorkerOptions {
        let own = self.spec.application_options.iter().find(|(name, _)| name == application_group);
        own.map_or(&self.spec.worker, |(_, options)| options)
    }

    /// Logs one of droverd's messages to the group's log.
    pub fn log(&self, code: Code, pid: Option<u32>, args: &[String]) {
        self.sink.message(code, Some(&self.spec.name), pid, args);
    }
}
