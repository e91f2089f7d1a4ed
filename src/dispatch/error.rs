//! What can go wrong between httpd and a worker.
use drover_wire::WireError;
use std::fmt;

/// Why a request could not be dispatched, or its answer not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DispatchError {
    /// droverd did not answer until the deadline.
    SupervisorSilent,
    /// droverd refuses to open the queue.
    Refused(String),
    /// droverd knows no such group.
    UnknownGroup,
    /// The group has its fill of application groups.
    TooManyApplications {
        /// max-application-groups, or as many as the configuration names.
        limit: u32,
        /// Refusals that were not logged before this one; `None`: this one is not logged either.
        quiet: Option<u32>,
    },
    /// No room in the queue until the deadline, or nobody took the request.
    QueueTimeout,
    /// The worker closed the way back without END. Its process id, if it had said it.
    WorkerDied(Option<u32>),
    /// Nothing came until the deadline for the next sign of life.
    Silent,
    /// The request's whole time is over.
    RequestTimeout,
    /// httpd ends this process.
    Stopping,
    /// What came is not our protocol.
    Wire(WireError),
    /// The request itself is too large for the protocol.
    TooLarge(WireError),
    /// The system refused something: what, and its error.
    System(&'static str, drover_sys::Errno),
}

impl fmt::Display for DispatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SupervisorSilent => f.write_str("droverd did not answer in time; its own messages in the error log say why"),
            Self::Refused(why) => write!(f, "droverd refuses: {why}"),
            Self::UnknownGroup => f.write_str("droverd does not know the group: its last configuration could not be handed over"),
            Self::TooManyApplications { limit, quiet } => {
                write!(
                    f,
                    "all {limit} application groups of the group are in use; give scripts that may share one process the same WSGIApplicationGroup, or raise max-application-groups="
                )?;
                quiet.filter(|n| *n > 0).map_or(Ok(()), |n| write!(f, " ({n} earlier requests were refused without a message)"))
            }
            Self::QueueTimeout => {
                f.write_str("no process took the request within queue-timeout; raise processes= or threads= if this lasts")
            }
            Self::WorkerDied(Some(pid)) => write!(f, "worker {pid}, which ran the request, has ended; the group's log says how"),
            Self::WorkerDied(None) => f.write_str("the worker that had taken the request has ended; the group's log says how"),
            Self::Silent => f.write_str("the application sent nothing for longer than socket-timeout (default: Timeout)"),
            Self::RequestTimeout => f.write_str("the application took longer than request-timeout"),
            Self::Stopping => f.write_str("httpd is stopping"),
            Self::Wire(e) => write!(f, "a worker's answer was not understood: {e}"),
            Self::TooLarge(e) => write!(f, "the request cannot be passed on: {e}"),
            Self::System(what, e) => write!(f, "{what}: {e}"),
        }
    }
}
