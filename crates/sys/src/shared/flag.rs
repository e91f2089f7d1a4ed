//! A flag in memory that a process shares with its forks.
//!
//! Responsible for: one atomic byte, mapped before the fork. Called by: the module, for what is said once a server.
#![allow(unsafe_code)]
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that starts as false.
#[derive(Debug)]
pub struct Flag(NonNull<AtomicBool>);

// SAFETY: an atomic in memory that stays mapped for as long as the value lives.
unsafe impl Send for Flag {}
// SAFETY: as above.
unsafe impl Sync for Flag {}

impl Flag {
    /// Maps a page for it.
    pub fn new() -> Result<Self, Errno> {
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
        let page = unsafe { mmap_anonymous(std::ptr::null_mut(), 1, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED)? };
        NonNull::new(page.cast()).map(Self).ok_or(Errno::NOMEM)
    }

    /// Sets it; true for the first who does.
    #[must_use]
    pub fn set(&self) -> bool {
        // SAFETY: the page is mapped, zeroed by the kernel (false), and only ever used as this atomic.
        let flag = unsafe { self.0.as_ref() };
        // Once set, asking again takes the cache line from nobody.
        !flag.load(Ordering::Acquire) && !flag.swap(true, Ordering::AcqRel)
    }
}

impl Drop for Flag {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, with this length, and not used after.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), 1) };
    }
}
