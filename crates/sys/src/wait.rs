//! Waiting for descriptors, with a deadline.
//!
//! Responsible for: poll(2) that continues after a signal until its deadline, and the exclusive
//! epoll set through which the kernel dispatches requests. Must never: wait longer than its caller
//! allows. Called by: `src/dispatch`, the worker, droverd.
use crate::clock;
use rustix::event::epoll;
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};

/// Waits until one of `fds` is ready or CLOCK_MONOTONIC reaches `until_ns` (`None`: the caller has
/// a wake-up descriptor among `fds`). Returns the number of ready descriptors; 0: timed out.
pub fn poll_until(fds: &mut [PollFd<'_>], until_ns: Option<u64>) -> Result<usize, Errno> {
    loop {
        let left = until_ns.map(|until| clock::timespec(until.saturating_sub(clock::monotonic_ns())));
        match rustix::event::poll(fds, left.as_ref()) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Whether `fd` is readable now, or closed by its peer.
pub fn readable_now(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    matches!(poll_until(&mut fds, Some(0)), Ok(n) if n > 0)
}

/// Whether nothing more can arrive on a socket: its peer has closed it, or it was shut down.
pub fn ended_now(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::RDHUP)];
    matches!(poll_until(&mut fds, Some(0)), Ok(n) if n > 0)
}

/// Whether nothing more can be sent on a socket whose reading direction is shut down on purpose, where
/// [`ended_now`] is always true: the other side closed it, or the other direction was shut down too.
pub fn refuses_now(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::empty())];
    matches!(poll_until(&mut fds, Some(0)), Ok(n) if n > 0)
}

/// An epoll set for a queue that many processes share: each message wakes one waiter, the one among
/// them that registered first (EPOLLEXCLUSIVE), so the worker with the warmest caches.
#[derive(Debug)]
pub struct Exclusive {
    set: OwnedFd,
}

impl Exclusive {
    /// A set that watches `queue` exclusively, and each of `others` in the ordinary way. A ready
    /// descriptor is reported by its index: 0 the queue, 1… the others.
    pub fn new(queue: impl AsFd, others: &[&dyn AsFd]) -> Result<Self, Errno> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&set, &queue, epoll::EventData::new_u64(0), epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE)?;
        for (index, other) in others.iter().enumerate() {
            epoll::add(&set, other.as_fd(), epoll::EventData::new_u64(index as u64 + 1), epoll::EventFlags::IN)?;
        }
        Ok(Self { set })
    }

    /// Waits up to `ns` nanoseconds (`None`: without a limit). Returns a bit for each ready index;
    /// 0: timed out, or interrupted by a signal.
    pub fn wait(&self, ns: Option<u64>) -> Result<u64, Errno> {
        let timeout = ns.map(clock::timespec);
        let mut events = [const { std::mem::MaybeUninit::<epoll::Event>::uninit() }; 8];
        match epoll::wait(&self.set, &mut events, timeout.as_ref()) {
            Ok((ready, _)) => {
                Ok(ready.iter().fold(0, |bits, e| bits | 1u64.checked_shl(u32::try_from(e.data.u64()).unwrap_or(63)).unwrap_or(0)))
            }
            Err(Errno::INTR) => Ok(0),
            Err(e) => Err(e),
        }
    }
}

impl AsFd for Exclusive {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.set.as_fd()
    }
}

/// Waits until process `pid` has ended, at most `limit`. It need not be a child; a child is not
/// reaped.
pub fn process_end(pid: i32, limit: std::time::Duration) {
    let Some(pid) = rustix::process::Pid::from_raw(pid) else { return };
    let Ok(handle) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else { return };
    let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
    let until = clock::monotonic_ns().saturating_add(limit);
    // An error means that there is nothing to wait for.
    let _ = poll_until(&mut [PollFd::new(&handle, PollFlags::IN)], Some(until));
}
