//! Both directions of one running request: the client's body to the worker, the worker's answer to the client, at once.
//!
//! Responsible for: never blocking on one direction while the other has something; never passing a cut answer off as whole.
//! Must never: know httpd's types. Called by: `handler::delivery`.
use super::client::{BodyError, BodyRead, Client};
use super::download::Download;
use super::failure::Failed;
use super::frames::{Heard, Listener};
use super::upload::{Source, Upload};
use crate::dispatch::{DispatchError, Exchange, Ready, Wake, Want};
use crate::session::RequestSession;
use drover_sys::clock::monotonic_ns;
use drover_sys::wait::PollFlags;
use drover_wire::frame::{BodyFailure, Event, Header, Kind};

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
    /// Bytes of the answer that are taken over from the worker while the client is slow.
    pub answer_buffer: usize,
}

/// More time than take_by before a silent request counts as not taken: the worker reports by then.
const TAKE_GRACE_NS: u64 = 250_000_000;
/// So many pieces of the body in a row, and the answer is looked at: a worker may ask something that it needs before it reads on.
const PIECES_AT_ONCE: usize = 16;
/// How often a body is asked for again where nothing can be waited on (HTTP/2), or a filter's own time limit must be noticed.
const NO_SOCKET_NS: u64 = 20_000_000;
const FILTER_LIMIT_NS: u64 = 1_000_000_000;
/// What is given to the worker at once of a body that was read before.
const BODY_PIECE: usize = 64 * 1024;
/// Times that the worker is read before anything else is looked at.
const TURNS: u32 = 64;

/// The state of one request between being sent and its end.
pub struct Relay<'a, 'q, 's, C> {
    client: &'a mut C,
    exchange: &'a mut Exchange<'q>,
    limits: Limits,
    upload: Upload,
    source: Source<'a>,
    session: Option<&'a mut RequestSession<'s>>,
    /// The last attempt to read the body found nothing.
    starved: bool,
    /// The last attempt to push it stopped although there may be more.
    unfinished: bool,
    download: Download<'a>,
    /// Frames are here that were not looked at: a question's answer goes out first.
    unread: bool,
    /// An answer to the application's session is on its way; nothing is read from the worker until it has gone.
    replying: bool,
    body_error: Option<BodyError>,
    heard_at: u64,
    client_heard_at: u64,
    heard: bool,
    /// END has come: the worker is done.
    ended: bool,
    /// Nobody runs the request: it is on its way to the queue again.
    held: bool,
}

/// A request that failed, and whether the client has seen part of an answer.
#[derive(Debug)]
pub struct Broken {
    /// Why.
    pub failed: Failed,
    /// Part of the answer has gone out.
    pub sent: bool,
    /// The worker had begun to answer, or had changed a session.
    pub answered: bool,
    /// Nobody was running it.
    pub held: bool,
}

/// Nothing of it was sent to a worker.
impl<E: Into<Failed>> From<E> for Broken {
    fn from(e: E) -> Self {
        Self { failed: e.into(), sent: false, answered: false, held: false }
    }
}

impl<'a, 'q, 's, C: Client> Relay<'a, 'q, 's, C> {
    /// A request that has just been put on its queue.
    pub fn new(
        client: &'a mut C,
        exchange: &'a mut Exchange<'q>,
        limits: Limits,
        download: Download<'a>,
        upload: Upload,
        source: Source<'a>,
        session: Option<&'a mut RequestSession<'s>>,
    ) -> Self {
        let now = monotonic_ns();
        Self {
            client,
            exchange,
            limits,
            upload,
            source,
            session,
            starved: false,
            unfinished: false,
            download,
            unread: false,
            replying: false,
            body_error: None,
            heard_at: now,
            client_heard_at: now,
            heard: false,
            ended: false,
            held: false,
        }
    }

    /// Runs until the answer is complete or cannot be. `done` is called when the worker is done with it; the client may still be taking it.
    pub fn run(mut self, wake: &Wake, scratch: &mut [u8], mut done: impl FnMut()) -> Result<Answer, Broken> {
        match self.run_inner(wake, scratch, &mut done) {
            Ok(()) => Ok(self.download.into_answer()),
            Err(failed) => {
                let answered = self.download.has_head() || self.session.as_ref().is_some_and(|session| session.has_changed());
                Err(Broken { failed, sent: self.download.is_sent(), answered, held: self.held })
            }
        }
    }

    fn run_inner(&mut self, wake: &Wake, scratch: &mut [u8], done: &mut dyn FnMut()) -> Result<(), Failed> {
        let mut takes = false;
        loop {
            self.push_body(scratch)?;
            self.download.pass_backlog(self.client, takes, self.ended)?;
            if self.ended && self.download.is_taken() {
                return Ok(());
            }
            let ready = self.wait(wake)?;
            takes = ready.client_takes;
            if ready.answer || self.unread {
                for turn in 0.. {
                    if turn >= TURNS {
                        // A worker that never pauses has its time limit too.
                        self.check_time()?;
                        self.unread = true;
                        break;
                    }
                    if !self.wants_answer() || !(std::mem::take(&mut self.unread) || self.exchange.fill()?) {
                        break;
                    }
                    if self.take_answer(wake)? {
                        self.ended = true;
                        self.upload = Upload::Closed;
                        if let Some(session) = &mut self.session {
                            session.release();
                        }
                        done();
                    }
                }
            } else if !ready.room && !ready.client {
                if let Some(session) = &mut self.session {
                    session.withdraw(false);
                }
                self.check_time()?;
            }
        }
    }

