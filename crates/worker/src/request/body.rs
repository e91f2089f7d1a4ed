//! The bytes of a request's body: those that came with the message, then those that follow on the
//! reply socket.
//!
//! Responsible for: a cut body never looking complete; bounded memory: one buffer, and [`MAX_KEPT`]
//! while an answer to a session is expected, which comes on the same socket. Must never: send, hold
//! Python objects. Called by: `input`, `session`, `running` (at the end).
use crate::request::reply_fd::ReplyFd;
use drover_sys::{Errno, channel};
use drover_wire::frame::{BodyFailure, Deframer, Event, Kind};
use drover_wire::request::{BODY_FOLLOWS, BODY_ON_DEMAND, Prefix};
use std::ops::Range;
use std::sync::Arc;

/// Bytes read from the socket at once.
const BUFFER: usize = 64 * 1024;
/// The same for a request without a body, bytes: only answers to its session come.
const ANSWER_BUFFER: usize = 4 * 1024;
/// Bytes of body that are kept while an answer is expected, at most: [`PAUSE_AT`], what httpd sends
/// before it reads the pause (4 MiB while it reads nothing), and the socket's buffer.
const MAX_KEPT: usize = 8 * 1024 * 1024;
/// With so many bytes kept, httpd is told to pause before the next question.
const PAUSE_AT: usize = 1024 * 1024;

/// The state of the part that follows the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// httpd has not read it; it must be requested.
    NotRequested,
    /// It is being received.
    Receiving,
    /// Part of it was received, and httpd was told to pause; more must be requested.
    Paused,
    /// It is complete.
    Complete,
    /// It ended early.
    Broken(BodyError),
}

/// Why a body ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// httpd reported it.
    Reported(BodyFailure),
    /// The socket was closed, or received something that is not a body.
    Lost,
    /// The request is over.
    Over,
}

/// What [`Body::fill`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// [`Body::ready`] has bytes.
    Ready,
    /// The body has ended.
    End,
    /// Wait until the socket is readable.
    Wait,
    /// httpd must be asked for the body first.
    Ask,
    /// The body ended early.
    Broken(BodyError),
}

/// What [`Body::next_frame`] found.
enum Step {
    /// A frame, or a piece of one.
    Taken,
    /// More must be received first.
    Short,
    /// An answer to a session: its code, and the range of its payload.
    Answer(u16, Range<usize>),
}

/// What [`Body::receive`] did.
enum Received {
    /// Bytes were received.
    Some,
    /// There is nothing to receive now.
    Nothing,
    /// Nothing more will come.
    Lost(BodyError),
}

/// The body of one request.
#[derive(Debug)]
pub struct Body {
    /// Received bytes: `start..frame_end` can be handed out, `frame_end..end` are not decoded yet.
    bytes: Vec<u8>,
    start: usize,
    frame_end: usize,
    end: usize,
    /// Bytes that came before an answer to a session; they are handed out before `bytes`.
    kept: Vec<u8>,
    /// How many of `kept` were handed out.
    given: usize,
    rest: Rest,
    deframer: Deframer,
    socket: Option<Arc<ReplyFd>>,
    room: usize,
}

impl Body {
    /// The body that a message announces; `None` if the request has none.
    pub fn new(prefix: &Prefix, inline: &[u8], socket: &Arc<ReplyFd>) -> Option<Self> {
        let rest = if prefix.flags & BODY_ON_DEMAND != 0 {
            Rest::NotRequested
        } else if prefix.flags & BODY_FOLLOWS != 0 {
            Rest::Receiving
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

    /// Reads only answers on the reply socket of request `number`, which has no body there.
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
            room: ANSWER_BUFFER,
        }
    }

    /// Whether it reads from the reply socket. Then nothing else may.
    pub const fn reads(&self) -> bool {
        self.socket.is_some()
    }

    /// Whether all received bytes were handed out.
    pub const fn is_empty(&self) -> bool {
        self.start == self.end && self.given == self.kept.len()
    }

    /// Bytes that can be handed out now.
    pub fn ready(&self) -> &[u8] {
        match self.kept.get(self.given..) {
            Some(kept) if !kept.is_empty() => kept,
            _ => self.bytes.get(self.start..self.frame_end).unwrap_or_default(),
        }
    }

    /// Marks `n` of the ready bytes as handed out.
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

    /// Whether httpd must be told to pause the body before the next question, because what comes
    /// before the answer is kept.
    pub fn pause(&mut self) -> bool {
        let pauses = self.rest == Rest::Receiving && self.kept.len() - self.given >= PAUSE_AT;
        if pauses {
            self.rest = Rest::Paused;
        }
        pauses
    }

