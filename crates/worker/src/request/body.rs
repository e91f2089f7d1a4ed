//! The bytes of a request's body: those that came with the message, then those that follow on the way back.
//!
//! Responsible for: a body that broke off never looking complete, and memory being bounded: by one buffer, and by [`MAX_KEPT`]
//! while a session's answer is awaited, which comes on the same socket. Must never: send, hold Python objects. Called by: `input`,
//! `session`, `response` (at the end).
use crate::request::reply_fd::ReplyFd;
use drover_sys::{Errno, channel};
use drover_wire::frame::{BodyFailure, Deframer, Event, Kind};
use drover_wire::request::{BODY_FOLLOWS, BODY_ON_DEMAND, Prefix};
use std::ops::Range;
use std::sync::Arc;

/// Bytes read from the socket at once.
const BUFFER: usize = 64 * 1024;
/// The same for a request without a body: only answers to its session come.
const SMALL: usize = 4 * 1024;
/// Most bytes of body that are kept while an answer is awaited. httpd sends none while it works on one, so this is more than can lie
/// in the socket's buffer.
const MAX_KEPT: usize = 8 * 1024 * 1024;

/// Where the part that follows stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// httpd has not read it; it must be asked for.
    Asleep,
    /// It comes.
    Coming,
    /// It has come.
    Complete,
    /// It will not come.
    Broken(BodyError),
}

/// Why a body broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// httpd said so.
    Reported(BodyFailure),
    /// The way back was closed or held something that is not a body.
    Lost,
    /// The request is over.
    Over,
}

/// What [`Body::fill`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// There are bytes in [`Body::ready`].
    Ready,
    /// There will be no more.
    End,
    /// Wait until the socket is readable.
    Wait,
    /// httpd has to be asked for the body first.
    Ask,
    /// It broke off.
    Broken(BodyError),
}

/// What [`Body::next_frame`] found.
enum Step {
    /// A frame, or a piece of one.
    Taken,
    /// More has to be received first.
    Short,
    /// An answer to a session: its code, and where its payload stands.
    Answer(u16, Range<usize>),
}

/// What [`Body::receive`] did.
enum Received {
    /// Bytes came.
    Some,
    /// Nothing is there.
    Nothing,
    /// Nothing will come any more.
    Lost(BodyError),
}

/// See the head of this file.
#[derive(Debug)]
pub struct Body {
    /// Bytes that can be handed out: `bytes[start..end]`, of which `frame_end..end` are not looked at yet.
    bytes: Vec<u8>,
    start: usize,
    frame_end: usize,
    end: usize,
    /// Bytes that came before an answer to a session; handed out before `bytes`.
    kept: Vec<u8>,
    /// How many of them are handed out.
    given: usize,
    rest: Rest,
    deframer: Deframer,
    socket: Option<Arc<ReplyFd>>,
    room: usize,
}

impl Body {
    /// `None` when the request has no body at all.
    pub fn new(prefix: &Prefix, inline: &[u8], socket: &Arc<ReplyFd>) -> Option<Self> {
        let rest = if prefix.flags & BODY_ON_DEMAND != 0 {
            Rest::Asleep
        } else if prefix.flags & BODY_FOLLOWS != 0 {
            Rest::Coming
        } else {
            Rest::Complete
        };
        if inline.is_empty() && rest == Rest::Complete {
            return None;
        }
        let end = inline.len();
        let socket = (rest != Rest::Complete).then(|| Arc::clone(socket));
        Some(Self { bytes: inline.to_vec(), frame_end: end, end, rest, socket, room: BUFFER, ..Self::bare(prefix.number, None) })
    }