    /// Whether more of the answer can be taken from the worker.
    fn wants_answer(&self) -> bool {
        !self.ended && (!self.replying || self.exchange.is_flushed()) && self.download.has_room()
    }

    /// Waits until something can be done.
    fn wait(&mut self, wake: &Wake) -> Result<Ready, Failed> {
        let mut until = if self.unfinished || (self.unread && self.wants_answer()) { 0 } else { self.deadline() };
        if let Some(time) = self.session.as_ref().and_then(|session| session.offered_until()) {
            until = until.min(time);
        }
        let starved = self.upload == Upload::Open && self.starved && self.exchange.is_flushed();
        let mut of_client = PollFlags::empty();
        of_client.set(PollFlags::IN, starved);
        of_client.set(PollFlags::OUT, !self.download.is_taken());
        let socket = self.client.socket();
        if starved {
            // A filter's own time limit must be noticed too, and where there is no socket, nothing can be waited on.
            until = until.min(monotonic_ns() + if socket.is_some() { FILTER_LIMIT_NS } else { NO_SOCKET_NS });
        }
        let client = socket.filter(|_| !of_client.is_empty()).map(|socket| (socket, of_client));
        let want = Want { answer: self.wants_answer(), room: !self.ended && !self.exchange.is_flushed(), client };
        let ready = self.exchange.wait(&want, wake, until)?;
        if ready.client || (starved && !ready.answer) {
            self.starved = false; // ask again: data, or a filter's time limit
        }
        Ok(ready)
    }

    /// Handles the frames that have come. True: END.
    fn take_answer(&mut self, wake: &Wake) -> Result<bool, Failed> {
        self.heard_at = monotonic_ns();
        let Self { client, exchange, upload, download, session, held, .. } = self;
        let (frames, worker) = exchange.frames();
        let mut listener =
            Listener { client: *client, upload, download, session: session.as_deref_mut(), wake, worker, pieces: Vec::new() };
        let mut heard = Heard::More;
        for event in frames {
            let event = event?;
            *held = matches!(event, Event::Frame(Header { kind: Kind::Held, .. }, _));
            heard = listener.event(event)?;
            if !matches!(heard, Heard::More) {
                break;
            }
        }
        // While it is held, it counts as not taken.
        self.heard = !*held;
        listener.deliver(matches!(heard, Heard::Ended))?;
        match heard {
            Heard::More => Ok(false),
            Heard::Ended => Ok(true),
            Heard::Reply(status, payload) => {
                self.exchange.offer_session(status as u16, &payload);
                // The application waits for it, and nothing else is read before it has it: or a worker could ask without end.
                self.exchange.flush()?;
                (self.replying, self.unread) = (true, true);
                Ok(false)
            }
            // The application failed because its body failed: the body's reason is the true one.
            Heard::Failed(failed) => Err(self.body_error.map_or(failed, Failed::Body)),
        }
    }

    /// Moves the client's body on, as far as that goes without waiting.
    fn push_body(&mut self, scratch: &mut [u8]) -> Result<(), Failed> {
        self.unfinished = false;
        for _ in 0..PIECES_AT_ONCE {
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
            if let Source::Kept(rest) | Source::Begun(rest) = self.source {
                self.push_kept(rest);
                continue;
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
        self.unfinished = true;
        Ok(())
    }

    fn push_kept(&mut self, rest: &'a [u8]) {
        let (piece, rest) = rest.split_at_checked(BODY_PIECE).unwrap_or((rest, &[]));
        let whole = matches!(self.source, Source::Kept(_));
        if !piece.is_empty() {
            self.exchange.offer(piece);
            self.source = if whole { Source::Kept(rest) } else { Source::Begun(rest) };
        } else if whole {
            self.exchange.offer_end();
            self.upload = Upload::Closed;
        } else {
            self.source = Source::Client;
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
        if self.download.is_sent() {
            return Ok(());
        }
        self.exchange.flush()?;
        Err(Failed::Body(why))
    }

    fn deadline(&self) -> u64 {
        if !self.download.is_taken() {
            // The client is waited for, not the worker.
            let client = self.download.moved_at().saturating_add(self.limits.client_silence);
            return self.limits.answer_by.filter(|_| !self.ended).map_or(client, |by| client.min(by));
        }
        // While the client's own body is awaited, the worker may be silent: it waits too.
        let since = if self.upload == Upload::Open { self.heard_at.max(self.client_heard_at) } else { self.heard_at };
        let since = since.max(self.download.moved_at());
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
        if !self.download.is_taken() && (self.ended || self.limits.answer_by.is_none_or(|by| now < by)) {
            return Err(Failed::ClientGone);
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

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