    /// Waits for the answer to a session, and returns its code and payload. Body bytes that come
    /// first are kept. httpd's time limits bound the wait: it answers, or closes.
    pub fn answer(&mut self) -> Result<(u16, Vec<u8>), BodyError> {
        if self.given > self.kept.len() / 2 {
            self.kept.drain(..self.given);
            self.given = 0;
        }
        loop {
            let body = self.bytes.get(self.start..self.frame_end).unwrap_or_default();
            if self.kept.len() - self.given + body.len() > MAX_KEPT {
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
                        if matches!(self.rest, Rest::Receiving | Rest::NotRequested | Rest::Paused) {
                            self.rest = Rest::Broken(why);
                        }
                        return Err(why);
                    }
                    Received::Some | Received::Nothing => {}
                },
            }
        }
    }

    /// The socket to wait for after [`Fill::Wait`].
    pub fn socket(&self) -> Option<Arc<ReplyFd>> {
        self.socket.clone()
    }

    /// httpd was asked for the body.
    pub fn asked(&mut self) {
        if matches!(self.rest, Rest::NotRequested | Rest::Paused) {
            self.rest = Rest::Receiving;
        }
    }

    /// Makes bytes ready, without waiting. Call it when none are.
    pub fn fill(&mut self) -> Fill {
        loop {
            if !self.ready().is_empty() {
                return Fill::Ready;
            }
            match self.rest {
                Rest::NotRequested | Rest::Paused => return Fill::Ask,
                Rest::Complete => return Fill::End,
                Rest::Broken(why) => return Fill::Broken(why),
                Rest::Receiving => {}
            }
            match self.next_frame() {
                Step::Taken => {}
                Step::Answer(..) => self.rest = Rest::Broken(BodyError::Lost), // nothing was asked
                Step::Short => match self.receive(false) {
                    Received::Some => {}
                    Received::Nothing => return Fill::Wait,
                    Received::Lost(why) => self.rest = Rest::Broken(why),
                },
            }
        }
    }

    /// Decodes the next part of what was received.
    fn next_frame(&mut self) -> Step {
        let unseen = self.bytes.get(self.frame_end..self.end).unwrap_or_default();
        match self.deframer.next(unseen) {
            Ok(None) => return Step::Short,
            // The header is between the previous bytes and these, and nothing is ready before it.
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
                    Kind::End if matches!(self.rest, Rest::Receiving | Rest::Paused) => Rest::Complete,
                    Kind::Fail => Rest::Broken(BodyError::Reported(BodyFailure::from_code(header.code))),
                    _ => Rest::Broken(BodyError::Lost),
                };
            }
            // httpd's answers are of any size, so the second is not expected.
            Err(_) | Ok(Some((Event::Oversized(..) | Event::Skipped, _))) => self.rest = Rest::Broken(BodyError::Lost),
        }
        Step::Taken
    }

    /// Receives what is available, or waits for something. Call it when nothing in `bytes` is
    /// ready.
    fn receive(&mut self, wait: bool) -> Received {
        let Some(socket) = self.socket.clone() else { return Received::Lost(BodyError::Over) };
        // What is left is at most the beginning of a frame's header, or of an answer.
        self.bytes.copy_within(self.frame_end..self.end, 0);
        (self.start, self.frame_end, self.end) = (0, 0, self.end - self.frame_end);
        let room = self.deframer.wanted(self.bytes.get(..self.end).unwrap_or_default()).max(self.room);
        if self.bytes.len() < room {
            self.bytes.resize(room, 0);
        }
        let mut fds = Vec::new(); // none is expected; any that comes is closed
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

    /// At the end of the request: whether the whole body was read, or none of it requested. Checks
    /// once for received frames, because an application that reads just Content-Length bytes has
    /// not seen END. Nothing can be read afterwards.
    pub fn settle(&mut self) -> bool {
        let clean = match self.rest {
            Rest::NotRequested | Rest::Complete => true,
            Rest::Broken(_) | Rest::Paused => false,
            Rest::Receiving => self.ready().is_empty() && self.fill() == Fill::End,
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

#[cfg(test)]
mod tests {
    use super::*;
    use drover_wire::frame::Header;

    const NUMBER: u32 = 7;

    fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
        let header = Header { len: payload.len() as u32, number: NUMBER, kind, code: 0 };
        [&header.encode()[..], payload].concat()
    }

    #[test]
    fn what_is_kept_for_an_answer_is_bounded_by_a_pause() {
        let (httpd, worker) = channel::stream_pair().unwrap();
        let prefix = Prefix { number: NUMBER, flags: BODY_FOLLOWS, ..Prefix::default() };
        let mut body = Body::new(&prefix, b"", &Arc::new(ReplyFd::new(worker))).unwrap();
        assert!(!body.pause(), "nothing is kept yet");
        let piece = frame(Kind::Body, &[b'b'; 65536]);
        let before = PAUSE_AT / 65536;
        let sending = std::thread::spawn(move || {
            let send = |bytes: &[u8]| channel::send(&httpd, &[bytes], &[], true).unwrap();
            (0..before).for_each(|_| assert_eq!(send(&piece), piece.len()));
            send(&frame(Kind::Session, b"first"));
            // What was under way when httpd was told, and the next answer.
            send(&piece);
            send(&frame(Kind::Session, b"second"));
            send(&frame(Kind::End, b""));
            httpd
        });
        assert_eq!(body.answer(), Ok((0, b"first".to_vec())));
        assert!(body.pause() && !body.pause(), "httpd is told once");
        assert_eq!(body.answer(), Ok((0, b"second".to_vec())));
        let mut read = 0;
        while body.fill() == Fill::Ready {
            read += body.ready().len();
            body.take(body.ready().len());
        }
        assert_eq!((read, body.fill()), (PAUSE_AT + 65536, Fill::Ask));
        body.asked();
        let _httpd = sending.join().unwrap();
        assert_eq!(body.fill(), Fill::End);
        assert!(body.settle());
    }
}
