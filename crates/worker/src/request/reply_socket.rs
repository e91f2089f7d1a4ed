//! The reply socket of one request, over which the worker answers httpd.
//!
//! Responsible for: never mixing the frames of several threads; never waiting for a slow reader
//! with the GIL held; sending nothing once the request is over. Must never: know what a response
//! is. Called by: `response`, `log`, `input`, `session`, `failure`, `handback`, `threads::monitor`.
use crate::cpython;
use crate::process::fork;
use crate::request::reply_fd::ReplyFd;
use drover_sys::wait::{PollFd, PollFlags, poll_until};
use drover_sys::{Errno, channel};
use drover_wire::frame::{Failure, HEADER, Header, Kind, MAX_LOG};
use parking_lot::Mutex;
use pyo3::Python;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// Pieces that one system call sends, at most.
const MAX_PIECES: usize = 8;

/// httpd does not read any more, or the request is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disconnected;

/// The sending half of a reply socket.
#[derive(Debug)]
pub struct ReplySocket {
    number: u32,
    /// Locked while a thread sends, also while it waits for httpd without the GIL. A forked child
    /// must not touch it.
    out: Mutex<Out>,
}

/// The state of sending.
#[derive(Debug)]
struct Out {
    /// `None` once the request is over.
    fd: Option<Arc<ReplyFd>>,
    /// Part of the response was sent.
    begun: bool,
    /// httpd does not read any more.
    disconnected: bool,
}

impl ReplySocket {
    /// For request `number`.
    pub const fn new(number: u32, fd: Arc<ReplyFd>) -> Self {
        Self { number, out: Mutex::new(Out { fd: Some(fd), begun: false, disconnected: false }) }
    }

    /// The request's number.
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// A frame's header for this request.
    pub fn header(&self, kind: Kind, code: u16, len: usize) -> [u8; HEADER] {
        Header { len: u32::try_from(len).unwrap_or(u32::MAX), number: self.number, kind, code }.encode()
    }

    /// Sends whole frames, which `pieces` form together; at most [`MAX_PIECES`].
    pub fn send(&self, py: Python<'_>, pieces: &[&[u8]]) -> Result<(), Disconnected> {
        self.transmit(py, pieces, false, true)
    }

    /// Sends the last frames. With `return_fd` the descriptor goes with them, so that httpd can use
    /// the socket pair again.
    pub fn send_last(&self, py: Python<'_>, pieces: &[&[u8]], return_fd: bool) -> Result<(), Disconnected> {
        let result = self.transmit(py, pieces, return_fd, true);
        self.close(py);
        result
    }

    /// Sends text for the error log, cut into frames at line ends.
    pub fn log(&self, py: Python<'_>, level: u16, text: &[u8]) -> Result<(), Disconnected> {
        let mut rest = text.strip_suffix(b"\n").unwrap_or(text);
        while !rest.is_empty() {
            let (piece, after) = first_frame(rest);
            rest = after;
            if !piece.is_empty() {
                self.transmit(py, &[&self.header(Kind::Log, level, piece.len()), piece], false, false)?;
            }
        }
        Ok(())
    }

    /// Tells httpd that the request runs, unless part of the response was sent. Takes no GIL and
    /// does not wait.
    pub fn tell_taken(&self) {
        self.tell(Kind::Taken);
    }

    /// Tells httpd that the request is not running: if it gets lost, httpd can send it again.
    pub fn tell_held(&self) {
        self.tell(Kind::Held);
    }

    /// Tells httpd that the request gets no response, unless part of one was sent: that is cut when
    /// the process ends. Takes no GIL and does not wait.
    pub fn abort(&self, why: &str) {
        if fork::is_child() {
            return;
        }
        let Some(mut out) = self.out.try_lock() else { return }; // another thread is sending
        let Some(fd) = out.fd.clone().filter(|_| !out.begun && !out.disconnected) else { return };
        let _ = channel::send(&*fd, &[&self.header(Kind::Fail, Failure::Timeout as u16, why.len()), why.as_bytes()], &[], false);
        out.disconnected = true;
    }

