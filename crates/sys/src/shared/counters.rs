//! Counters that httpd's children share: how many requests of a group they hold together.
//!
//! Responsible for: nobody being refused because of a child that was killed, at whatever moment. Each child counts in a column of its own
//! as well, so that what a dead child has left behind can be taken off. Must never: wait. Called by: `src/handler/admission.rs`,
//! `src/handler/account.rs`; made by httpd's parent before it forks.
//!
//! A column belongs to the process that holds the lock of its byte in a memory file. The kernel gives it to one process at a time and
//! takes it back when that ends, so neither a number that a later process has again nor two who look at once can confuse owners. Only
//! the owner clears a column, and a column is cleared before it is counted in.
//!
//! A sum is never lower than what the columns hold: it goes up before and down after them. A process that is killed in between leaves it
//! too high, which costs a look at the columns ([`Tally::exceeds`]) and refuses nobody.
//!
//! Memory: when dead children were looked for last; [`NAMES`] rows (the hash of the name that owns it, the sum, when its overflow was logged
//! last, how many times it was not logged since); for each child whether its column is in use; then its column, one counter a row.
#![allow(unsafe_code)]
use crate::filelock::{self, Hold};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// So many names can be counted; what comes later is not bounded.
pub const NAMES: usize = 1024;

/// The shared memory; see the head of this file.
#[derive(Debug)]
pub struct Tally {
    words: NonNull<AtomicU64>,
    children: usize,
    /// A byte for each column; see the head of this file.
    locks: OwnedFd,
    /// A thread of this process is looking for dead processes.
    is_burying: AtomicBool,
}

// SAFETY: atomics in memory that stays mapped for as long as the value lives.
unsafe impl Send for Tally {}
// SAFETY: as above.
unsafe impl Sync for Tally {}

const OWNER: usize = 0;
const SUM: usize = 1;
const SAID: usize = 2;
const UNSAID: usize = 3;
const ROW: usize = 4;

/// A place in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row(usize);

/// A child's column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column(usize);

impl Tally {
    /// Room for `children` processes.
    pub fn new(children: usize) -> Result<Self, Errno> {
        let children = children.clamp(1, 20_000);
        let len = Self::words(children) * size_of::<AtomicU64>();
        let locks = memfd_create("mod_drover columns", MemfdFlags::CLOEXEC)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice; NORESERVE, as most of it is never touched.
        let page = unsafe { mmap_anonymous(std::ptr::null_mut(), len, protection, MapFlags::SHARED | MapFlags::NORESERVE)? };
        let words = NonNull::new(page.cast()).ok_or(Errno::NOMEM)?;
        Ok(Self { words, children, locks, is_burying: AtomicBool::new(false) })
    }

    const fn words(children: usize) -> usize {
        1 + NAMES * ROW + children + children * NAMES
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        let at = at.min(Self::words(self.children) - 1);
        // SAFETY: within the mapping, which the kernel has zeroed and which is only ever used as atomics of this type.
        unsafe { self.words.add(at).as_ref() }
    }

    fn row(&self, row: Row, what: usize) -> &AtomicU64 {
        self.word(1 + row.0 * ROW + what)
    }

    /// Whether somebody has counted in the column since it was cleared.
    fn in_use(&self, column: usize) -> &AtomicU64 {
        self.word(1 + NAMES * ROW + column)
    }

    fn cell(&self, column: usize, row: Row) -> &AtomicU64 {
        self.word(1 + NAMES * ROW + self.children + column * NAMES + row.0)
    }

