//! The events that a pool receives and the actions that it requests.
//!
//! Responsible for: the interface between [`crate::pool`] and the supervisor. Workers and requests
//! are numbers, so that a pool runs without processes and sockets. Called by: both sides.
#![forbid(unsafe_code)]
use crate::log::messages::Code;
use drover_wire::control::Activity;
use std::fmt;
use std::time::Duration;

/// CLOCK_MONOTONIC.
pub type Now = Duration;
/// Identifies a request that a worker returned.
pub type Token = u64;
/// Identifies a worker in its pool; never reused.
pub type Number = u32;
/// Path of a script.
pub type Path = Vec<u8>;

/// The group options that control the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of workers.
    pub processes: usize,
    /// Minimum number of workers; equals `processes` for a fixed size. With 0 the first request
    /// starts the first worker.
    pub least: usize,
    /// Replace workers one by one on a reload.
    pub rolling: bool,
    pub startup: Option<Duration>,
    pub graceful: Option<Duration>,
    pub shutdown: Duration,
    /// Replaces `graceful` for a worker that received a signal.
    pub eviction: Option<Duration>,
    /// A worker idle for this long is replaced, or shut down where the pool may shrink.
    pub inactivity: Option<Duration>,
    /// A worker of this age is replaced.
    pub restart_interval: Option<Duration>,
}

/// Why a worker is replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplaceReason {
    MaximumRequests,
    CpuTime,
    /// It received a signal and takes no more requests. In all other cases a worker serves until
    /// its successor is ready.
    Signal,
    /// Its proportional set size in bytes exceeds memory-soft.
    Memory(u64),
    RestartInterval,
    Inactivity,
}

impl fmt::Display for ReplaceReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MaximumRequests => f.write_str("maximum-requests"),
            Self::CpuTime => f.write_str("cpu-time-limit"),
            Self::Signal => f.write_str("it received a signal"),
            Self::Memory(bytes) => write!(f, "memory-soft: it uses {} MiB", bytes >> 20),
            Self::RestartInterval => f.write_str("restart-interval"),
            Self::Inactivity => f.write_str("inactivity-timeout"),
        }
    }
}

/// A script that a worker could not load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptFailure {
    pub path: Path,
    pub mtime_us: u64,
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A request or a preload needs the pool.
    Wanted,
    /// A configuration that includes the group; a new generation is due.
    Configure(Limits),
    /// The worker process was started.
    Started(Number),
    /// The worker could not be started and there is no process. `killed`: its fork server was
    /// killed.
    Unstarted {
        worker: Number,
        reason: String,
        killed: bool,
    },
    /// The process runs but is unusable. It is terminated, and replaced if it served.
    Unfit {
        worker: Number,
        reason: String,
    },
    Loaded {
        worker: Number,
        failures: Vec<ScriptFailure>,
        /// Number of scripts that were loaded.
        good: usize,
    },
    /// A serving worker loaded another script for a request.
    AlsoLoaded,
    /// The process exited. The first line of `how` completes "worker 12 …", as in "was killed by
    /// signal 9"; further lines are its last output before it was ready. `clean`: it exited with
    /// status 0. `killed`: by a signal that is sent to end a process, not one caused by its own
    /// fault.
    Exited {
        worker: Number,
        how: String,
        clean: bool,
        killed: bool,
    },
    /// The worker closed its control socket.
    ControlClosed(Number),
    Changed {
        worker: Number,
        path: Path,
        mtime_us: u64,
        request: Option<Token>,
    },
    /// The worker is to be replaced.
    Replace {
        worker: Number,
        why: ReplaceReason,
    },
    Stuck {
        worker: Number,
        what: String,
        /// No thread of the worker can take Python's lock.
        deadlocked: bool,
    },
    Activity {
        worker: Number,
        activity: Activity,
    },
    /// A request shows a new time of a script that is known bad; no worker serves.
    Touched {
        path: Path,
        mtime_us: u64,
        request: Token,
    },
    /// The result of [`Action::CheckQueue`].
    QueueChecked {
        waiting: bool,
    },
    /// An administrator requested a new generation.
    Reload,
    /// An administrator stopped the group until the next `Reload` or `Configure`.
    Halt,
    /// The queue was full when the request was to be requeued.
    Full(Token),
    /// A reader shut down the queue. Only workers started from now on get the new one.
    QueueReplaced,
    /// httpd stops or restarts; `within` shortens shutdown-timeout.
    Stop {
        within: Option<Duration>,
    },
    /// The group is no longer configured.
    Retire,
    Tick,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start a process when the start limiter admits it; answered by `Started` or `Unstarted`.
    Start {
        worker: Number,
        generation: u64,
    },
    /// Withdraw a `Start` that was not answered yet.
    Cancel(Number),
    /// A worker could not start, and was not killed from outside: the next ones load only
    /// configured scripts.
    StartFailed,
    Serve(Number),
    Drain(Number),
    MarkKnownBad {
        worker: Number,
        path: Path,
        mtime_us: u64,
    },
    Dump(Number),
    /// Report whether requests wait in the queue ([`Event::QueueChecked`]).
    CheckQueue,
    /// Make the workers check the queue: the worker that was woken for a request may have exited.
    Wake(Number),
    Terminate(Number),
    Kill(Number),
    /// Requeue the request; answered by `Full` if the queue is full.
    Requeue(Token),
    /// Refuse the request: no worker can run it.
    Refuse(Token),
    Log {
        code: Code,
        worker: Option<Number>,
        args: Vec<String>,
    },
}
