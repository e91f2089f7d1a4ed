//! One group of one configuration: its options and its log.
//!
//! A worker keeps the settings it was started with, so an old generation goes on writing to the log it was given, and that log
//! is closed when its last worker is gone. Called by: the supervisor.
use crate::group::limits;
use crate::log::Sink;
use crate::messages::Code;
use crate::pool::Limits;
use drover_wire::control::{GroupSpec, Target, WorkerOptions};
use std::rc::Rc;

#[derive(Debug)]
pub struct Settings {
    pub spec: GroupSpec,
    pub sink: Rc<Sink>,
    /// Scripts that aliases name, those of all groups.
    pub targets: Rc<[Target]>,
}

impl Settings {
    pub fn limits(&self) -> Limits {
        limits(&self.spec)
    }

    /// What a worker of this application group is told.
    pub fn worker_options(&self, application_group: &[u8]) -> &WorkerOptions {
        let own = self.spec.application_options.iter().find(|(name, _)| name == application_group);
        own.map_or(&self.spec.worker, |(_, options)| options)
    }

    /// Writes one of droverd's messages to the group's log.
    pub fn log(&self, code: Code, pid: Option<u32>, words: &[String]) {
        self.sink.message(code, Some(&self.spec.name), pid, words);
    }
}
