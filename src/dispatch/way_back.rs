//! One request on its way: put on the queue, its body sent behind it, its answer read, its socket pair kept or thrown away.
//!
//! Responsible for: the worker's end being closed here while the request runs, so that the worker's death is an end-of-file;
//! and for using a pair again only after END came with that very end. Must never: trust a frame. Called by: `handler`.
use super::error::DispatchError;
use super::queues::Queue;
use super::seats::Seat;
use drover_sys::clock::monotonic_ns;
use drover_sys::wait::{EventfdFlags, PollFd, PollFlags, eventfd, poll_until};
use drover_sys::{Errno, channel, memfile};
use drover_wire::WireError;
use drover_wire::frame::{BodyFailure, Deframer, Event, HEADER, Header, Kind};
use drover_wire::request::{PREFIX, is_external, set_seat};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of the buffer into which an answer is read.
const BUFFER: usize = 64 * 1024;
/// How long to wait before trying again when the user has too many descriptors in flight; there is nothing to poll for.
const IN_FLIGHT_PAUSE_NS: u64 = 5_000_000;

/// Wakes every waiting thread of this process when httpd stops it.
#[derive(Debug)]
pub struct Wake {
    fd: OwnedFd,
    stopping: AtomicBool,
}

impl Wake {
    /// Not woken yet.
    pub fn new() -> Result<Self, Errno> {
        Ok(Self { fd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?, stopping: AtomicBool::new(false) })
    }

    /// Wakes everybody, for good. Async-signal-safe: an atomic store and write(2).
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        // The counter is far from full; and if it were, the descriptor would be readable already.
        let _ = drover_sys::write_once(&self.fd, &1u64.to_ne_bytes());
    }

    /// Whether [`Wake::stop`] was called.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Readable from [`Wake::stop`] on.
    #[must_use]
    pub const fn fd(&self) -> &OwnedFd {
        &self.fd
    }
}

/// A connected pair of stream sockets that is not in use.
#[derive(Debug)]
pub struct Pair {
    near: OwnedFd,
    far: OwnedFd,
    /// The kernel's number of `far`, to know it again when it comes back.
    cookie: u64,
}

impl Pair {
    pub(super) fn new() -> Result<Self, DispatchError> {
        let system = |e| DispatchError::System("cannot make a socket pair", e);
        let (near, far) = channel::stream_pair().map_err(system)?;
        let cookie = channel::cookie(&far).map_err(system)?;
        Ok(Self { near, far, cookie })
    }
}

/// What [`Exchange::wait`] waits for.
#[derive(Debug, Clone, Copy)]
pub struct Want<'a> {
    /// The worker sends something, or is gone.
    pub answer: bool,
    /// The worker can take more of the body.
    pub room: bool,
    /// The client sends something (IN), or takes more (OUT), or is gone.
    pub client: Option<(BorrowedFd<'a>, PollFlags)>,
}

/// What [`Exchange::wait`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// The worker sent something, or is gone.
    pub answer: bool,
    /// There is room for more of the body.
    pub room: bool,
    /// What was asked of the client has come.
    pub client: bool,
    /// The client takes more, or is gone.
    pub client_takes: bool,
}

/// A request as it is put on a queue.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'m> {
    /// As `request::Builder` made it.
    pub bytes: &'m [u8],
    /// Its number.
    pub number: u32,
    /// The worker may ask for sessions.
    pub sessions: bool,
    /// What it is about, for the log.
    pub about: &'m [u8],
}

/// One request between being sent and its end.
#[derive(Debug)]
pub struct Exchange<'q> {
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
    /// Where the last answer to a session ends in `out`.
    session_end: usize,
}

