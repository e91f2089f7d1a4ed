//! Moves both directions of a running request at once: the body to the worker, the response to the client.
//!
//! Responsible for: never blocking on one direction while the other can make progress; never letting a cut response look complete.
//! Must never: know a type of httpd. Called by: [`super::delivery`].
use super::download::Download;
use super::frames::{Effect, FrameHandler};
use super::outcome::{Outcome, RelayError, Stage};
use super::state::{FramesState, Location, UploadState, is_progress};
use super::upload::{Source, Upload};
use crate::dispatch::{InFlight, Ready, Wake, Want};
use crate::handler::failure::RequestError;
use crate::handler::limits::deadlines::Situation;
use crate::handler::limits::{Deadlines, TimeLimits};
use crate::handler::request::{BodyError, BodyRead, Client};
use crate::session::RequestSession;
use drover_sys::clock::monotonic_ns;
use drover_sys::wait::PollFlags;
use drover_wire::frame::{BodyFailure, Event, Kind};

/// Body pieces sent before the response is read again: the worker may need a session reply before it reads on.
const MAX_PIECES_AT_ONCE: usize = 16;
/// How often a client without a socket to poll (HTTP/2) is checked, at most and at least.
const MIN_RECHECK_NS: u64 = 1_000_000;
const MAX_RECHECK_NS: u64 = 20_000_000;
/// How often the body is read while nothing arrives, so that an input filter can report its own timeout.
const FILTER_RECHECK_NS: u64 = 1_000_000_000;
/// Bytes of a body that was read in advance and are sent at once.
const KEPT_PIECE: usize = 64 * 1024;
/// Bytes of the body sent while nothing is read from a worker that may wait for a session reply. The worker holds what arrives
/// before that reply, up to twice as much.
const MAX_SENT_UNHEARD: usize = 4 * 1024 * 1024;
/// How often the worker is read before anything else is checked.
const MAX_READS_AT_ONCE: u32 = 64;

/// A request between being sent and its end.
pub struct Relay<'a, 'q, 's, C> {
    client: &'a mut C,
    in_flight: &'a mut InFlight<'q>,
    deadlines: Deadlines,
    upload: UploadState,
    source: Source<'a>,
    session: Option<&'a mut RequestSession<'s>>,
    download: Download<'a>,
    frames: FramesState,
    location: Location,
    body_error: Option<BodyError>,
    /// Bytes of the body sent since everything from the worker was read.
    sent_unheard: usize,
}

impl<'a, 'q, 's, C: Client> Relay<'a, 'q, 's, C> {
    /// For a request that was just sent to its queue.
    pub fn new(
        client: &'a mut C,
        in_flight: &'a mut InFlight<'q>,
        limits: TimeLimits,
        download: Download<'a>,
        upload: Upload,
        source: Source<'a>,
        session: Option<&'a mut RequestSession<'s>>,
    ) -> Self {
        Self {
            client,
            in_flight,
            deadlines: Deadlines::start(limits, monotonic_ns()),
            upload: upload.into(),
            source,
            session,
            download,
            frames: FramesState::Handled,
            location: Location::Queue,
            body_error: None,
            sent_unheard: 0,
        }
    }

    /// Runs until the response is complete or has failed. Calls `done` when the worker finished; the client may still be slow.
    pub fn run(mut self, wake: &Wake, scratch: &mut [u8], mut done: impl FnMut()) -> Result<Outcome, RelayError> {
        match self.run_inner(wake, scratch, &mut done) {
            Ok(()) => Ok(self.download.into_outcome()),
            Err(cause) => Err(RelayError { cause, stage: self.stage() }),
        }
    }

    fn stage(&self) -> Stage {
        if self.download.is_sent() {
            Stage::Sent
        } else if self.download.has_head() || self.session.as_ref().is_some_and(|session| session.has_changed()) {
            Stage::Answered
        } else if self.location == Location::Supervisor {
            Stage::HeldBySupervisor
        } else {
            Stage::Unanswered
        }
    }

    fn run_inner(&mut self, wake: &Wake, scratch: &mut [u8], done: &mut dyn FnMut()) -> Result<(), RequestError> {
        let mut client_accepts = false;
        loop {
            let more_body = self.push_body(scratch)?;
            self.download.pass_backlog(self.client, client_accepts, self.has_ended())?;
            if self.has_ended() && self.download.is_accepted() {
                return Ok(());
            }
            let ready = self.wait(wake, more_body)?;
            client_accepts = ready.client_accepts;
            let is_idle = !(ready.response || ready.room || ready.client);
            if ready.response || self.frames == FramesState::Unread {
                self.read_worker(wake, done)?;
                self.check_silence()?;
            } else if is_idle {
                self.check_silence()?;
            }
            if let Some(session) = &mut self.session {
                session.withdraw_lease(false);
            }
            self.check_limits()?;
        }
    }

