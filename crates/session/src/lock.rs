//! One lock a session, over all threads and processes that share a store.
//!
//! Responsible for: nobody else holding a session while a [`Guard`] lives; a lock whose holder dies being free at once (the kernel lets go of
//! its file lock); waiters of one process being served in their order. Must never: wait past the caller's time. Called by: [`crate::store`].
//!
//! Within a process there is a table; between processes, one byte of the file `locks` a session, at an offset taken from its key. While a
//! process is alone ([`crate::owner`]), the table is enough.
use crate::engine::Error;
use crate::id::Key;
use drover_sys::clock::monotonic_ns;
use drover_sys::filelock::{self, Hold};
use parking_lot::{Condvar, Mutex};
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

/// The bytes before this one are for other purposes ([`crate::owner`], [`crate::disk`]).
const FIRST: i64 = 1024;
/// How often a waiter looks whether anybody still waits for it.
const LOOK: Duration = Duration::from_millis(50);
/// Pauses between two tries for a lock that another process holds: the kernel has no wait with an end. The first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(10));

/// See the head of this file.
#[derive(Debug)]
pub struct Locks {
    table: Mutex<Table>,
    file: File,
}

#[derive(Debug, Default)]
struct Table {
    alone: bool,
    held: HashMap<Key, Held>,
}

#[derive(Debug, Default)]
struct Held {
    in_file: bool,
    waiting: VecDeque<Arc<Waiter>>,
}

#[derive(Debug, Default)]
struct Waiter {
    given: Mutex<bool>,
    bell: Condvar,
}

/// A session that is held; let go when dropped.
#[derive(Debug)]
pub struct Guard<'l> {
    locks: &'l Locks,
    key: Key,
}

impl Guard<'_> {
    /// The session that is held.
    #[must_use]
    pub const fn key(&self) -> &Key {
        &self.key
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.locks.release(&self.key);
    }
}

fn offset(key: &Key) -> i64 {
    let number = key.0.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    i64::try_from(number >> 2).unwrap_or(0).saturating_add(FIRST)
}

impl Locks {
    /// Locks in this file, which other processes may have open too.
    #[must_use]
    pub fn new(file: File) -> Self {
        Self { table: Mutex::default(), file }
    }

