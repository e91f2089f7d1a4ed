//! The ways in which a request ends.
//!
//! Called by: [`super::delivery`], [`super::relay`], [`super::download`], `handler`.
use crate::handler::failure::RequestError;

/// What becomes of a response that the worker completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was passed on completely.
    Complete,
    /// It was discarded: ErrorDocument sends a response with this status (WSGIErrorOverride).
    Status(u16),
    /// It was discarded: httpd continues with this local URL (CGI's `Location: /…` with status 200).
    Redirect(Vec<u8>),
}

/// How the relay treats a response.
#[derive(Debug, Clone, Copy)]
pub struct RelayOptions {
    /// WSGIErrorOverride: responses with an error status are left to ErrorDocument.
    pub error_override: bool,
    /// Bytes of the response that are accepted from the worker while the client is slow.
    pub response_buffer: usize,
}

/// How far a failed request got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// No worker has responded. One may have run the application.
    Unanswered,
    /// No worker ran it: droverd held it for the new generation.
    HeldBySupervisor,
    /// The worker began its response or changed a session; the client has seen nothing.
    Answered,
    /// The client has received part of the response.
    Sent,
}

/// A request that failed, and how far it got.
#[derive(Debug)]
pub struct RelayError {
    /// Why it failed.
    pub cause: RequestError,
    /// How far it got.
    pub stage: Stage,
}

/// For errors before the request was sent to a worker.
impl<E: Into<RequestError>> From<E> for RelayError {
    fn from(e: E) -> Self {
        Self { cause: e.into(), stage: Stage::Unanswered }
    }
}
