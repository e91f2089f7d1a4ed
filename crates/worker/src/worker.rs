//! The worker: what all its threads share.
//!
//! Responsible for: when the worker stops. Must never: hold anything of one request. Called by:
//! every thread of the worker.
use crate::log::dump::Dumps;
use crate::process::control::Control;
use crate::process::deadline::Deadline;
use crate::process::fork::MAX_HELD;
use crate::process::memory::Gauge;
use crate::process::scripts::Scripts;
use crate::request::handback::Handbacks;
use crate::threads::bell::Bell;
use crate::threads::leader::Leadership;
use crate::threads::slot::Slot;
use crate::threads::watchdog::Watchdog;
use drover_sys::Errno;
use drover_sys::roster::Roster;
use drover_sys::token::Board;
use drover_sys::wait::{EventfdFlags, Exclusive, eventfd};
use drover_wire::control::{FromWorker, Leave, WorkerConfig};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Where requests come from.
#[derive(Debug)]
pub struct Queue {
    /// The receiving end.
    pub socket: OwnedFd,
    /// The board of the lock tokens that come with requests.
    pub tokens: Arc<Board>,
    /// Where this process says which of them it runs.
    pub roster: Roster,
}

/// The state of the worker.
#[derive(Debug)]
pub struct Worker {
    /// The configuration from droverd.
    pub config: WorkerConfig,
    /// The group's queue.
    pub queue: Queue,
    /// Waits for the queue and for [`Worker::stop`]; one thread at a time waits.
    pub set: Exclusive,
    /// The socket to droverd.
    pub control: Control,
    /// This process's id.
    pub pid: u32,
    /// The scripts.
    pub scripts: Scripts,
    /// The requests that this process has handed back to droverd.
    pub handbacks: Handbacks,
    /// Which thread takes from the queue.
    pub leadership: Leadership,
    /// The slots of the request threads.
    pub slots: Vec<Arc<Slot>>,
    /// Wakes the monitor.
    pub monitor: Bell,
    /// Wakes the thread that measures memory.
    pub gauge: Gauge,
    /// Request threads that run.
    pub alive: AtomicUsize,
    /// Readable when the main thread should check whether all request threads have ended.
    pub main_bell: OwnedFd,
    serve: AtomicBool,
    stopping: AtomicBool,
    /// droverd was asked for a successor (maximum-requests).
    asked: AtomicBool,
    /// Readable once the worker stops.
    stop: OwnedFd,
    /// Readable when the queue should be checked again.
    check: OwnedFd,
    /// Counts of requests.
    pub counters: Counters,
    /// Notices that the GIL is not available.
    pub watchdog: Watchdog,
    /// Writes stack dumps.
    pub dumps: Arc<Dumps>,
    /// The time by which the process must have exited.
    pub deadline: Deadline,
}

/// The figures that droverd gets at intervals ([`drover_wire::control::Activity`]); `waited_us` is
/// reset each time.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests taken.
    pub taken: AtomicU64,
    /// Requests that count against inactivity-timeout.
    pub counted: AtomicU64,
    /// The longest time one of them was queued, microseconds.
    pub waited_us: AtomicU64,
}

