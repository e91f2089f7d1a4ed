//! The queues that this process has opened.
//!
//! Responsible for: asking droverd once per group and application group; keeping reply sockets for reuse. Must never: keep more
//! than `MAX_IDLE` of them, or wait past the caller's deadline. Called by: `handler`.
use super::error::DispatchError;
use super::reply_socket::ReplySocket;
use super::seats::Seats;
use super::wake::Wake;
use drover_sys::clock::monotonic_ns;
use drover_sys::roster::Roster;
use drover_sys::token::Board;
use drover_sys::wait::{PollFd, PollFlags, poll_until, refuses_now};
use drover_sys::{Errno, channel};
use drover_wire::control::{self, OpenQueue, OpenReply, Script};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// The name of a queue: daemon process group and application group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// Daemon process group.
    pub group: Vec<u8>,
    /// Application group; empty for `%{GLOBAL}`.
    pub application_group: Vec<u8>,
}

/// The sending end of one queue.
#[derive(Debug)]
pub struct Queue {
    pub(super) fd: OwnedFd,
    /// The slots for session locks; `None` disables prefetched locks.
    tokens: Option<Arc<Board>>,
    place: u32,
    pub(super) seats: Option<Arc<Seats>>,
    idle: Mutex<Vec<ReplySocket>>,
    /// The number of idle reply sockets of all queues.
    kept: Arc<AtomicUsize>,
}

/// Idle reply sockets of all queues together: two descriptors each, of the usual limit of 1024. A reply socket stays with its
/// queue, since a worker may have kept a copy of its end.
const MAX_IDLE: usize = 96;

impl Queue {
    /// The slots for locks of prefetched sessions.
    #[must_use]
    pub const fn tokens(&self) -> Option<&Arc<Board>> {
        self.tokens.as_ref()
    }

    /// A number that no other application group of the group has now.
    #[must_use]
    pub const fn place(&self) -> u32 {
        self.place
    }

    pub(super) fn take_socket(&self) -> Result<ReplySocket, DispatchError> {
        let Some(socket) = self.idle.lock().pop() else { return ReplySocket::new() };
        self.kept.fetch_sub(1, Ordering::Relaxed);
        Ok(socket)
    }

    pub(super) fn give_back(&self, socket: ReplySocket) {
        if self.kept.fetch_add(1, Ordering::Relaxed) < MAX_IDLE {
            self.idle.lock().push(socket);
        } else {
            self.kept.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.kept.fetch_sub(self.idle.get_mut().len(), Ordering::Relaxed);
    }
}

/// What droverd returns for an opened queue: the queue, its shared memory, its place.
type Opened = (OwnedFd, Option<OwnedFd>, u32);

/// How long droverd is not asked again about a full group, nanoseconds.
const REFUSED_NS: u64 = 1_000_000_000;

/// A group at its limit of application groups.
#[derive(Debug)]
struct Full {
    until: u64,
    limit: u32,
    /// Requests that were refused without a log message.
    quiet: u32,
}

/// How often a request to droverd is repeated when droverd exits.
const MAX_TRIES: usize = 10;

/// All queues that this process has opened.
#[derive(Debug)]
pub struct Queues {
    broker: OwnedFd,
    known: RwLock<HashMap<Key, Arc<Queue>>>,
    /// By daemon process group.
    full: Mutex<HashMap<Vec<u8>, Full>>,
    number: AtomicU32,
    kept: Arc<AtomicUsize>,
}

impl Queues {
    /// Opens queues through `broker`, the socket to droverd that all children share.
    #[must_use]
    pub fn new(broker: OwnedFd) -> Self {
        Self { broker, known: RwLock::default(), full: Mutex::default(), number: AtomicU32::new(1), kept: Arc::default() }
    }

    /// The number of the next request.
    pub fn next_number(&self) -> u32 {
        self.number.fetch_add(1, Ordering::Relaxed)
    }

