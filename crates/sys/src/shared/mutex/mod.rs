//! Mutexes in a file that processes of one machine share, with an end to each wait.
//!
//! Responsible for: whoever is killed while it holds one lets go at once (robust), whoever is stopped holds the others up for no longer than
//! they like; nobody using a half-made file, or one that a machine which died has left locked. Must never: be used across a fork. Called by:
//! `crates/session`.
//!
//! Whoever uses the file holds its first byte ([`crate::filelock`]), shared. Who gets that byte for itself alone makes the mutexes anew, as nobody
//! uses them: so it is after the machine's start, and in a copy. A file that is no good although somebody uses it is replaced by another one.
#![allow(unsafe_code)]
use crate::clock::{monotonic_ns, realtime_ns};
use crate::filelock::{self, Hold};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::cell::UnsafeCell;
use std::fs::{File, OpenOptions};
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Mutexes in a file.
pub const COUNT: usize = 2;
/// Bytes of the file: one page, of which the kernel has none smaller.
const LEN: usize = 4096;
/// Stands where the mutexes are made; another number for another layout.
const MAGIC: u64 = u64::from_le_bytes(*b"drovmtx\x02");
/// Which byte of the file its users hold.
const USERS: i64 = 0;
/// How often the file is opened until it is one that can be used, and the pause between.
const TRIES: u32 = 500;
const PAUSE: Duration = Duration::from_millis(2);
/// The clock of pthread_mutex_timedlock(3) can be set: it is asked anew so often.
const SLICE_NS: u64 = 250_000_000;

/// The half of [`Slot::holder`] that is the process.
const PROCESS: u64 = 0xffff_ffff;

#[repr(C)]
struct Page {
    magic: AtomicU64,
    slots: [Slot; COUNT],
}

/// In a line of the cache of its own.
#[repr(C, align(64))]
struct Slot {
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    /// Whose turn it is, as far as is known: a hint. The process in the low half, 0 for nobody; the number of the turn in the high one.
    holder: AtomicU64,
    /// The turn that somebody has waited for in vain, as `holder` had it.
    endless: AtomicU64,
}

const _: () = assert!(size_of::<Page>() <= LEN && align_of::<Page>() <= LEN);

/// See the head of this file.
#[derive(Debug)]
pub struct Mutexes {
    page: NonNull<Page>,
    /// Keeps its first byte.
    file: File,
    inode: u64,
    pid: u32,
}

// SAFETY: the page stays mapped for as long as the value lives, and is only used through atomics and pthread_mutex functions.
unsafe impl Send for Mutexes {}
// SAFETY: as above.
unsafe impl Sync for Mutexes {}

/// A mutex that is held; let go when dropped, by the thread that took it.
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

/// One turn of a process at a mutex.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder(u64);

impl Holder {
    /// Its process; `None`: it is not known.
    #[must_use]
    pub fn pid(self) -> Option<u32> {
        u32::try_from(self.0 & PROCESS).ok().filter(|pid| *pid != 0)
    }
}

/// Why a mutex was not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is held, probably by this one.
    Busy(Holder),
    /// A holder has died and the next one did not mend it. Once nobody uses the file any more it is made anew.
    Lost,
    /// Something else.
    System(Errno),
}

impl Mutexes {
    /// The mutexes of the file at this path, which is made if need be, readable for its owner alone.
    pub fn open(path: &Path) -> io::Result<Self> {
        for _ in 0..TRIES {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
            match Self::of(file)? {
                Found::Good(mutexes) if mutexes.is_at(path) => return Ok(mutexes),
                // Another one has been put in its place meanwhile.
                Found::Good(_) => {}
                Found::Bad => replace(path)?,
                // Somebody makes it just now; the kernel has no wait with an end for that.
                Found::NotYet => std::thread::sleep(PAUSE),
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "another process makes it and does not come to an end"))
    }

    fn of(file: File) -> io::Result<Found> {
        let alone = filelock::set(&file, USERS, Hold::Exclusive)?;
        if alone {
            // Blocks of its own on the disk: in a hole, a full one would end the process that writes into the mapped page.
            file.set_len(LEN as u64)?;
            file.write_all_at(&[0; LEN], 0)?;
        } else if !filelock::set(&file, USERS, Hold::Shared)? {
            return Ok(Found::NotYet);
        }
        let found = file.metadata()?;
        if found.len() != LEN as u64 {
            return Ok(Found::Bad);
        }
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice, of a file that is LEN bytes long.
        let page = unsafe { mmap(std::ptr::null_mut(), LEN, protection, MapFlags::SHARED, &file, 0)? };
        let page = NonNull::new(page.cast()).ok_or(Errno::NOMEM)?;
        let mutexes = Self { page, file, inode: found.ino(), pid: std::process::id() };
        if alone {
            // SAFETY: nobody else uses the file: the first byte is ours alone.
            unsafe { mutexes.make()? };
            // From exclusive to shared: nobody can forbid that.
            filelock::set(&mutexes.file, USERS, Hold::Shared)?;
        }
        Ok(if mutexes.page().magic.load(Ordering::Acquire) == MAGIC { Found::Good(mutexes) } else { Found::Bad })
    }