    /// Handles what the worker sent, for a bounded number of reads.
    fn read_worker(&mut self, wake: &Wake, done: &mut dyn FnMut()) -> Result<(), RequestError> {
        for _ in 0..MAX_READS_AT_ONCE {
            if !self.wants_response() {
                return Ok(());
            }
            if let Some(session) = &self.session {
                self.in_flight.limit_sessions(session.largest_question(self.download.has_memory()));
            }
            let unread;
            (self.frames, unread) = self.frames.resume();
            if !(unread || self.in_flight.fill()?) {
                self.sent_unheard = 0;
                return Ok(());
            }
            let ended = self.handle_frames(wake)?;
            self.download.count_frames(self.in_flight.kept());
            if ended {
                self.frames = FramesState::Ended;
                self.upload = UploadState::Done;
                if let Some(session) = &mut self.session {
                    session.release();
                }
                done();
            }
        }
        // A worker that never pauses has time limits too.
        self.frames = self.frames.left();
        Ok(())
    }

    fn has_ended(&self) -> bool {
        self.frames == FramesState::Ended
    }

    /// Whether more can be accepted from the worker. Not while a session reply is unsent, or a worker could send session frames
    /// without end.
    fn wants_response(&self) -> bool {
        !self.has_ended() && !self.in_flight.owes_session_reply() && self.download.has_room()
    }

    /// Waits for the next event. `more_body`: the client may have more of its body now.
    fn wait(&mut self, wake: &Wake, more_body: bool) -> Result<Ready, RequestError> {
        let is_ready = more_body || (self.frames == FramesState::Unread && self.wants_response());
        let mut until = if is_ready { 0 } else { self.next_deadline() };
        if let Some(time) = self.session.as_ref().and_then(|session| session.lease_check_at()) {
            until = until.min(time);
        }
        let starved = self.upload == UploadState::Starved && self.in_flight.is_flushed();
        let mut of_client = PollFlags::empty();
        of_client.set(PollFlags::IN, starved);
        of_client.set(PollFlags::OUT, !self.download.is_accepted());
        let socket = self.client.socket();
        // Without a socket nothing can be polled: the client is checked less often the longer it was idle.
        let recheck = |since: u64| {
            let now = monotonic_ns();
            now.saturating_add(now.saturating_sub(since).clamp(MIN_RECHECK_NS, MAX_RECHECK_NS))
        };
        if starved {
            let again = if socket.is_some() { monotonic_ns() + FILTER_RECHECK_NS } else { recheck(self.deadlines.client_at()) };
            until = until.min(again);
        }
        if socket.is_none() && !self.download.is_accepted() {
            until = until.min(recheck(self.download.accepted_at()));
        }
        let client = socket.filter(|_| !of_client.is_empty()).map(|socket| (socket, of_client));
        let room = !self.has_ended() && !self.in_flight.is_flushed();
        let ready = self.in_flight.wait(&Want { response: self.wants_response(), room, client }, wake, until)?;
        if ready.client || (starved && !ready.response) {
            self.upload = self.upload.fed(); // read again: data may have arrived, or a filter's timeout expired
        }
        Ok(ready)
    }

    /// Handles the frames that have arrived. Returns whether END was among them.
    fn handle_frames(&mut self, wake: &Wake) -> Result<bool, RequestError> {
        let Self { client, in_flight, upload, download, session, location, .. } = self;
        let (frames, worker) = in_flight.frames();
        let mut handler =
            FrameHandler { client: *client, upload, download, session: session.as_deref_mut(), wake, worker, pieces: Vec::new() };
        let mut effect = Effect::Continue;
        let mut progress = false;
        for event in frames {
            let event = event?;
            let kind = match &event {
                Event::Body(_) => Kind::Body,
                Event::Frame(header, _) | Event::Oversized(header, _) => header.kind,
                Event::Skipped => Kind::Session,
            };
            *location = Location::after(kind);
            progress |= is_progress(kind);
            effect = handler.event(event)?;
            if !matches!(effect, Effect::Continue) {
                break;
            }
        }
        handler.deliver(matches!(effect, Effect::Ended))?;
        if progress {
            self.deadlines.worker_progressed(monotonic_ns());
        }
        match effect {
            Effect::Continue => Ok(false),
            Effect::Ended => Ok(true),
            Effect::Reply(status, payload) => {
                self.in_flight.offer_session_reply(status as u16, &payload);
                self.in_flight.flush()?;
                self.frames = FramesState::Unread;
                Ok(false)
            }
            // If the body failed, that is why the application failed.
            Effect::Failed(error) => Err(self.body_error.map_or(error, RequestError::Body)),
        }
    }

