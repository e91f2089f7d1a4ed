//! One lock per session, across all threads and processes that share a store.
//!
//! Responsible for: a single owner while a [`Guard`] lives; a lock whose owner dies becoming free
//! at once (the kernel releases its file lock); first come, first served among the threads of one
//! process. Must never: wait past the caller's deadline. Called by: [`crate::store`].
//!
//! Within a process a table holds the locks; between processes, one byte of the file `locks` per
//! session, at an offset derived from its key. While the process is the exclusive owner
//! ([`crate::owner`]), the table is enough.
//!
//! A lock can be leased to a worker that may need it ([`Locks::lease`]). It then belongs to whoever
//! takes the [`Lease`]'s token first: that worker, or the next thread that wants the lock. The
//! table alone decides who the owner is; the token only lets a worker claim a lock that the table
//! holds for it.
use crate::error::Error;
use crate::id::{ByKey, Key};
use drover_sys::clock::monotonic_ns;
use drover_sys::filelock::{self, Hold};
use drover_sys::token::{Board, Token};
use parking_lot::{Condvar, Mutex};
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

/// Bytes before this one have other purposes ([`crate::owner`], [`crate::disk`]).
const FIRST: i64 = 1024;
/// How often a waiting thread checks whether it was cancelled.
const LOOK: Duration = Duration::from_millis(50);
/// The first and the longest pause between two attempts for a lock that another process holds: the
/// kernel has no wait with a deadline.
const PAUSE: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(10));

/// Number of tables of one process.
const TABLES: usize = 64;

/// The session locks of one process.
#[derive(Debug)]
pub struct Locks {
    /// By the first byte of the key. The file lock is requested with a table locked, which must not
    /// block all sessions.
    tables: [Mutex<Table>; TABLES],
    file: File,
}

#[derive(Debug, Default)]
struct Table {
    exclusive: bool,
    held: HashMap<Key, Held, ByKey>,
    /// The number of the last owner.
    owners: u64,
}

#[derive(Debug)]
struct Held {
    /// The owner; a lease can lose it.
    owner: u64,
    in_file: bool,
    /// The lock is leased: it belongs to whoever takes this token first.
    slot: Option<Slot>,
    waiting: VecDeque<Arc<Waiter>>,
}

impl Held {
    const fn by(owner: u64) -> Self {
        Self { owner, in_file: false, slot: None, waiting: VecDeque::new() }
    }
}

#[derive(Debug)]
struct Waiter {
    owner: u64,
    given: Mutex<bool>,
    bell: Condvar,
}

/// A session lock that is held; released when dropped.
#[derive(Debug)]
pub struct Guard<'l> {
    locks: &'l Locks,
    key: Key,
    owner: u64,
}

/// A session lock that is held for a worker which may not need it; released when dropped. The lock table decides whose it is.
#[derive(Debug)]
pub struct Lease<'l> {
    guard: Guard<'l>,
    token: Token,
}

/// A token, and the board on which it lies.
#[derive(Debug)]
struct Slot {
    board: Arc<Board>,
    token: Token,
}

impl Slot {
    /// False: the worker has the token.
    fn take(self) -> bool {
        self.board.take(self.token)
    }
}

/// What a thread that wants a lock gets at once.
enum Entered {
    /// The lock, as this owner.
    Now(u64),
    /// A place in the queue.
    Later(Arc<Waiter>),
}

impl<'l> Lease<'l> {
    /// Taking this token ([`Board::take`]) makes the lock the worker's. Nobody can take it once the lease has ended.
    #[must_use]
    pub const fn token(&self) -> Token {
        self.token
    }

    /// Whether other processes cannot have the lock meanwhile. (Threads of this process take the token instead.)
    #[must_use]
    pub fn blocks_other_processes(&self) -> bool {
        let Guard { locks, key, owner } = &self.guard;
        locks.table(key).lock().held.get(key).is_some_and(|held| held.owner == *owner && held.in_file)
    }

    /// Ends the lease. Returns the lock if the worker has taken the token.
    #[must_use]
    pub fn settle(self) -> Option<Guard<'l>> {
        let Guard { locks, key, owner } = &self.guard;
        let mut table = locks.table(key).lock();
        let held = table.held.get_mut(key).filter(|held| held.owner == *owner);
        let is_workers = held.is_some_and(|held| !held.slot.take().is_some_and(Slot::take));
        drop(table);
        is_workers.then_some(self.guard)
    }
}

impl Guard<'_> {
    /// The session whose lock it is.
    #[must_use]
    pub const fn key(&self) -> &Key {
        &self.key
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.locks.release(&self.key, self.owner);
    }
}

fn offset(key: &Key) -> i64 {
    let number = key.0.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    i64::try_from(number >> 2).unwrap_or(0).saturating_add(FIRST)
}

impl Locks {
    /// Locks in this file, which other processes can have open as well.
    #[must_use]
    pub fn new(file: File) -> Self {
        Self { tables: std::array::from_fn(|_| Mutex::default()), file }
    }

