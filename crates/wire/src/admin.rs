//! Commands of `drover` to droverd on the control socket, and the replies.
//!
//! Responsible for: those types and their limits. Must never: hold a policy. Called by: `drover
//! status|reload|stop`, droverd.
//!
//! The socket is SEQPACKET. A connection carries one [`Request`] and one message in reply: the
//! length of a memory file, which is descriptor 0 and holds the [`Reply`]. All three are encoded by
//! [`crate::control::encode`].
use serde::{Deserialize, Serialize};
use std::fmt;

/// The largest request.
pub const MAX_REQUEST: usize = 8 * 1024;
/// The largest reply.
pub const MAX_REPLY: usize = 8 * 1024 * 1024;

/// A request of `drover`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`crate::VERSION`] of the command.
    pub version: String,
    /// The command.
    pub command: Command,
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Report the state of all groups that the calling user may see, or of the named one.
    Status(Option<String>),
    /// Start a new generation of the group's workers; also ends a stop.
    Reload(String),
    /// Drain the group's workers; its requests get 503 until it is reloaded.
    Stop(String),
    /// Reply with [`Reply::Reloaded`] once it is known whether the group's workers serve. Changes
    /// nothing.
    Await(String),
}

/// A reply of droverd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Command::Status`].
    Status(Server),
    /// To [`Command::Stop`]: done, for this number of application groups that had workers.
    Done(u32),
    /// To [`Command::Reload`] and [`Command::Await`]: the result for each application group.
    Reloaded(Vec<Reloaded>),
    /// Not done; the reason, for the administrator.
    Refused(String),
}

/// Result of a reload for one application group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Its name; empty for `%{GLOBAL}`.
    pub name: String,
    /// Why its new workers cannot start, or which scripts they cannot load; `None`: they serve.
    pub failure: Option<String>,
    /// What serves it now.
    pub service: Service,
}

/// What serves an application group after a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Service {
    /// The new workers.
    New,
    /// The new workers, without the scripts that they could not load.
    Partial,
    /// The old workers.
    Old,
    /// No worker: the next request starts one.
    OnDemand,
    /// Nothing: requests get 503.
    Nobody,
}

/// The whole server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Version of droverd.
    pub version: String,
    /// Process id of droverd.
    pub droverd: u32,
    /// Process id of httpd's parent.
    pub httpd: u32,
    /// httpd's generation, which grows with each restart, graceful or not.
    pub generation: u64,
    /// Where sessions are kept, and why.
    pub sessions: Vec<String>,
    /// The groups, by name.
    pub groups: Vec<Group>,
}

/// One daemon process group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// User of its workers; empty: that of droverd.
    pub user: String,
    /// The interpreter.
    pub python: String,
    /// Minimum of processes=.
    pub least: u32,
    /// Maximum of processes=.
    pub most: u32,
    /// threads=.
    pub threads: u32,
    /// Stopped by `drover stop`.
    pub halted: bool,
    /// Its application groups in use.
    pub applications: Vec<Application>,
}

/// One application group of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Application {
    /// Its name; empty for `%{GLOBAL}`.
    pub name: String,
    /// Its state.
    pub state: ApplicationState,
    /// Generation of its code.
    pub generation: u64,
    /// Target number of workers.
    pub target: u32,
    /// Why the last start failed, with the traceback; `None`: it succeeded.
    pub failure: Option<String>,
    /// Time until the next attempt to start, milliseconds.
    pub next_try_ms: Option<u64>,
    /// Requests are in the queue.
    pub waiting: bool,
    /// Requests that are parked until the new code serves.
    pub held: u32,
    /// Its workers.
    pub workers: Vec<Worker>,
}

/// State of an application group. Programs read the names (`drover status --json`): the meaning of
/// a name never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApplicationState {
    /// It has no worker and no request.
    Idle,
    /// New workers import the application.
    Starting,
    /// Its workers serve all of its scripts.
    Serving,
    /// Its workers serve, but some scripts cannot be loaded; requests for these get 503.
    ServingPartly,
    /// The old workers serve; the new code cannot start.
    ServingOldCode,
    /// No worker can start; requests get 503.
    Failing,
    /// Stopped by an administrator; requests get 503.
    Halted,
    /// httpd is stopping or restarting, or the group was removed from the configuration.
    Stopping,
}

impl ApplicationState {
    /// The state in plain words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::ServingPartly => "serving (some scripts cannot be loaded)",
            Self::ServingOldCode => "serving (new code cannot start)",
            Self::Failing => "failing",
            Self::Halted => "halted",
            Self::Stopping => "stopping",
        }
    }
}

impl fmt::Display for ApplicationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text())
    }
}

/// State of a worker. The names are stable, as those of [`ApplicationState`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkerState {
    /// It imports the application.
    Starting,
    /// It takes requests.
    Serving,
    /// It takes requests until its replacement is ready.
    Leaving,
    /// It takes no more requests and finishes the running ones.
    Ending,
    /// It is a fork server.
    Template,
}

impl WorkerState {
    /// Whether it takes requests.
    #[must_use]
    pub fn takes_requests(self) -> bool {
        matches!(self, Self::Serving | Self::Leaving)
    }
}

impl fmt::Display for WorkerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Leaving => "leaving",
            Self::Ending => "ending",
            Self::Template => "template",
        })
    }
}

/// One worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// Process id.
    pub pid: u32,
    /// Generation of its code.
    pub generation: u64,
    /// Its state.
    pub state: WorkerState,
    /// Time since its start, milliseconds.
    pub age_ms: u64,
    /// Requests that it has taken, as it last reported.
    pub requests: u64,
    /// Requests that it is running, as it last reported.
    pub running: u32,
    /// Proportional set size, bytes; 0: unknown.
    pub memory: u64,
}
