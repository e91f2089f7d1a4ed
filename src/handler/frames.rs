//! What the worker says while a request runs, frame by frame.
//!
//! Responsible for: what each frame means, and their order; a question about a session being answered before anything else is looked at. Must
//! never: trust a frame; read one. Called by: [`super::relay`].
use super::client::Client;
use super::download::Download;
use super::failure::Failed;
use super::phase::Sending;
use crate::dispatch::{DispatchError, Wake};
use crate::session::answer::Now;
use crate::session::{Answered, RequestSession};
use drover_sys::wait::{PollFd, PollFlags, poll_until};
use drover_wire::frame::{Event, Failure, Header, Kind};
use drover_wire::session::Status;
use std::os::fd::BorrowedFd;

/// The most urgent level that a worker's text is logged at, "error": nothing of an application concerns the whole server.
const LOUDEST: u16 = 3;
/// httpd's last level, "trace8".
const QUIETEST: u16 = 15;

/// What a frame comes to.
pub enum Heard {
    /// The next one is looked at.
    More,
    /// The application's session is answered first.
    Reply(Status, Vec<u8>),
    /// The answer is whole.
    Ended,
    /// It will not be.
    Failed(Failed),
}

/// The parts of a [`Relay`](super::relay::Relay) that take what is in frames, while the exchange shows them.
pub struct Listener<'l, 'a, 's, 'f, C> {
    /// The client.
    pub client: &'l mut C,
    /// Where its body stands.
    pub sending: &'l mut Sending,
    /// Where the answer stands.
    pub download: &'l mut Download<'a>,
    /// The request's sessions, if it may ask for them.
    pub session: Option<&'l mut RequestSession<'s>>,
    /// Whether httpd stops.
    pub wake: &'l Wake,
    /// The worker's socket: whether it is still there can be asked.
    pub worker: BorrowedFd<'f>,
    /// Of the answer's body, not passed on yet.
    pub pieces: Vec<&'f [u8]>,
}

impl<'f, C: Client> Listener<'_, '_, '_, 'f, C> {
    /// Takes one.
    pub fn event(&mut self, event: Event<'f>) -> Result<Heard, Failed> {
        match event {
            Event::Body(bytes) if self.download.has_head() => {
                self.pieces.extend(self.download.body(bytes));
                Ok(Heard::More)
            }
            Event::Body(_) => Err(wire("a body before its head")),
            Event::Frame(header, payload) => self.frame(header, payload),
            Event::Oversized(header, first) => self.oversized(header, first),
            Event::Skipped => Ok(Heard::More),
        }
    }

    fn frame(&mut self, header: Header, payload: &[u8]) -> Result<Heard, Failed> {
        match header.kind {
            Kind::Head if !self.download.has_head() => {
                let cookie = self.session.as_mut().and_then(|session| session.take_cookie());
                self.download.head(self.client, payload, cookie)?;
            }
            Kind::Head => return Err(wire("a second head")),
            Kind::End if self.download.has_head() && self.download.is_short() => {
                // What has come is passed on all the same, so that the client sees that it is cut.
                return Ok(Heard::Failed(wire("length of the answer: it is shorter than its Content-Length")));
            }
            Kind::End if self.download.has_head() => return Ok(Heard::Ended),
            Kind::End => return Err(wire("an end before its head")),
            Kind::Fail => {
                let text = String::from_utf8_lossy(payload).into_owned();
                return Ok(Heard::Failed(Failed::Worker(Failure::from_code(header.code), text)));
            }
            Kind::Log => self.client.application_log(header.code.clamp(LOUDEST, QUIETEST), payload),
            Kind::Pause => *self.sending = self.sending.paused(),
            Kind::Want => *self.sending = self.sending.wanted(),
            Kind::Session => return self.question(header.code, payload),
            Kind::Taken | Kind::Held | Kind::Body => {}
        }
        Ok(Heard::More)
    }

    /// The application asks for its session, or saves it.
    fn question(&mut self, code: u16, payload: &[u8]) -> Result<Heard, Failed> {
        let Self { client, download, session, pieces, .. } = self;
        let session = session.as_mut().ok_or_else(|| wire("a session's frame without sessions"))?;
        // It may have to wait for another request: what the application has sent before goes out before.
        download.deliver(*client, pieces, false)?;
        let mut gone = || self.wake.is_stopping() || has_hung_up(self.worker);
        let now = Now { cookies: client.cookies(), head_sent: download.has_head(), cancelled: &mut gone };
        let heard = match session.answer(code, payload, now).map_err(DispatchError::Wire)? {
            Answered::Reply(status, payload) => Heard::Reply(status, payload),
            Answered::Nothing => Heard::More,
            Answered::Failed(e) => Heard::Failed(Failed::Session(e)),
        };
        if let Some(name) = session.take_log_name() {
            client.note_session(&name);
        }
        Ok(heard)
    }

    /// A question that httpd does not keep.
    fn oversized(&mut self, header: Header, first: u8) -> Result<Heard, Failed> {
        let session = self.session.as_mut().ok_or_else(|| wire("a session's frame without sessions"))?;
        Ok(match session.refuse(header.code, first, header.len).map_err(DispatchError::Wire)? {
            Answered::Reply(status, payload) => Heard::Reply(status, payload),
            Answered::Nothing => Heard::More,
            Answered::Failed(e) => Heard::Failed(Failed::Session(e)),
        })
    }

    /// Passes on what has come of the answer's body.
    pub fn deliver(&mut self, ended: bool) -> Result<(), Failed> {
        self.download.deliver(self.client, &mut self.pieces, ended)
    }
}

/// Whether the worker is gone, asked while nothing is read from it.
fn has_hung_up(worker: BorrowedFd<'_>) -> bool {
    // No event is asked for: those that come unasked tell of the end.
    let mut fds = [PollFd::from_borrowed_fd(worker, PollFlags::empty())];
    matches!(poll_until(&mut fds, Some(0)), Ok(n) if n > 0)
}

const fn wire(what: &'static str) -> Failed {
    Failed::Dispatch(DispatchError::Wire(drover_wire::WireError::Bad(what)))
}
