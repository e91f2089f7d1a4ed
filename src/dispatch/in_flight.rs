//! A request that was sent to its queue: its body, its response, its reply socket.
//!
//! Responsible for: closing the worker's end here while the request runs, so that the worker's death is an end-of-file; reusing
//! a reply socket only when END returned that very end. Must never: trust a frame. Called by: `handler`.
use super::error::DispatchError;
use super::queues::Queue;
use super::reply_socket::ReplySocket;
use super::seats::Seat;
use super::wake::Wake;
use drover_sys::clock::monotonic_ns;
use drover_sys::wait::{PollFd, PollFlags, poll_until};
use drover_sys::{Errno, channel, memfile};
use drover_wire::WireError;
use drover_wire::frame::{BodyFailure, Deframer, Event, HEADER, Header, Kind};
use drover_wire::request::{PREFIX, is_external, set_seat};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The size of the receive buffer, in bytes.
const BUFFER: usize = 64 * 1024;
/// The pause before sending again when the user has too many descriptors in flight; poll(2) cannot wait for that.
const IN_FLIGHT_PAUSE_NS: u64 = 5_000_000;

/// What [`InFlight::wait`] waits for.
#[derive(Debug, Clone, Copy)]
pub struct Want<'a> {
    /// The worker sends something or exits.
    pub response: bool,
    /// The worker accepts more of the body.
    pub room: bool,
    /// The client sends something (IN), accepts more (OUT) or disconnects.
    pub client: Option<(BorrowedFd<'a>, PollFlags)>,
}

/// What [`InFlight::wait`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// The worker sent something or exited.
    pub response: bool,
    /// The worker accepts more of the body.
    pub room: bool,
    /// The client did what was waited for, or disconnected.
    pub client: bool,
    /// The client accepts more, or disconnected.
    pub client_accepts: bool,
}

/// The message of a request.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'m> {
    /// What `request::Builder` made.
    pub bytes: &'m [u8],
    /// The number of the request.
    pub number: u32,
    /// The worker may access sessions.
    pub sessions: bool,
    /// What it is about, for the log.
    pub about: &'m [u8],
}

/// A request that was sent and has not ended.
#[derive(Debug)]
pub struct InFlight<'q> {
    queue: &'q Queue,
    near: OwnedFd,
    cookie: u64,
    number: u32,
    seat: Option<Seat>,
    returned: Option<OwnedFd>,
    deframer: Deframer,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    out: Vec<u8>,
    out_at: usize,
    /// Where the last session reply ends in `out`.
    session_end: usize,
}

impl<'q> InFlight<'q> {
    /// Sends a message to the queue. Waits for room until `until` (CLOCK_MONOTONIC nanoseconds), calling `before_waiting` first.
    pub fn send(
        queue: &'q Queue,
        message: Outgoing<'_>,
        buffer: Vec<u8>,
        wake: &Wake,
        until: u64,
        before_waiting: &mut dyn FnMut(),
    ) -> Result<Self, DispatchError> {
        let Outgoing { bytes: message, number, sessions, about } = message;
        let ReplySocket { near, far, cookie } = queue.take_socket()?;
        let (head, rest) = message.split_first_chunk::<PREFIX>().ok_or(DispatchError::TooLarge(WireError::Short("prefix")))?;
        let (inline, file) = if is_external(message) {
            (&[][..], Some(memfile::create(rest).map_err(|e| DispatchError::System("cannot create a memory file", e))?))
        } else {
            (rest, None)
        };
        let seat = queue.seats.as_ref().and_then(|seats| seats.sit(number, about));
        let mut head = *head;
        if let Some(seat) = &seat {
            set_seat(&mut head, seat.place());
        }
        let both = [far.as_fd(), file.as_ref().map_or(far.as_fd(), AsFd::as_fd)];
        let fds = both.get(..if file.is_some() { 2 } else { 1 }).unwrap_or_default();
        loop {
            let pause = match channel::send(&queue.fd, &[&head, inline], fds, false) {
                Ok(_) => break,
                Err(Errno::AGAIN) => None,
                Err(Errno::TOOMANYREFS) => Some(IN_FLIGHT_PAUSE_NS),
                Err(e) => return Err(DispatchError::System("cannot send the request to the queue", e)),
            };
            before_waiting();
            wait_for_room(&queue.fd, wake, until, pause)?;
        }
        drop(far);
        let mut buffer = buffer;
        if buffer.len() < BUFFER {
            buffer.resize(BUFFER, 0);
        }
        Ok(Self {
            queue,
            near,
            cookie,
            number,
            seat,
            returned: None,
            deframer: if sessions { Deframer::new(number) } else { Deframer::without_sessions(number) },
            buffer,
            start: 0,
            end: 0,
            out: Vec::new(),
            out_at: 0,
            session_end: 0,
        })
    }

