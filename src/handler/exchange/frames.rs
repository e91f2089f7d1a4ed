//! Interprets the frames that the worker sends while a request runs.
//!
//! Responsible for: the meaning and the order of the frames; replying to a session frame before the next frame is handled. Must
//! never: trust a frame, or read one from the socket. Called by: [`super::relay`].
use super::download::Download;
use super::state::UploadState;
use crate::dispatch::{DispatchError, Wake};
use crate::handler::failure::RequestError;
use crate::handler::request::Client;
use crate::session::answer::Now;
use crate::session::{Answered, RequestSession};
use drover_sys::wait::{PollFd, PollFlags, poll_until};
use drover_wire::frame::{Event, Failure, Header, Kind};
use drover_wire::session::Status;
use std::os::fd::BorrowedFd;

/// The most severe level for a worker's text, "error": no application speaks for the whole server.
const MOST_SEVERE: u16 = 3;
/// The least severe level of httpd, "trace8".
const LEAST_SEVERE: u16 = 15;

/// What the relay does after a frame.
pub enum Effect {
    /// Handle the next frame.
    Continue,
    /// Send this session reply first.
    Reply(Status, Vec<u8>),
    /// The response is complete.
    Ended,
    /// The response cannot be completed.
    Failed(RequestError),
}

/// The parts of a [`Relay`](super::relay::Relay) that frames change.
pub struct FrameHandler<'l, 'a, 's, 'f, C> {
    /// The client.
    pub client: &'l mut C,
    /// The state of the request body.
    pub upload: &'l mut UploadState,
    /// The response.
    pub download: &'l mut Download<'a>,
    /// The session access, if sessions are on.
    pub session: Option<&'l mut RequestSession<'s>>,
    /// The stop signal.
    pub wake: &'l Wake,
    /// The worker's socket, to check whether it is connected.
    pub worker: BorrowedFd<'f>,
    /// Pieces of the response body that were not passed on yet.
    pub pieces: Vec<&'f [u8]>,
}

impl<'f, C: Client> FrameHandler<'_, '_, '_, 'f, C> {
    /// Handles one frame.
    pub fn event(&mut self, event: Event<'f>) -> Result<Effect, RequestError> {
        match event {
            Event::Body(bytes) if self.download.has_head() => {
                self.pieces.extend(self.download.body(bytes));
                Ok(Effect::Continue)
            }
            Event::Body(_) => Err(wire("a body before its head")),
            Event::Frame(header, payload) => self.frame(header, payload),
            Event::Oversized(header, first) => self.oversized(header, first),
            Event::Skipped => Ok(Effect::Continue),
        }
    }

    fn frame(&mut self, header: Header, payload: &[u8]) -> Result<Effect, RequestError> {
        match header.kind {
            Kind::Head if !self.download.has_head() => {
                let cookie = self.session.as_mut().and_then(|session| session.take_cookie());
                self.download.head(self.client, payload, cookie)?;
            }
            Kind::Head => return Err(wire("a second head")),
            Kind::End if self.download.has_head() && self.download.is_short() => {
                // The pieces so far are passed on, so that the client sees an incomplete response.
                return Ok(Effect::Failed(wire("length of the response: it is shorter than its Content-Length")));
            }
            Kind::End if self.download.has_head() => return Ok(Effect::Ended),
            Kind::End => return Err(wire("an end before its head")),
            Kind::Fail => {
                let text = String::from_utf8_lossy(payload).into_owned();
                return Ok(Effect::Failed(RequestError::Worker(Failure::from_code(header.code), text)));
            }
            Kind::Log => self.client.application_log(header.code.clamp(MOST_SEVERE, LEAST_SEVERE), payload),
            Kind::Pause => *self.upload = self.upload.paused(),
            Kind::Want => *self.upload = self.upload.wanted(),
            Kind::Session => return self.session_frame(header.code, payload),
            Kind::Taken | Kind::Held | Kind::Body => {}
        }
        Ok(Effect::Continue)
    }

    /// The application loads or saves its session.
    fn session_frame(&mut self, code: u16, payload: &[u8]) -> Result<Effect, RequestError> {
        let Self { client, download, session, pieces, .. } = self;
        let session = session.as_mut().ok_or_else(|| wire("a session frame without sessions"))?;
        // Waiting for a lock may take time, so the pieces so far are passed on first.
        download.deliver(*client, pieces, false)?;
        let mut gone = || self.wake.is_stopping() || has_hung_up(self.worker);
        let now = Now { cookies: client.cookies(), head_sent: download.has_head(), cancelled: &mut gone };
        let effect = match session.answer(code, payload, now).map_err(DispatchError::Wire)? {
            Answered::Reply(status, payload) => Effect::Reply(status, payload),
            Answered::Nothing => Effect::Continue,
            Answered::Failed(e) => Effect::Failed(RequestError::Session(e)),
        };
        if let Some(name) = session.take_log_name() {
            client.note_session(&name);
        }
        Ok(effect)
    }

    /// A session frame that is too large to keep.
    fn oversized(&mut self, header: Header, first: u8) -> Result<Effect, RequestError> {
        let session = self.session.as_mut().ok_or_else(|| wire("a session frame without sessions"))?;
        Ok(match session.refuse(header.code, first, header.len).map_err(DispatchError::Wire)? {
            Answered::Reply(status, payload) => Effect::Reply(status, payload),
            Answered::Nothing => Effect::Continue,
            Answered::Failed(e) => Effect::Failed(RequestError::Session(e)),
        })
    }

    /// Passes the pieces of the response body on.
    pub fn deliver(&mut self, ended: bool) -> Result<(), RequestError> {
        self.download.deliver(self.client, &mut self.pieces, ended)
    }
}

/// Whether the worker closed its end, checked while nothing is read from it.
fn has_hung_up(worker: BorrowedFd<'_>) -> bool {
    // poll(2) reports a hangup without being asked for any event.
    let mut fds = [PollFd::from_borrowed_fd(worker, PollFlags::empty())];
    matches!(poll_until(&mut fds, Some(0)), Ok(n) if n > 0)
}

const fn wire(what: &'static str) -> RequestError {
    RequestError::Dispatch(DispatchError::Wire(drover_wire::WireError::Bad(what)))
}
