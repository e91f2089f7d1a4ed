//! The response: the order in which the headers, the blocks of the body and END are sent.
//!
//! Responsible for: headers before any block, each block sent before the application is asked for
//! the next, Content-Length kept, END only after a complete response. Must never: run Python code
//! while its lock is held. Called by: `running`, `application`, `start_response`, `session`.
use crate::cpython;
use crate::request::reply_socket::{Disconnected, ReplySocket};
use drover_wire::frame::{HEADER, Kind};
use drover_wire::head;
use parking_lot::Mutex;
use pyo3::Python;
use std::sync::atomic::{AtomicBool, Ordering};

/// A larger last block is sent before END, not with it: else the descriptor that goes with END
/// would arrive before a long response. Bytes.
const MAX_BLOCK_WITH_END: usize = 64 * 1024;
/// Longer blocks are cut into frames of this size, as a frame's length has 32 bits. Bytes.
const MAX_FRAME: usize = 1 << 30;

/// The status line and header fields that start_response was given, checked.
#[derive(Debug, Default)]
pub struct ResponseHeaders {
    /// The status code.
    pub status: u16,
    /// The reason phrase.
    pub reason: Vec<u8>,
    /// The header fields, encoded for the wire.
    pub fields: Vec<u8>,
    /// The number of fields.
    pub count: u16,
    /// The value of Content-Length.
    pub length: Option<u64>,
}

impl ResponseHeaders {
    /// 204, 304 and 1xx have no body, whatever their Content-Length (RFC 9110 §6.4.1).
    const fn allows_body(&self) -> bool {
        !matches!(self.status, 100..=199 | 204 | 304)
    }
}

/// The response of one request.
#[derive(Debug, Default)]
pub struct Response {
    progress: Mutex<Progress>,
    /// The application sees the method HEAD.
    is_head_request: AtomicBool,
}

/// How far the response is.
#[derive(Debug, Default)]
struct Progress {
    /// Set by start_response, and again by another call before anything was sent.
    headers: Option<ResponseHeaders>,
    headers_sent: bool,
    /// Bytes of body that were sent.
    sent: u64,
    /// The application has produced more than Content-Length says, and that was reported.
    excess: bool,
    /// Frames that go out before the headers, in the same write: those of the session.
    before_headers: Vec<u8>,
}

/// Why a block could not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// start_response was not called.
    NotStarted,
    /// httpd does not read any more, or the request is over.
    Disconnected,
}

impl From<Disconnected> for SendError {
    fn from(_: Disconnected) -> Self {
        Self::Disconnected
    }
}

/// What [`Response::block`] has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The whole block.
    Whole,
    /// Only as much as Content-Length allows.
    Excess {
        /// This was the first excess of the response.
        first: bool,
    },
}

/// How the response ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// Complete.
    Complete,
    /// With fewer bytes than Content-Length says.
    Short {
        /// Content-Length.
        promised: u64,
        /// Bytes sent.
        sent: u64,
    },
}

/// What goes out before a block: the session's frames, and the HEAD frame if it was not sent yet.
struct Front {
    session: Vec<u8>,
    begin: Vec<u8>,
    fields: Vec<u8>,
}

impl Progress {
    /// How much of a block of `len` bytes may be sent.
    fn allowance(&self, len: usize) -> usize {
        match self.headers.as_ref().and_then(|h| h.length) {
            Some(promised) => usize::try_from(promised.saturating_sub(self.sent)).unwrap_or(usize::MAX).min(len),
            None => len,
        }
    }

    /// Takes the headers for sending; `whole` is the body's length if it is known.
    fn front(&mut self, reply: &ReplySocket, is_head_request: bool, whole: Option<usize>) -> Result<Front, SendError> {
        let Some(headers) = self.headers.as_mut() else { return Err(SendError::NotStarted) };
        if self.headers_sent {
            return Ok(Front { session: Vec::new(), begin: Vec::new(), fields: Vec::new() });
        }
        let mut fields = std::mem::take(&mut headers.fields);
        if let Some(len) = whole.filter(|&len| headers.length.is_none() && headers.allows_body() && (len > 0 || !is_head_request)) {
            // An empty response to HEAD does not tell the length that GET would have.
            if head::field(&mut fields, b"Content-Length", len.to_string().as_bytes()).is_ok() {
                headers.count = headers.count.saturating_add(1);
                headers.length = Some(len as u64);
            }
        }
        let mut payload = Vec::with_capacity(HEADER + 8 + headers.reason.len());
        payload.resize(HEADER, 0);
        // start_response has checked the reason's length.
        if head::begin(&mut payload, headers.status, &headers.reason, headers.count).is_err() {
            return Err(SendError::NotStarted);
        }
        let header = reply.header(Kind::Head, 0, payload.len() - HEADER + fields.len());
        if let Some(place) = payload.first_chunk_mut::<HEADER>() {
            *place = header;
        }
        self.headers_sent = true;
        Ok(Front { session: std::mem::take(&mut self.before_headers), begin: payload, fields })
    }
}

