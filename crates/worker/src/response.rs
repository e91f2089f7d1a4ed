//! The answer: PEP 3333's start_response, and the order in which head, blocks and end go out.
//!
//! Responsible for: a head before any block, each block on the wire before the next is asked for, Content-Length kept, END only
//! behind a complete answer. Must never: run Python code while its lock is held. Called by: `application`, `start`.
use crate::errors::{self, WARNING};
use crate::exchange::Exchange;
use crate::gil;
use crate::way::Gone;
use drover_wire::frame::{HEADER, Kind};
use drover_wire::head;
use pyo3::Python;
use std::sync::atomic::Ordering;

/// Larger last blocks go out before END instead of with it, so that the descriptor never travels ahead of a long answer.
const TOGETHER: usize = 64 * 1024;
/// BODY frames are cut here; a frame's length has 32 bits.
const FRAME: usize = 1 << 30;

/// What start_response was given, checked.
#[derive(Debug, Default)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// The text behind it.
    pub reason: Vec<u8>,
    /// Header fields as the wire has them.
    pub fields: Vec<u8>,
    /// How many.
    pub count: u16,
    /// What Content-Length says.
    pub length: Option<u64>,
}

impl Head {
    /// 204, 304 and 1xx have no body, whatever their Content-Length says (RFC 9110 §6.4.1).
    const fn allows_body(&self) -> bool {
        !matches!(self.status, 100..=199 | 204 | 304)
    }
}

/// The answer so far.
#[derive(Debug, Default)]
pub struct Response {
    /// Set by start_response, and again if it is called again before anything was sent.
    head: Option<Head>,
    /// The head is on the wire.
    sent_head: bool,
    /// Bytes of body that are on the wire.
    sent: u64,
    /// More was produced than Content-Length says, and the log has been told.
    excess: bool,
    /// Frames that go out before the head, in the same write: the session.
    before_head: Vec<u8>,
}

/// Why a block could not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// start_response has not been called.
    NotStarted,
    /// Nobody reads any more, or the request is over.
    Gone,
}

impl From<Gone> for Trouble {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

/// How the answer ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// Complete.
    Complete,
    /// Fewer bytes than Content-Length said.
    Short {
        /// Content-Length.
        promised: u64,
        /// What came.
        sent: u64,
    },
}

impl Response {
    /// Whether the head is on the wire.
    pub const fn is_head_sent(&self) -> bool {
        self.sent_head
    }

    /// Whether a head is there, to be sent with the next block or at the end.
    pub const fn is_head_due(&self) -> bool {
        self.head.is_some() && !self.sent_head
    }

    /// Takes whole frames that go out before the head.
    pub fn put_before_head(&mut self, frames: Vec<u8>) {
        self.before_head = frames;
    }

    /// Takes what start_response was given.
    pub fn start(&mut self, head: Head) {
        self.head = Some(head);
    }

    /// How much of a block of `len` bytes may be sent.
    fn allowance(&self, len: usize) -> usize {
        match self.head.as_ref().and_then(|h| h.length) {
            Some(promised) => usize::try_from(promised.saturating_sub(self.sent)).unwrap_or(usize::MAX).min(len),
            None => len,
        }
    }
}

/// Everything that stands before a block on the wire: the session and the HEAD frame if it was not sent yet.
struct Front {
    session: Vec<u8>,
    begin: Vec<u8>,
    fields: Vec<u8>,
}

impl Exchange {
    /// Takes the head for sending; `whole` is the body's length when it is known to be all there is.
    fn front(&self, response: &mut Response, whole: Option<usize>) -> Result<Front, Trouble> {
        let Some(head) = response.head.as_mut() else { return Err(Trouble::NotStarted) };
        if response.sent_head {
            return Ok(Front { session: Vec::new(), begin: Vec::new(), fields: Vec::new() });
        }
        let mut fields = std::mem::take(&mut head.fields);
        let is_head = self.is_head.load(Ordering::Relaxed);
        if let Some(len) = whole.filter(|&len| head.length.is_none() && head.allows_body() && (len > 0 || !is_head)) {
            // An empty answer to HEAD says nothing about the length that GET would have.
            if head::field(&mut fields, b"Content-Length", len.to_string().as_bytes()).is_ok() {
                head.count = head.count.saturating_add(1);
                head.length = Some(len as u64);
            }
        }
        let mut payload = Vec::with_capacity(HEADER + 8 + head.reason.len());
        payload.resize(HEADER, 0);
        // The reason was checked to be short enough when start_response took it.
        if head::begin(&mut payload, head.status, &head.reason, head.count).is_err() {
            return Err(Trouble::NotStarted);
        }
        let header = self.way.header(Kind::Head, 0, payload.len() - HEADER + fields.len());
        if let Some(place) = payload.first_chunk_mut::<HEADER>() {
            *place = header;
        }
        response.sent_head = true;
        Ok(Front { session: std::mem::take(&mut response.before_head), begin: payload, fields })
    }

