//! Who of the request threads takes from the queue: one leader, and followers that sleep.
//!
//! Responsible for: never two threads of a process taking or waiting at once, and never none while the worker serves. Must never:
//! decide when a change is good (`policy` does). Called by: `serve`, `monitor`.
//!
//! One word holds the leader's number and whether it is *taking* (receives, or waits on the queue) or *running* a request.
//! Only a running leader can be deposed; whoever replaces it begins as taking. So the word is the lock.
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicU64, Ordering};

const TAKING: u64 = 1 << 32;
const NOBODY: u64 = u32::MAX as u64;

/// Where one thread sleeps.
#[derive(Debug, Default)]
pub struct Parker {
    called: Mutex<bool>,
    bell: Condvar,
}

impl Parker {
    /// Sleeps until called; a call that came before counts.
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

/// See the head of this file.
#[derive(Debug)]
pub struct Leadership {
    state: AtomicU64,
    /// Threads that sleep, the one that went to sleep last at the end: it is the warmest.
    asleep: Mutex<Vec<usize>>,
}

/// What the monitor sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leader {
    /// It receives or waits: all is well.
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
    /// Thread 0 leads; `threads` in all.
    pub fn new(threads: usize) -> Self {
        // Those with a lower number are called first.
        let asleep = (1..threads).rev().collect();
        Self { state: AtomicU64::new(if threads == 0 { NOBODY } else { TAKING }), asleep: Mutex::new(asleep) }
    }

    /// The leader has a request and runs it now.
    pub fn running(&self, me: usize) {
        self.state.store(word(me, 0), Ordering::Release);
    }

    /// A thread has finished its request. True: it takes the next one, as the leader it still is or because the present leader
    /// only runs something. False: it is among the sleepers now, and must sleep until called.
    pub fn come_back(&self, me: usize) -> bool {
        loop {
            let now = self.state.load(Ordering::Acquire);
            if now & TAKING != 0 || now == NOBODY {
                // Put down before anybody can call it; a call that comes before it sleeps is not lost.
                self.asleep.lock().push(me);
                return false;
            }
            if self.state.compare_exchange(now, word(me, TAKING), Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return true;
            }
        }
    }

    /// The taking leader goes; nobody leads any more.
    pub fn resign(&self) {
        self.state.store(NOBODY, Ordering::Release);
    }

    /// What is to be seen from outside.
    pub fn look(&self) -> Leader {
        match self.state.load(Ordering::Acquire) {
            NOBODY => Leader::Nobody,
            now if now & TAKING != 0 => Leader::Taking,
            now => Leader::Running(usize::try_from(now).unwrap_or(usize::MAX)),
        }
    }

    /// Whether anybody sleeps.
    pub fn has_follower(&self) -> bool {
        !self.asleep.lock().is_empty()
    }

    /// Makes a sleeper the leader in place of `running`; returns it, to be called. `None`: the leader came back meanwhile.
    pub fn promote(&self, running: usize) -> Option<usize> {
        let mut asleep = self.asleep.lock();
        let follower = asleep.last().copied()?;
        self.state.compare_exchange(word(running, 0), word(follower, TAKING), Ordering::AcqRel, Ordering::Acquire).ok()?;
        asleep.pop()
    }
}
