//! The worker: what all its threads share.
//!
//! Responsible for: when it stops. Must never: hold anything of one request. Called by: everybody.
use crate::control::Control;
use crate::exchange::Slot;
use crate::leader::Leadership;
use crate::monitor::Bell;
use crate::scripts::Scripts;
use drover_sys::Errno;
use drover_sys::wait::{EventfdFlags, Exclusive, eventfd};
use drover_wire::control::{FromWorker, Leave, WorkerConfig};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// See the head of this file.
#[derive(Debug)]
pub struct Worker {
    /// What droverd wants.
    pub config: WorkerConfig,
    /// The group's queue.
    pub queue: OwnedFd,
    /// The queue and [`Worker::stop`]'s bell, for the one thread that waits.
    pub set: Exclusive,
    /// The socket to droverd.
    pub control: Control,
    /// The scripts.
    pub scripts: Scripts,
    /// Who takes from the queue.
    pub leadership: Leadership,
    /// A place for each request thread.
    pub slots: Vec<Arc<Slot>>,
    /// Wakes the monitor.
    pub monitor: Bell,
    /// Request threads that have not ended.
    pub alive: AtomicUsize,
    /// Readable when the first thread should look again: whether droverd has said Serve, whether all is over.
    pub news: OwnedFd,
    serve: AtomicBool,
    stopping: AtomicBool,
    /// Readable from the stop on.
    stop: OwnedFd,
    taken: AtomicU64,
}

impl Worker {
    /// One that does not serve yet.
    pub fn new(config: WorkerConfig, queue: OwnedFd, control: Control) -> Result<Self, Errno> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let set = Exclusive::new(&queue, &[&stop])?;
        let threads = usize::try_from(config.threads).unwrap_or(0);
        Ok(Self {
            queue,
            set,
            control,
            scripts: Scripts::default(),
            leadership: Leadership::new(threads),
            slots: (0..threads).map(|index| Arc::new(Slot::new(index))).collect(),
            monitor: Bell::default(),
            alive: AtomicUsize::new(0),
            news: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            serve: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            stop,
            taken: AtomicU64::new(0),
            config,
        })
    }

    /// droverd wants requests to be taken.
    pub fn allow(&self) {
        self.serve.store(true, Ordering::Release);
        self.tell();
    }

    /// Whether [`Worker::allow`] was called.
    pub fn may_serve(&self) -> bool {
        self.serve.load(Ordering::Acquire)
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
        self.monitor.ring();
    }

    /// Stops of its own account.
    pub fn leave(&self, why: Leave) {
        if !self.is_stopping() {
            // If droverd does not hear it, it sees the end of this process.
            let _ = self.control.send(&FromWorker::Leaving(why), &[]);
            self.stop();
        }
    }

    /// Wakes the first thread.
    pub fn tell(&self) {
        ring(&self.news);
    }

    /// A request has been taken. After the last one that the process should serve it asks to be replaced, and goes on serving
    /// until droverd says Drain: its replacement is up then.
    pub fn count(&self) {
        let Some(most) = self.config.options.maximum_requests.filter(|&n| n > 0) else { return };
        if self.taken.fetch_add(1, Ordering::Relaxed) + 1 == most {
            // If droverd does not hear it, it is gone, and this process goes for that reason.
            let _ = self.control.send(&FromWorker::Leaving(Leave::MaximumRequests), &[]);
        }
    }

    /// A request thread ends.
    pub fn thread_ended(&self) {
        if self.alive.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.tell();
        }
    }

    /// The descriptors that a forked child must not keep.
    pub fn descriptors(&self) -> [&OwnedFd; 4] {
        [&self.queue, self.control.fd(), &self.news, &self.stop]
    }
}

fn ring(bell: &OwnedFd) {
    // The counter is far from full; and if it were, the descriptor would be readable already.
    let _ = drover_sys::write_once(bell, &1u64.to_ne_bytes());
}
