//! The epoll set of the event loop.
//!
//! Responsible for: translating epoll events into [`Source`]s. Called by: the event loop, and the
//! code that opens or closes watched descriptors.
use drover_sys::{Errno, clock};
use rustix::event::epoll;
use std::os::fd::{AsFd, OwnedFd};

/// A descriptor that became readable or was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Signals,
    /// httpd's parent process.
    Control,
    /// httpd's child processes.
    Broker,
    /// The control socket of the worker with this process id.
    Worker(u32),
    /// A pipe with a worker's output.
    Output(u32),
    /// The queue of a unit without serving workers.
    Queue(u32),
    /// The control socket of the fork server with this process id.
    ForkServer(u32),
    /// The control socket of a worker that is being forked.
    ForkedWorker(u32),
    /// The listening control socket for administrators.
    Admin,
    /// A client of the control socket.
    AdminClient(u32),
}

impl Source {
    fn encode(self) -> epoll::EventData {
        let (kind, id) = match self {
            Self::Signals => (0u64, 0),
            Self::Control => (1, 0),
            Self::Broker => (2, 0),
            Self::Worker(id) => (3, id),
            Self::Output(id) => (4, id),
            Self::Queue(id) => (5, id),
            Self::ForkServer(id) => (8, id),
            Self::ForkedWorker(id) => (9, id),
            Self::Admin => (6, 0),
            Self::AdminClient(id) => (7, id),
        };
        epoll::EventData::new_u64(kind << 32 | u64::from(id))
    }

    fn decode(data: epoll::EventData) -> Self {
        let data = data.u64();
        let id = u32::try_from(data & 0xffff_ffff).unwrap_or(0);
        match data >> 32 {
            0 => Self::Signals,
            1 => Self::Control,
            2 => Self::Broker,
            3 => Self::Worker(id),
            4 => Self::Output(id),
            5 => Self::Queue(id),
            6 => Self::Admin,
            7 => Self::AdminClient(id),
            8 => Self::ForkServer(id),
            _ => Self::ForkedWorker(id),
        }
    }
}

#[derive(Debug)]
pub struct Poller {
    set: OwnedFd,
}

impl Poller {
    pub fn new() -> Result<Self, Errno> {
        Ok(Self { set: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    pub fn add(&self, fd: impl AsFd, source: Source) -> Result<(), Errno> {
        epoll::add(&self.set, fd, source.encode(), epoll::EventFlags::IN)
    }

    pub fn remove(&self, fd: impl AsFd) {
        // Already present or already absent: both are the wanted result.
        let _ = epoll::delete(&self.set, fd);
    }

    /// Waits until an event arrives or CLOCK_MONOTONIC reaches `until_ns`.
    pub fn wait(&self, until_ns: Option<u64>) -> Result<Vec<Source>, Errno> {
        let left = until_ns.map(|until| clock::timespec(until.saturating_sub(clock::monotonic_ns())));
        let mut events = [const { std::mem::MaybeUninit::<epoll::Event>::uninit() }; 64];
        match epoll::wait(&self.set, &mut events, left.as_ref()) {
            Ok((ready, _)) => Ok(ready.iter().map(|e| Source::decode(e.data)).collect()),
            Err(Errno::INTR) => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }
}