    /// Larger session frames are skipped from now on ([`Deframer::limit_sessions`]).
    pub fn limit_sessions(&mut self, most: usize) {
        self.deframer.limit_sessions(most);
    }

    /// Bytes of memory that frames need beyond the usual buffer.
    #[must_use]
    pub const fn kept(&self) -> usize {
        self.buffer.len().saturating_sub(BUFFER)
    }

    /// Waits for one of the events in `want`, until `until` at most. After a timeout all of [`Ready`] is false.
    pub fn wait(&self, want: &Want<'_>, wake: &Wake, until: u64) -> Result<Ready, DispatchError> {
        let mut interest = PollFlags::empty();
        interest.set(PollFlags::IN, want.response);
        interest.set(PollFlags::OUT, want.room);
        // poll(2) always reports a hangup, so the worker is left out while nothing is wanted from it.
        let near = if interest.is_empty() { wake.fd().as_fd() } else { self.near.as_fd() };
        let client = want.client.map(|(fd, _)| fd);
        let of_client = want.client.map_or(PollFlags::IN, |(_, flags)| flags);
        let mut all = [
            PollFd::from_borrowed_fd(near, if interest.is_empty() { PollFlags::IN } else { interest }),
            PollFd::new(wake.fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(client.unwrap_or_else(|| wake.fd().as_fd()), of_client),
        ];
        let fds = all.get_mut(..if client.is_some() { 3 } else { 2 }).unwrap_or_default();
        poll_until(fds, Some(until)).map_err(|e| DispatchError::System("poll", e))?;
        if wake.is_stopping() {
            return Err(DispatchError::Stopping);
        }
        let [near, _, other] = &all;
        let near = near.revents();
        Ok(Ready {
            response: want.response && near.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL),
            room: want.room && near.contains(PollFlags::OUT),
            client: client.is_some() && !other.revents().is_empty(),
            client_accepts: client.is_some()
                && other.revents().intersects(PollFlags::OUT | PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL),
        })
    }

