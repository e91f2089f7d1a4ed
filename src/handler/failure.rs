//! What a failed request becomes: HTTP status, log level and code, in exactly one place.
//!
//! Called by: `handler`. The statuses are mod_wsgi's (its error reference) where docs/compatibility.md does not say otherwise.
use crate::dispatch::DispatchError;
use crate::handler::client::{BodyError, NotPassed};
use crate::httpd::Level;
use crate::messages::Code;
use drover_wire::frame::Failure;
use std::fmt;

/// Why a request has no whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failed {
    /// On the way to a worker or back.
    Dispatch(DispatchError),
    /// In the worker; the text is its one line for the log.
    Worker(Failure, String),
    /// While the client's body was read.
    Body(BodyError),
    /// A head that httpd cannot send.
    Head(String),
    /// The client does not take the answer.
    ClientGone,
    /// An output filter of httpd does not; it may have answered itself.
    Filter(NotPassed),
    /// The session that the application had changed could not be saved.
    Session(drover_session::Error),
    /// The group has as many requests as it may have; the text is for the log, and `None` when it was logged just now.
    Overloaded(Option<String>),
}

/// What follows from a [`Failed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// HTTP status, if the head has not been sent.
    pub status: u16,
    /// Level of the log line.
    pub level: Level,
    /// Its code.
    pub code: Code,
    /// Seconds for Retry-After.
    pub retry_after: Option<u16>,
}

impl Failed {
    /// Whether it is logged: what comes in crowds is logged once a second.
    #[must_use]
    pub const fn is_logged(&self) -> bool {
        !matches!(self, Self::Overloaded(None) | Self::Dispatch(DispatchError::TooManyApplications { quiet: None, .. }))
    }
}

/// The one function that decides.
#[must_use]
pub const fn verdict(failed: &Failed) -> Verdict {
    let (status, level, code, retry_after) = match failed {
        Failed::Dispatch(e) => match e {
            DispatchError::SupervisorSilent => (503, Level::Error, Code::SupervisorSilent, Some(5)),
            DispatchError::Refused(_) => (503, Level::Error, Code::OpenRefused, Some(5)),
            DispatchError::UnknownGroup => (500, Level::Error, Code::UnknownGroup, None),
            DispatchError::TooManyApplications { .. } => (503, Level::Error, Code::TooManyApplications, Some(5)),
            DispatchError::QueueTimeout => (503, Level::Error, Code::QueueTimeout, Some(5)),
            DispatchError::WorkerDied(_) => (502, Level::Error, Code::WorkerDied, None),
            DispatchError::Silent => (504, Level::Error, Code::SocketTimeout, None),
            DispatchError::RequestTimeout => (504, Level::Error, Code::RequestTimeout, None),
            DispatchError::Stopping => (503, Level::Info, Code::Stopping, Some(5)),
            DispatchError::Wire(_) => (502, Level::Error, Code::BadFrame, None),
            DispatchError::TooLarge(_) => (500, Level::Error, Code::RequestTooLarge, None),
            DispatchError::System(..) => (503, Level::Error, Code::System, Some(5)),
        },
        Failed::Worker(f, _) => match f {
            Failure::Exception => (500, Level::Error, Code::Exception, None),
            Failure::Import => (503, Level::Error, Code::Import, Some(10)),
            Failure::ScriptMissing => (404, Level::Error, Code::ScriptMissing, None),
            Failure::NoCallable => (404, Level::Error, Code::NoCallable, None),
            Failure::SystemExit => (500, Level::Error, Code::SystemExit, None),
            Failure::BadResponse => (500, Level::Error, Code::BadResponse, None),
            Failure::Timeout => (504, Level::Error, Code::RequestTimeout, None),
            Failure::Expired => (503, Level::Error, Code::QueueTimeout, Some(5)),
            Failure::CannotStart => (503, Level::Error, Code::CannotStart, Some(10)),
            Failure::Stopping => (503, Level::Warn, Code::Stopping, Some(5)),
            Failure::ClientGone => (400, Level::Info, Code::ClientGone, None),
            Failure::Internal => (500, Level::Error, Code::WorkerInternal, None),
            Failure::Session => (503, Level::Error, Code::SessionUnavailable, Some(5)),
        },
        Failed::Body(e) => match e {
            BodyError::ClientGone | BodyError::Answered => (400, Level::Info, Code::ClientGone, None),
            BodyError::Timeout => (408, Level::Info, Code::BodyRead, None),
            BodyError::TooLarge => (413, Level::Info, Code::BodyRead, None),
            BodyError::Malformed => (400, Level::Info, Code::BodyRead, None),
        },
        Failed::Head(_) => (500, Level::Error, Code::BadResponse, None),
        Failed::Session(drover_session::Error::TooLarge(..)) => (500, Level::Error, Code::SessionUnavailable, None),
        Failed::Session(_) => (503, Level::Error, Code::SessionUnavailable, Some(5)),
        Failed::Overloaded(_) => (503, Level::Warn, Code::Overloaded, Some(5)),
        Failed::ClientGone => (400, Level::Info, Code::ClientGone, None),
        Failed::Filter(NotPassed::Answered) => (500, Level::Info, Code::FilterFailed, None),
        Failed::Filter(_) => (500, Level::Error, Code::FilterFailed, None),
    };
    Verdict { status, level, code, retry_after }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dispatch(e) => e.fmt(f),
            Self::Worker(_, text) => f.write_str(text),
            Self::Body(BodyError::ClientGone) => f.write_str("the client went away while its request was read"),
            Self::Body(BodyError::Timeout) => f.write_str("the client was too slow to send its request's body"),
            Self::Body(BodyError::TooLarge) => f.write_str("the request's body is larger than LimitRequestBody allows"),
            Self::Body(BodyError::Malformed) => f.write_str("the request's body is malformed"),
            Self::Body(BodyError::Answered) => f.write_str("an input filter has answered the request"),
            Self::Head(why) => write!(f, "the application's head cannot be sent: {why}"),
            Self::Session(e) => write!(f, "the session could not be saved: {e}"),
            Self::Overloaded(text) => f.write_str(text.as_deref().unwrap_or("the group has as many requests as it may have")),
            Self::ClientGone => f.write_str("the client went away before the answer was complete"),
            Self::Filter(NotPassed::Answered) => f.write_str("an output filter of httpd has answered in the application's place"),
            Self::Filter(_) => f.write_str("an output filter of httpd has failed; its own message stands above"),
        }
    }
}

impl From<DispatchError> for Failed {
    fn from(e: DispatchError) -> Self {
        Self::Dispatch(e)
    }
}

impl From<NotPassed> for Failed {
    fn from(e: NotPassed) -> Self {
        match e {
            NotPassed::Gone => Self::ClientGone,
            other => Self::Filter(other),
        }
    }
}