    /// Whether this answer must have as many bytes as its Content-Length says.
    fn must_be_whole(&self, head: &Head) -> bool {
        head.allows_body() && !self.is_head.load(Ordering::Relaxed)
    }

    /// Sends one block, the head before it if need be; `whole`: there is no other. Returns false when the application has
    /// produced more than it promised: then it need not be asked for more.
    pub fn block(&self, py: Python<'_>, block: &[u8], whole: bool) -> Result<bool, Trouble> {
        let (front, block, within, told) = {
            let mut response = gil::lock(py, &self.response);
            let front = self.front(&mut response, whole.then_some(block.len()))?;
            let allowed = response.allowance(block.len());
            let within = allowed == block.len();
            let told = within || std::mem::replace(&mut response.excess, true);
            response.sent = response.sent.saturating_add(allowed as u64);
            (front, block.get(..allowed).unwrap_or_default(), within, told)
        };
        let mut pieces = block.chunks(FRAME);
        let first = pieces.next().unwrap_or_default();
        let header = self.way.header(Kind::Body, 0, first.len());
        let header: &[u8] = if first.is_empty() { &[] } else { &header };
        if !front.begin.is_empty() || !first.is_empty() {
            self.way.send(py, &[&front.session, &front.begin, &front.fields, header, first])?;
        }
        for piece in pieces {
            self.way.send(py, &[&self.way.header(Kind::Body, 0, piece.len()), piece])?;
        }
        if !told {
            errors::log(py, self, WARNING, b"response is longer than its Content-Length; the rest is cut off");
        }
        Ok(within)
    }

    /// Sends the only block there is, and END with it: one system call for most answers. `Ok(false)`: it does not go like
    /// that, nothing was sent. Only for results that need no `close`.
    pub fn only_block(&self, py: Python<'_>, block: &[u8]) -> Result<bool, Trouble> {
        let front = {
            let mut response = gil::lock(py, &self.response);
            let Some(head) = response.head.as_ref() else { return Err(Trouble::NotStarted) };
            let exact = head.length.is_none_or(|promised| promised == block.len() as u64);
            if response.sent_head || !exact || block.len() > TOGETHER {
                return Ok(false);
            }
            self.front(&mut response, Some(block.len()))?
        };
        errors::finish_line(py, self);
        let clean = self.is_body_clean(py);
        let (header, end) = (self.way.header(Kind::Body, 0, block.len()), self.way.header(Kind::End, 0, 0));
        let header: &[u8] = if block.is_empty() { &[] } else { &header };
        self.way.send_last(py, &[&front.session, &front.begin, &front.fields, header, block, &end], clean)?;
        Ok(true)
    }

    /// Ends the answer: the head if nothing else has sent it, then END, unless bytes are missing.
    pub fn end(&self, py: Python<'_>) -> Result<End, Trouble> {
        let front = {
            let mut response = gil::lock(py, &self.response);
            let Some(head) = response.head.as_ref() else { return Err(Trouble::NotStarted) };
            if let Some(promised) = head.length.filter(|&p| self.must_be_whole(head) && response.sent < p) {
                return Ok(End::Short { promised, sent: response.sent });
            }
            self.front(&mut response, None)?
        };
        errors::finish_line(py, self);
        let clean = self.is_body_clean(py);
        self.way.send_last(py, &[&front.session, &front.begin, &front.fields, &self.way.header(Kind::End, 0, 0)], clean)?;
        Ok(End::Complete)
    }

    /// Whether nothing of the request's body is or may come to be on the socket: only then can httpd use the pair again.
    fn is_body_clean(&self, py: Python<'_>) -> bool {
        if !self.sessions.is_clean() {
            return false; // another thread waits for an answer
        }
        self.body.as_ref().is_none_or(|body| match body.try_lock() {
            Some(mut body) => body.settle(),
            None => {
                // Another thread of the application reads from it still.
                self.way.close(py);
                false
            }
        })
    }
}
