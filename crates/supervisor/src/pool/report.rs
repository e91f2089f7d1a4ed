//! What a pool reports about itself.
//!
//! Responsible for: the only view of the pool's state from outside. Must never: change anything.
//! Called by: `control/report.rs`.
use crate::pool::{Now, Number, Phase, Pool, State};
use drover_wire::admin::{ApplicationState, WorkerState};

/// The state of a pool.
#[derive(Debug)]
pub struct PoolReport<'p> {
    pub state: ApplicationState,
    /// Number of the newest generation.
    pub generation: u64,
    /// Wanted workers of the newest generation.
    pub target: usize,
    /// Why the last start failed, with tracebacks.
    pub failure: Option<&'p str>,
    /// When the next generation begins.
    pub next_attempt: Option<Now>,
    /// Requests that wait for the new code.
    pub parked: usize,
    pub workers: Vec<WorkerReport>,
}

/// The state of one of its workers.
#[derive(Debug)]
pub struct WorkerReport {
    pub number: Number,
    pub generation: u64,
    pub state: WorkerState,
    /// When it became ready, or was created if it is not ready.
    pub since: Now,
    /// Requests that it has taken, and that it is running.
    pub taken: u64,
    pub running: u32,
}

impl Pool {
    /// The state of the pool and its workers.
    pub fn report(&self) -> PoolReport<'_> {
        let worker = |(number, w): (&Number, &super::Worker)| WorkerReport {
            number: *number,
            generation: w.generation,
            state: worker_state(w.state),
            since: w.since,
            taken: w.taken,
            running: w.running,
        };
        PoolReport {
            state: self.state(),
            generation: self.generation,
            target: self.target,
            failure: self.failure(),
            next_attempt: self.next_begin.map(|(at, _)| at),
            parked: self.parked.len(),
            workers: self.workers.iter().map(worker).collect(),
        }
    }

    /// The pool's state in one word; `docs/operations.md` explains each.
    fn state(&self) -> ApplicationState {
        match self.phase {
            Phase::Idle => ApplicationState::Idle,
            Phase::Rising(_) => ApplicationState::Starting,
            Phase::Steady | Phase::Waiting if self.failed_scripts.all => ApplicationState::Failing,
            Phase::Steady if self.failed_scripts.paths.is_empty() => ApplicationState::Serving,
            Phase::Steady => ApplicationState::ServingPartly,
            Phase::Waiting if self.any_serving() => ApplicationState::ServingOldCode,
            Phase::Waiting => ApplicationState::Failing,
            Phase::Halted => ApplicationState::Halted,
            Phase::Stopped { .. } | Phase::Retired { .. } => ApplicationState::Stopping,
        }
    }
}

const fn worker_state(state: State) -> WorkerState {
    match state {
        State::Queued | State::Starting { .. } => WorkerState::Starting,
        State::Serving { being_replaced: false } => WorkerState::Serving,
        State::Serving { being_replaced: true } => WorkerState::Leaving,
        State::Draining { .. } => WorkerState::Ending,
    }
}
