//! Mutexes in a file that processes of one machine share, each with a deadline for waiting.
//!
//! Responsible for: a process that is killed frees its mutex at once (robust); a process that is
//! stopped delays the others no longer than their deadlines; no process uses a half-made file, or
//! one that a crash of the machine left locked. Must never: be used across a fork. Called by:
//! `crates/session`.
//!
//! Each user of the file holds a shared lock on its first byte ([`crate::filelock`]). A process
//! that gets this lock exclusively makes the mutexes anew, as no other uses them: after a start of
//! the machine, and in a copy of the file. A bad file that is in use is replaced by a new one.
#![allow(unsafe_code)]
use super::page::{self, Shared};
use crate::clock::{monotonic_ns, realtime_ns};
use crate::files::filelock::{self, Hold};
use rustix::io::Errno;
use std::cell::UnsafeCell;
use std::fs::{File, OpenOptions};
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Mutexes in a file.
pub const COUNT: usize = 2;
/// Bytes of the file: one page, of which the kernel has none smaller.
const LEN: usize = 4096;
/// Marks a file whose mutexes are made; another layout gets another number.
const MAGIC: u64 = u64::from_le_bytes(*b"drovmtx\x02");
/// The byte of the file that its users lock.
const USERS: i64 = 0;
/// How often the file is opened until it can be used, and the pause between two tries.
const TRIES: u32 = 500;
const PAUSE: Duration = Duration::from_millis(2);
/// The clock of pthread_mutex_timedlock(3) can be set, so one call waits no longer than this.
const SLICE_NS: u64 = 250_000_000;

/// The half of [`Slot::holder`] that is the process.
const PROCESS: u64 = 0xffff_ffff;

#[repr(C)]
#[derive(Debug)]
struct Layout {
    magic: AtomicU64,
    slots: [Slot; COUNT],
}

/// One mutex, in a cache line of its own.
#[repr(C, align(64))]
struct Slot {
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    /// The owner, as a hint: its process in the low half (0: none), the number of its turn in the
    /// high half.
    holder: AtomicU64,
    /// The last turn of `holder` that a waiter timed out on.
    endless: AtomicU64,
}

const _: () = assert!(size_of::<Layout>() <= LEN && align_of::<Layout>() <= LEN);

/// The mutexes of one file.
#[derive(Debug)]
pub struct Mutexes {
    page: page::Page<Layout>,
    /// Holds the lock on the first byte.
    file: File,
    inode: u64,
    pid: u32,
}

// SAFETY: any bytes are a `Layout`: it has atomics, and mutexes that only pthread functions look
// into.
unsafe impl Shared for Layout {}
// SAFETY: used from several threads only through atomics and pthread_mutex functions.
unsafe impl Sync for Layout {}

/// A guard: the mutex is unlocked when it is dropped, by the thread that locked it.
#[derive(Debug)]
pub struct Held<'m> {
    slot: &'m Slot,
    not_send: PhantomData<*const ()>,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("holder", &self.holder).finish_non_exhaustive()
    }
}

/// The owner of a mutex: one turn of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder(u64);

impl Holder {
    /// Its process; `None`: not known.
    #[must_use]
    pub fn pid(self) -> Option<u32> {
        u32::try_from(self.0 & PROCESS).ok().filter(|pid| *pid != 0)
    }
}

/// Why a mutex was not locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Timed out; this is the probable owner.
    Busy(Holder),
    /// An owner died and the next one did not repair the mutex. It is made anew once no process
    /// uses the file.
    Lost,
    /// Another error of the system.
    System(Errno),
}

impl Mutexes {
    /// Opens the file at this path, or creates it, readable for its owner alone.
    pub fn open(path: &Path) -> io::Result<Self> {
        for _ in 0..TRIES {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
            match Self::of(file)? {
                Found::Good(mutexes) if mutexes.is_at(path) => return Ok(mutexes),
                // Another process has replaced the file meanwhile.
                Found::Good(_) => {}
                Found::Bad => replace(path)?,
                // Another process is making the mutexes; the kernel offers no wait with a deadline
                // for that.
                Found::NotYet => std::thread::sleep(PAUSE),
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "another process is creating the file and does not finish"))
    }

    fn of(file: File) -> io::Result<Found> {
        let alone = filelock::set(&file, USERS, Hold::Exclusive)?;
        if alone {
            // Allocate its blocks: on a full disk, writing to a hole in the mapped page would be
            // SIGBUS.
            file.set_len(LEN as u64)?;
            file.write_all_at(&[0; LEN], 0)?;
        } else if !filelock::set(&file, USERS, Hold::Shared)? {
            return Ok(Found::NotYet);
        }
        let found = file.metadata()?;
        if found.len() != LEN as u64 {
            return Ok(Found::Bad);
        }
        let page = page::Page::of_file(&file, 1)?;
        let mutexes = Self { page, file, inode: found.ino(), pid: std::process::id() };
        if alone {
            // SAFETY: no other process uses the file: this one holds its first byte exclusively.
            unsafe { mutexes.make()? };
            // From exclusive to shared: this cannot be refused.
            filelock::set(&mutexes.file, USERS, Hold::Shared)?;
        }
        let is_good = mutexes.page.first().is_some_and(|layout| layout.magic.load(Ordering::Acquire) == MAGIC);
        Ok(if is_good { Found::Good(mutexes) } else { Found::Bad })
    }

