//! One lock a session, over all threads and processes that share a store.
//!
//! Responsible for: nobody else holding a session while a [`Guard`] lives; a lock whose holder dies being free at once (the kernel lets go of
//! its file lock); waiters of one process being served in their order. Must never: wait past the caller's time. Called by: [`crate::store`].
//!
//! Within a process there is a table; between processes, one byte of the file `locks` a session, at an offset taken from its key. While a
//! process is alone ([`crate::owner`]), the table is enough.
//!
//! A lock can be held on the chance that somebody will want it ([`Locks::offer`]): whoever takes the [`Offer`]'s token first has it, the one it
//! was offered to or the next that wants it.
use crate::engine::Error;
use crate::id::{ByKey, Key};
use drover_sys::clock::monotonic_ns;
use drover_sys::filelock::{self, Hold};
use drover_sys::token::{Board, Token};
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

/// Tables of one process.
const TABLES: usize = 64;

/// See the head of this file.
#[derive(Debug)]
pub struct Locks {
    /// By the first byte of the key: the kernel is asked with a table locked, and that should not keep other sessions waiting.
    tables: [Mutex<Table>; TABLES],
    file: File,
}

#[derive(Debug, Default)]
struct Table {
    alone: bool,
    held: HashMap<Key, Held, ByKey>,
    /// The number of the last holder.
    holders: u64,
}

#[derive(Debug)]
struct Held {
    /// Whose it is: an offer may have lost it.
    holder: u64,
    in_file: bool,
    /// It is only offered, as long as nobody has taken this.
    token: Option<Posted>,
    waiting: VecDeque<Arc<Waiter>>,
}

impl Held {
    const fn by(holder: u64) -> Self {
        Self { holder, in_file: false, token: None, waiting: VecDeque::new() }
    }
}

#[derive(Debug)]
struct Waiter {
    holder: u64,
    given: Mutex<bool>,
    bell: Condvar,
}

/// A session that is held; let go when dropped.
#[derive(Debug)]
pub struct Guard<'l> {
    locks: &'l Locks,
    key: Key,
    holder: u64,
}

/// A session that is held for somebody who may not want it; let go when dropped.
#[derive(Debug)]
pub struct Offer<'l> {
    /// Taken out when it is settled.
    guard: Option<Guard<'l>>,
    posted: Posted,
}

/// A token, and where it lies.
#[derive(Debug, Clone)]
struct Posted {
    board: Arc<Board>,
    token: Token,
}

impl Posted {
    fn take(&self) -> bool {
        self.board.take(self.token)
    }
}

/// How a lock is come by.
enum Entered {
    Now(u64),
    Later(Arc<Waiter>),
}

impl<'l> Offer<'l> {
    /// Whether it is this session that is offered.
    #[must_use]
    pub fn is_of(&self, key: &Key) -> bool {
        self.guard.as_ref().is_some_and(|guard| guard.key == *key)
    }

    /// Who takes the token ([`Board::take`]) has the lock. Nobody can once the offer is settled.
    #[must_use]
    pub const fn token(&self) -> Token {
        self.posted.token
    }

    /// Whether other processes cannot have the session meanwhile. (Those who want it in this one take the token.)
    #[must_use]
    pub fn keeps_others_waiting(&self) -> bool {
        let Some(guard) = &self.guard else { return false };
        guard.locks.table(&guard.key).lock().held.get(&guard.key).is_some_and(|held| held.holder == guard.holder && held.in_file)
    }

    /// Ends the offer: the lock, if it is that of the one it was offered to.
    #[must_use]
    pub fn settle(mut self) -> Option<Guard<'l>> {
        let guard = self.guard.take().filter(|_| !self.posted.take())?;
        let mut table = guard.locks.table(&guard.key).lock();
        let held = table.held.get_mut(&guard.key).filter(|held| held.holder == guard.holder);
        let mine = held.map(|held| held.token = None).is_some();
        drop(table);
        mine.then_some(guard)
    }
}

