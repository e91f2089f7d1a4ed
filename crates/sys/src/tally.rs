//! Counters that httpd's children share: how many requests of a group they hold together.
//!
//! Responsible for: exact sums although children may be killed at any moment. Each child counts in a column of its own as well, so that
//! what a dead child has left behind can be taken off. Must never: wait. Called by: `src/handler/admission.rs`; made by httpd's parent
//! before it forks.
//!
//! Memory: when dead children were looked for last; [`NAMES`] rows (the hash of the name that owns it, the sum, when its overflow was logged
//! last, how many times it was not logged since); then, for each child, its process id and one counter a row.
#![allow(unsafe_code)]
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use rustix::process::{Pid, test_kill_process};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// So many names can be counted; what comes later is not bounded.
pub const NAMES: usize = 1024;

/// The shared memory; see the head of this file.
#[derive(Debug)]
pub struct Tally {
    words: NonNull<AtomicU64>,
    children: usize,
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
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice; NORESERVE, as most of it is never touched.
        let page = unsafe { mmap_anonymous(std::ptr::null_mut(), len, protection, MapFlags::SHARED | MapFlags::NORESERVE)? };
        Ok(Self { words: NonNull::new(page.cast()).ok_or(Errno::NOMEM)?, children })
    }

    const fn words(children: usize) -> usize {
        1 + NAMES * ROW + children * (NAMES + 1)
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        let at = at.min(Self::words(self.children) - 1);
        // SAFETY: within the mapping, which the kernel has zeroed and which is only ever used as atomics of this type.
        unsafe { self.words.add(at).as_ref() }
    }

    fn row(&self, row: Row, what: usize) -> &AtomicU64 {
        self.word(1 + row.0 * ROW + what)
    }

    fn pid(&self, column: usize) -> &AtomicU64 {
        self.word(1 + NAMES * ROW + column * (NAMES + 1))
    }

    fn cell(&self, column: usize, row: Row) -> &AtomicU64 {
        self.word(2 + NAMES * ROW + column * (NAMES + 1) + row.0)
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

    /// A column for this process; what a dead one left in it is taken off the sums. `None`: there are more children than expected.
    #[must_use]
    pub fn claim(&self, pid: i32) -> Option<Column> {
        let mine = u64::try_from(pid).ok()?;
        (0..self.children).map(Column).find(|column| {
            let owner = self.pid(column.0);
            let before = owner.load(Ordering::Acquire);
            if before != 0 && (before == mine || is_alive(before)) {
                return false;
            }
            if owner.compare_exchange(before, mine, Ordering::AcqRel, Ordering::Acquire).is_err() {
                return false;
            }
            if before != 0 {
                self.clear(column.0);
            }
            true
        })
    }

    fn clear(&self, column: usize) {
        for row in (0..NAMES).map(Row) {
            let left = self.cell(column, row).swap(0, Ordering::AcqRel);
            if left != 0 {
                self.row(row, SUM).fetch_sub(left, Ordering::AcqRel);
            }
        }
    }

    /// Counts one more; the sum of all children with it.
    #[must_use]
    pub fn enter(&self, column: Column, row: Row) -> u64 {
        self.cell(column.0, row).fetch_add(1, Ordering::AcqRel);
        // Not the sum a moment later: of two who come at once, one was first.
        self.row(row, SUM).fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Counts one less.
    pub fn leave(&self, column: Column, row: Row) {
        self.subtract(column, row, 1);
    }

    /// Counts `n` more.
    pub fn add(&self, column: Column, row: Row, n: u64) {
        self.cell(column.0, row).fetch_add(n, Ordering::AcqRel);
        self.row(row, SUM).fetch_add(n, Ordering::AcqRel);
    }

    /// Counts `n` less.
    pub fn subtract(&self, column: Column, row: Row, n: u64) {
        self.cell(column.0, row).fetch_sub(n, Ordering::AcqRel);
        self.row(row, SUM).fetch_sub(n, Ordering::AcqRel);
    }

    /// The sum of all children.
    #[must_use]
    pub fn sum(&self, row: Row) -> u64 {
        self.row(row, SUM).load(Ordering::Acquire)
    }

    /// Takes off what dead children have left: to be called when a sum is too high to be believed without a look. `now`, in any unit: nothing
    /// is done if somebody has looked at this very time, as each look asks the kernel about every child.
    pub fn bury(&self, now: u64) {
        let looked = self.word(0);
        let before = looked.load(Ordering::Acquire);
        if before == now || looked.compare_exchange(before, now, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return;
        }
        for column in 0..self.children {
            let owner = self.pid(column);
            let pid = owner.load(Ordering::Acquire);
            // Whoever takes the column's owner away clears it, nobody else.
            if pid != 0 && !is_alive(pid) && owner.compare_exchange(pid, u64::MAX, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                self.clear(column);
                owner.store(0, Ordering::Release);
            }
        }
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

fn is_alive(pid: u64) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // No permission means that it lives.
    pid.is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
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
    fn names_have_rows_and_children_columns() {
        let tally = Tally::new(4).unwrap();
        let (a, b) = (tally.find(&"a").unwrap(), tally.find(&("b", 2)).unwrap());
        assert_ne!(a, b);
        assert_eq!(tally.find(&"a"), Some(a));
        let mine = tally.claim(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert_eq!((tally.enter(mine, a), tally.enter(mine, a), tally.enter(mine, b)), (1, 2, 1));
        tally.leave(mine, a);
        assert_eq!(tally.enter(mine, a), 2);
    }

    #[test]
    fn what_a_dead_child_leaves_is_taken_off() {
        let tally = Tally::new(2).unwrap();
        let row = tally.find(&"a").unwrap();
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let dead = tally.claim(pid).unwrap();
        let _ = tally.enter(dead, row);
        let _ = tally.enter(dead, row);
        child.wait().unwrap();
        let mine = tally.claim(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert_eq!(tally.enter(mine, row), 1, "its column was the first free one");
        let again = tally.claim(pid);
        assert!(again.is_some());
        let _ = tally.enter(again.unwrap(), row);
        tally.bury(1);
        assert_eq!(tally.enter(mine, row), 2);
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
