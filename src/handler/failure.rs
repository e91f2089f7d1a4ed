//! Maps the error of a request to an HTTP status, a log level and a message code, in one place.
//!
//! Responsible for: the statuses, which are those of mod_wsgi's error reference unless docs/compatibility.md says otherwise.
//! Must never: log. Called by: `handler`.
use crate::dispatch::DispatchError;
use crate::handler::request::{BodyError, NotPassed};
use crate::messages::{Code, Level};
use drover_wire::frame::Failure;
use std::fmt;

/// Why a request has no complete response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestError {
    /// Between httpd and the worker.
    Dispatch(DispatchError),
    /// In the worker; the text is for the log.
    Worker(Failure, String),
    /// While the request body was read.
    Body(BodyError),
    /// httpd cannot send the response headers.
    Head(String),
    /// The client closed the connection.
    ClientGone,
    /// An output filter of httpd failed, or sent its own response.
    Filter(NotPassed),
    /// The changed session could not be saved.
    Session(drover_session::Error),
    /// The group is at its limit. The text is for the log; `None` when the last message was less than a second ago.
    Overloaded(Option<String>),
}

/// The response to a [`RequestError`], and how it is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorResponse {
    /// The HTTP status, if the response headers were not sent.
    pub status: u16,
    /// The level of the log message.
    pub level: Level,
    /// The code of the log message.
    pub code: Code,
    /// The value of Retry-After, in seconds.
    pub retry_after: Option<u16>,
}

impl RequestError {
    /// Whether it is logged. Frequent refusals are logged once a second.
    #[must_use]
    pub const fn is_logged(&self) -> bool {
        !matches!(self, Self::Overloaded(None) | Self::Dispatch(DispatchError::TooManyApplications { quiet: None, .. }))
    }
}

/// The error response for `error`.
#[must_use]
pub const fn error_response(error: &RequestError) -> ErrorResponse {
    let (status, level, code, retry_after) = match error {
        RequestError::Dispatch(e) => match e {
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
        RequestError::Worker(f, _) => match f {
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
        RequestError::Body(e) => match e {
            BodyError::ClientGone | BodyError::Answered => (400, Level::Info, Code::ClientGone, None),
            BodyError::Timeout => (408, Level::Info, Code::BodyRead, None),
            BodyError::TooLarge => (413, Level::Info, Code::BodyRead, None),
            BodyError::Malformed => (400, Level::Info, Code::BodyRead, None),
        },
        RequestError::Head(_) => (500, Level::Error, Code::BadResponse, None),
        RequestError::Session(drover_session::Error::TooLarge(..)) => (500, Level::Error, Code::SessionUnavailable, None),
        RequestError::Session(_) => (503, Level::Error, Code::SessionUnavailable, Some(5)),
        RequestError::Overloaded(_) => (503, Level::Warn, Code::Overloaded, Some(5)),
        RequestError::ClientGone => (400, Level::Info, Code::ClientGone, None),
        RequestError::Filter(NotPassed::Answered) => (500, Level::Info, Code::FilterFailed, None),
        RequestError::Filter(_) => (500, Level::Error, Code::FilterFailed, None),
    };
    ErrorResponse { status, level, code, retry_after }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dispatch(e) => e.fmt(f),
            Self::Worker(_, text) => f.write_str(text),
            Self::Body(BodyError::ClientGone) => f.write_str("the client closed the connection while its request body was read"),
            Self::Body(BodyError::Timeout) => f.write_str("the client sent its request body too slowly"),
            Self::Body(BodyError::TooLarge) => f.write_str("the request body is larger than LimitRequestBody allows"),
            Self::Body(BodyError::Malformed) => f.write_str("the request body is malformed"),
            Self::Body(BodyError::Answered) => f.write_str("an input filter of httpd sent the response"),
            Self::Head(why) => write!(f, "the application's response headers cannot be sent: {why}"),
            Self::Session(e) => write!(f, "the session could not be saved: {e}"),
            Self::Overloaded(text) => f.write_str(text.as_deref().unwrap_or("at its limit of requests")),
            Self::ClientGone => f.write_str("the client closed the connection before the response was complete"),
            Self::Filter(NotPassed::Answered) => {
                f.write_str("an output filter of httpd sent its own response instead of the application's")
            }
            Self::Filter(_) => f.write_str("an output filter of httpd failed; see its own message before this one"),
        }
    }
}

impl From<DispatchError> for RequestError {
    fn from(e: DispatchError) -> Self {
        Self::Dispatch(e)
    }
}

impl From<NotPassed> for RequestError {
    fn from(e: NotPassed) -> Self {
        match e {
            NotPassed::Gone => Self::ClientGone,
            other => Self::Filter(other),
        }
    }
}