impl<'q> Exchange<'q> {
    /// Puts a whole message on the queue. Waits for room until `until` (CLOCK_MONOTONIC nanoseconds); `must_wait` is called before that.
    pub fn send(
        queue: &'q Queue,
        message: Outgoing<'_>,
        buffer: Vec<u8>,
        wake: &Wake,
        until: u64,
        must_wait: &mut dyn FnMut(),
    ) -> Result<Self, DispatchError> {
        let Outgoing { bytes: message, number, sessions, about } = message;
        let Pair { near, far, cookie } = queue.take_pair()?;
        let (head, rest) = message.split_first_chunk::<PREFIX>().ok_or(DispatchError::TooLarge(WireError::Short("prefix")))?;
        let (inline, file) = if is_external(message) {
            (&[][..], Some(memfile::create(rest).map_err(|e| DispatchError::System("cannot make a memory file", e))?))
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
                Err(e) => return Err(DispatchError::System("cannot put the request on the queue", e)),
            };
            must_wait();
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

    /// From now on, a larger question about a session is not kept ([`Deframer::limit_sessions`]).
    pub fn limit_sessions(&mut self, most: usize) {
        self.deframer.limit_sessions(most);
    }

    /// Bytes of memory that frames take beyond the usual buffer.
    #[must_use]
    pub const fn kept(&self) -> usize {
        self.buffer.len().saturating_sub(BUFFER)
    }

    /// Waits for what `want` says, at most until `until`. Nothing of [`Ready`] is true: the time is over.
    pub fn wait(&self, want: &Want<'_>, wake: &Wake, until: u64) -> Result<Ready, DispatchError> {
        let mut interest = PollFlags::empty();
        interest.set(PollFlags::IN, want.answer);
        interest.set(PollFlags::OUT, want.room);
        // A worker that is gone would be reported whatever is asked: so it is not asked about at all while nobody listens to it.
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
            answer: want.answer && near.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL),
            room: want.room && near.contains(PollFlags::OUT),
            client: client.is_some() && !other.revents().is_empty(),
            client_takes: client.is_some()
                && other.revents().intersects(PollFlags::OUT | PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL),
        })
    }

    /// Reads what is there. `Ok(false)`: nothing yet.
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
            // As it comes, not as it was announced.
            let wanted = wanted.min(self.end.saturating_mul(2)).max(HEADER);
            if self.buffer.len() < wanted {
                self.buffer.resize(wanted, 0);
            }
        }
        let mut fds = Vec::new();
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        // Without room for the descriptor that comes with END the answer is whole all the same: only the pair is not used again.
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
            Err(e) => Err(DispatchError::System("cannot read a worker's answer", e)),
        }
    }

    fn worker_died(&self) -> DispatchError {
        DispatchError::WorkerDied(self.seat.as_ref().and_then(Seat::worker))
    }

    /// The frames that are whole in the buffer, and the socket they came by: whether the worker is still there can be asked meanwhile.
    pub fn frames(&mut self) -> (Frames<'_>, BorrowedFd<'_>) {
        let frames = Frames {
            bytes: self.buffer.get(self.start..self.end).unwrap_or_default(),
            deframer: &mut self.deframer,
            start: &mut self.start,
        };
        (frames, self.near.as_fd())
    }

    /// Whether everything given to [`Exchange::offer`] and its kin has been sent.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.out_at == self.out.len()
    }

    /// Takes a piece of the body to be sent. Only when [`Exchange::is_flushed`].
    pub fn offer(&mut self, data: &[u8]) {
        self.frame(Kind::Body, 0, data);
    }

    /// The body is complete.
    pub fn offer_end(&mut self) {
        self.frame(Kind::End, 0, &[]);
    }

    /// An answer to a question about a session. May be put behind a piece of the body that is not sent yet.
    pub fn offer_session(&mut self, status: u16, payload: &[u8]) {
        self.frame(Kind::Session, status, payload);
        self.session_end = self.out.len();
    }

    /// Whether part of an answer to a session is not sent yet. Pieces of the body behind it do not count: the worker has what it
    /// asked for.
    #[must_use]
    pub const fn owes_session(&self) -> bool {
        self.out_at < self.session_end
    }

    /// The rest of the body will not come.
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

    /// Sends as much of what was offered as the worker takes now. `Ok(false)`: the worker does not read any more.
    pub fn flush(&mut self) -> Result<bool, DispatchError> {
        while let Some(rest) = self.out.get(self.out_at..).filter(|r| !r.is_empty()) {
            match channel::send(&self.near, &[rest], &[], false) {
                Ok(n) => self.out_at += n,
                Err(Errno::AGAIN) => break,
                Err(Errno::PIPE | Errno::CONNRESET) => {
                    self.out_at = self.out.len();
                    return Ok(false);
                }
                Err(e) => return Err(DispatchError::System("cannot send the body to a worker", e)),
            }
        }
        Ok(true)
    }

    /// Ends the exchange. `clean`: END was read; then the pair is kept for another request if the worker gave its end back.
    /// Returns the buffer for the next exchange.
    pub fn finish(mut self, clean: bool) -> Vec<u8> {
        if let Some(seat) = self.seat.take_if(|_| clean) {
            seat.leave();
        }
        let is_reusable = clean && self.start == self.end && self.is_flushed();
        match self.returned {
            Some(far) if is_reusable && channel::cookie(&far) == Ok(self.cookie) => {
                self.queue.give_back(Pair { near: self.near, far, cookie: self.cookie });
            }
            other => {
                channel::discard(&self.near);
                // It may be any descriptor of the worker's.
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

/// Walks the whole frames of a buffer; what they show stays valid until the next [`Exchange::fill`].
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