    /// # Safety
    /// Nobody may use the mutexes.
    unsafe fn make(&self) -> Result<(), Errno> {
        let mut attributes = std::mem::MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        let at = attributes.as_mut_ptr();
        // SAFETY: initialised first, destroyed last, used in between only.
        unsafe {
            said(libc::pthread_mutexattr_init(at))?;
            let mut made = said(libc::pthread_mutexattr_setpshared(at, libc::PTHREAD_PROCESS_SHARED));
            made = made.and_then(|()| said(libc::pthread_mutexattr_setrobust(at, libc::PTHREAD_MUTEX_ROBUST)));
            for slot in &self.page().slots {
                // The memory is zero, and nobody uses it: the caller's promise.
                made = made.and_then(|()| said(libc::pthread_mutex_init(slot.mutex.get(), at)));
            }
            libc::pthread_mutexattr_destroy(at);
            made?;
        }
        self.page().magic.store(MAGIC, Ordering::Release);
        Ok(())
    }

    fn page(&self) -> &Page {
        // SAFETY: mapped until the value is dropped; any bytes are a `Page`: it has atomics and what only pthread functions look into.
        unsafe { self.page.as_ref() }
    }

    /// Whether the file is still the one at this path, which others open.
    #[must_use]
    pub fn is_at(&self, path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|found| found.ino() == self.inode)
    }

    /// This turn was waited for in vain: all who share the mutexes should know.
    pub fn note_endless(&self, which: usize, holder: Holder) {
        if let Some(slot) = self.page().slots.get(which) {
            slot.endless.store(holder.0, Ordering::Relaxed);
        }
    }

    /// Whether somebody has noted that of this turn.
    #[must_use]
    pub fn is_endless(&self, which: usize, holder: Holder) -> bool {
        holder.pid().is_some() && self.page().slots.get(which).is_some_and(|slot| slot.endless.load(Ordering::Relaxed) == holder.0)
    }

    /// Takes one of the [`COUNT`] mutexes; waits until `until` (CLOCK_MONOTONIC nanoseconds), or longer by what the clock is set back
    /// meanwhile. Not re-entrant.
    pub fn lock(&self, which: usize, until: u64) -> Result<Held<'_>, Refused> {
        let slot = self.page().slots.get(which).ok_or(Refused::System(Errno::INVAL))?;
        // SAFETY: a mutex that was made before anybody could use the file, in memory that stays mapped.
        let mut got = said(unsafe { libc::pthread_mutex_trylock(slot.mutex.get()) });
        while matches!(got, Err(Errno::BUSY | Errno::TIMEDOUT)) {
            let now = monotonic_ns();
            if now >= until {
                return Err(Refused::Busy(Holder(slot.holder.load(Ordering::Relaxed))));
            }
            let end = realtime_ns().saturating_add(SLICE_NS.min(until - now));
            let end = libc::timespec { tv_sec: seconds(end), tv_nsec: nanoseconds(end) };
            // SAFETY: as above; the time is only read.
            got = said(unsafe { libc::pthread_mutex_timedlock(slot.mutex.get(), &raw const end) });
        }
        match got {
            Ok(()) => {}
            // SAFETY: as above, and it is held by this thread. Nothing but the turn itself was protected by it.
            Err(Errno::OWNERDEAD) => said(unsafe { libc::pthread_mutex_consistent(slot.mutex.get()) }).map_err(Refused::System)?,
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
    /// Somebody uses it, and it is none of ours.
    Bad,
    NotYet,
}

/// Puts a new file in the place of one that is no good.
fn replace(path: &Path) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".new-{}", std::process::id()));
    // What a process of this number has left.
    match std::fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&new)?;
    // Empty: whoever opens it first makes its mutexes.
    drop(file);
    std::fs::rename(&new, path)
}

fn said(code: libc::c_int) -> Result<(), Errno> {
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
        // SAFETY: held by this thread, as the guard is not Send; it cannot fail then.
        unsafe { libc::pthread_mutex_unlock(self.slot.mutex.get()) };
    }
}

impl Drop for Mutexes {
    fn drop(&mut self) {
        // SAFETY: mapped in `of`, with this length; guards borrow the value, so none is left.
        let _ = unsafe { munmap(self.page.as_ptr().cast(), LEN) };
    }
}

#[cfg(test)]
mod tests;
