//! Counters that httpd's child processes share: how many requests of a group they hold together.
//!
//! Responsible for: refusing nothing because of a child that was killed, at whatever moment. Each
//! child also counts in a slot of its own, so that what a dead child left behind can be subtracted.
//! Must never: wait. Called by: `src/handler/admission.rs`, `src/handler/account.rs`; httpd's
//! parent creates it before it forks.
//!
//! The owner of a child slot is the process that holds the lock on its byte in a memory file. The
//! kernel gives that lock to one process at a time and frees it when the process ends. So a reused
//! process id confuses no owner, nor do two processes that look at once. Only the owner clears a
//! slot, and it does so before it counts in it.
//!
//! A sum is never lower than the total of the slots: it goes up before them and down after them. A
//! process that is killed in between leaves it too high. That costs one look at the slots
//! ([`SharedCounters::exceeds`]) and refuses nothing.
#![allow(unsafe_code)]
use super::page::{Page, Shared};
use crate::files::filelock::{self, Hold};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Names that can be counted; a name beyond these has no counter and no limit.
pub const MAX_COUNTERS: usize = 1024;
/// Child slots that can be made.
const MAX_CHILDREN: usize = 20_000;
/// Rows that are tried for a name.
const MAX_PROBES: usize = 64;

/// The counters, in memory that the child processes share.
#[derive(Debug)]
pub struct SharedCounters {
    rows: Page<Row>,
    children: Page<Child>,
    /// One word: the time at which dead processes were last looked for.
    reaped_at: Page<AtomicU64>,
    /// A lockable byte for each child slot.
    locks: OwnedFd,
    /// A thread of this process is looking for dead processes.
    is_reaping: AtomicBool,
}

/// What the children count together for one name.
#[derive(Debug)]
#[repr(C)]
struct Row {
    /// Hash of the name; 0: the row is free.
    owner: AtomicU64,
    sum: AtomicU64,
    /// When the last overflow was logged, and how many were not logged since.
    logged_at: AtomicU64,
    unlogged: AtomicU64,
}

/// What one child counts, a cell for each row.
#[derive(Debug)]
#[repr(C)]
struct Child {
    /// 1: the slot was claimed and not cleared since.
    in_use: AtomicU64,
    cells: [AtomicU64; MAX_COUNTERS],
}

// SAFETY: atomic integers only.
unsafe impl Shared for Row {}
// SAFETY: atomic integers only.
unsafe impl Shared for Child {}

/// The counter of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter(usize);

/// The slot in which one child process counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChildSlot(usize);

impl SharedCounters {
    /// Room for `children` processes.
    pub fn new(children: usize) -> Result<Self, Errno> {
        Ok(Self {
            rows: Page::anonymous(MAX_COUNTERS)?,
            children: Page::anonymous(children.clamp(1, MAX_CHILDREN))?,
            reaped_at: Page::anonymous(1)?,
            locks: memfd_create("mod_drover child slots", MemfdFlags::CLOEXEC)?,
            is_reaping: AtomicBool::new(false),
        })
    }

    /// The sum of a counter, and a child's cell of it.
    fn cells(&self, slot: ChildSlot, counter: Counter) -> Option<(&AtomicU64, &AtomicU64)> {
        Some((&self.rows.get(counter.0)?.sum, self.children.get(slot.0)?.cells.get(counter.0)?))
    }

