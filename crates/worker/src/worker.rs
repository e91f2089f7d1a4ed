//! The worker: what all its threads share.
//!
//! Responsible for: when it stops. Must never: hold anything of one request. Called by: everybody.
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
use drover_sys::token::Board;
use drover_sys::wait::{EventfdFlags, Exclusive, eventfd};
use drover_wire::control::{FromWorker, Leave, WorkerConfig};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Where requests come from.
#[derive(Debug)]
pub struct Queue {
    /// The end to be read.
    pub socket: OwnedFd,
    /// Where the tokens lie that go with them.
    pub tokens: Arc<Board>,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Worker {
    /// What droverd wants.
    pub config: WorkerConfig,
    /// The group's queue.
    pub queue: Queue,
    /// The queue and [`Worker::stop`]'s bell, for the one thread that waits.
    pub set: Exclusive,
    /// The socket to droverd.
    pub control: Control,
    /// The scripts.
    pub scripts: Scripts,
    /// The requests that this process has handed back to droverd.
    pub handbacks: Handbacks,
    /// Who takes from the queue.
    pub leadership: Leadership,
    /// A place for each request thread.
    pub slots: Vec<Arc<Slot>>,
    /// Wakes the monitor.
    pub monitor: Bell,
    /// Wakes the thread that measures memory.
    pub gauge: Gauge,
    /// Request threads that have not ended.
    pub alive: AtomicUsize,
    /// Readable when the first thread should look again: whether all is over.
    pub news: OwnedFd,
    serve: AtomicBool,
    stopping: AtomicBool,
    /// droverd was asked for a successor, because of maximum-requests.
    asked: AtomicBool,
    /// Readable from the stop on.
    stop: OwnedFd,
    /// Readable when the queue should be looked at once more.
    look: OwnedFd,
    /// What was done.
    pub tally: Tally,
    /// Whether the GIL can be had.
    pub watchdog: Watchdog,
    /// What the threads were doing.
    pub dumps: Arc<Dumps>,
    /// When the process has to be gone.
    pub deadline: Deadline,
}

/// What droverd is told of now and then ([`drover_wire::control::Activity`]); `waited_us` is since it was told last.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests taken.
    pub taken: AtomicU64,
    /// Those that count against inactivity-timeout.
    pub counted: AtomicU64,
    /// The longest wait of one of them, microseconds.
    pub waited_us: AtomicU64,
}

impl Worker {
    /// One that does not serve yet. `scripts` are those that its template has imported; else there are none yet.
    pub fn new(config: WorkerConfig, queue: Queue, control: Control, scripts: Scripts) -> Result<Self, Errno> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let look = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let set = Exclusive::new(&queue.socket, &[&stop, &look])?;
        let threads = usize::try_from(config.threads).unwrap_or(0);
        Ok(Self {
            queue,
            set,
            control,
            scripts,
            handbacks: Handbacks::default(),
            leadership: Leadership::new(threads),
            slots: (0..threads).map(|index| Arc::new(Slot::new(index))).collect(),
            monitor: Bell::default(),
            gauge: Gauge::new()?,
            alive: AtomicUsize::new(0),
            news: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            serve: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            stop,
            look,
            tally: Tally::default(),
            watchdog: Watchdog::new(config.options.deadlock_timeout_ms),
            dumps: Arc::new(Dumps::new()?),
            deadline: Deadline::default(),
            config,
        })
    }

    /// droverd wants requests to be taken.
    pub fn allow(&self) {
        // A second call would wake a thread that does not lead any more.
        if !self.serve.swap(true, Ordering::AcqRel)
            && let Some(first) = self.slots.first()
        {
            first.parker.call();
        }
    }

    /// Whether no more requests are to be taken.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// No more requests are taken from now on; those that run are finished.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        ring(&self.stop);
        self.tell();
        for slot in &self.slots {
            slot.parker.call();
        }
        self.monitor.wake();
    }

    /// Requests that run now will not be finished, as this process is about to be killed: httpd hears so, and runs none of them again.
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
    pub fn leave(&self) {
        if !self.is_stopping() {
            // If droverd does not hear it, it sees the end of this process.
            let _ = self.control.send(&FromWorker::Leaving(Leave::Signal), &[]);
            self.stop();
        }
    }

    /// Wakes the first thread.
    pub fn tell(&self) {
        ring(&self.news);
    }

    /// The queue should be looked at once more.
    pub fn look_again(&self) {
        ring(&self.look);
    }

    /// A wait has ended with these bits: a look that was asked for comes now.
    pub fn looked(&self, ready: u64) {
        if ready & 1 << 2 != 0 {
            // Nothing to be read: another thread has seen it.
            let _ = rustix::io::read(&self.look, &mut [0; 8]);
        }
    }

    /// A request has been taken, which had waited so long (nanoseconds).
    pub fn count(&self, waited: u64, counts: bool) {
        self.tally.taken.fetch_add(1, Ordering::SeqCst);
        if counts {
            self.tally.counted.fetch_add(1, Ordering::Relaxed);
        }
        self.tally.waited_us.fetch_max(waited / 1000, Ordering::Relaxed);
        // What droverd has no room for now is said later.
        let _ = self.ask_for_successor();
    }

    /// After the last request that the process should serve it asks to be replaced, and goes on serving until droverd says Drain: its
    /// replacement is up then. False: droverd has to be asked once more.
    pub fn ask_for_successor(&self) -> bool {
        let Some(most) = self.config.options.maximum_requests.filter(|&n| n > 0) else { return true };
        if self.tally.taken.load(Ordering::Relaxed) < most || self.asked.swap(true, Ordering::Relaxed) {
            return true;
        }
        let heard = self.control.send(&FromWorker::Leaving(Leave::MaximumRequests), &[]).is_ok();
        if !heard {
            self.asked.store(false, Ordering::Relaxed);
        }
        heard
    }

    /// A request thread ends.
    pub fn thread_ended(&self) {
        if self.alive.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.tell();
        }
    }

    /// The descriptors that a forked child must not keep.
    pub fn descriptors(&self) -> [RawFd; MAX_HELD] {
        let [socket, control, news, stop, look] =
            [&self.queue.socket, self.control.fd(), &self.news, &self.stop, &self.look].map(AsRawFd::as_raw_fd);
        [socket, control, self.set.as_fd().as_raw_fd(), news, stop, look]
    }
}

fn ring(bell: &OwnedFd) {
    // The counter is far from full; and if it were, the descriptor would be readable already.
    let _ = drover_sys::write_once(bell, &1u64.to_ne_bytes());
}