    /// Reads what has arrived. `Ok(false)`: nothing.
    pub fn fill(&mut self) -> Result<bool, DispatchError> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            self.buffer.truncate(BUFFER);
            self.buffer.shrink_to(BUFFER);
        }
        let wanted = self.deframer.wanted(self.buffer.get(self.start..self.end).unwrap_or_default());
        if self.buffer.len() - self.start < wanted.max(HEADER) {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            // The buffer grows with the data that arrives, not to the size that a frame announces.
            let wanted = wanted.min(self.end.saturating_mul(2)).max(HEADER);
            if self.buffer.len() < wanted {
                self.buffer.resize(wanted, 0);
            }
        }
        let mut fds = Vec::new();
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        // If the descriptor that comes with END does not fit, the response is still complete; only the socket is not reused.
        match channel::receive_piece(&self.near, room, &mut fds) {
            Ok(0) => Err(self.worker_died()),
            Ok(n) => {
                self.end += n;
                if let Some(fd) = fds.pop() {
                    fds.extend(self.returned.replace(fd));
                }
                channel::dispose(fds);
                Ok(true)
            }
            Err(Errno::AGAIN) => Ok(false),
            Err(Errno::CONNRESET) => Err(self.worker_died()),
            Err(e) => Err(DispatchError::System("cannot read from the worker", e)),
        }
    }

    fn worker_died(&self) -> DispatchError {
        DispatchError::WorkerDied(self.seat.as_ref().and_then(Seat::worker))
    }

    /// The complete frames in the buffer, and the socket, to check meanwhile whether the worker is connected.
    pub fn frames(&mut self) -> (Frames<'_>, BorrowedFd<'_>) {
        let frames = Frames {
            bytes: self.buffer.get(self.start..self.end).unwrap_or_default(),
            deframer: &mut self.deframer,
            start: &mut self.start,
        };
        (frames, self.near.as_fd())
    }

    /// Whether everything given to the `offer` functions was sent.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.out_at == self.out.len()
    }

    /// Queues a piece of the body. Only when [`InFlight::is_flushed`].
    pub fn offer(&mut self, data: &[u8]) {
        self.frame(Kind::Body, 0, data);
    }

    /// Queues the end of the body.
    pub fn offer_end(&mut self) {
        self.frame(Kind::End, 0, &[]);
    }

    /// Queues a session reply, possibly after a piece of the body that is not sent yet.
    pub fn offer_session_reply(&mut self, status: u16, payload: &[u8]) {
        self.frame(Kind::Session, status, payload);
        self.session_end = self.out.len();
    }

    /// Whether part of a session reply is not sent yet. Body pieces after it do not count.
    #[must_use]
    pub const fn owes_session_reply(&self) -> bool {
        self.out_at < self.session_end
    }

    /// Queues the notice that the rest of the body will not come.
    pub fn offer_failure(&mut self, why: BodyFailure) {
        self.frame(Kind::Fail, why as u16, &[]);
    }

    fn frame(&mut self, kind: Kind, code: u16, data: &[u8]) {
        if self.is_flushed() {
            self.out.clear();
            (self.out_at, self.session_end) = (0, 0);
        }
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        self.out.extend_from_slice(&Header { len, number: self.number, kind, code }.encode());
        self.out.extend_from_slice(data);
    }

    /// Sends as much of the queued data as the worker accepts now. `Ok(false)`: the worker stopped reading.
    pub fn flush(&mut self) -> Result<bool, DispatchError> {
        while let Some(rest) = self.out.get(self.out_at..).filter(|r| !r.is_empty()) {
            match channel::send(&self.near, &[rest], &[], false) {
                Ok(n) => self.out_at += n,
                Err(Errno::AGAIN) => break,
                Err(Errno::PIPE | Errno::CONNRESET) => {
                    self.out_at = self.out.len();
                    return Ok(false);
                }
                Err(e) => return Err(DispatchError::System("cannot send to the worker", e)),
            }
        }
        Ok(true)
    }

    /// Ends the request. With `clean` (END was read), the reply socket is kept for reuse if the worker returned its end.
    /// Returns the buffer for the next request.
    pub fn finish(mut self, clean: bool) -> Vec<u8> {
        if let Some(seat) = self.seat.take_if(|_| clean) {
            seat.leave();
        }
        let is_reusable = clean && self.start == self.end && self.is_flushed();
        match self.returned {
            Some(far) if is_reusable && channel::cookie(&far) == Ok(self.cookie) => {
                self.queue.give_back(ReplySocket { near: self.near, far, cookie: self.cookie });
            }
            other => {
                channel::discard(&self.near);
                // It may be any descriptor that the worker chose.
                channel::dispose(other.into_iter().collect());
            }
        }
        let mut buffer = self.buffer;
        if buffer.len() > BUFFER {
            buffer.truncate(BUFFER);
            buffer.shrink_to_fit();
        }
        buffer
    }
}

/// Iterates over the complete frames of a buffer.
#[derive(Debug)]
pub struct Frames<'a> {
    bytes: &'a [u8],
    deframer: &'a mut Deframer,
    start: &'a mut usize,
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Event<'a>, DispatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.deframer.next(self.bytes) {
            Ok(None) => None,
            Ok(Some((event, used))) => {
                self.bytes = self.bytes.get(used..).unwrap_or_default();
                *self.start += used;
                Some(Ok(event))
            }
            Err(e) => {
                self.bytes = &[];
                Some(Err(DispatchError::Wire(e)))
            }
        }
    }
}

fn wait_for_room(queue: &OwnedFd, wake: &Wake, until: u64, pause: Option<u64>) -> Result<(), DispatchError> {
    let now = monotonic_ns();
    if now >= until {
        return Err(DispatchError::QueueTimeout);
    }
    let mut fds = [PollFd::new(wake.fd(), PollFlags::IN), PollFd::new(queue, PollFlags::OUT)];
    let (fds, until) = match pause {
        Some(ns) => (fds.get_mut(..1).unwrap_or_default(), until.min(now + ns)),
        None => (fds.as_mut_slice(), until),
    };
    poll_until(fds, Some(until)).map_err(|e| DispatchError::System("poll", e))?;
    if wake.is_stopping() { Err(DispatchError::Stopping) } else { Ok(()) }
}