impl Response {
    /// Says whether the application sees the method HEAD.
    pub fn set_head_request(&self, is: bool) {
        self.is_head_request.store(is, Ordering::Relaxed);
    }

    fn is_head_request(&self) -> bool {
        self.is_head_request.load(Ordering::Relaxed)
    }

    /// Whether the headers were sent.
    pub fn are_headers_sent(&self, py: Python<'_>) -> bool {
        cpython::lock(py, &self.progress).headers_sent
    }

    /// Whether headers are set, and go out with the next block or at the end.
    pub fn are_headers_due(&self, py: Python<'_>) -> bool {
        let progress = cpython::lock(py, &self.progress);
        progress.headers.is_some() && !progress.headers_sent
    }

    /// Takes whole frames that go out before the headers.
    pub fn put_before_headers(&self, py: Python<'_>, frames: Vec<u8>) {
        cpython::lock(py, &self.progress).before_headers = frames;
    }

    /// The same unless the headers were sent: then the frames come back.
    pub fn put_before_unsent_headers(&self, py: Python<'_>, frames: Vec<u8>) -> Option<Vec<u8>> {
        let mut progress = cpython::lock(py, &self.progress);
        if progress.headers_sent {
            return Some(frames);
        }
        progress.before_headers = frames;
        None
    }

    /// Takes what start_response was given.
    pub fn start(&self, py: Python<'_>, headers: ResponseHeaders) {
        cpython::lock(py, &self.progress).headers = Some(headers);
    }

    /// Sends one block, and the headers before it if they were not sent; `whole` says that there is
    /// no other block.
    pub fn block(&self, py: Python<'_>, reply: &ReplySocket, block: &[u8], whole: bool) -> Result<Sent, SendError> {
        let (front, block, sent) = {
            let mut progress = cpython::lock(py, &self.progress);
            let front = progress.front(reply, self.is_head_request(), whole.then_some(block.len()))?;
            let allowed = progress.allowance(block.len());
            let sent =
                if allowed == block.len() { Sent::Whole } else { Sent::Excess { first: !std::mem::replace(&mut progress.excess, true) } };
            progress.sent = progress.sent.saturating_add(allowed as u64);
            (front, block.get(..allowed).unwrap_or_default(), sent)
        };
        let mut pieces = block.chunks(MAX_FRAME);
        let first = pieces.next().unwrap_or_default();
        let header = reply.header(Kind::Body, 0, first.len());
        let header: &[u8] = if first.is_empty() { &[] } else { &header };
        if !front.begin.is_empty() || !first.is_empty() {
            reply.send(py, &[&front.session, &front.begin, &front.fields, header, first])?;
        }
        for piece in pieces {
            reply.send(py, &[&reply.header(Kind::Body, 0, piece.len()), piece])?;
        }
        Ok(sent)
    }

    /// Sends the only block and END in one system call. `Ok(false)`: that is not possible, and
    /// nothing was sent. `finish` runs before END and returns whether httpd can use the socket pair
    /// again.
    pub fn only_block(&self, py: Python<'_>, reply: &ReplySocket, block: &[u8], finish: impl FnOnce() -> bool) -> Result<bool, SendError> {
        let front = {
            let mut progress = cpython::lock(py, &self.progress);
            let Some(headers) = progress.headers.as_ref() else { return Err(SendError::NotStarted) };
            let exact = headers.length.is_none_or(|promised| promised == block.len() as u64);
            if progress.headers_sent || !exact || block.len() > MAX_BLOCK_WITH_END {
                return Ok(false);
            }
            progress.front(reply, self.is_head_request(), Some(block.len()))?
        };
        let clean = finish();
        let (header, end) = (reply.header(Kind::Body, 0, block.len()), reply.header(Kind::End, 0, 0));
        let header: &[u8] = if block.is_empty() { &[] } else { &header };
        reply.send_last(py, &[&front.session, &front.begin, &front.fields, header, block, &end], clean)?;
        Ok(true)
    }

    /// Ends the response: the headers if they were not sent, then END, unless bytes are missing.
    /// `finish` runs before END and returns whether httpd can use the socket pair again.
    pub fn end(&self, py: Python<'_>, reply: &ReplySocket, finish: impl FnOnce() -> bool) -> Result<End, SendError> {
        let front = {
            let mut progress = cpython::lock(py, &self.progress);
            let Some(headers) = progress.headers.as_ref() else { return Err(SendError::NotStarted) };
            // A HEAD request's response has no body.
            let must_be_whole = headers.allows_body() && !self.is_head_request();
            if let Some(promised) = headers.length.filter(|&p| must_be_whole && progress.sent < p) {
                return Ok(End::Short { promised, sent: progress.sent });
            }
            progress.front(reply, self.is_head_request(), None)?
        };
        let clean = finish();
        reply.send_last(py, &[&front.session, &front.begin, &front.fields, &reply.header(Kind::End, 0, 0)], clean)?;
        Ok(End::Complete)
    }
}