    /// Sends the client's body as far as possible without waiting. Returns whether more may be available at once.
    fn push_body(&mut self, scratch: &mut [u8]) -> Result<bool, RequestError> {
        for _ in 0..MAX_PIECES_AT_ONCE {
            if !self.in_flight.is_flushed() {
                if !self.in_flight.flush()? {
                    self.upload = UploadState::Done; // the worker stopped reading; its response says why
                }
                if !self.in_flight.is_flushed() {
                    return Ok(false);
                }
            }
            if self.upload != UploadState::Ready || self.must_listen_first() {
                return Ok(false);
            }
            if let Source::Kept(rest) | Source::Begun(rest) = self.source {
                self.push_kept(rest);
                continue;
            }
            match self.client.read_body(scratch, false) {
                BodyRead::Data(n) => {
                    self.deadlines.client_progressed(monotonic_ns());
                    self.sent_unheard = self.sent_unheard.saturating_add(n);
                    self.in_flight.offer(scratch.get(..n).unwrap_or_default());
                }
                BodyRead::End => {
                    self.in_flight.offer_end();
                    self.upload = UploadState::Done;
                }
                BodyRead::NotYet => {
                    self.upload = self.upload.starved();
                    if self.deadlines.is_client_late(monotonic_ns()) {
                        self.body_failed(BodyError::Timeout)?;
                    }
                }
                BodyRead::Failed(why) => self.body_failed(why)?,
            }
        }
        Ok(true)
    }

    /// Whether the upload must pause. While the client accepts nothing of the response, the worker is not read, and a session
    /// frame may be waiting there. The worker can hold only a bounded part of the body before it gets its reply.
    fn must_listen_first(&self) -> bool {
        self.session.is_some() && self.sent_unheard >= MAX_SENT_UNHEARD && !self.download.has_room()
    }

    fn push_kept(&mut self, rest: &'a [u8]) {
        let (piece, rest) = rest.split_at_checked(KEPT_PIECE).unwrap_or((rest, &[]));
        let whole = matches!(self.source, Source::Kept(_));
        if !piece.is_empty() {
            self.sent_unheard = self.sent_unheard.saturating_add(piece.len());
            self.in_flight.offer(piece);
            self.source = if whole { Source::Kept(rest) } else { Source::Begun(rest) };
        } else if whole {
            self.in_flight.offer_end();
            self.upload = UploadState::Done;
        } else {
            self.source = Source::Client;
        }
    }

    /// The body failed. The worker is told, so that no application takes the body for complete. If nothing of the response was
    /// sent, the request ends here with the status of the cause.
    fn body_failed(&mut self, why: BodyError) -> Result<(), RequestError> {
        self.in_flight.offer_failure(match why {
            BodyError::ClientGone | BodyError::Answered => BodyFailure::ClientGone,
            BodyError::Timeout => BodyFailure::Timeout,
            BodyError::TooLarge => BodyFailure::TooLarge,
            BodyError::Malformed => BodyFailure::Malformed,
        });
        self.upload = UploadState::Done;
        self.body_error = Some(why);
        if self.download.is_sent() {
            return Ok(());
        }
        self.in_flight.flush()?;
        Err(RequestError::Body(why))
    }

    /// What the deadlines depend on.
    fn situation(&self) -> Situation {
        let accepted_at = self.download.accepted_at();
        Situation {
            taken: self.location == Location::Worker,
            uploading: self.upload.is_open(),
            ended: self.has_ended(),
            stalled_since: (!self.download.is_accepted()).then_some(accepted_at),
            accepted_at,
            sent: self.download.is_sent(),
        }
    }

    fn next_deadline(&self) -> u64 {
        let situation = self.situation();
        self.deadlines.next(&situation).min(self.deadlines.check_client_at(&situation))
    }

    fn check_silence(&self) -> Result<(), RequestError> {
        self.deadlines.check_silence(&self.situation(), monotonic_ns())
    }

    /// Checks the limits that apply however busy both sides are.
    fn check_limits(&mut self) -> Result<(), RequestError> {
        let (situation, now) = (self.situation(), monotonic_ns());
        self.deadlines.check_total(&situation, now)?;
        if now >= self.deadlines.check_client_at(&situation) {
            if self.client.has_left() {
                return Err(RequestError::ClientGone);
            }
            self.deadlines.client_connected(now);
        }
        Ok(())
    }
}
