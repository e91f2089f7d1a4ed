//! The socket to droverd, and the native thread that reads it.
//!
//! Responsible for: the worker stopping when droverd says so, is gone, or a signal comes. Must never: take the GIL, so that a
//! busy interpreter cannot delay it. Called by: `process`, and whoever has something to say to droverd.
use crate::dump;
use crate::native;
use crate::watchdog;
use crate::worker::Worker;
use drover_sys::wait::{EventfdFlags, PollFd, PollFlags, eventfd, poll_until};
use drover_sys::{Errno, channel, clock};
use drover_wire::WireError;
use drover_wire::control::{FromWorker, Leave, MAX_CONTROL, ToWorker, decode, encode};
use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// How long running requests have when droverd is gone: nobody else would end this process.
const ALONE: Duration = Duration::from_secs(30);
/// How long before SIGKILL httpd is told of requests that will not be finished.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// The socket.
#[derive(Debug)]
pub struct Control {
    fd: OwnedFd,
}

/// Why a message did not come or go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlError {
    /// droverd is gone.
    Closed,
    /// The system's reason.
    System(Errno),
    /// It is no message of ours.
    Wire(WireError),
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("droverd has closed the control socket"),
            Self::System(e) => write!(f, "control socket: {e}"),
            Self::Wire(e) => write!(f, "control message: {e}"),
        }
    }
}

impl Control {
    /// On this descriptor.
    pub const fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// The descriptor.
    pub const fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Says something to droverd, without waiting for room.
    pub fn send(&self, message: &FromWorker, fds: &[BorrowedFd<'_>]) -> Result<(), ControlError> {
        self.transmit(message, fds, false)
    }

    /// Says something that droverd must hear; waits for room.
    pub fn insist(&self, message: &FromWorker) -> Result<(), ControlError> {
        self.transmit(message, &[], true)
    }

    fn transmit(&self, message: &FromWorker, fds: &[BorrowedFd<'_>], wait: bool) -> Result<(), ControlError> {
        let bytes = encode(message).map_err(ControlError::Wire)?;
        channel::send(&self.fd, &[&bytes], fds, wait).map(drop).map_err(ControlError::System)
    }

    /// The next message; waits for it.
    pub fn receive(&self) -> Result<ToWorker, ControlError> {
        self.receive_with(&mut Vec::new())
    }

    /// The same with the descriptors that came along.
    pub fn receive_with(&self, fds: &mut Vec<OwnedFd>) -> Result<ToWorker, ControlError> {
        let mut buffer = vec![0; MAX_CONTROL];
        let n = loop {
            match channel::receive(&self.fd, &mut buffer, fds, true) {
                Ok(0) | Err(Errno::CONNRESET) => return Err(ControlError::Closed),
                Ok(n) => break n,
                Err(Errno::INTR) => {}
                Err(e) => return Err(ControlError::System(e)),
            }
        };
        decode(buffer.get(..n).unwrap_or_default()).map_err(ControlError::Wire)
    }
}

/// Makes SIGINT, SIGTERM and SIGUSR1 readable on a descriptor.
pub fn signals() -> Result<OwnedFd, Errno> {
    let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    native::ring_on_signals(bell.as_raw_fd());
    Ok(bell)
}

/// Reads until droverd is gone.
pub fn run(worker: &Worker, signals: &OwnedFd) {
    let mut watch = Watch { worker, limit: watchdog::limit(worker), cpu_told: false, stuck_told: false, last_words: None };
    loop {
        let mut fds = [PollFd::new(worker.control.fd(), PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        if poll_until(&mut fds, watch.until()).is_err() {
            break;
        }
        watch.look_at_time();
        let [control, signal] = &fds;
        if !signal.revents().is_empty() {
            let _ = rustix::io::read(signals, &mut [0; 8]); // a counter; what came stands elsewhere
            watch.signalled();
        }
        watch.look_for_deadlock();
        if !control.revents().is_empty() {
            match worker.control.receive() {
                Ok(message) => watch.told(message),
                Err(_) => break,
            }
        }
    }
    // Nobody reads the pipes any more: what the application prints must not raise.
    native::discard_output();
    worker.stop();
    std::thread::sleep(ALONE);
    native::leave(0);
}

/// What is known from one look to the next.
struct Watch<'w> {
    worker: &'w Worker,
    /// deadlock-timeout.
    limit: Option<Duration>,
    /// What was said once is not said again.
    cpu_told: bool,
    stuck_told: bool,
    /// When the requests that are left are given up, CLOCK_MONOTONIC nanoseconds.
    last_words: Option<u64>,
}

impl Watch<'_> {
    /// When something has to be looked at. Without a limit no deadline: droverd's end is an end-of-file.
    fn until(&self) -> Option<u64> {
        let look = self.limit.map(|limit| clock::monotonic_ns() + nanoseconds(watchdog::interval(limit)));
        look.into_iter().chain(self.last_words).min()
    }

    fn look_at_time(&mut self) {
        if self.last_words.is_some_and(|at| at <= clock::monotonic_ns()) {
            self.last_words = None;
            self.worker.give_up("it was not finished within graceful-timeout and shutdown-timeout, the process is ended");
        }
    }

    fn signalled(&mut self) {
        let (go, cpu_time) = native::signals_that_came();
        if go {
            self.worker.leave();
        } else if cpu_time && !std::mem::replace(&mut self.cpu_told, true) {
            // It serves on until its successor is up. If droverd does not hear it, the kernel ends this process some time.
            let _ = self.worker.control.send(&FromWorker::Leaving(Leave::CpuTime), &[]);
        }
    }

    fn look_for_deadlock(&mut self) {
        let worker = self.worker;
        if let Some(waited) = self.limit.and_then(|limit| worker.watchdog.stuck_for(limit))
            && !std::mem::replace(&mut self.stuck_told, true)
        {
            dump::stacks_without_lock(worker);
            let what = format!("no thread could take Python's lock for {:.0} s; the stacks stand near", waited.as_secs_f64());
            worker.give_up("no thread could take Python's lock for deadlock-timeout, the process is ended");
            let _ = worker.control.send(&FromWorker::Stuck { what, deadlocked: true }, &[]);
        }
    }

    fn told(&mut self, message: ToWorker) {
        let worker = self.worker;
        match message {
            ToWorker::Serve => worker.allow(),
            ToWorker::Drain => worker.stop(),
            ToWorker::Keep { path, mtime_us } => worker.scripts.keep(&path, mtime_us),
            ToWorker::Dump => dump::stacks(worker),
            ToWorker::LastWords { within_ms } => {
                let within = Duration::from_millis(within_ms);
                worker.deadline.killed_within(within);
                self.last_words = Some(clock::monotonic_ns() + nanoseconds(within - (within / 4).min(LAST_WORDS)));
            }
            ToWorker::Look => worker.look_again(),
            ToWorker::Start(_) | ToWorker::Fork => {} // it has been started, and is no template
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