    /// Holds a session. Waits until `until` (CLOCK_MONOTONIC nanoseconds), or until `cancelled` says so. Not re-entrant.
    pub fn lock(&self, key: &Key, until: u64, cancelled: &mut dyn FnMut() -> bool) -> Result<Guard<'_>, Error> {
        if let Some(waiter) = self.enter(key) {
            self.wait(key, &waiter, until, cancelled)?;
        }
        let guard = Guard { locks: self, key: *key };
        let mut pause = PAUSE.0;
        while !self.try_file(key)? {
            if cancelled() {
                return Err(Error::Cancelled);
            }
            let now = monotonic_ns();
            if now >= until {
                return Err(Error::LockTimeout);
            }
            std::thread::sleep(pause.min(Duration::from_nanos(until - now)));
            pause = (pause * 2).min(PAUSE.1);
        }
        Ok(guard)
    }

    /// Takes the process's own lock, or a place in its queue.
    fn enter(&self, key: &Key) -> Option<Arc<Waiter>> {
        let mut table = self.table.lock();
        match table.held.get_mut(key) {
            None => {
                table.held.insert(*key, Held::default());
                None
            }
            Some(held) => {
                let waiter = Arc::new(Waiter::default());
                held.waiting.push_back(waiter.clone());
                Some(waiter)
            }
        }
    }

    fn wait(&self, key: &Key, waiter: &Arc<Waiter>, until: u64, cancelled: &mut dyn FnMut() -> bool) -> Result<(), Error> {
        loop {
            let mut given = waiter.given.lock();
            if *given {
                return Ok(());
            }
            let left = Duration::from_nanos(until.saturating_sub(monotonic_ns()));
            waiter.bell.wait_for(&mut given, left.min(LOOK));
            if *given {
                return Ok(());
            }
            drop(given);
            let why = match (cancelled(), monotonic_ns() >= until) {
                (true, _) => Error::Cancelled,
                (_, true) => Error::LockTimeout,
                _ => continue,
            };
            self.give_up(key, waiter);
            return Err(why);
        }
    }

    /// Leaves the queue; what was given meanwhile is passed on.
    fn give_up(&self, key: &Key, waiter: &Arc<Waiter>) {
        let mut table = self.table.lock();
        if let Some(held) = table.held.get_mut(key) {
            held.waiting.retain(|other| !Arc::ptr_eq(other, waiter));
        }
        drop(table);
        if *waiter.given.lock() {
            self.release(key);
        }
    }

    /// With the table locked, so that nobody changes between alone and not alone meanwhile; fcntl(2) does not wait here.
    fn try_file(&self, key: &Key) -> Result<bool, Error> {
        let mut table = self.table.lock();
        let alone = table.alone;
        let Some(held) = table.held.get_mut(key) else { return Ok(true) };
        if alone || held.in_file {
            return Ok(true);
        }
        held.in_file =
            filelock::set(&self.file, offset(key), Hold::Exclusive).map_err(|e| Error::Unavailable(format!("cannot lock: {e}")))?;
        Ok(held.in_file)
    }

    fn release(&self, key: &Key) {
        let mut table = self.table.lock();
        let Some(held) = table.held.get_mut(key) else { return };
        if std::mem::take(&mut held.in_file) {
            // What cannot be let go is let go by the kernel at the end of the process.
            let _ = filelock::set(&self.file, offset(key), Hold::Free);
        }
        if let Some(next) = held.waiting.pop_front() {
            *next.given.lock() = true;
            next.bell.notify_one();
        } else {
            table.held.remove(key);
        }
    }

    /// This process is the only one now; the caller has made sure of it.
    pub fn begin_alone(&self) {
        self.table.lock().alone = true;
    }

    /// Others may come: what is held is held against them too from now on.
    pub fn end_alone(&self) {
        let mut table = self.table.lock();
        table.alone = false;
        for (key, held) in table.held.iter_mut().filter(|(_, held)| !held.in_file) {
            // Nobody else is there yet who could hold it, but for two keys with one offset.
            held.in_file = filelock::set(&self.file, offset(key), Hold::Exclusive).unwrap_or(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn file(dir: &tempfile::TempDir) -> File {
        std::fs::OpenOptions::new().create(true).truncate(false).read(true).write(true).open(dir.path().join("locks")).unwrap()
    }

    fn key(n: u8) -> Key {
        Key([n; 32])
    }

    const FOREVER: u64 = u64::MAX;
    fn never() -> impl FnMut() -> bool {
        || false
    }

    #[test]
    fn one_holder_whatever_happens() {
        // Two tables on one file: two processes, as far as the kernel is concerned.
        let dir = tempfile::tempdir().unwrap();
        let processes = [Locks::new(file(&dir)), Locks::new(file(&dir))];
        let (inside, total) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (locks, inside, total) = (&processes[n % 2], &inside, &total);
                scope.spawn(move || {
                    for _ in 0..100 {
                        let guard = locks.lock(&key(1), FOREVER, &mut never()).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        total.fetch_add(1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(guard);
                    }
                });
            }
        });
        assert_eq!(total.into_inner(), 800);
        assert!(processes.iter().all(|p| p.table.lock().held.is_empty()));
    }

    #[test]
    fn others_do_not_wait_and_time_runs_out() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (Locks::new(file(&dir)), Locks::new(file(&dir)));
        let held = a.lock(&key(1), FOREVER, &mut never()).unwrap();
        drop(a.lock(&key(2), 0, &mut never()).unwrap());
        for locks in [&a, &b] {
            assert_eq!(locks.lock(&key(1), 0, &mut never()).unwrap_err(), Error::LockTimeout);
            assert_eq!(locks.lock(&key(1), FOREVER, &mut || true).unwrap_err(), Error::Cancelled);
        }
        drop(held);
        drop(b.lock(&key(1), 0, &mut never()).unwrap());
        assert!(a.table.lock().held.is_empty() && b.table.lock().held.is_empty());
    }

    #[test]
    fn who_is_alone_locks_against_others_when_they_come() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (Locks::new(file(&dir)), Locks::new(file(&dir)));
        a.begin_alone();
        let held = a.lock(&key(1), FOREVER, &mut never()).unwrap();
        a.end_alone();
        assert_eq!(b.lock(&key(1), 0, &mut never()).unwrap_err(), Error::LockTimeout);
        drop(held);
        drop(b.lock(&key(1), 0, &mut never()).unwrap());
    }

    #[test]
    fn waiters_are_served_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let locks = Locks::new(file(&dir));
        let order = Mutex::new(Vec::new());
        let held = locks.lock(&key(1), FOREVER, &mut never()).unwrap();
        std::thread::scope(|scope| {
            for n in 0..5 {
                let (locks, order) = (&locks, &order);
                scope.spawn(move || {
                    let _guard = locks.lock(&key(1), FOREVER, &mut never()).unwrap();
                    order.lock().push(n);
                });
                while locks.table.lock().held[&key(1)].waiting.len() <= n {
                    std::thread::yield_now();
                }
            }
            drop(held);
        });
        assert_eq!(order.into_inner(), [0, 1, 2, 3, 4]);
    }
}