impl Drop for Offer<'_> {
    fn drop(&mut self) {
        if self.guard.is_some() {
            // Before the guard goes: whoever still has the token must not find it good.
            let _ = self.posted.take();
        }
    }
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
        self.locks.release(&self.key, self.holder);
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
        Self { tables: std::array::from_fn(|_| Mutex::default()), file }
    }

    fn table(&self, key: &Key) -> &Mutex<Table> {
        key.part(&self.tables)
    }

    /// Holds a session. Waits until `until` (CLOCK_MONOTONIC nanoseconds), or until `cancelled` says so. Not re-entrant.
    pub fn lock(&self, key: &Key, until: u64, cancelled: &mut dyn FnMut() -> bool) -> Result<Guard<'_>, Error> {
        let holder = match self.enter(key) {
            Entered::Now(holder) => holder,
            Entered::Later(waiter) => {
                self.wait(key, &waiter, until, cancelled)?;
                waiter.holder
            }
        };
        let guard = Guard { locks: self, key: *key, holder };
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

    /// Takes the process's own lock, from whom it is only offered if need be, or a place in its queue.
    fn enter(&self, key: &Key) -> Entered {
        let mut table = self.table(key).lock();
        table.holders += 1;
        let holder = table.holders;
        match table.held.get_mut(key) {
            None => {
                table.held.insert(*key, Held::by(holder));
                Entered::Now(holder)
            }
            Some(held) => {
                if held.token.take().is_some_and(|token| token.take()) {
                    held.holder = holder;
                    return Entered::Now(holder);
                }
                let waiter = Arc::new(Waiter { holder, given: Mutex::new(false), bell: Condvar::new() });
                held.waiting.push_back(waiter.clone());
                Entered::Later(waiter)
            }
        }
    }

    /// Offers a session that nobody holds, by a token on this board. Waits for nothing.
    #[must_use]
    pub fn offer(&self, key: &Key, board: &Arc<Board>) -> Option<Offer<'_>> {
        let mut table = self.table(key).lock();
        if table.held.contains_key(key) {
            return None;
        }
        let posted = Posted { board: board.clone(), token: board.put(offset(key).unsigned_abs())? };
        let in_file = !table.alone && filelock::set(&self.file, offset(key), Hold::Exclusive) == Ok(true);
        if !table.alone && !in_file {
            let _ = posted.take();
            return None;
        }
        table.holders += 1;
        let held = Held { token: Some(posted.clone()), in_file, ..Held::by(table.holders) };
        let holder = table.holders;
        table.held.insert(*key, held);
        drop(table);
        Some(Offer { guard: Some(Guard { locks: self, key: *key, holder }), posted })
    }

    /// A session is changed by somebody who does not hold it: what was sent along with an offer is not true any more.
    pub fn revoke(&self, key: &Key) {
        let mut table = self.table(key).lock();
        let Some(held) = table.held.get_mut(key) else { return };
        if held.token.take().is_some_and(|token| token.take()) {
            let holder = held.holder;
            self.free(&mut table, key, holder);
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
        let mut table = self.table(key).lock();
        if let Some(held) = table.held.get_mut(key) {
            held.waiting.retain(|other| !Arc::ptr_eq(other, waiter));
        }
        drop(table);
        if *waiter.given.lock() {
            self.release(key, waiter.holder);
        }
    }

    /// With the table locked, so that nobody changes between alone and not alone meanwhile; fcntl(2) does not wait here.
    fn try_file(&self, key: &Key) -> Result<bool, Error> {
        let mut table = self.table(key).lock();
        let alone = table.alone;
        let Some(held) = table.held.get_mut(key) else { return Ok(true) };
        if alone || held.in_file {
            return Ok(true);
        }
        held.in_file =
            filelock::set(&self.file, offset(key), Hold::Exclusive).map_err(|e| Error::Unavailable(format!("cannot lock: {e}")))?;
        Ok(held.in_file)
    }

    fn release(&self, key: &Key, holder: u64) {
        self.free(&mut self.table(key).lock(), key, holder);
    }

    fn free(&self, table: &mut Table, key: &Key, holder: u64) {
        let Some(held) = table.held.get_mut(key).filter(|held| held.holder == holder) else { return };
        if std::mem::take(&mut held.in_file) {
            // What cannot be let go is let go by the kernel at the end of the process.
            let _ = filelock::set(&self.file, offset(key), Hold::Free);
        }
        held.token = None;
        if let Some(next) = held.waiting.pop_front() {
            held.holder = next.holder;
            *next.given.lock() = true;
            next.bell.notify_one();
        } else {
            table.held.remove(key);
        }
    }

    /// This process is the only one now; the caller has made sure of it.
    pub fn begin_alone(&self) {
        self.tables.iter().for_each(|table| table.lock().alone = true);
    }

    /// Others may come: what is held is held against them too from now on.
    pub fn end_alone(&self) {
        for table in &self.tables {
            let mut table = table.lock();
            table.alone = false;
            for (key, held) in table.held.iter_mut().filter(|(_, held)| !held.in_file) {
                // Nobody else is there yet who could hold it, but for two keys with one offset.
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
        assert!(processes.iter().all(is_empty));
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
        assert!(is_empty(&a) && is_empty(&b));
    }

    #[test]
    fn what_is_offered_is_whose_token_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (Locks::new(file(&dir)), Locks::new(file(&dir)));
        let board = board();
        let now = |locks: &Locks| locks.lock(&key(1), 0, &mut never()).map(drop);
        // Not wanted by the one it was offered to: the next one has it at once, and the offer has nothing any more.
        let offer = a.offer(&key(1), &board).unwrap();
        assert!(offer.keeps_others_waiting() && a.offer(&key(1), &board).is_none() && b.offer(&key(1), &board).is_none());
        assert_eq!(now(&b), Err(Error::LockTimeout), "another process does not see the token");
        let other = a.lock(&key(1), 0, &mut never()).unwrap();
        assert!(!board.take(offer.token()) && !offer.keeps_others_waiting());
        assert!(offer.settle().is_none());
        assert_eq!((now(&a), now(&b)), (Err(Error::LockTimeout), Err(Error::LockTimeout)), "still the other's");
        drop(other);
        // Wanted.
        let offer = a.offer(&key(1), &board).unwrap();
        assert!(board.take(offer.token()));
        assert_eq!(now(&a), Err(Error::LockTimeout));
        let guard = offer.settle().unwrap();
        assert_eq!(now(&b), Err(Error::LockTimeout));
        drop(guard);
        assert_eq!((now(&a), now(&b)), (Ok(()), Ok(())));
        // Given up, taken back, changed by others: free.
        let offer = a.offer(&key(1), &board).unwrap();
        assert!(offer.settle().is_none());
        drop(a.offer(&key(1), &board).unwrap());
        let offer = b.offer(&key(1), &board).unwrap();
        b.revoke(&key(1));
        assert_eq!(now(&a), Ok(()));
        assert!(!board.take(offer.token()) && offer.settle().is_none());
        assert!(is_empty(&a) && is_empty(&b));
    }

    #[test]
    fn offers_and_locks_exclude_each_other() {
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
                        let offer = if (n + round) % 3 == 0 { None } else { locks.offer(&key(1), board) };
                        if offer.as_ref().is_some_and(|offer| board.take(offer.token())) {
                            work();
                            drop(offer.unwrap().settle().expect("the token was ours"));
                            continue;
                        }
                        drop(offer);
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
                while locks.table(&key(1)).lock().held[&key(1)].waiting.len() <= n {
                    std::thread::yield_now();
                }
            }
            drop(held);
        });
        assert_eq!(order.into_inner(), [0, 1, 2, 3, 4]);
    }
}
