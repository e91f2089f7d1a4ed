//! What the command `drover` asks of droverd on the control socket, and what it is answered.
//!
//! Responsible for: those types and their limits. Must never: hold a policy. Called by: `drover status|reload|stop`, and droverd's
//! `admin.rs`.
//!
//! The socket is SEQPACKET. One connection carries one [`Request`] and is answered with one message, the length of a memory file that comes
//! as descriptor 0; in it lies the [`Reply`] (all three as [`crate::control::encode`] makes them).
use serde::{Deserialize, Serialize};
use std::fmt;

/// The largest request.
pub const MAX_REQUEST: usize = 8 * 1024;
/// The largest reply.
pub const MAX_REPLY: usize = 8 * 1024 * 1024;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`crate::VERSION`] of the command.
    pub version: String,
    /// What is asked.
    pub command: Command,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// How all groups are that the asking user may see, or the one of that name.
    Status(Option<String>),
    /// Start a new generation of the group's processes; also ends a stop.
    Reload(String),
    /// End the group's processes after their requests; its requests are answered with 503 until it is reloaded.
    Stop(String),
    /// Answer with [`Reply::Reloaded`] when it is known whether the group's processes serve. Changes nothing.
    Await(String),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Command::Status`].
    Status(Server),
    /// To [`Command::Stop`]: it was done; so many application groups had processes.
    Done(u32),
    /// To [`Command::Reload`] and [`Command::Await`], when it is known how the new processes of each application group fare.
    Reloaded(Vec<Reloaded>),
    /// It was not done; why, for the administrator.
    Refused(String),
}

/// How the new processes of one application group fare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Its name; empty for `%{GLOBAL}`.
    pub name: String,
    /// Why they cannot start, or which scripts they cannot load; `None`: they serve.
    pub failure: Option<String>,
    /// Who serves now.
    pub service: Service,
}

/// Who serves an application group after a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Service {
    /// The new processes.
    New,
    /// The new processes, without the scripts that they could not load.
    Partial,
    /// The processes that were there before.
    Old,
    /// No process: the next request starts one.
    OnDemand,
    /// Nobody: requests are answered with 503.
    Nobody,
}

/// The whole server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Version of droverd.
    pub version: String,
    /// Its process id, and httpd's.
    pub droverd: u32,
    /// httpd's parent.
    pub httpd: u32,
    /// httpd's generation: grows with each graceful or restart.
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
    /// The user its processes run as; empty: droverd's own.
    pub user: String,
    /// The interpreter.
    pub python: String,
    /// processes=, at least and at most.
    pub least: u32,
    /// At most.
    pub most: u32,
    /// threads=.
    pub threads: u32,
    /// `drover stop` was given for it.
    pub halted: bool,
    /// Its application groups that are in use.
    pub applications: Vec<Application>,
}

/// One application group of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Application {
    /// Its name; empty for `%{GLOBAL}`.
    pub name: String,
    /// What it does now.
    pub state: ApplicationState,
    /// Generation of its code.
    pub generation: u64,
    /// Processes wanted now.
    pub target: u32,
    /// Why the last start failed, with the traceback; `None`: it did not.
    pub failure: Option<String>,
    /// When the next start is tried, milliseconds from now.
    pub next_try_ms: Option<u64>,
    /// Requests wait in the queue.
    pub waiting: bool,
    /// Requests that droverd holds until the new code serves.
    pub held: u32,
    /// Its processes.
    pub workers: Vec<Worker>,
}

/// What an application group does. Programs read the names (`drover status --json`): a name never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApplicationState {
    /// It has no process and nothing to do.
    Idle,
    /// New processes import the application.
    Starting,
    /// Its processes serve all of its scripts.
    Serving,
    /// Its processes serve, but some scripts cannot be loaded; requests to these get 503.
    ServingPartly,
    /// The old processes serve; the new code cannot start.
    ServingOldCode,
    /// Nothing can be served; requests get 503.
    Failing,
    /// Stopped by an administrator; requests get 503.
    Halted,
    /// httpd stops or restarts, or the group is no longer in the configuration.
    Stopping,
}

impl ApplicationState {
    /// For people.
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

/// What a process does. The names are stable, as those of [`ApplicationState`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkerState {
    /// It imports the application.
    Starting,
    /// It takes requests.
    Serving,
    /// It takes requests until its successor is up.
    Leaving,
    /// It takes no more requests and finishes those that it has.
    Ending,
    /// Workers are forked from it.
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

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// Process id.
    pub pid: u32,
    /// Generation of its code.
    pub generation: u64,
    /// What it does now.
    pub state: WorkerState,
    /// Since when it is up (or is being started), milliseconds.
    pub age_ms: u64,
    /// Requests that it has taken, as it last said.
    pub requests: u64,
    /// Requests that it runs, as it last said.
    pub running: u32,
    /// Proportional set size, bytes; 0: not known.
    pub memory: u64,
}
