//! Both directions of one running request: the client's body to the worker, the worker's answer to the client, at once.
//!
//! Responsible for: never blocking on one direction while the other has something; never passing a cut answer off as whole.
//! Must never: know httpd's types. Called by: `handler::mod`.
use super::client::{BodyError, BodyRead, Client, Gone, Pass};
use super::failure::Failed;
use crate::dispatch::{DispatchError, Exchange, Wake};
use drover_sys::clock::monotonic_ns;
use drover_wire::frame::{BodyFailure, Event, Failure, Kind};
use drover_wire::head::Head;

/// Limits of one request; times are nanoseconds, deadlines CLOCK_MONOTONIC.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest silence of the worker.
    pub silence: u64,
    /// Longest silence of the client while its body is read.
    pub client_silence: u64,
    /// When some worker must have taken the request.
    pub take_by: Option<u64>,
    /// When the answer must be complete.
    pub answer_by: Option<u64>,
}

/// What is done with an answer's body when it is not simply passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Passed on whole.
    Whole,
    /// Not passed on: the status is left to ErrorDocument (WSGIErrorOverride).
    Status(u16),
    /// Not passed on: go on with this local URL (a CGI-style `Location: /…` with status 200).
    Redirect(Vec<u8>),
}

/// What the caller knows of the request.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// The answer has no body whatever the application yields (HEAD is left to httpd's filters).
    pub error_override: bool,
}

/// Where the body stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upload {
    /// It was all in the message, or there is none.
    None,
    /// It waits until the application wants it (`Expect: 100-continue`).
    OnDemand,
    /// It is being sent.
    Open,
    /// It has been sent, or failed, or the worker does not want it.
    Closed,
}

/// More time than take_by before a silent request counts as not taken: the worker reports by then.
const TAKE_GRACE_NS: u64 = 250_000_000;
/// How often a body is asked for again where nothing can be waited on (HTTP/2), or a filter's own time limit must be noticed.
const NO_SOCKET_NS: u64 = 20_000_000;
const FILTER_LIMIT_NS: u64 = 1_000_000_000;

/// The state of one request between being sent and its end.
pub struct Relay<'a, 'q, C> {
    client: &'a mut C,
    exchange: &'a mut Exchange<'q>,
    limits: Limits,
    manner: Manner,
    upload: Upload,
    /// The last attempt to read the body found nothing.
    starved: bool,
    answer: Answer,
    head_set: bool,
    /// Something was passed to the client: its status cannot change any more.
    sent: bool,
    bodiless: bool,
    body_error: Option<BodyError>,
    heard_at: u64,
    client_heard_at: u64,
    heard: bool,
}

/// A request that failed, and whether the client has seen part of an answer.
#[derive(Debug)]
pub struct Broken {
    /// Why.
    pub failed: Failed,
    /// Part of the answer has gone out.
    pub sent: bool,
}

impl<'a, 'q, C: Client> Relay<'a, 'q, C> {
    /// A request that has just been put on its queue.
    pub fn new(client: &'a mut C, exchange: &'a mut Exchange<'q>, limits: Limits, manner: Manner, upload: Upload) -> Self {
        let now = monotonic_ns();
        Self {
            client,
            exchange,
            limits,
            manner,
            upload,
            starved: false,
            answer: Answer::Whole,
            head_set: false,
            sent: false,
            bodiless: false,
            body_error: None,
            heard_at: now,
            client_heard_at: now,
            heard: false,
        }
    }

    /// Runs until the answer is complete or cannot be.
    pub fn run(mut self, wake: &Wake, scratch: &mut [u8]) -> Result<Answer, Broken> {
        match self.run_inner(wake, scratch) {
            Ok(()) => Ok(self.answer),
            Err(failed) => Err(Broken { failed, sent: self.sent }),
        }
    }

    fn run_inner(&mut self, wake: &Wake, scratch: &mut [u8]) -> Result<(), Failed> {
        loop {
            self.push_body(scratch)?;
            let until = self.deadline();
            let waits_for_client = self.upload == Upload::Open && self.starved && self.exchange.is_flushed();
            let (socket, until) = match (waits_for_client, self.client.socket()) {
                (false, _) => (None, until),
                (true, Some(socket)) => (Some(socket), until.min(monotonic_ns() + FILTER_LIMIT_NS)),
                (true, None) => (None, until.min(monotonic_ns() + NO_SOCKET_NS)),
            };
            let ready = self.exchange.wait(!self.exchange.is_flushed(), socket, wake, until)?;
            if ready.client || (waits_for_client && !ready.answer) {
                self.starved = false; // ask again: data, or a filter's time limit
            }
            if ready.answer {
                while self.exchange.fill()? {
                    if self.take_answer()? {
                        return Ok(());
                    }
                }
            } else if !ready.room && !ready.client {
                self.check_time()?;
            }
        }
    }