    /// The queue of `key`, opened for `script` if it is new. Waits until `until` (CLOCK_MONOTONIC nanoseconds).
    pub fn open(&self, key: &Key, script: Script, wake: &Wake, until: u64) -> Result<Arc<Queue>, DispatchError> {
        if let Some(queue) = self.known.read().get(key) {
            return Ok(Arc::clone(queue));
        }
        self.check_full(&key.group)?;
        let opened = self.ask(key, script, wake, until);
        if let Err(DispatchError::TooManyApplications { limit, .. }) = opened {
            return Err(self.note_full(&key.group, limit));
        }
        let (fd, memory, place) = opened?;
        let tokens = memory.as_ref().and_then(|file| Board::map(file).ok()).map(Arc::new);
        let seats = memory.as_ref().and_then(|file| Roster::map(file).ok()).map(|roster| Arc::new(Seats::new(roster)));
        let queue = Arc::new(Queue { fd, tokens, place, seats, idle: Mutex::default(), kept: Arc::clone(&self.kept) });
        let mut known = self.known.write();
        // Application groups come and go: those that droverd has given up go here as well.
        known.retain(|_, queue| !refuses_now(&queue.fd));
        Ok(Arc::clone(known.entry(key.clone()).or_insert(queue)))
    }

    /// Whether the group was full a moment ago: then droverd is not asked.
    fn check_full(&self, group: &[u8]) -> Result<(), DispatchError> {
        let mut full = self.full.lock();
        let Some(f) = full.get_mut(group).filter(|f| monotonic_ns() < f.until) else { return Ok(()) };
        f.quiet = f.quiet.saturating_add(1);
        Err(DispatchError::TooManyApplications { limit: f.limit, quiet: None })
    }

    /// Remembers that a group is full. Only groups of the configuration get here.
    fn note_full(&self, group: &[u8], limit: u32) -> DispatchError {
        let mut full = self.full.lock();
        let now = monotonic_ns();
        let f = full.entry(group.to_vec()).or_insert(Full { until: 0, limit, quiet: 0 });
        // Another thread may have asked at the same time.
        let quiet = (now >= f.until).then(|| std::mem::take(&mut f.quiet));
        if quiet.is_none() {
            f.quiet = f.quiet.saturating_add(1);
        }
        (f.until, f.limit) = (now.saturating_add(REFUSED_NS), limit);
        DispatchError::TooManyApplications { limit, quiet }
    }

    /// Forgets a queue whose receiving end is closed (the group was removed and added again).
    pub fn forget(&self, key: &Key, queue: &Arc<Queue>) {
        let mut known = self.known.write();
        if known.get(key).is_some_and(|q| Arc::ptr_eq(q, queue)) {
            known.remove(key);
        }
    }

    /// Asks droverd; if it exits, asks its successor.
    fn ask(&self, key: &Key, script: Script, wake: &Wake, until: u64) -> Result<Opened, DispatchError> {
        let message = control::encode(&OpenQueue {
            version: drover_wire::VERSION.to_owned(),
            group: key.group.clone(),
            application_group: key.application_group.clone(),
            script,
        })
        .map_err(DispatchError::TooLarge)?;
        for _ in 0..MAX_TRIES {
            if let Some(queue) = self.ask_once(&message, wake, until)? {
                return Ok(queue);
            }
        }
        Err(DispatchError::SupervisorSilent)
    }

