//! Sends a request to its queue, relays it until its end, and retries it where that does no harm.
//!
//! Responsible for: the decision which request may run twice. Must never: retry a request that a worker may have acted on,
//! unless DroverRetry allows it. Called by: `handler`.
use super::download::Download;
use super::outcome::{Outcome, RelayError, RelayOptions, Stage};
use super::queue::RequestQueue;
use super::relay::Relay;
use super::upload::Received;
use crate::dispatch::{DispatchError, InFlight, Outgoing};
use crate::handler::failure::RequestError;
use crate::handler::limits::{MemoryAccount, Ticket, TimeLimits};
use crate::handler::request::RequestView;
use crate::handler::task::Task;
use crate::messages::{Code, Level};
use crate::session::RequestSession;

/// A request that is ready to be sent.
pub struct Delivery<'d, 's, 't> {
    /// What it is about.
    pub task: Task<'t>,
    /// Its queue.
    pub queue: RequestQueue<'t>,
    /// Its place in the counters.
    pub ticket: Ticket<'t>,
    /// Its message.
    pub message: Outgoing<'d>,
    /// Its time limits.
    pub limits: TimeLimits,
    /// Until when it waits for room in the queue, CLOCK_MONOTONIC nanoseconds.
    pub until: u64,
    /// The part of its body that was read.
    pub received: &'d Received<'t>,
    /// Its session access.
    pub session: Option<&'d mut RequestSession<'s>>,
}

impl Delivery<'_, '_, '_> {
    /// Runs it. `response` and `scratch` are buffers.
    pub fn run<'r>(mut self, r: &mut impl RequestView<'r>, response: &mut Vec<u8>, scratch: &mut [u8]) -> Result<Outcome, RelayError> {
        let Task { settings, group, context, .. } = self.task;
        let options = RelayOptions { error_override: settings.error_override, response_buffer: group.answer_buffer };
        let mut retried = false;
        loop {
            let mut before_waiting = || {
                if let Some(session) = &mut self.session {
                    session.withdraw_lease(true);
                }
            };
            let buffer = std::mem::take(response);
            let sent = InFlight::send(&self.queue.queue, self.message, buffer, context.wake, self.until, &mut before_waiting);
            let mut in_flight = match sent {
                Ok(in_flight) => in_flight,
                Err(e) => {
                    self.queue.reopen(e)?;
                    continue;
                }
            };
            let download = Download::new(options, MemoryAccount::open(&context.admission));
            let (upload, source) = (self.received.upload, self.received.source());
            let session = self.session.as_deref_mut();
            let relay = Relay::new(r, &mut in_flight, self.limits, download, upload, source, session);
            let result = relay.run(context.wake, scratch, || self.ticket.leave_queue());
            *response = in_flight.finish(result.is_ok());
            match result {
                Err(error) if !retried && self.may_retry(&error, r) => {
                    self.log_retry(r, &error);
                    retried = true;
                }
                result => {
                    self.keep_cookie(r, &result);
                    return result;
                }
            }
        }
    }

    /// Whether the request may run again after its worker exited.
    fn may_retry<'r>(&self, error: &RelayError, r: &impl RequestView<'r>) -> bool {
        matches!(error.cause, RequestError::Dispatch(DispatchError::WorkerDied(_)))
            && match error.stage {
                Stage::HeldBySupervisor => self.is_harmless(r) || self.received.is_whole(),
                Stage::Unanswered => self.is_harmless(r),
                Stage::Answered | Stage::Sent => false,
            }
    }

    /// DroverRetry is on, the method is safe and there is no body.
    fn is_harmless<'r>(&self, r: &impl RequestView<'r>) -> bool {
        self.task.settings.retry && self.received.is_empty() && r.method().is_some_and(is_safe)
    }

    fn log_retry<'r>(&self, r: &impl RequestView<'r>, error: &RelayError) {
        let text = match error.cause {
            _ if error.stage == Stage::HeldBySupervisor => {
                "droverd exited while it held the request for the new code; the request is queued again".to_owned()
            }
            RequestError::Dispatch(DispatchError::WorkerDied(Some(pid))) => {
                format!("worker {pid} exited before it responded; retrying the request on another worker")
            }
            _ => "the worker exited before it responded; retrying the request on another worker".to_owned(),
        };
        let (about, group) = (self.message.about.escape_ascii(), self.task.selection.key.group.escape_ascii());
        r.log(Level::Warn, Code::Retried, &format!("group '{group}': {text}: {about}"));
    }

    /// When the session was saved under a new name, the client needs the cookie although the application failed afterwards.
    fn keep_cookie<'r>(&mut self, r: &mut impl RequestView<'r>, result: &Result<Outcome, RelayError>) {
        if result.as_ref().is_err_and(|error| error.stage != Stage::Sent)
            && let Some(cookie) = self.session.as_mut().and_then(|session| session.take_cookie())
        {
            r.set_cookie(&cookie);
        }
    }
}

/// The safe methods of RFC 9110 §9.2.1: repeating such a request does no harm.
fn is_safe(method: &[u8]) -> bool {
    matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE")
}