    /// Handles the frames that have come. True: END.
    fn take_answer(&mut self) -> Result<bool, Failed> {
        self.heard_at = monotonic_ns();
        self.heard = true;
        let Self { client, exchange, manner, upload, answer, head_set, sent, bodiless, body_error, .. } = self;
        let mut pieces: Vec<&[u8]> = Vec::new();
        let mut ended = false;
        let mut failure = None;
        for event in exchange.frames() {
            match event? {
                Event::Body(bytes) if *head_set => {
                    if *answer == Answer::Whole && !*bodiless && !bytes.is_empty() {
                        pieces.push(bytes);
                    }
                }
                Event::Body(_) => return Err(wire("a body before its head")),
                Event::Frame(header, payload) => match header.kind {
                    Kind::Head if !*head_set => {
                        let head = Head::decode(payload).map_err(DispatchError::Wire)?;
                        *bodiless = matches!(head.status, 204 | 304);
                        *answer = answer_for(&head, *manner);
                        if *answer == Answer::Whole {
                            client.set_head(&head).map_err(|e| Failed::Head(e.0))?;
                        }
                        *head_set = true;
                    }
                    Kind::Head => return Err(wire("a second head")),
                    Kind::End if *head_set => ended = true,
                    Kind::End => return Err(wire("an end before its head")),
                    Kind::Fail => {
                        failure = Some(Failed::Worker(Failure::from_code(header.code), String::from_utf8_lossy(payload).into_owned()));
                    }
                    Kind::Log => client.application_log(header.code, payload),
                    Kind::Want => {
                        if *upload == Upload::OnDemand {
                            *upload = Upload::Open;
                        }
                    }
                    Kind::Session => return Err(wire("a session's frame without sessions")),
                    Kind::Taken | Kind::Body => {}
                },
            }
            if ended || failure.is_some() {
                break;
            }
        }
        if *answer == Answer::Whole && (ended || !pieces.is_empty()) {
            *sent = true;
            let how = if ended { Pass::End } else { Pass::Flush };
            client.pass(&pieces, how).map_err(|Gone| Failed::ClientGone)?;
        }
        match failure {
            // The application failed because its body failed: the body's reason is the true one.
            Some(failed) => Err(body_error.map_or(failed, Failed::Body)),
            None => Ok(ended),
        }
    }

    /// Moves the client's body on, as far as that goes without waiting.
    fn push_body(&mut self, scratch: &mut [u8]) -> Result<(), Failed> {
        loop {
            if !self.exchange.is_flushed() {
                if !self.exchange.flush()? {
                    self.upload = Upload::Closed; // the worker wants no more of it; its answer says the rest
                }
                if !self.exchange.is_flushed() {
                    return Ok(());
                }
            }
            if self.upload != Upload::Open || self.starved {
                return Ok(());
            }
            match self.client.read_body(scratch, false) {
                BodyRead::Data(n) => {
                    self.client_heard_at = monotonic_ns();
                    self.exchange.offer(scratch.get(..n).unwrap_or_default());
                }
                BodyRead::End => {
                    self.exchange.offer_end();
                    self.upload = Upload::Closed;
                }
                BodyRead::NotYet => {
                    self.starved = true;
                    if monotonic_ns().saturating_sub(self.client_heard_at) > self.limits.client_silence {
                        self.body_failed(BodyError::Timeout)?;
                    }
                }
                BodyRead::Failed(why) => self.body_failed(why)?,
            }
        }
    }

    /// The body broke off. The worker is told, so that no application takes it for whole. Before any of the answer was sent
    /// the request ends here with the status of the cause.
    fn body_failed(&mut self, why: BodyError) -> Result<(), Failed> {
        self.exchange.offer_failure(match why {
            BodyError::ClientGone | BodyError::Answered => BodyFailure::ClientGone,
            BodyError::Timeout => BodyFailure::Timeout,
            BodyError::TooLarge => BodyFailure::TooLarge,
            BodyError::Malformed => BodyFailure::Malformed,
        });
        self.upload = Upload::Closed;
        self.body_error = Some(why);
        if self.sent {
            return Ok(());
        }
        self.exchange.flush()?;
        Err(Failed::Body(why))
    }

    fn deadline(&self) -> u64 {
        // While the client's own body is awaited, the worker may be silent: it waits too.
        let since = if self.upload == Upload::Open { self.heard_at.max(self.client_heard_at) } else { self.heard_at };
        let mut until = since.saturating_add(self.limits.silence);
        if let Some(take_by) = self.limits.take_by.filter(|_| !self.heard) {
            until = until.min(take_by.saturating_add(TAKE_GRACE_NS));
        }
        self.limits.answer_by.map_or(until, |by| until.min(by))
    }

    fn check_time(&self) -> Result<(), Failed> {
        let now = monotonic_ns();
        if now < self.deadline() {
            return Ok(());
        }
        let error = if self.limits.answer_by.is_some_and(|by| now >= by) {
            DispatchError::RequestTimeout
        } else if !self.heard && self.limits.take_by.is_some_and(|by| now >= by) {
            DispatchError::QueueTimeout
        } else {
            DispatchError::Silent
        };
        Err(error.into())
    }
}

const fn wire(what: &'static str) -> Failed {
    Failed::Dispatch(DispatchError::Wire(drover_wire::WireError::Bad(what)))
}

fn answer_for(head: &Head<'_>, manner: Manner) -> Answer {
    if manner.error_override && head.status >= 400 {
        return Answer::Status(head.status);
    }
    if head.status == 200 {
        let location = head.fields.flatten().find(|(name, _)| name.eq_ignore_ascii_case(b"Location"));
        if let Some((_, url)) = location.filter(|(_, url)| url.starts_with(b"/")) {
            return Answer::Redirect(url.to_vec());
        }
    }
    Answer::Whole
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
