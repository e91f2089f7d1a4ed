//! A request that is ready: put on its queue, relayed until its end, and sent once more where that does no harm.
//!
//! Responsible for: which request may run twice. Must never: send again what a worker may have acted on, but for what DroverRetry allows. Called
//! by: `handler::mod`.
use super::Task;
use super::account::Account;
use super::admission::Ticket;
use super::client::Client;
use super::download::Download;
use super::failure::Failed;
use super::line::Line;
use super::relay::{Answer, Broken, Limits, Manner, Relay};
use super::upload::Received;
use crate::dispatch::{DispatchError, Exchange, Outgoing};
use crate::httpd::{Level, Request};
use crate::messages::Code;
use crate::session::RequestSession;

/// See the head of this file.
pub struct Delivery<'d, 's, 't> {
    /// What it is about.
    pub task: Task<'t>,
    /// Its queue.
    pub line: Line<'t>,
    /// It is counted.
    pub ticket: Ticket<'t>,
    /// What is put on the queue.
    pub message: Outgoing<'d>,
    /// Its limits.
    pub limits: Limits,
    /// Until when room on the queue is waited for, CLOCK_MONOTONIC nanoseconds.
    pub until: u64,
    /// Its body, as far as it was read.
    pub received: &'d Received<'t>,
    /// Its sessions.
    pub session: Option<&'d mut RequestSession<'s>>,
}

impl Delivery<'_, '_, '_> {
    /// Runs it. `answer` and `scratch` are buffers.
    pub fn run(mut self, r: &mut Request<'_>, answer: &mut Vec<u8>, scratch: &mut [u8]) -> Result<Answer, Broken> {
        let Task { settings, group, context, .. } = self.task;
        let manner = Manner { error_override: settings.error_override, answer_buffer: group.answer_buffer };
        let mut retried = false;
        loop {
            let mut must_wait = || {
                if let Some(session) = &mut self.session {
                    session.withdraw_lease(true);
                }
            };
            let buffer = std::mem::take(answer);
            let mut exchange = match Exchange::send(&self.line.queue, self.message, buffer, context.wake, self.until, &mut must_wait) {
                Ok(exchange) => exchange,
                Err(e) => {
                    self.line.open_again(e)?;
                    continue;
                }
            };
            let download = Download::new(manner, Account::open(&context.gate));
            let (upload, source) = (self.received.upload, self.received.source());
            let result = Relay::new(r, &mut exchange, self.limits, download, upload, source, self.session.as_deref_mut()).run(
                context.wake,
                scratch,
                || self.ticket.leave_queue(),
            );
            *answer = exchange.finish(result.is_ok());
            match result {
                Err(broken) if !retried && self.may_run_again(&broken, r) => {
                    self.log_retry(r, &broken);
                    retried = true;
                }
                result => {
                    self.pass_cookie(r, &result);
                    return result;
                }
            }
        }
    }

    /// Whether a request that its worker has not answered may run once more.
    fn may_run_again(&self, broken: &Broken, r: &Request<'_>) -> bool {
        let silent = matches!(broken, Broken { failed: Failed::Dispatch(DispatchError::WorkerDied(_)), sent: false, answered: false, .. });
        silent && (self.is_harmless(r) || (broken.held && self.received.is_whole()))
    }

    /// DroverRetry is on, and the request is one that may be made twice.
    fn is_harmless(&self, r: &Request<'_>) -> bool {
        self.task.settings.retry && self.received.is_empty() && r.method().is_some_and(is_safe)
    }

    fn log_retry(&self, r: &Request<'_>, broken: &Broken) {
        let text = match broken.failed {
            _ if broken.held => "droverd died while it held the request for the new code; the request is queued again".to_owned(),
            Failed::Dispatch(DispatchError::WorkerDied(Some(pid))) => {
                format!("worker {pid} died before it answered the request, which runs once more in another worker")
            }
            _ => "the worker that had taken the request died before it answered; the request runs once more in another worker".to_owned(),
        };
        let (about, group) = (self.message.about.escape_ascii(), self.task.selection.key.group.escape_ascii());
        r.log(Level::Warn, Code::Retried, &format!("{text}: {about} (group '{group}')"));
    }

    /// Its session was saved under a new name: the client must learn it although the application failed afterwards.
    fn pass_cookie(&mut self, r: &mut Request<'_>, result: &Result<Answer, Broken>) {
        if let Err(Broken { sent: false, .. }) = result
            && let Some(cookie) = self.session.as_mut().and_then(|session| session.take_cookie())
        {
            r.set_cookie(&cookie);
        }
    }
}

/// RFC 9110 §9.2.1: asked for again, such a request does no harm.
fn is_safe(method: &[u8]) -> bool {
    matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE")
}
