//! The bytes of a request's body: those that came with the message, then those that follow on the way back.
//!
//! Responsible for: a body that broke off never looking complete, and memory being bounded: by one buffer, and by [`MOST_KEPT`]
//! while a session's answer is awaited, which comes on the same socket. Must never: send, hold Python objects. Called by: `input`,
//! `session`, `response` (at the end).
use crate::reply::ReplySocket;
use drover_sys::{Errno, channel};
use drover_wire::frame::{BodyFailure, Deframer, Event, Kind};
use drover_wire::request::{BODY_FOLLOWS, BODY_ON_DEMAND, Prefix};
use std::ops::Range;
use std::sync::Arc;

/// Bytes read from the socket at once.
const BUFFER: usize = 64 * 1024;
/// The same for a request without a body: only answers to its session come.
const SMALL: usize = 4 * 1024;
/// Most bytes of body that are kept while an answer is awaited: [`PAUSE_AT`], and what httpd sends before it reads the pause
/// (4 MiB while it reads nothing), and what lies in the socket's buffer.
const MOST_KEPT: usize = 8 * 1024 * 1024;
/// With so many bytes kept, httpd is told to pause before it is asked anything.
const PAUSE_AT: usize = 1024 * 1024;

/// Where the part that follows stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// httpd has not read it; it must be asked for.
    Asleep,
    /// It comes.
    Coming,
    /// Part of it has come, and httpd was told to pause; it must be asked for more.
    Paused,
    /// It has come.
    Complete,
    /// It will not come.
    Broken(Broken),
}

/// Why a body broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// httpd said so.
    Told(BodyFailure),
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
    Broken(Broken),
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
    Lost(Broken),
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
    way: Option<Arc<ReplySocket>>,
    room: usize,
}

impl Body {
    /// `None` when the request has no body at all.
    pub fn new(prefix: &Prefix, inline: &[u8], way: &Arc<ReplySocket>) -> Option<Self> {
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
        let way = (rest != Rest::Complete).then(|| Arc::clone(way));
        Some(Self { bytes: inline.to_vec(), frame_end: end, end, rest, way, room: BUFFER, ..Self::bare(prefix.number, None) })
    }

    /// For what else comes on the way back of request `number`, when its body does not.
    pub const fn bare(number: u32, way: Option<Arc<ReplySocket>>) -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
            frame_end: 0,
            end: 0,
            kept: Vec::new(),
            given: 0,
            rest: Rest::Complete,
            deframer: Deframer::new(number),
            way,
            room: SMALL,
        }
    }

    /// Whether it reads from the way back. Then nobody else may.
    pub const fn reads(&self) -> bool {
        self.way.is_some()
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

    /// Whether httpd must be told to send no more of it for now, before it is asked anything: what comes before the answer is kept.
    pub fn pause(&mut self) -> bool {
        let pauses = self.rest == Rest::Coming && self.kept.len() - self.given >= PAUSE_AT;
        if pauses {
            self.rest = Rest::Paused;
        }
        pauses
    }

    /// Waits for the answer to a session: its code and its payload. What comes before it is kept. httpd's time limits bound the
    /// wait: it answers, or closes.
    pub fn answer(&mut self) -> Result<(u16, Vec<u8>), Broken> {
        if self.given > self.kept.len() / 2 {
            self.kept.drain(..self.given);
            self.given = 0;
        }
        loop {
            let body = self.bytes.get(self.start..self.frame_end).unwrap_or_default();
            if self.kept.len() - self.given + body.len() > MOST_KEPT {
                self.rest = Rest::Broken(Broken::Lost);
            }
            if let Rest::Broken(why @ (Broken::Lost | Broken::Over)) = self.rest {
                return Err(why);
            }
            self.kept.extend_from_slice(body);
            self.start = self.frame_end;
            match self.next_frame() {
                Step::Answer(code, payload) => return Ok((code, self.bytes.get(payload).unwrap_or_default().to_vec())),
                Step::Taken => {}
                Step::Short => match self.receive(true) {
                    Received::Lost(why) => {
                        if matches!(self.rest, Rest::Coming | Rest::Asleep | Rest::Paused) {
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
    pub fn socket(&self) -> Option<Arc<ReplySocket>> {
        self.way.clone()
    }

    /// httpd has been asked.
    pub fn asked(&mut self) {
        if matches!(self.rest, Rest::Asleep | Rest::Paused) {
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
                Rest::Asleep | Rest::Paused => return Fill::Ask,
                Rest::Complete => return Fill::End,
                Rest::Broken(why) => return Fill::Broken(why),
                Rest::Coming => {}
            }
            match self.next_frame() {
                Step::Taken => {}
                Step::Answer(..) => self.rest = Rest::Broken(Broken::Lost), // to no question
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
                    Kind::End if matches!(self.rest, Rest::Coming | Rest::Paused) => Rest::Complete,
                    Kind::Fail => Rest::Broken(Broken::Told(BodyFailure::from_code(header.code))),
                    _ => Rest::Broken(Broken::Lost),
                };
            }
            // The second is not expected here: httpd's answers are of any size.
            Err(_) | Ok(Some((Event::Oversized(..) | Event::Skipped, _))) => self.rest = Rest::Broken(Broken::Lost),
        }
        Step::Taken
    }

    /// Receives what is there, or waits for something. To be called when nothing is ready in `bytes`.
    fn receive(&mut self, wait: bool) -> Received {
        let Some(way) = self.way.clone() else { return Received::Lost(Broken::Over) };
        // At most the beginning of a frame's header is left over, or of an answer to the session.
        self.bytes.copy_within(self.frame_end..self.end, 0);
        (self.start, self.frame_end, self.end) = (0, 0, self.end - self.frame_end);
        let room = self.deframer.wanted(self.bytes.get(..self.end).unwrap_or_default()).max(self.room);
        if self.bytes.len() < room {
            self.bytes.resize(room, 0);
        }
        let mut fds = Vec::new(); // none is expected; one that comes is closed
        match channel::receive(&*way, self.bytes.get_mut(self.end..).unwrap_or_default(), &mut fds, wait) {
            Ok(0) => Received::Lost(Broken::Lost),
            Ok(n) => {
                self.end += n;
                Received::Some
            }
            Err(Errno::AGAIN | Errno::INTR) => Received::Nothing,
            Err(_) => Received::Lost(Broken::Lost),
        }
    }

    /// At the end of the request: whether the whole body has been read, or none of it was asked for. Looks once at what has
    /// come, as an application that read all of its Content-Length has not seen END yet. Afterwards nothing can be read.
    pub fn settle(&mut self) -> bool {
        let clean = match self.rest {
            Rest::Asleep | Rest::Complete => true,
            Rest::Broken(_) | Rest::Paused => false,
            Rest::Coming => self.ready().is_empty() && self.fill() == Fill::End,
        };
        self.close();
        clean
    }

    /// The request is over.
    pub fn close(&mut self) {
        self.way = None;
        (self.bytes, self.kept, self.given) = (Vec::new(), Vec::new(), 0);
        (self.start, self.frame_end, self.end) = (0, 0, 0);
        self.rest = Rest::Broken(Broken::Over);
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
        let mut body = Body::new(&prefix, b"", &Arc::new(ReplySocket::new(worker))).unwrap();
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