    fn table(&self, key: &Key) -> &Mutex<Table> {
        key.part(&self.tables)
    }

    /// Locks a session. Waits until `until` (CLOCK_MONOTONIC nanoseconds) or until `cancelled`
    /// returns true. Not re-entrant.
    pub fn lock(&self, key: &Key, until: u64, cancelled: &mut dyn FnMut() -> bool) -> Result<Guard<'_>, Error> {
        let owner = match self.enter(key) {
            Entered::Now(owner) => owner,
            Entered::Later(waiter) => {
                self.wait(key, &waiter, until, cancelled)?;
                waiter.owner
            }
        };
        let guard = Guard { locks: self, key: *key, owner };
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

    /// Takes the lock within the process, also from a lease whose token is not taken, or joins the
    /// queue.
    fn enter(&self, key: &Key) -> Entered {
        let mut table = self.table(key).lock();
        table.owners += 1;
        let owner = table.owners;
        match table.held.get_mut(key) {
            None => {
                table.held.insert(*key, Held::by(owner));
                Entered::Now(owner)
            }
            Some(held) => {
                if held.slot.take().is_some_and(Slot::take) {
                    held.owner = owner;
                    return Entered::Now(owner);
                }
                let waiter = Arc::new(Waiter { owner, given: Mutex::new(false), bell: Condvar::new() });
                held.waiting.push_back(waiter.clone());
                Entered::Later(waiter)
            }
        }
    }

