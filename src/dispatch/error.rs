//! The errors between httpd and a worker.
//!
//! Responsible for: their texts, which tell the administrator what to do. Must never: decide a status; `handler::failure` does.
//! Called by: `dispatch`, `handler`.
use drover_wire::WireError;
use std::fmt;

/// Why a request could not be sent, or its response not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DispatchError {
    /// droverd did not reply before the deadline.
    SupervisorSilent,
    /// droverd refused to open the queue.
    Refused(String),
    /// droverd has no such group.
    UnknownGroup,
    /// The group is at its limit of application groups.
    TooManyApplications {
        /// max-application-groups, or as many as the configuration names.
        limit: u32,
        /// Earlier refusals that were not logged; `None`: this one is not logged either.
        quiet: Option<u32>,
    },
    /// The queue was full, or no worker took the request, before the deadline.
    QueueTimeout,
    /// The worker closed the reply socket without END. Its process id, if it had reported it.
    WorkerDied(Option<u32>),
    /// The worker was silent for too long.
    Silent,
    /// The request took too long in total.
    RequestTimeout,
    /// httpd is stopping this process.
    Stopping,
    /// What arrived is not our protocol.
    Wire(WireError),
    /// The request itself is too large for the protocol.
    TooLarge(WireError),
    /// A system call failed: what, and its error.
    System(&'static str, drover_sys::Errno),
}

impl fmt::Display for DispatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SupervisorSilent => f.write_str("droverd did not reply in time; see its messages in the error log"),
            Self::Refused(why) => write!(f, "droverd refused to open the queue: {why}"),
            Self::UnknownGroup => {
                f.write_str("droverd does not know this group; see the error log for why it did not get the last configuration")
            }
            Self::TooManyApplications { limit, quiet } => {
                write!(
                    f,
                    "the group is at its limit of {limit} application groups; give scripts that may share one process the same WSGIApplicationGroup, or raise max-application-groups="
                )?;
                quiet.filter(|n| *n > 0).map_or(Ok(()), |n| write!(f, " ({n} earlier requests were refused without a message)"))
            }
            Self::QueueTimeout => {
                f.write_str("no worker took the request within queue-timeout; raise processes= or threads= if this persists")
            }
            Self::WorkerDied(Some(pid)) => write!(f, "worker {pid} exited while it ran the request; see the group's log for the reason"),
            Self::WorkerDied(None) => f.write_str("the worker exited while it ran the request; see the group's log for the reason"),
            Self::Silent => f.write_str("the application sent nothing for longer than socket-timeout (default: Timeout)"),
            Self::RequestTimeout => f.write_str("the application took longer than request-timeout"),
            Self::Stopping => f.write_str("httpd is stopping"),
            Self::Wire(e) => write!(f, "invalid data from the worker: {e}"),
            Self::TooLarge(e) => write!(f, "the request cannot be sent to a worker: {e}"),
            Self::System(what, e) => write!(f, "{what}: {e}"),
        }
    }
}
