//! Which request thread takes from the queue: one leader, while followers sleep.
//!
//! Responsible for: never two threads of a process taking or waiting at once, and always one while
//! the worker serves. Must never: decide when to change the leader (`policy` does). Called by:
//! `serve`, `monitor`.
//!
//! One word holds the leader's number and whether it is *taking* (receives, or waits on the queue)
//! or *running* a request. Only a running leader can be replaced, and its successor starts as
//! taking. So the word is the lock.
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicU64, Ordering};

const TAKING: u64 = 1 << 32;
const NOBODY: u64 = u32::MAX as u64;

/// Where one request thread sleeps.
#[derive(Debug, Default)]
pub struct Parker {
    called: Mutex<bool>,
    bell: Condvar,
}

impl Parker {
    /// Sleeps until called; an earlier call counts.
    pub fn sleep(&self) {
        let mut called = self.called.lock();
        while !*called {
            self.bell.wait(&mut called);
        }
        *called = false;
    }

    /// Wakes the sleeper.
    pub fn call(&self) {
        *self.called.lock() = true;
        self.bell.notify_one();
    }
}

/// The leadership among the request threads.
#[derive(Debug)]
pub struct Leadership {
    state: AtomicU64,
    /// Sleeping threads, the one that fell asleep last at the end: its caches are the warmest.
    asleep: Mutex<Vec<usize>>,
}

/// The leader's state, for the monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leader {
    /// It receives, or waits on the queue.
    Taking,
    /// It runs a request.
    Running(usize),
    /// The worker does not serve.
    Nobody,
}

const fn word(thread: usize, taking: u64) -> u64 {
    (thread as u64 & NOBODY) | taking
}

impl Leadership {
    /// Thread 0 leads; there are `threads` of them.
    pub fn new(threads: usize) -> Self {
        // Threads with a lower number are called first.
        let asleep = (1..threads).rev().collect();
        Self { state: AtomicU64::new(if threads == 0 { NOBODY } else { TAKING }), asleep: Mutex::new(asleep) }
    }

    /// The leader has a request and runs it now.
    pub fn running(&self, me: usize) {
        self.state.store(word(me, 0), Ordering::Release);
    }

    /// A thread has finished its request. True: it takes the next one, because it still leads or
    /// because the leader only runs a request. False: it is now among the sleepers, and must sleep
    /// until called.
    pub fn finished(&self, me: usize) -> bool {
        loop {
            let now = self.state.load(Ordering::Acquire);
            if now & TAKING != 0 || now == NOBODY {
                // It is listed before another thread can call it; a call before its sleep is not
                // lost.
                self.asleep.lock().push(me);
                return false;
            }
            if self.state.compare_exchange(now, word(me, TAKING), Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return true;
            }
        }
    }

    /// The taking leader stops; nobody leads any more.
    pub fn resign(&self) {
        self.state.store(NOBODY, Ordering::Release);
    }

    /// The leader's state.
    pub fn state(&self) -> Leader {
        match self.state.load(Ordering::Acquire) {
            NOBODY => Leader::Nobody,
            now if now & TAKING != 0 => Leader::Taking,
            now => Leader::Running(usize::try_from(now).unwrap_or(usize::MAX)),
        }
    }

    /// Whether a thread sleeps.
    pub fn has_follower(&self) -> bool {
        !self.asleep.lock().is_empty()
    }

    /// Makes a sleeping thread the leader in place of `running`, and returns it, to be called.
    /// `None`: the leader has finished its request meanwhile.
    pub fn promote(&self, running: usize) -> Option<usize> {
        let mut asleep = self.asleep.lock();
        let follower = asleep.last().copied()?;
        self.state.compare_exchange(word(running, 0), word(follower, TAKING), Ordering::AcqRel, Ordering::Acquire).ok()?;
        asleep.pop()
    }
}