    /// Leases the lock of a session that nobody holds, by a token on this board. Does not wait.
    #[must_use]
    pub fn lease(&self, key: &Key, board: &Arc<Board>) -> Option<Lease<'_>> {
        let mut table = self.table(key).lock();
        if table.held.contains_key(key) {
            return None;
        }
        let token = board.put(offset(key).unsigned_abs())?;
        let slot = Slot { board: board.clone(), token };
        let in_file = !table.exclusive && filelock::set(&self.file, offset(key), Hold::Exclusive) == Ok(true);
        if !table.exclusive && !in_file {
            let _ = slot.take();
            return None;
        }
        table.owners += 1;
        let owner = table.owners;
        table.held.insert(*key, Held { slot: Some(slot), in_file, ..Held::by(owner) });
        drop(table);
        Some(Lease { guard: Guard { locks: self, key: *key, owner }, token })
    }

    /// Ends a lease because its session was changed without the lock: the data that was sent with
    /// the lease is outdated.
    pub fn revoke(&self, key: &Key) {
        let mut table = self.table(key).lock();
        let Some(held) = table.held.get_mut(key) else { return };
        if held.slot.take().is_some_and(Slot::take) {
            let owner = held.owner;
            self.free(&mut table, key, owner);
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
            self.cancel_wait(key, waiter);
            return Err(why);
        }
    }

    /// Leaves the queue; passes on a lock that was granted meanwhile.
    fn cancel_wait(&self, key: &Key, waiter: &Arc<Waiter>) {
        let mut table = self.table(key).lock();
        if let Some(held) = table.held.get_mut(key) {
            held.waiting.retain(|other| !Arc::ptr_eq(other, waiter));
        }
        drop(table);
        if *waiter.given.lock() {
            self.release(key, waiter.owner);
        }
    }

    /// With the table locked, so that the process does not change its role meanwhile; fcntl(2) does
    /// not wait here.
    fn try_file(&self, key: &Key) -> Result<bool, Error> {
        let mut table = self.table(key).lock();
        let exclusive = table.exclusive;
        let Some(held) = table.held.get_mut(key) else { return Ok(true) };
        if exclusive || held.in_file {
            return Ok(true);
        }
        held.in_file =
            filelock::set(&self.file, offset(key), Hold::Exclusive).map_err(|e| Error::Unavailable(format!("cannot lock: {e}")))?;
        Ok(held.in_file)
    }

    fn release(&self, key: &Key, owner: u64) {
        self.free(&mut self.table(key).lock(), key, owner);
    }

    fn free(&self, table: &mut Table, key: &Key, owner: u64) {
        let Some(held) = table.held.get_mut(key).filter(|held| held.owner == owner) else { return };
        if std::mem::take(&mut held.in_file) {
            // After an error the kernel releases it when the process ends.
            let _ = filelock::set(&self.file, offset(key), Hold::Free);
        }
        if let Some(slot) = held.slot.take() {
            // Before anybody else gets the lock: the worker must not find the token valid.
            let _ = slot.take();
        }
        if let Some(next) = held.waiting.pop_front() {
            held.owner = next.owner;
            *next.given.lock() = true;
            next.bell.notify_one();
        } else {
            table.held.remove(key);
        }
    }

    /// The process is the exclusive owner from now on; the caller guarantees that.
    pub fn begin_exclusive(&self) {
        self.tables.iter().for_each(|table| table.lock().exclusive = true);
    }

    /// Other processes can use the store from now on: locks that are held become file locks.
    pub fn end_exclusive(&self) {
        for table in &self.tables {
            let mut table = table.lock();
            table.exclusive = false;
            for (key, held) in table.held.iter_mut().filter(|(_, held)| !held.in_file) {
                // No other process can hold it yet, except for two keys with the same offset.
                held.in_file = filelock::set(&self.file, offset(key), Hold::Exclusive).unwrap_or(false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_sys::token;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn file(dir: &tempfile::TempDir) -> File {
        std::fs::OpenOptions::new().create(true).truncate(false).read(true).write(true).open(dir.path().join("locks")).unwrap()
    }

    fn board() -> Arc<Board> {
        Arc::new(Board::map(token::create().unwrap()).unwrap())
    }

    fn key(n: u8) -> Key {
        Key([n; 32])
    }

    fn is_empty(locks: &Locks) -> bool {
        locks.tables.iter().all(|table| table.lock().held.is_empty())
    }

    const FOREVER: u64 = u64::MAX;
    fn never() -> impl FnMut() -> bool {
        || false
    }

    #[test]
    fn one_holder_whatever_happens() {
        // Two tables with one file: the kernel sees two processes.
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
        assert!(processes.iter().all(is_empty));
    }

    #[test]
    fn other_sessions_do_not_wait_and_a_wait_has_a_deadline() {
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
        assert!(is_empty(&a) && is_empty(&b));
    }

    #[test]
    fn a_leased_lock_belongs_to_who_takes_the_token() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (Locks::new(file(&dir)), Locks::new(file(&dir)));
        let board = board();
        let now = |locks: &Locks| locks.lock(&key(1), 0, &mut never()).map(drop);
        // The worker does not take the lock: the next thread gets it at once, and the lease has
        // nothing left.
        let lease = a.lease(&key(1), &board).unwrap();
        assert!(lease.blocks_other_processes() && a.lease(&key(1), &board).is_none() && b.lease(&key(1), &board).is_none());
        assert_eq!(now(&b), Err(Error::LockTimeout), "another process does not see the token");
        let other = a.lock(&key(1), 0, &mut never()).unwrap();
        assert!(!board.take(lease.token()) && !lease.blocks_other_processes());
        assert!(lease.settle().is_none());
        assert_eq!((now(&a), now(&b)), (Err(Error::LockTimeout), Err(Error::LockTimeout)), "still the other's");
        drop(other);
        // The worker takes the lock.
        let lease = a.lease(&key(1), &board).unwrap();
        assert!(board.take(lease.token()));
        assert_eq!(now(&a), Err(Error::LockTimeout));
        let guard = lease.settle().unwrap();
        assert_eq!(now(&b), Err(Error::LockTimeout));
        drop(guard);
        assert_eq!((now(&a), now(&b)), (Ok(()), Ok(())));
        // Settled, dropped or revoked: free.
        let lease = a.lease(&key(1), &board).unwrap();
        assert!(lease.settle().is_none());
        drop(a.lease(&key(1), &board).unwrap());
        let lease = b.lease(&key(1), &board).unwrap();
        b.revoke(&key(1));
        assert_eq!(now(&a), Ok(()));
        assert!(!board.take(lease.token()) && lease.settle().is_none());
        assert!(is_empty(&a) && is_empty(&b));
    }

    #[test]
    fn leases_and_locks_exclude_each_other() {
        let board = &board();
        let dir = tempfile::tempdir().unwrap();
        let processes = [Locks::new(file(&dir)), Locks::new(file(&dir))];
        let (inside, total) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let work = || {
            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
            total.fetch_add(1, Ordering::SeqCst);
            inside.fetch_sub(1, Ordering::SeqCst);
        };
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (locks, work) = (&processes[n % 2], &work);
                scope.spawn(move || {
                    for round in 0..200 {
                        let lease = if (n + round) % 3 == 0 { None } else { locks.lease(&key(1), board) };
                        if lease.as_ref().is_some_and(|lease| board.take(lease.token())) {
                            work();
                            drop(lease.unwrap().settle().expect("the token was ours"));
                            continue;
                        }
                        drop(lease);
                        let _guard = locks.lock(&key(1), FOREVER, &mut never()).unwrap();
                        work();
                    }
                });
            }
        });
        assert_eq!(total.into_inner(), 1600);
        assert!(processes.iter().all(is_empty));
    }

    #[test]
    fn an_exclusive_owners_locks_hold_when_others_come() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (Locks::new(file(&dir)), Locks::new(file(&dir)));
        a.begin_exclusive();
        let held = a.lock(&key(1), FOREVER, &mut never()).unwrap();
        a.end_exclusive();
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
                while locks.table(&key(1)).lock().held[&key(1)].waiting.len() <= n {
                    std::thread::yield_now();
                }
            }
            drop(held);
        });
        assert_eq!(order.into_inner(), [0, 1, 2, 3, 4]);
    }
}
