//! The native thread that listens to droverd and to signals.
//!
//! Responsible for: the worker stopping when droverd says so or exits, or on a signal. Must never:
//! take the GIL, so that a busy interpreter cannot delay it. Called by: `lifecycle`, which starts
//! it.
use crate::process::deadline::clock_ns;
use crate::process::native;
use crate::worker::Worker;
use drover_sys::wait::{EventfdFlags, PollFd, PollFlags, eventfd, poll_until};
use drover_sys::{Errno, clock};
use drover_wire::control::{FromWorker, Leave, ToWorker};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// How long running requests may take after droverd has exited. Nothing else would end this process
/// then.
const WITHOUT_SUPERVISOR: Duration = Duration::from_secs(30);
/// How long before SIGKILL httpd is told of requests that will not finish, at most.
const MAX_ABORT_NOTICE: Duration = Duration::from_millis(300);

/// Makes SIGINT, SIGTERM, SIGUSR1 and SIGXCPU readable on a descriptor.
pub fn signals() -> Result<OwnedFd, Errno> {
    let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    native::ring_on_signals(bell.as_raw_fd());
    Ok(bell)
}

/// Runs until droverd exits, and then ends the process.
pub fn run(worker: &Worker, signals: &OwnedFd) {
    let mut listener = Listener { worker, cpu_told: false, stuck_told: false, abort_at: None };
    loop {
        let mut fds = [PollFd::new(worker.control.fd(), PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        if poll_until(&mut fds, listener.until()).is_err() {
            break;
        }
        listener.check_time();
        let [control, signal] = &fds;
        if !signal.revents().is_empty() {
            let _ = rustix::io::read(signals, &mut [0; 8]); // a counter; `native` knows which came
            listener.on_signal();
        }
        listener.check_deadlock();
        if !control.revents().is_empty() {
            match worker.control.receive() {
                Ok(message) => listener.on_message(message),
                Err(_) => break,
            }
        }
    }
    // Nobody reads the pipes any more: what the application prints must not raise.
    native::discard_output();
    worker.stop();
    std::thread::sleep(WITHOUT_SUPERVISOR);
    native::exit(0);
}

struct Listener<'w> {
    worker: &'w Worker,
    /// droverd was told that the CPU time is used up.
    cpu_told: bool,
    /// droverd was told of a deadlock.
    stuck_told: bool,
    /// When the requests that still run are aborted, CLOCK_MONOTONIC nanoseconds.
    abort_at: Option<u64>,
}

impl Listener<'_> {
    /// When something must be checked. Without a limit there is no time: droverd's exit is an
    /// end-of-file.
    fn until(&self) -> Option<u64> {
        let check = self.worker.watchdog.interval().map(|interval| clock::monotonic_ns() + clock_ns(interval));
        check.into_iter().chain(self.abort_at).min()
    }

    fn check_time(&mut self) {
        if self.abort_at.is_some_and(|at| at <= clock::monotonic_ns()) {
            self.abort_at = None;
            self.worker.abort("the request did not finish within graceful-timeout and shutdown-timeout; its process is ended");
        }
    }

    fn on_signal(&mut self) {
        let (leave, cpu_time) = native::signals_that_came();
        if leave {
            self.worker.stop_on_signal();
        } else if cpu_time && !std::mem::replace(&mut self.cpu_told, true) {
            // It serves until its successor is ready. If droverd does not receive this, the kernel
            // ends the process later.
            let _ = self.worker.control.send(&FromWorker::Leaving(Leave::CpuTime), &[]);
        }
    }

    fn check_deadlock(&mut self) {
        let worker = self.worker;
        if let Some(waited) = worker.watchdog.stuck_for()
            && !std::mem::replace(&mut self.stuck_told, true)
        {
            worker.dumps.write_without_gil(&worker.slots);
            let what = format!("no thread could take Python's lock for {:.0} s; the stacks are in the log", waited.as_secs_f64());
            worker.abort("no thread could take Python's lock for deadlock-timeout; the process is ended");
            let _ = worker.control.send(&FromWorker::Stuck { what, deadlocked: true }, &[]);
        }
    }

    fn on_message(&mut self, message: ToWorker) {
        let worker = self.worker;
        match message {
            ToWorker::Serve => worker.allow(),
            ToWorker::Drain => worker.stop(),
            ToWorker::Keep { path, mtime_us } => worker.handbacks.keep(&path, mtime_us),
            ToWorker::Dump => worker.dump(),
            ToWorker::LastWords { within_ms } => {
                let within = Duration::from_millis(within_ms);
                worker.deadline.killed_within(within);
                self.abort_at = Some(clock::monotonic_ns() + clock_ns(within - (within / 4).min(MAX_ABORT_NOTICE)));
            }
            ToWorker::Look => worker.request_check(),
            ToWorker::Start(_) | ToWorker::Fork => {} // it runs, and is no fork server
        }
    }
}
