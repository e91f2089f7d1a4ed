//! Both directions of one running request: the client's body to the worker, the worker's answer to the client, at once.
//!
//! Responsible for: never blocking on one direction while the other has something; never passing a cut answer off as whole.
//! Must never: know httpd's types. Called by: `handler::delivery`.
use super::client::{BodyError, BodyRead, Client};
use super::download::Download;
use super::failure::Failed;
use super::frames::{Heard, Listener};
use super::phase::{Holder, Receiving, Sending, is_progress};
use super::upload::{Source, Upload};
use crate::dispatch::{DispatchError, Exchange, Ready, Wake, Want};
use crate::session::RequestSession;
use drover_sys::clock::monotonic_ns;
use drover_sys::wait::PollFlags;
use drover_wire::frame::{BodyFailure, Event, Kind};

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
/// How often the client is asked again where nothing can be waited on (HTTP/2), or a filter's own time limit must be noticed.
const LEAST_LOOK_NS: u64 = 1_000_000;
const NO_SOCKET_NS: u64 = 20_000_000;
const FILTER_LIMIT_NS: u64 = 1_000_000_000;
/// What is given to the worker at once of a body that was read before.
const BODY_PIECE: usize = 64 * 1024;
/// Bytes of the request body sent while nothing is read from a worker that may be waiting for the answer about a session. It keeps
/// what comes before that answer, up to twice as much.
const MAX_SENT_UNHEARD: usize = 4 * 1024 * 1024;
/// Times that the worker is read before anything else is looked at.
const TURNS: u32 = 64;