    /// `None`: droverd exited before it replied.
    fn ask_once(&self, message: &[u8], wake: &Wake, until: u64) -> Result<Option<Opened>, DispatchError> {
        let (near, far) = channel::packet_pair().map_err(|e| DispatchError::System("cannot create a socket pair", e))?;
        loop {
            match channel::send(&self.broker, &[message], &[far.as_fd()], false) {
                Ok(_) => break,
                Err(Errno::AGAIN) => wait_for(&self.broker, PollFlags::OUT, wake, until)?,
                Err(e) => return Err(DispatchError::System("cannot reach droverd", e)),
            }
        }
        drop(far);
        wait_for(&near, PollFlags::IN, wake, until)?;
        let (mut buffer, mut fds) = ([0u8; 4096], Vec::new());
        let n = channel::receive(&near, &mut buffer, &mut fds, false)
            .map_err(|e| DispatchError::System("cannot read the reply of droverd", e))?;
        let Some(reply) = buffer.get(..n).filter(|b| !b.is_empty()) else { return Ok(None) };
        match control::decode(reply).map_err(DispatchError::Wire)? {
            OpenReply::Opened { place } => {
                let mut fds = fds.into_iter();
                let queue = fds.next().ok_or_else(|| DispatchError::Refused("the reply had no descriptor".into()))?;
                Ok(Some((queue, fds.next(), place)))
            }
            OpenReply::UnknownGroup => Err(DispatchError::UnknownGroup),
            OpenReply::TooManyApplications { limit } => Err(DispatchError::TooManyApplications { limit, quiet: None }),
            OpenReply::Refused(why) => Err(DispatchError::Refused(why)),
        }
    }
}

fn wait_for(fd: &OwnedFd, what: PollFlags, wake: &Wake, until: u64) -> Result<(), DispatchError> {
    let mut fds = [PollFd::new(fd, what), PollFd::new(wake.fd(), PollFlags::IN)];
    match poll_until(&mut fds, Some(until)) {
        Ok(0) => Err(DispatchError::SupervisorSilent),
        Ok(_) if wake.is_stopping() => Err(DispatchError::Stopping),
        Ok(_) => Ok(()),
        Err(e) => Err(DispatchError::System("poll", e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script() -> Script {
        Script { path: b"/srv/a.wsgi".to_vec(), callable: b"application".to_vec() }
    }

    fn key() -> Key {
        Key { group: b"shop".to_vec(), application_group: Vec::new() }
    }

    /// A fake droverd that replies once.
    fn answer(broker: OwnedFd, reply: OpenReply, with: Option<OwnedFd>) -> std::thread::JoinHandle<OpenQueue> {
        std::thread::spawn(move || {
            let (mut buffer, mut fds) = ([0u8; 4096], Vec::new());
            let n = channel::receive(&broker, &mut buffer, &mut fds, true).unwrap();
            let extra: Vec<_> = with.iter().map(AsFd::as_fd).collect();
            channel::send(&fds[0], &[&control::encode(&reply).unwrap()], &extra, true).unwrap();
            control::decode(&buffer[..n]).unwrap()
        })
    }

    #[test]
    fn a_queue_is_asked_for_once() {
        let (ours, theirs) = channel::packet_pair().unwrap();
        let (queue, _worker) = channel::packet_pair().unwrap();
        let (queues, wake) = (Queues::new(ours), Wake::new().unwrap());
        let asked = answer(theirs, OpenReply::Opened { place: 0 }, Some(queue));
        let first = queues.open(&key(), script(), &wake, monotonic_ns() + 10_000_000_000).unwrap();
        assert_eq!(asked.join().unwrap().group, b"shop");
        assert!(Arc::ptr_eq(&first, &queues.open(&key(), script(), &wake, 0).unwrap()), "known now, not asked again");
        queues.forget(&key(), &first);
        assert_eq!(queues.open(&key(), script(), &wake, 0).unwrap_err(), DispatchError::System("cannot reach droverd", Errno::PIPE));
    }

    #[test]
    fn a_question_survives_a_death_of_droverd() {
        let (ours, theirs) = channel::packet_pair().unwrap();
        let (queue, _worker) = channel::packet_pair().unwrap();
        let asked = std::thread::spawn(move || {
            let mut fds = Vec::new();
            channel::receive(&theirs, &mut [0; 4096], &mut fds, true).unwrap();
            fds.clear(); // droverd exits
            answer(theirs, OpenReply::Opened { place: 0 }, Some(queue)).join().unwrap()
        });
        let queues = Queues::new(ours);
        queues.open(&key(), script(), &Wake::new().unwrap(), monotonic_ns() + 10_000_000_000).unwrap();
        assert_eq!(asked.join().unwrap().group, b"shop");
    }

    #[test]
    fn refusals_and_silence_are_different_errors() {
        for (reply, error) in [
            (OpenReply::UnknownGroup, DispatchError::UnknownGroup),
            (OpenReply::TooManyApplications { limit: 3 }, DispatchError::TooManyApplications { limit: 3, quiet: Some(0) }),
            (OpenReply::Refused("no".into()), DispatchError::Refused("no".into())),
        ] {
            let (ours, theirs) = channel::packet_pair().unwrap();
            let asked = answer(theirs, reply, None);
            let queues = Queues::new(ours);
            assert_eq!(queues.open(&key(), script(), &Wake::new().unwrap(), monotonic_ns() + 10_000_000_000).unwrap_err(), error);
            asked.join().unwrap();
        }
        let (ours, _theirs) = channel::packet_pair().unwrap();
        let queues = Queues::new(ours);
        let wake = Wake::new().unwrap();
        assert_eq!(queues.open(&key(), script(), &wake, monotonic_ns() + 1_000_000).unwrap_err(), DispatchError::SupervisorSilent);
        wake.stop();
        assert_eq!(queues.open(&key(), script(), &wake, u64::MAX).unwrap_err(), DispatchError::Stopping);
    }
}