    /// # Safety
    /// No thread or process may use the mutexes.
    unsafe fn make(&self) -> Result<(), Errno> {
        let layout = self.page.first().ok_or(Errno::INVAL)?;
        let mut attributes = std::mem::MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        let at = attributes.as_mut_ptr();
        // SAFETY: initialised first, destroyed last, used in between only.
        unsafe {
            check(libc::pthread_mutexattr_init(at))?;
            let mut made = check(libc::pthread_mutexattr_setpshared(at, libc::PTHREAD_PROCESS_SHARED));
            made = made.and_then(|()| check(libc::pthread_mutexattr_setrobust(at, libc::PTHREAD_MUTEX_ROBUST)));
            for slot in &layout.slots {
                // The memory is zero, and unused: the caller's promise.
                made = made.and_then(|()| check(libc::pthread_mutex_init(slot.mutex.get(), at)));
            }
            libc::pthread_mutexattr_destroy(at);
            made?;
        }
        layout.magic.store(MAGIC, Ordering::Release);
        Ok(())
    }

    fn slot(&self, which: usize) -> Option<&Slot> {
        self.page.first().and_then(|layout| layout.slots.get(which))
    }

    /// Whether the file is still the one at this path, which other processes open.
    #[must_use]
    pub fn is_at(&self, path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|found| found.ino() == self.inode)
    }

    /// Tells all users of the file that a waiter timed out on this turn.
    pub fn note_endless(&self, which: usize, holder: Holder) {
        if let Some(slot) = self.slot(which) {
            slot.endless.store(holder.0, Ordering::Relaxed);
        }
    }

    /// Whether a waiter timed out on this turn ([`Mutexes::note_endless`]).
    #[must_use]
    pub fn is_endless(&self, which: usize, holder: Holder) -> bool {
        holder.pid().is_some() && self.slot(which).is_some_and(|slot| slot.endless.load(Ordering::Relaxed) == holder.0)
    }

    /// Locks one of the [`COUNT`] mutexes; waits until `until` (CLOCK_MONOTONIC nanoseconds), plus
    /// the time by which the clock is set back meanwhile. Not re-entrant.
    pub fn lock(&self, which: usize, until: u64) -> Result<Held<'_>, Refused> {
        let slot = self.slot(which).ok_or(Refused::System(Errno::INVAL))?;
        // SAFETY: a mutex that was made before any process could use the file, in memory that stays
        // mapped.
        let mut got = check(unsafe { libc::pthread_mutex_trylock(slot.mutex.get()) });
        while matches!(got, Err(Errno::BUSY | Errno::TIMEDOUT)) {
            let now = monotonic_ns();
            if now >= until {
                return Err(Refused::Busy(Holder(slot.holder.load(Ordering::Relaxed))));
            }
            let end = realtime_ns().saturating_add(SLICE_NS.min(until - now));
            let end = libc::timespec { tv_sec: seconds(end), tv_nsec: nanoseconds(end) };
            // SAFETY: a mutex as for the trylock; the time is only read.
            got = check(unsafe { libc::pthread_mutex_timedlock(slot.mutex.get(), &raw const end) });
        }
        match got {
            Ok(()) => {}
            // SAFETY: a mutex as for the trylock, held by this thread. It protects nothing but the
            // turn itself.
            Err(Errno::OWNERDEAD) => check(unsafe { libc::pthread_mutex_consistent(slot.mutex.get()) }).map_err(Refused::System)?,
            Err(Errno::NOTRECOVERABLE) => return Err(Refused::Lost),
            Err(e) => return Err(Refused::System(e)),
        }
        let turn = (slot.holder.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        slot.holder.store(turn << 32 | u64::from(self.pid), Ordering::Relaxed);
        Ok(Held { slot, not_send: PhantomData })
    }
}

enum Found {
    Good(Mutexes),
    /// In use, but not a file of this layout.
    Bad,
    /// Another process is making it.
    NotYet,
}

/// Replaces a bad file by a new one.
fn replace(path: &Path) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".new-{}", std::process::id()));
    // Left behind by an earlier process with this id.
    match std::fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&new)?;
    // Empty: the process that opens it first makes its mutexes.
    drop(file);
    std::fs::rename(&new, path)
}

fn check(code: libc::c_int) -> Result<(), Errno> {
    if code == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(code)) }
}

fn seconds(ns: u64) -> libc::time_t {
    libc::time_t::try_from(ns / 1_000_000_000).unwrap_or(libc::time_t::MAX)
}

fn nanoseconds(ns: u64) -> libc::c_long {
    libc::c_long::try_from(ns % 1_000_000_000).unwrap_or(0)
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.slot.holder.fetch_and(!PROCESS, Ordering::Relaxed);
        // SAFETY: locked by this thread, as the guard is not Send; so it cannot fail.
        unsafe { libc::pthread_mutex_unlock(self.slot.mutex.get()) };
    }
}

#[cfg(test)]
mod tests;