    /// For what else comes on the way back of request `number`, when its body does not.
    pub const fn bare(number: u32, socket: Option<Arc<ReplyFd>>) -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
            frame_end: 0,
            end: 0,
            kept: Vec::new(),
            given: 0,
            rest: Rest::Complete,
            deframer: Deframer::new(number),
            socket,
            room: SMALL,
        }
    }

    /// Whether it reads from the way back. Then nobody else may.
    pub const fn reads(&self) -> bool {
        self.socket.is_some()
    }

    /// Whether nothing that has come is left.
    pub const fn is_empty(&self) -> bool {
        self.start == self.end && self.given == self.kept.len()
    }

    /// Bytes that can be taken now.
    pub fn ready(&self) -> &[u8] {
        match self.kept.get(self.given..) {
            Some(kept) if !kept.is_empty() => kept,
            _ => self.bytes.get(self.start..self.frame_end).unwrap_or_default(),
        }
    }

    /// Takes `n` of them.
    pub fn take(&mut self, n: usize) {
        if self.given == self.kept.len() {
            self.start = (self.start + n).min(self.frame_end);
            return;
        }
        self.given = (self.given + n).min(self.kept.len());
        if self.given == self.kept.len() {
            (self.kept, self.given) = (Vec::new(), 0);
        }
    }

    /// Waits for the answer to a session: its code and its payload. What comes before it is kept. httpd's time limits bound the
    /// wait: it answers, or closes.
    pub fn answer(&mut self) -> Result<(u16, Vec<u8>), BodyError> {
        loop {
            let body = self.bytes.get(self.start..self.frame_end).unwrap_or_default();
            if self.kept.len() + body.len() > MAX_KEPT {
                self.rest = Rest::Broken(BodyError::Lost);
            }
            if let Rest::Broken(why @ (BodyError::Lost | BodyError::Over)) = self.rest {
                return Err(why);
            }
            self.kept.extend_from_slice(body);
            self.start = self.frame_end;
            match self.next_frame() {
                Step::Answer(code, payload) => return Ok((code, self.bytes.get(payload).unwrap_or_default().to_vec())),
                Step::Taken => {}
                Step::Short => match self.receive(true) {
                    Received::Lost(why) => {
                        if matches!(self.rest, Rest::Coming | Rest::Asleep) {
                            self.rest = Rest::Broken(why);
                        }
                        return Err(why);
                    }
                    Received::Some | Received::Nothing => {}
                },
            }
        }
    }

    /// The socket that [`Fill::Wait`] speaks of.
    pub fn socket(&self) -> Option<Arc<ReplyFd>> {
        self.socket.clone()
    }

    /// httpd has been asked.
    pub fn asked(&mut self) {
        if self.rest == Rest::Asleep {
            self.rest = Rest::Coming;
        }
    }

    /// Makes bytes ready, without waiting. To be called when nothing is.
    pub fn fill(&mut self) -> Fill {
        loop {
            if !self.ready().is_empty() {
                return Fill::Ready;
            }
            match self.rest {
                Rest::Asleep => return Fill::Ask,
                Rest::Complete => return Fill::End,
                Rest::Broken(why) => return Fill::Broken(why),
                Rest::Coming => {}
            }
            match self.next_frame() {
                Step::Taken => {}
                Step::Answer(..) => self.rest = Rest::Broken(BodyError::Lost), // to no question
                Step::Short => match self.receive(false) {
                    Received::Some => {}
                    Received::Nothing => return Fill::Wait,
                    Received::Lost(why) => self.rest = Rest::Broken(why),
                },
            }
        }
    }

    /// Looks at what was received.
    fn next_frame(&mut self) -> Step {
        let unseen = self.bytes.get(self.frame_end..self.end).unwrap_or_default();
        match self.deframer.next(unseen) {
            Ok(None) => return Step::Short,
            // The header stands between the last bytes and these, and nothing is ready before it.
            Ok(Some((Event::Body(piece), used))) => {
                self.start = self.frame_end + used - piece.len();
                self.frame_end += used;
            }
            Ok(Some((Event::Frame(header, payload), used))) => {
                let begin = self.frame_end + used - payload.len();
                self.frame_end += used;
                self.start = self.frame_end;
                self.rest = match header.kind {
                    Kind::Session => return Step::Answer(header.code, begin..self.frame_end),
                    Kind::End if self.rest == Rest::Coming => Rest::Complete,
                    Kind::Fail => Rest::Broken(BodyError::Reported(BodyFailure::from_code(header.code))),
                    _ => Rest::Broken(BodyError::Lost),
                };
            }
            Err(_) => self.rest = Rest::Broken(BodyError::Lost),
        }
        Step::Taken
    }

    /// Receives what is there, or waits for something. To be called when nothing is ready in `bytes`.
    fn receive(&mut self, wait: bool) -> Received {
        let Some(socket) = self.socket.clone() else { return Received::Lost(BodyError::Over) };
        // At most the beginning of a frame's header is left over, or of an answer to the session.
        self.bytes.copy_within(self.frame_end..self.end, 0);
        (self.start, self.frame_end, self.end) = (0, 0, self.end - self.frame_end);
        let room = self.deframer.wanted(self.bytes.get(..self.end).unwrap_or_default()).max(self.room);
        if self.bytes.len() < room {
            self.bytes.resize(room, 0);
        }
        let mut fds = Vec::new(); // none is expected; one that comes is closed
        match channel::receive(&*socket, self.bytes.get_mut(self.end..).unwrap_or_default(), &mut fds, wait) {
            Ok(0) => Received::Lost(BodyError::Lost),
            Ok(n) => {
                self.end += n;
                Received::Some
            }
            Err(Errno::AGAIN | Errno::INTR) => Received::Nothing,
            Err(_) => Received::Lost(BodyError::Lost),
        }
    }

    /// At the end of the request: whether the whole body has been read, or none of it was asked for. Looks once at what has
    /// come, as an application that read all of its Content-Length has not seen END yet. Afterwards nothing can be read.
    pub fn settle(&mut self) -> bool {
        let clean = match self.rest {
            Rest::Asleep | Rest::Complete => true,
            Rest::Broken(_) => false,
            Rest::Coming => self.ready().is_empty() && self.fill() == Fill::End,
        };
        self.close();
        clean
    }

    /// The request is over.
    pub fn close(&mut self) {
        self.socket = None;
        (self.bytes, self.kept, self.given) = (Vec::new(), Vec::new(), 0);
        (self.start, self.frame_end, self.end) = (0, 0, 0);
        self.rest = Rest::Broken(BodyError::Over);
    }
}