impl Worker {
    /// A worker that does not serve yet. `scripts` are those that the fork server has imported.
    pub fn new(config: WorkerConfig, queue: Queue, control: Control, scripts: Scripts) -> Result<Self, Errno> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let check = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let set = Exclusive::new(&queue.socket, &[&stop, &check])?;
        let threads = usize::try_from(config.threads).unwrap_or(0);
        Ok(Self {
            queue,
            set,
            control,
            pid: std::process::id(),
            scripts,
            handbacks: Handbacks::default(),
            leadership: Leadership::new(threads),
            slots: (0..threads).map(|index| Arc::new(Slot::new(index))).collect(),
            monitor: Bell::default(),
            gauge: Gauge::new()?,
            alive: AtomicUsize::new(0),
            main_bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            serve: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            stop,
            check,
            counters: Counters::default(),
            watchdog: Watchdog::new(config.options.deadlock_timeout_ms),
            dumps: Arc::new(Dumps::new()?),
            deadline: Deadline::default(),
            config,
        })
    }

    /// Starts taking requests.
    pub fn allow(&self) {
        // A second call would wake a thread that does not lead any more.
        if !self.serve.swap(true, Ordering::AcqRel)
            && let Some(first) = self.slots.first()
        {
            first.parker.call();
        }
    }

    /// Whether the worker takes no more requests.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Takes no more requests from now on; running ones are finished.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        ring(&self.stop);
        self.wake_main();
        for slot in &self.slots {
            slot.parker.call();
        }
        self.monitor.wake();
    }

    /// Tells httpd that the running requests will not finish because this process is about to be
    /// killed. httpd runs none of them again.
    pub fn abort(&self, why: &str) {
        for request in self.slots.iter().filter_map(|slot| slot.request()) {
            request.reply.abort(why);
        }
    }

    /// Writes the stacks of busy threads to the log, soon.
    pub fn dump(&self) {
        self.dumps.write_soon(&self.slots);
    }

    /// Stops because of a signal.
    pub fn stop_on_signal(&self) {
        if !self.is_stopping() {
            // If it is not sent, droverd sees that this process exits.
            let _ = self.control.send(&FromWorker::Leaving(Leave::Signal), &[]);
            self.stop();
        }
    }

    /// Wakes the main thread.
    pub fn wake_main(&self) {
        ring(&self.main_bell);
    }

    /// Has the queue checked again.
    pub fn request_check(&self) {
        ring(&self.check);
    }

    /// A wait has ended with these bits. Clears a request to check the queue.
    pub fn clear_check(&self, ready: u64) {
        if ready & 1 << 2 != 0 {
            // An error means that another thread has cleared it.
            let _ = rustix::io::read(&self.check, &mut [0; 8]);
        }
    }

    /// Counts a request that was taken after this time in the queue, nanoseconds.
    pub fn count(&self, waited: u64, counts: bool) {
        self.counters.taken.fetch_add(1, Ordering::SeqCst);
        if counts {
            self.counters.counted.fetch_add(1, Ordering::Relaxed);
        }
        self.counters.waited_us.fetch_max(waited / 1000, Ordering::Relaxed);
        // If droverd has no room now, it is asked later.
        let _ = self.ask_for_successor();
    }

    /// After maximum-requests asks to be replaced, and serves until droverd says Drain, when the
    /// replacement is ready. False: droverd must be asked again.
    pub fn ask_for_successor(&self) -> bool {
        let Some(most) = self.config.options.maximum_requests.filter(|&n| n > 0) else { return true };
        if self.counters.taken.load(Ordering::Relaxed) < most || self.asked.swap(true, Ordering::Relaxed) {
            return true;
        }
        let heard = self.control.send(&FromWorker::Leaving(Leave::MaximumRequests), &[]).is_ok();
        if !heard {
            self.asked.store(false, Ordering::Relaxed);
        }
        heard
    }

    /// A request thread has ended.
    pub fn thread_ended(&self) {
        if self.alive.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.wake_main();
        }
    }

    /// The descriptors that a forked child loses.
    pub fn descriptors(&self) -> [RawFd; MAX_HELD] {
        let gauge = self.gauge.fd();
        let held: [&dyn AsFd; MAX_HELD] =
            [&self.queue.socket, self.control.fd(), &self.set, gauge, &self.main_bell, &self.stop, &self.check];
        held.map(|fd| fd.as_fd().as_raw_fd())
    }
}

fn ring(bell: &OwnedFd) {
    // The counter is far from full; a full one would be readable anyway.
    let _ = drover_sys::write_once(bell, &1u64.to_ne_bytes());
}