    fn tell(&self, kind: Kind) {
        if fork::is_child() {
            return;
        }
        let Some(mut out) = self.out.try_lock() else { return }; // another thread is sending
        let Some(fd) = out.fd.clone().filter(|_| !out.begun && !out.disconnected) else { return };
        if let Ok(n) = channel::send(&*fd, &[&self.header(kind, 0, 0)], &[], false) {
            out.disconnected = n != HEADER; // half a frame: the stream is unusable
        }
    }

    /// The descriptor, `None` once the request is over.
    pub fn socket(&self, py: Python<'_>) -> Option<Arc<ReplyFd>> {
        if fork::is_child() {
            return None;
        }
        cpython::lock(py, &self.out).fd.clone()
    }

    /// Ends sending.
    pub fn close(&self, py: Python<'_>) {
        if fork::is_child() {
            return;
        }
        let fd = cpython::lock(py, &self.out).fd.take();
        drop(fd);
    }

    fn transmit(&self, py: Python<'_>, pieces: &[&[u8]], return_fd: bool, begins: bool) -> Result<(), Disconnected> {
        if fork::is_child() {
            return Err(Disconnected);
        }
        let mut out = cpython::lock(py, &self.out);
        let Some(fd) = out.fd.clone().filter(|_| !out.disconnected) else { return Err(Disconnected) };
        out.begun |= begins;
        let fds: &[BorrowedFd<'_>] = if return_fd { &[fd.as_fd()] } else { &[] };
        let total: usize = pieces.iter().map(|p| p.len()).sum();
        // Most responses fit into the socket's buffer: then the GIL need not be released and taken
        // again.
        let sent = match channel::send(&*fd, pieces, fds, false) {
            Ok(n) if n >= total => return Ok(()),
            Ok(n) => n,
            Err(Errno::AGAIN) => 0,
            Err(_) => {
                out.disconnected = true;
                return Err(Disconnected);
            }
        };
        // The lock is released inside, before the GIL is taken again. The descriptor is not closed
        // there, as only a thread with the GIL may close it.
        let fd = &*fd;
        py.detach(move || {
            let result = send_rest(fd, pieces, sent, total, return_fd);
            out.disconnected = result.is_err();
            drop(out);
            result
        })
    }
}

/// Sends what follows the first `sent` bytes, waiting for room.
fn send_rest(fd: &ReplyFd, pieces: &[&[u8]], mut sent: usize, total: usize, return_fd: bool) -> Result<(), Disconnected> {
    while sent < total {
        // httpd's closing ends the wait; its own time limits bound how long it does not read.
        let mut room = [PollFd::new(fd, PollFlags::OUT)];
        poll_until(&mut room, None).map_err(|_| Disconnected)?;
        let mut left: [&[u8]; MAX_PIECES] = [&[]; MAX_PIECES];
        let count = without_sent(pieces, sent, &mut left);
        // A descriptor travels with the first byte of its message, so it is passed only once.
        let fds: &[BorrowedFd<'_>] = if return_fd && sent == 0 { &[fd.as_fd()] } else { &[] };
        match channel::send(fd, left.get(..count).unwrap_or_default(), fds, false) {
            Ok(n) => sent += n,
            Err(Errno::AGAIN) => {}
            Err(_) => return Err(Disconnected),
        }
    }
    Ok(())
}

/// Writes the pieces without their first `skip` bytes to `left`, and returns their number.
fn without_sent<'a>(pieces: &[&'a [u8]], mut skip: usize, left: &mut [&'a [u8]; MAX_PIECES]) -> usize {
    let mut count = 0;
    for piece in pieces {
        let rest = piece.get(skip..).unwrap_or_default();
        skip = skip.saturating_sub(piece.len());
        if let Some(slot) = left.get_mut(count).filter(|_| !rest.is_empty()) {
            *slot = rest;
            count += 1;
        }
    }
    count
}

/// Splits text that may be longer than one LOG frame after the last line that fits.
fn first_frame(text: &[u8]) -> (&[u8], &[u8]) {
    let Some(most) = text.get(..MAX_LOG) else { return (text, &[]) };
    let cut = most.iter().rposition(|&b| b == b'\n').map_or(MAX_LOG, |at| at + 1);
    let (piece, rest) = text.split_at_checked(cut).unwrap_or((text, &[]));
    (piece.strip_suffix(b"\n").unwrap_or(piece), rest)
}