    /// The row of a name; `None`: the table is full.
    #[must_use]
    pub fn find(&self, name: &impl Hash) -> Option<Row> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let hash = hasher.finish().max(1);
        let start = usize::try_from(hash % NAMES as u64).unwrap_or(0);
        (0..64).map(|step| Row((start + step) % NAMES)).find(|row| {
            let owner = self.row(*row, OWNER);
            match owner.load(Ordering::Acquire) {
                0 => owner.compare_exchange(0, hash, Ordering::AcqRel, Ordering::Acquire).map_or_else(|now| now == hash, |_| true),
                now => now == hash,
            }
        })
    }

    /// A column for this process; what a dead process left in it is taken off. `None`: there are more processes than expected. To be
    /// called once in a process.
    #[must_use]
    pub fn claim(&self) -> Option<Column> {
        let column = (0..self.children).find(|column| self.lock(*column))?;
        self.clear(column);
        self.in_use(column).store(1, Ordering::SeqCst);
        Some(Column(column))
    }

    /// Makes this process the owner of a column. False: another process is.
    fn lock(&self, column: usize) -> bool {
        i64::try_from(column).is_ok_and(|byte| filelock::set_for_process(&self.locks, byte, Hold::Exclusive) == Ok(true))
    }

    /// Only for the owner: nobody else counts in the column meanwhile.
    fn clear(&self, column: usize) {
        for row in (0..NAMES).map(Row) {
            let left = self.cell(column, row).swap(0, Ordering::SeqCst);
            if left != 0 {
                self.row(row, SUM).fetch_sub(left, Ordering::SeqCst);
            }
        }
        self.in_use(column).store(0, Ordering::SeqCst);
    }

    /// Counts one more; the sum with it. A sum that is too high may be so because of dead processes: see [`Tally::exceeds`].
    #[must_use]
    pub fn enter(&self, column: Column, row: Row) -> u64 {
        self.add(column, row, 1)
    }

    /// Counts one less.
    pub fn leave(&self, column: Column, row: Row) {
        self.subtract(column, row, 1);
    }

    /// Counts `n` more; the sum with them.
    pub fn add(&self, column: Column, row: Row, n: u64) -> u64 {
        // Not the sum a moment later: of two who come at once, one was first. The sum goes up first and down last.
        let sum = self.row(row, SUM).fetch_add(n, Ordering::SeqCst) + n;
        self.cell(column.0, row).fetch_add(n, Ordering::SeqCst);
        sum
    }

    /// Counts `n` less.
    pub fn subtract(&self, column: Column, row: Row, n: u64) {
        self.cell(column.0, row).fetch_sub(n, Ordering::SeqCst);
        self.row(row, SUM).fetch_sub(n, Ordering::SeqCst);
    }

    /// Whether all living processes together have more than `most`. `mine` has counted what it asks for already. `now`, in any unit:
    /// dead processes are looked for once at that time.
    #[must_use]
    pub fn exceeds(&self, mine: Column, row: Row, most: u64, now: u64) -> bool {
        if self.row(row, SUM).load(Ordering::SeqCst) <= most {
            return false;
        }
        self.bury(mine, now);
        // A process that was killed between its two additions has left the sum too high for good, but not its cell.
        self.total(row) > most
    }

    /// What the columns hold.
    fn total(&self, row: Row) -> u64 {
        let used = (0..self.children).filter(|column| self.in_use(*column).load(Ordering::SeqCst) != 0);
        used.map(|column| self.cell(column, row).load(Ordering::SeqCst)).fold(0, u64::wrapping_add)
    }

    /// Takes off what dead processes have left.
    fn bury(&self, mine: Column, now: u64) {
        let looked = self.word(0);
        let before = looked.load(Ordering::Acquire);
        if before == now || looked.compare_exchange(before, now, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return;
        }
        // The locks are the process's, not a thread's: one thread at a time may hold those of others.
        if self.is_burying.swap(true, Ordering::AcqRel) {
            return;
        }
        for column in (0..self.children).filter(|column| *column != mine.0 && self.in_use(*column).load(Ordering::SeqCst) != 0) {
            // Who gets the lock of a column in use knows that its owner is dead.
            if self.lock(column) {
                self.clear(column);
                let byte = i64::try_from(column).unwrap_or(i64::MAX);
                // If it cannot be unlocked, the column is lost until this process ends.
                let _ = filelock::set_for_process(&self.locks, byte, Hold::Free);
            }
        }
        self.is_burying.store(false, Ordering::Release);
    }

    /// Whether an overflow of this row may be logged now, `now` in seconds: once a second. Gives how many were not logged since.
    #[must_use]
    pub fn may_say(&self, row: Row, now: u64) -> Option<u64> {
        let said = self.row(row, SAID);
        let before = said.load(Ordering::Acquire);
        if before == now || said.compare_exchange(before, now, Ordering::AcqRel, Ordering::Acquire).is_err() {
            self.row(row, UNSAID).fetch_add(1, Ordering::AcqRel);
            return None;
        }
        Some(self.row(row, UNSAID).swap(0, Ordering::AcqRel))
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, with this length, and not used after.
        let _ = unsafe { munmap(self.words.as_ptr().cast(), Self::words(self.children) * size_of::<AtomicU64>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_rows() {
        let tally = Tally::new(4).unwrap();
        let (a, b) = (tally.find(&"a").unwrap(), tally.find(&("b", 2)).unwrap());
        assert_ne!(a, b);
        assert_eq!(tally.find(&"a"), Some(a));
        let mine = tally.claim().unwrap();
        assert_eq!((tally.enter(mine, a), tally.enter(mine, a), tally.enter(mine, b)), (1, 2, 1));
        tally.leave(mine, a);
        assert_eq!(tally.enter(mine, a), 2);
        assert!(tally.exceeds(mine, a, 1, 1) && !tally.exceeds(mine, a, 2, 1));
    }

    #[test]
    fn a_sum_that_a_killed_process_has_left_too_high_refuses_nobody() {
        let tally = Tally::new(4).unwrap();
        let row = tally.find(&"a").unwrap();
        let mine = tally.claim().unwrap();
        // Killed between its two additions.
        tally.row(row, SUM).fetch_add(1, Ordering::SeqCst);
        assert_eq!(tally.enter(mine, row), 2);
        assert!(!tally.exceeds(mine, row, 1, 1));
        let _ = tally.enter(mine, row);
        assert!(tally.exceeds(mine, row, 1, 1));
    }

    #[test]
    fn an_overflow_is_said_once_a_second() {
        let tally = Tally::new(1).unwrap();
        let row = tally.find(&"a").unwrap();
        assert_eq!(tally.may_say(row, 7), Some(0));
        assert_eq!((tally.may_say(row, 7), tally.may_say(row, 7)), (None, None));
        assert_eq!(tally.may_say(row, 8), Some(2));
    }
}
