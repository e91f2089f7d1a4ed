//! What a pool is told, and what it wants done.
//!
//! Responsible for: the words between [`crate::pool`] and the supervisor. They name workers and requests by numbers, so that a
//! pool can be run without any process or socket. Called by: both sides.
#![forbid(unsafe_code)]
use crate::messages::Code;
use std::time::Duration;

/// CLOCK_MONOTONIC.
pub type Now = Duration;
/// Names a request that a worker has handed back.
pub type Token = u64;
/// A worker's number in its pool; never used again.
pub type Number = u32;
/// Path of a script.
pub type Path = Vec<u8>;

/// What of the group's configuration the pool goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    pub processes: usize,
    pub startup: Option<Duration>,
    pub graceful: Option<Duration>,
    pub shutdown: Duration,
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
    /// A configuration that has the group: a new generation is due.
    Configure(Limits),
    /// The worker was forked.
    Started(Number),
    /// The worker could not be forked; there is no process.
    Unstarted {
        worker: Number,
        reason: String,
    },
    /// The process runs but is of no use; it has to be ended.
    Unfit {
        worker: Number,
        reason: String,
    },
    Loaded {
        worker: Number,
        failures: Vec<ScriptFailure>,
    },
    /// The process has ended; `how` reads as in "worker 12 was killed by signal 9".
    Exited {
        worker: Number,
        how: String,
    },
    /// Its control socket is closed.
    Lost(Number),
    Changed {
        worker: Number,
        path: Path,
        mtime_us: u64,
        request: Option<Token>,
    },
    Leaving {
        worker: Number,
        signalled: bool,
    },
    Stuck {
        worker: Number,
        what: String,
    },
    /// The queue was full when the request should have been put on it again.
    Full(Token),
    /// httpd stops or restarts; `within` shortens the shutdown-timeout.
    Stop {
        within: Option<Duration>,
    },
    /// The group is not in the configuration any more.
    Retire,
    Tick,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start a process when there is room; answered by `Started` or `Unstarted`.
    Start {
        worker: Number,
        generation: u64,
    },
    /// Forget a `Start` that was not answered yet.
    Cancel(Number),
    Serve(Number),
    Drain(Number),
    Keep {
        worker: Number,
        path: Path,
        mtime_us: u64,
    },
    Dump(Number),
    Terminate(Number),
    Kill(Number),
    /// Put the request on the queue again; answered by `Full` if there is no room.
    Resend(Token),
    /// Answer the request: nobody can run it.
    Answer(Token),
    Log {
        code: Code,
        worker: Option<Number>,
        words: Vec<String>,
    },
}