    /// The counter of a name; `None`: the table is full.
    #[must_use]
    pub fn find(&self, name: &impl Hash) -> Option<Counter> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let hash = hasher.finish().max(1);
        let start = usize::try_from(hash % MAX_COUNTERS as u64).unwrap_or(0);
        let mut probes = (0..MAX_PROBES).map(|step| (start + step) % MAX_COUNTERS);
        let found = probes.find(|row| {
            self.rows.get(*row).is_some_and(|Row { owner, .. }| match owner.load(Ordering::Acquire) {
                0 => owner.compare_exchange(0, hash, Ordering::AcqRel, Ordering::Acquire).map_or_else(|now| now == hash, |_| true),
                now => now == hash,
            })
        });
        found.map(Counter)
    }

    /// A slot for this process; what a dead process left in it is subtracted. `None`: there are
    /// more processes than expected. To be called once in a process.
    #[must_use]
    pub fn claim(&self) -> Option<ChildSlot> {
        let (number, child) = self.children.iter().enumerate().find(|(number, _)| self.lock(*number))?;
        self.clear(child);
        child.in_use.store(1, Ordering::SeqCst);
        Some(ChildSlot(number))
    }

    /// Makes this process the owner of a slot. False: another process owns it.
    fn lock(&self, slot: usize) -> bool {
        i64::try_from(slot).is_ok_and(|byte| filelock::set_for_process(&self.locks, byte, Hold::Exclusive) == Ok(true))
    }

    /// Subtracts what the slot holds. Only its owner calls this, so no other process counts in it
    /// meanwhile.
    fn clear(&self, child: &Child) {
        for (row, cell) in self.rows.iter().zip(&child.cells) {
            let left = cell.swap(0, Ordering::SeqCst);
            if left != 0 {
                row.sum.fetch_sub(left, Ordering::SeqCst);
            }
        }
        child.in_use.store(0, Ordering::SeqCst);
    }

    /// Counts one more and returns the sum. The sum may include dead processes: see
    /// [`SharedCounters::exceeds`].
    #[must_use]
    pub fn enter(&self, slot: ChildSlot, counter: Counter) -> u64 {
        self.add(slot, counter, 1)
    }

    /// Counts one less.
    pub fn leave(&self, slot: ChildSlot, counter: Counter) {
        self.subtract(slot, counter, 1);
    }

    /// Counts `n` more and returns the sum.
    pub fn add(&self, slot: ChildSlot, counter: Counter, n: u64) -> u64 {
        let Some((sum, cell)) = self.cells(slot, counter) else { return 0 };
        // The sum of this addition, not that of a moment later: of two processes that count at
        // once, one was first.
        let sum = sum.fetch_add(n, Ordering::SeqCst) + n;
        cell.fetch_add(n, Ordering::SeqCst);
        sum
    }

    /// Counts `n` less.
    pub fn subtract(&self, slot: ChildSlot, counter: Counter, n: u64) {
        if let Some((sum, cell)) = self.cells(slot, counter) {
            cell.fetch_sub(n, Ordering::SeqCst);
            sum.fetch_sub(n, Ordering::SeqCst);
        }
    }

    /// Whether all living processes together count more than `most`. The caller, which owns `mine`,
    /// has already counted what it asks for. `now` is in any unit: dead processes are looked for
    /// once at each value of it.
    #[must_use]
    pub fn exceeds(&self, mine: ChildSlot, counter: Counter, most: u64, now: u64) -> bool {
        if self.rows.get(counter.0).is_none_or(|row| row.sum.load(Ordering::SeqCst) <= most) {
            return false;
        }
        self.reap_dead(mine, now);
        // A process that was killed between its two additions left the sum too high for good, but
        // not its cell.
        self.total(counter) > most
    }

    /// What the slots hold.
    fn total(&self, counter: Counter) -> u64 {
        let used = self.children.iter().filter(|child| child.in_use.load(Ordering::SeqCst) != 0);
        used.filter_map(|child| child.cells.get(counter.0)).map(|cell| cell.load(Ordering::SeqCst)).fold(0, u64::wrapping_add)
    }

    /// Subtracts what dead processes left behind.
    fn reap_dead(&self, mine: ChildSlot, now: u64) {
        let Some(reaped_at) = self.reaped_at.first() else { return };
        let before = reaped_at.load(Ordering::Acquire);
        if before == now || reaped_at.compare_exchange(before, now, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return;
        }
        // The locks belong to the process, not to a thread: one thread at a time may hold those of
        // others.
        if self.is_reaping.swap(true, Ordering::AcqRel) {
            return;
        }
        for (number, child) in self.children.iter().enumerate() {
            // Getting the lock of a slot in use proves that its owner is dead.
            if number != mine.0 && child.in_use.load(Ordering::SeqCst) != 0 && self.lock(number) {
                self.clear(child);
                let byte = i64::try_from(number).unwrap_or(i64::MAX);
                // If it cannot be unlocked, the slot is lost until this process ends.
                let _ = filelock::set_for_process(&self.locks, byte, Hold::Free);
            }
        }
        self.is_reaping.store(false, Ordering::Release);
    }

    /// Rate limit: whether an overflow of this counter may be logged now, `now` in seconds. `Some`:
    /// it may, and how many were not logged since the last one.
    #[must_use]
    pub fn may_log(&self, counter: Counter, now: u64) -> Option<u64> {
        let Row { logged_at, unlogged, .. } = self.rows.get(counter.0)?;
        let before = logged_at.load(Ordering::Acquire);
        if before == now || logged_at.compare_exchange(before, now, Ordering::AcqRel, Ordering::Acquire).is_err() {
            unlogged.fetch_add(1, Ordering::AcqRel);
            return None;
        }
        Some(unlogged.swap(0, Ordering::AcqRel))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_counter() {
        let counters = SharedCounters::new(4).unwrap();
        let (a, b) = (counters.find(&"a").unwrap(), counters.find(&("b", 2)).unwrap());
        assert_ne!(a, b);
        assert_eq!(counters.find(&"a"), Some(a));
        let mine = counters.claim().unwrap();
        assert_eq!((counters.enter(mine, a), counters.enter(mine, a), counters.enter(mine, b)), (1, 2, 1));
        counters.leave(mine, a);
        assert_eq!(counters.enter(mine, a), 2);
        assert!(counters.exceeds(mine, a, 1, 1) && !counters.exceeds(mine, a, 2, 1));
    }

    #[test]
    fn a_sum_that_a_killed_process_has_left_too_high_refuses_nothing() {
        let counters = SharedCounters::new(4).unwrap();
        let counter = counters.find(&"a").unwrap();
        let mine = counters.claim().unwrap();
        // Killed between its two additions.
        counters.rows[counter.0].sum.fetch_add(1, Ordering::SeqCst);
        assert_eq!(counters.enter(mine, counter), 2);
        assert!(!counters.exceeds(mine, counter, 1, 1));
        let _ = counters.enter(mine, counter);
        assert!(counters.exceeds(mine, counter, 1, 1));
    }

    #[test]
    fn an_overflow_is_logged_once_a_second() {
        let counters = SharedCounters::new(1).unwrap();
        let counter = counters.find(&"a").unwrap();
        assert_eq!(counters.may_log(counter, 7), Some(0));
        assert_eq!((counters.may_log(counter, 7), counters.may_log(counter, 7)), (None, None));
        assert_eq!(counters.may_log(counter, 8), Some(2));
    }
}
