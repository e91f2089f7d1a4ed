//! The queue of a request, opened through droverd.
//!
//! Responsible for: reopening a queue whose workers are gone, once. Must never: retry without a bound. Called by: `handler`,
//! [`super::delivery`].
use crate::dispatch::{DispatchError, Queue};
use crate::handler::task::Task;
use drover_sys::Errno;
use drover_wire::control::Script;
use std::sync::Arc;

/// The open queue of one request.
pub struct RequestQueue<'t> {
    /// The queue.
    pub queue: Arc<Queue>,
    task: Task<'t>,
    until: u64,
    reopened: bool,
}

impl<'t> RequestQueue<'t> {
    /// Opens it. droverd must answer before `until` (CLOCK_MONOTONIC nanoseconds).
    pub fn open(task: Task<'t>, until: u64) -> Result<Self, DispatchError> {
        Ok(Self { queue: open(task, until)?, task, until, reopened: false })
    }

    /// After a request could not be sent: reopens the queue, if that may help and was not done before. Else returns the error.
    pub fn reopen(&mut self, e: DispatchError) -> Result<(), DispatchError> {
        if self.reopened || !is_closed(&e) {
            return Err(e);
        }
        self.task.context.queues.forget(&self.task.selection.key, &self.queue);
        self.queue = open(self.task, self.until)?;
        self.reopened = true;
        Ok(())
    }
}

fn open(task: Task<'_>, until: u64) -> Result<Arc<Queue>, DispatchError> {
    let script = Script { path: task.script.to_vec(), callable: task.selection.callable_object.clone() };
    task.context.queues.open(&task.selection.key, script, task.context.wake, until)
}

/// Whether the receiving end is closed: the group was removed and added again. (PERM: a worker made its queue refuse
/// descriptors.)
const fn is_closed(e: &DispatchError) -> bool {
    matches!(e, DispatchError::System(_, Errno::PIPE | Errno::CONNREFUSED | Errno::CONNRESET | Errno::PERM))
}