/// The state of one request between being sent and its end.
pub struct Relay<'a, 'q, 's, C> {
    client: &'a mut C,
    exchange: &'a mut Exchange<'q>,
    limits: Limits,
    sending: Sending,
    source: Source<'a>,
    session: Option<&'a mut RequestSession<'s>>,
    download: Download<'a>,
    receiving: Receiving,
    holder: Holder,
    body_error: Option<BodyError>,
    /// Bytes of the request body sent since everything that the worker had said was read.
    sent_unheard: usize,
    /// When the worker last made progress.
    heard_at: u64,
    /// When the client last sent some of its body.
    client_heard_at: u64,
    /// When the client was last known to be connected.
    connected_at: u64,
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
            sending: upload.into(),
            source,
            session,
            download,
            receiving: Receiving::Awaited,
            holder: Holder::Queue,
            body_error: None,
            sent_unheard: 0,
            heard_at: now,
            client_heard_at: now,
            connected_at: now,
        }
    }

    /// Runs until the answer is complete or cannot be. `done` is called when the worker is done with it; the client may still be taking it.
    pub fn run(mut self, wake: &Wake, scratch: &mut [u8], mut done: impl FnMut()) -> Result<Answer, Broken> {
        match self.run_inner(wake, scratch, &mut done) {
            Ok(()) => Ok(self.download.into_answer()),
            Err(failed) => {
                let answered = self.download.has_head() || self.session.as_ref().is_some_and(|session| session.has_changed());
                Err(Broken { failed, sent: self.download.is_sent(), answered, held: self.holder == Holder::Supervisor })
            }
        }
    }

    fn run_inner(&mut self, wake: &Wake, scratch: &mut [u8], done: &mut dyn FnMut()) -> Result<(), Failed> {
        let mut takes = false;
        loop {
            let unfinished = self.push_body(scratch)?;
            self.download.pass_backlog(self.client, takes, self.has_ended())?;
            if self.has_ended() && self.download.is_taken() {
                return Ok(());
            }
            let ready = self.wait(wake, unfinished)?;
            takes = ready.client_takes;
            let nothing = !(ready.answer || ready.room || ready.client);
            if ready.answer || self.receiving == Receiving::Unread {
                self.read_worker(wake, done)?;
                self.check_silence()?;
            } else if nothing {
                self.check_silence()?;
            }
            if let Some(session) = &mut self.session {
                session.withdraw_lease(false);
            }
            self.check_limits()?;
        }
    }

    /// Handles what the worker sent, for a bounded number of turns.
    fn read_worker(&mut self, wake: &Wake, done: &mut dyn FnMut()) -> Result<(), Failed> {
        for _ in 0..TURNS {
            if !self.wants_answer() {
                return Ok(());
            }
            if let Some(session) = &self.session {
                self.exchange.limit_sessions(session.largest_question(self.download.has_memory()));
            }
            let unread;
            (self.receiving, unread) = self.receiving.resume();
            if !(unread || self.exchange.fill()?) {
                self.sent_unheard = 0;
                return Ok(());
            }
            let ended = self.take_answer(wake)?;
            self.download.count_frames(self.exchange.kept());
            if ended {
                self.receiving = Receiving::Ended;
                self.sending = Sending::Done;
                if let Some(session) = &mut self.session {
                    session.release();
                }
                done();
            }
        }
        // A worker that never pauses has its time limits too.
        self.receiving = self.receiving.left();
        Ok(())
    }

    fn has_ended(&self) -> bool {
        self.receiving == Receiving::Ended
    }

    /// Whether more of the answer can be taken from the worker. Not while the answer to its question is on its way, or a worker
    /// could ask without end.
    fn wants_answer(&self) -> bool {
        !self.has_ended() && !self.exchange.owes_session() && self.download.has_room()
    }

    /// Waits until something can be done. `unfinished`: the client may have more of its body now.
    fn wait(&mut self, wake: &Wake, unfinished: bool) -> Result<Ready, Failed> {
        let now = unfinished || (self.receiving == Receiving::Unread && self.wants_answer());
        let mut until = if now { 0 } else { self.deadline().min(self.check_client_at()) };
        if let Some(time) = self.session.as_ref().and_then(|session| session.lease_check_at()) {
            until = until.min(time);
        }
        let starved = self.sending == Sending::Starved && self.exchange.is_flushed();
        let mut of_client = PollFlags::empty();
        of_client.set(PollFlags::IN, starved);
        of_client.set(PollFlags::OUT, !self.download.is_taken());
        let socket = self.client.socket();
        // Where there is no socket, nothing can be waited on: the longer nothing came, the less often the client is asked.
        let look_again = |since: u64| {
            let now = monotonic_ns();
            now.saturating_add(now.saturating_sub(since).clamp(LEAST_LOOK_NS, NO_SOCKET_NS))
        };
        if starved {
            // A filter's own time limit must be noticed too.
            let again = if socket.is_some() { monotonic_ns() + FILTER_LIMIT_NS } else { look_again(self.client_heard_at) };
            until = until.min(again);
        }
        if socket.is_none() && !self.download.is_taken() {
            until = until.min(look_again(self.download.moved_at()));
        }
        let client = socket.filter(|_| !of_client.is_empty()).map(|socket| (socket, of_client));
        let want = Want { answer: self.wants_answer(), room: !self.has_ended() && !self.exchange.is_flushed(), client };
        let ready = self.exchange.wait(&want, wake, until)?;
        if ready.client || (starved && !ready.answer) {
            self.sending = self.sending.fed(); // ask again: data, or a filter's time limit
        }
        Ok(ready)
    }

    /// Handles the frames that have come. True: END.
    fn take_answer(&mut self, wake: &Wake) -> Result<bool, Failed> {
        let Self { client, exchange, sending, download, session, holder, .. } = self;
        let (frames, worker) = exchange.frames();
        let mut listener =
            Listener { client: *client, sending, download, session: session.as_deref_mut(), wake, worker, pieces: Vec::new() };
        let mut heard = Heard::More;
        let mut progress = false;
        for event in frames {
            let event = event?;
            let kind = match &event {
                Event::Body(_) => Kind::Body,
                Event::Frame(header, _) | Event::Oversized(header, _) => header.kind,
                Event::Skipped => Kind::Session,
            };
            *holder = Holder::after(kind);
            progress |= is_progress(kind);
            heard = listener.event(event)?;
            if !matches!(heard, Heard::More) {
                break;
            }
        }
        listener.deliver(matches!(heard, Heard::Ended))?;
        if progress {
            self.heard_at = monotonic_ns();
        }
        match heard {
            Heard::More => Ok(false),
            Heard::Ended => Ok(true),
            Heard::Reply(status, payload) => {
                self.exchange.offer_session(status as u16, &payload);
                self.exchange.flush()?;
                self.receiving = Receiving::Unread;
                Ok(false)
            }
            // The application failed because its body failed: the body's reason is the true one.
            Heard::Failed(failed) => Err(self.body_error.map_or(failed, Failed::Body)),
        }
    }

    /// Moves the client's body on, as far as that goes without waiting. True: there may be more at once.
    fn push_body(&mut self, scratch: &mut [u8]) -> Result<bool, Failed> {
        for _ in 0..PIECES_AT_ONCE {
            if !self.exchange.is_flushed() {
                if !self.exchange.flush()? {
                    self.sending = Sending::Done; // the worker wants no more of it; its answer says the rest
                }
                if !self.exchange.is_flushed() {
                    return Ok(false);
                }
            }
            if self.sending != Sending::Ready || self.must_hear_first() {
                return Ok(false);
            }
            if let Source::Kept(rest) | Source::Begun(rest) = self.source {
                self.push_kept(rest);
                continue;
            }
            match self.client.read_body(scratch, false) {
                BodyRead::Data(n) => {
                    self.client_heard_at = monotonic_ns();
                    self.sent_unheard = self.sent_unheard.saturating_add(n);
                    self.exchange.offer(scratch.get(..n).unwrap_or_default());
                }
                BodyRead::End => {
                    self.exchange.offer_end();
                    self.sending = Sending::Done;
                }
                BodyRead::NotYet => {
                    self.sending = self.sending.starved();
                    if monotonic_ns().saturating_sub(self.client_heard_at) > self.limits.client_silence {
                        self.body_failed(BodyError::Timeout)?;
                    }
                }
                BodyRead::Failed(why) => self.body_failed(why)?,
            }
        }
        Ok(true)
    }

    /// Nothing is read from the worker because the client takes no more of the response, and a question about a session may be
    /// behind that: the worker can be given only as much of the body as it keeps while it waits for the answer.
    fn must_hear_first(&self) -> bool {
        self.session.is_some() && self.sent_unheard >= MAX_SENT_UNHEARD && !self.download.has_room()
    }

    fn push_kept(&mut self, rest: &'a [u8]) {
        let (piece, rest) = rest.split_at_checked(BODY_PIECE).unwrap_or((rest, &[]));
        let whole = matches!(self.source, Source::Kept(_));
        if !piece.is_empty() {
            self.sent_unheard = self.sent_unheard.saturating_add(piece.len());
            self.exchange.offer(piece);
            self.source = if whole { Source::Kept(rest) } else { Source::Begun(rest) };
        } else if whole {
            self.exchange.offer_end();
            self.sending = Sending::Done;
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
        self.sending = Sending::Done;
        self.body_error = Some(why);
        if self.download.is_sent() {
            return Ok(());
        }
        self.exchange.flush()?;
        Err(Failed::Body(why))
    }

    /// Until when somebody may be silent.
    fn deadline(&self) -> u64 {
        if !self.download.is_taken() {
            // The client is waited for, not the worker.
            let client = self.download.moved_at().saturating_add(self.limits.client_silence);
            return self.answer_by().map_or(client, |by| client.min(by));
        }
        // While the client's own body is awaited, the worker may be silent: it waits too.
        let since = if self.sending.is_open() { self.heard_at.max(self.client_heard_at) } else { self.heard_at };
        let since = since.max(self.download.moved_at());
        let mut until = since.saturating_add(self.limits.silence);
        if let Some(take_by) = self.take_by() {
            until = until.min(take_by.saturating_add(TAKE_GRACE_NS));
        }
        self.answer_by().map_or(until, |by| until.min(by))
    }

    /// When the request's time is over; its worker has until then.
    fn answer_by(&self) -> Option<u64> {
        self.limits.answer_by.filter(|_| !self.has_ended())
    }

    /// Until when a worker must have taken the request. While droverd has it, it counts as not taken.
    fn take_by(&self) -> Option<u64> {
        self.limits.take_by.filter(|_| self.holder != Holder::Worker)
    }

    /// When to look whether the client is still connected. Once something was sent to it, sending tells.
    fn check_client_at(&self) -> u64 {
        if self.download.is_sent() { u64::MAX } else { self.connected_at.saturating_add(self.limits.client_silence) }
    }

    /// The limits that hold however busy both sides are.
    fn check_limits(&mut self) -> Result<(), Failed> {
        let now = monotonic_ns();
        if self.answer_by().is_some_and(|by| now >= by) {
            return Err(DispatchError::RequestTimeout.into());
        }
        if now >= self.check_client_at() {
            if self.client.has_left() {
                return Err(Failed::ClientGone);
            }
            self.connected_at = now;
        }
        Ok(())
    }

    fn check_silence(&self) -> Result<(), Failed> {
        let now = monotonic_ns();
        if now < self.deadline() || (self.has_ended() && self.download.is_taken()) {
            return Ok(());
        }
        if self.answer_by().is_some_and(|by| now >= by) {
            return Err(DispatchError::RequestTimeout.into());
        }
        if !self.download.is_taken() {
            return Err(Failed::ClientGone);
        }
        let error = if self.take_by().is_some_and(|by| now >= by) { DispatchError::QueueTimeout } else { DispatchError::Silent };
        Err(error.into())
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
