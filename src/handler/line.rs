//! The queue in which a request is put, opened through droverd.
//!
//! Responsible for: a queue that has gone being asked for once more. Must never: ask again and again. Called by: `handler::mod`,
//! `handler::delivery`.
use super::Task;
use crate::dispatch::{DispatchError, Queue};
use drover_sys::Errno;
use drover_wire::control::Script;
use std::sync::Arc;

/// See the head of this file.
pub struct Line<'t> {
    /// The queue.
    pub queue: Arc<Queue>,
    task: Task<'t>,
    until: u64,
    opened_again: bool,
}

impl<'t> Line<'t> {
    /// Opens it. droverd has until `until` (CLOCK_MONOTONIC nanoseconds) to answer.
    pub fn open(task: Task<'t>, until: u64) -> Result<Self, DispatchError> {
        Ok(Self { queue: ask(task, until)?, task, until, opened_again: false })
    }

    /// After a request could not be put in it: opens it once more if that may help, else gives the error back.
    pub fn open_again(&mut self, e: DispatchError) -> Result<(), DispatchError> {
        if self.opened_again || !has_gone(&e) {
            return Err(e);
        }
        self.task.context.queues.forget(&self.task.selection.key, &self.queue);
        self.queue = ask(self.task, self.until)?;
        self.opened_again = true;
        Ok(())
    }
}

fn ask(task: Task<'_>, until: u64) -> Result<Arc<Queue>, DispatchError> {
    let script = Script { path: task.script.to_vec(), callable: task.selection.callable_object.clone() };
    task.context.queues.open(&task.selection.key, script, task.context.wake, until)
}

/// Nobody holds the other end any more: the group went and came back. (PERM: a worker has forbidden its queue to take descriptors.)
const fn has_gone(e: &DispatchError) -> bool {
    matches!(e, DispatchError::System(_, Errno::PIPE | Errno::CONNREFUSED | Errno::CONNRESET | Errno::PERM))
}
