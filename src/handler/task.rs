//! What the steps of one request share.
//!
//! Responsible for: the data that one step hands to the next. Must never: decide anything. Called by: `handler` and its
//! steps; `httpd` makes the [`Context`].
use super::limits::AdmissionCounters;
use crate::config::Settings;
use crate::dispatch::{Key, Queues, Wake};
use crate::resolved::{Group, Resolved};
use crate::session::{self, StorePlan, Stores};
use drover_sys::shared::Flag;

/// What a request needs of the process that runs it.
#[derive(Debug, Clone, Copy)]
pub struct Context<'c> {
    /// The resolved configuration.
    pub resolved: &'c Resolved,
    /// The queues of this process.
    pub queues: &'c Queues,
    /// Wakes all waiting threads when httpd stops.
    pub wake: &'c Wake,
    /// The counters of requests, shared by all children.
    pub admission: AdmissionCounters<'c>,
    /// The session settings of the request's server; `None` when sessions are off.
    pub session: Option<(&'c session::Settings, &'c StorePlan)>,
    /// The session stores of this process.
    pub stores: Option<&'static Stores>,
    /// What to log when a request first uses a session; `None` when it was logged at start.
    pub unsaid: Option<(&'c Flag, &'c [String])>,
}

/// How the handler phase ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Another handler must run.
    Declined,
    /// The response was sent or cut.
    Done,
    /// httpd must send a response with this status.
    Status(u16),
    /// A filter failed: it sent the response, or httpd does.
    FilterError,
}

/// The group, application group and callable of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Group and application group.
    pub key: Key,
    /// No group was named, so the implicit one is used.
    pub implicit: bool,
    /// The name of the object in the script.
    pub callable_object: Vec<u8>,
    /// Whether the application gets the Authorization header field.
    pub pass_authorization: bool,
}

/// A permitted request with the configuration that applies to it.
#[derive(Clone, Copy)]
pub struct Task<'t> {
    /// The settings of its server and directory.
    pub settings: &'t Settings<'t>,
    /// Its group.
    pub group: &'t Group,
    /// What was selected.
    pub selection: &'t Selection,
    /// The script's path as the group's workers see it.
    pub script: &'t [u8],
    /// The process that runs it.
    pub context: Context<'t>,
}
