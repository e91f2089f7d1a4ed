//! What a pool is told, and what it wants done.
//!
//! Responsible for: the words between [`crate::pool`] and the supervisor. They name workers and requests by numbers, so that a
//! pool can be run without any process or socket. Called by: both sides.
#![forbid(unsafe_code)]
use crate::messages::Code;
use drover_wire::control::Activity;
use std::fmt;
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
    /// The most workers there are.
    pub processes: usize,
    /// The fewest; the same number when the size is fixed, 0: the first request starts the first worker.
    pub least: usize,
    /// One worker of a new generation after the other.
    pub rolling: bool,
    pub startup: Option<Duration>,
    pub graceful: Option<Duration>,
    pub shutdown: Duration,
    /// In place of `graceful` for a worker that was sent a signal.
    pub eviction: Option<Duration>,
    /// A worker without requests for so long is replaced, or ended where the size may shrink.
    pub inactivity: Option<Duration>,
    /// A worker of this age is replaced.
    pub restart_interval: Option<Duration>,
}

/// Why a worker is to be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    MaximumRequests,
    CpuTime,
    /// It was sent a signal and takes no requests any more; all others serve until their successor is up.
    Signal,
    /// Its proportional set size, bytes, is above memory-soft.
    Memory(u64),
    RestartInterval,
    Inactivity,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MaximumRequests => f.write_str("maximum-requests"),
            Self::CpuTime => f.write_str("cpu-time-limit"),
            Self::Signal => f.write_str("it was sent a signal"),
            Self::Memory(bytes) => write!(f, "memory-soft: it has {} MiB", bytes >> 20),
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
    /// A configuration that has the group: a new generation is due.
    Configure(Limits),
    /// The worker was forked.
    Started(Number),
    /// The worker could not be forked; there is no process. `killed`: because its template was killed.
    Unstarted {
        worker: Number,
        reason: String,
        killed: bool,
    },
    /// The process runs but is of no use; it has to be ended, and replaced if it serves.
    Unfit {
        worker: Number,
        reason: String,
    },
    Loaded {
        worker: Number,
        failures: Vec<ScriptFailure>,
        /// So many scripts could be loaded.
        good: usize,
    },
    /// A worker that serves has loaded one more script for a request.
    AlsoLoaded,
    /// The process has ended; the first line of `how` reads as in "worker 12 was killed by signal 9", further lines are what it wrote
    /// last before it was ready; `clean`: it left with status 0; `killed`: by a signal
    /// that somebody sends to end a process, not one that its own fault brings.
    Exited {
        worker: Number,
        how: String,
        clean: bool,
        killed: bool,
    },
    /// Its control socket is closed.
    Lost(Number),
    Changed {
        worker: Number,
        path: Path,
        mtime_us: u64,
        request: Option<Token>,
    },
    /// It asks to be replaced.
    Leaving {
        worker: Number,
        why: Why,
    },
    Stuck {
        worker: Number,
        what: String,
        /// No thread of it can take Python's lock.
        deadlocked: bool,
    },
    Activity {
        worker: Number,
        activity: Activity,
    },
    /// A request shows that a script whose time is known to fail has another time now; nobody serves.
    Touched {
        path: Path,
        mtime_us: u64,
        request: Token,
    },
    /// The answer to [`Action::Look`].
    Looked {
        waiting: bool,
    },
    /// An administrator wants a new generation.
    Reload,
    /// An administrator wants no worker until the next `Reload` or `Configure`.
    Halt,
    /// The queue was full when the request should have been put on it again.
    Full(Token),
    /// The queue was shut down by one of those that read it; there is a new one, which only workers get that are started from now on.
    QueueReplaced,
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
    /// A worker could not start, and not because somebody killed it: the next ones load only what the configuration names.
    StartFailed,
    Serve(Number),
    Drain(Number),
    Keep {
        worker: Number,
        path: Path,
        mtime_us: u64,
    },
    Dump(Number),
    /// Say whether requests wait in the queue ([`Event::Looked`]).
    Look,
    /// Have the workers look at the queue: the one that was woken for a request may be the one that died.
    Wake(Number),
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
