//! The bytes of a request's body: those that came with the message, then those that follow on the way back.
//!
//! Responsible for: a body that broke off never looking complete, and memory being bounded by one buffer. Must never: send, hold
//! Python objects. Called by: `input`, `response` (at the end).
use drover_sys::{Errno, channel};
use drover_wire::frame::{BodyFailure, Deframer, Event, Kind};
use drover_wire::request::{BODY_FOLLOWS, BODY_ON_DEMAND, Prefix};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Bytes read from the socket at once.
const BUFFER: usize = 64 * 1024;

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

/// See the head of this file.
#[derive(Debug)]
pub struct Body {
    /// Bytes that can be handed out: `bytes[start..end]`, of which `frame_end..end` are not looked at yet.
    bytes: Vec<u8>,
    start: usize,
    frame_end: usize,
    end: usize,
    rest: Rest,
    deframer: Deframer,
    way: Option<Arc<OwnedFd>>,
}

impl Body {
    /// `None` when the request has no body at all.
    pub fn new(prefix: &Prefix, inline: &[u8], way: &Arc<OwnedFd>) -> Option<Self> {
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
        Some(Self { bytes: inline.to_vec(), start: 0, frame_end: end, end, rest, deframer: Deframer::new(prefix.number), way })
    }

    /// Bytes that can be taken now.
    pub fn ready(&self) -> &[u8] {
        self.bytes.get(self.start..self.frame_end).unwrap_or_default()
    }

    /// Takes `n` of them.
    pub fn take(&mut self, n: usize) {
        self.start = (self.start + n).min(self.frame_end);
    }

    /// The socket that [`Fill::Wait`] speaks of.
    pub fn socket(&self) -> Option<Arc<OwnedFd>> {
        self.way.clone()
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
            if !self.next_frame() && self.rest == Rest::Coming && !self.receive() {
                return Fill::Wait;
            }
        }
    }

    /// Looks at what was received; false when more has to be received first.
    fn next_frame(&mut self) -> bool {
        let unseen = self.bytes.get(self.frame_end..self.end).unwrap_or_default();
        match self.deframer.next(unseen) {
            Ok(None) => return false,
            // The header stands between the last bytes and these, and nothing is ready before it.
            Ok(Some((Event::Body(piece), used))) => {
                self.start = self.frame_end + used - piece.len();
                self.frame_end += used;
            }
            Ok(Some((Event::Frame(header, _), used))) => {
                self.frame_end += used;
                self.start = self.frame_end;
                self.rest = match header.kind {
                    Kind::End => Rest::Complete,
                    Kind::Fail => Rest::Broken(Broken::Told(BodyFailure::from_code(header.code))),
                    _ => Rest::Broken(Broken::Lost),
                };
            }
            Err(_) => self.rest = Rest::Broken(Broken::Lost),
        }
        true
    }

    /// Receives what is there; false: nothing is. To be called when nothing is ready.
    fn receive(&mut self) -> bool {
        let Some(way) = self.way.clone() else {
            self.rest = Rest::Broken(Broken::Over);
            return true;
        };
        // At most the beginning of a frame's header is left over.
        self.bytes.copy_within(self.frame_end..self.end, 0);
        (self.start, self.frame_end, self.end) = (0, 0, self.end - self.frame_end);
        if self.bytes.len() < BUFFER {
            self.bytes.resize(BUFFER, 0);
        }
        let mut fds = Vec::new(); // none is expected; one that comes is closed
        match channel::receive(&*way, self.bytes.get_mut(self.end..).unwrap_or_default(), &mut fds, false) {
            Ok(0) => self.rest = Rest::Broken(Broken::Lost),
            Ok(n) => self.end += n,
            Err(Errno::AGAIN) => return false,
            Err(_) => self.rest = Rest::Broken(Broken::Lost),
        }
        true
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
        self.way = None;
        self.bytes = Vec::new();
        (self.start, self.frame_end, self.end) = (0, 0, 0);
        self.rest = Rest::Broken(Broken::Over);
    }
}
