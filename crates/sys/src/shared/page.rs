//! A mapping of values that processes share.
//!
//! Responsible for: the mapping, its length and its lifetime. Must never: hold a type that some
//! bytes are no value of, or that is changed other than through a shared reference. Called by: the
//! other files here.
#![allow(unsafe_code)]
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use std::ops::Deref;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// Types that may lie in a [`Page`].
///
/// # Safety
/// Any bytes are a value of the type, other processes may change it at any time, and it needs no
/// alignment beyond a page.
pub(super) unsafe trait Shared: Sync {}

// SAFETY: any bytes are a value of an atomic integer, and changing it from several processes is
// what it is for.
unsafe impl Shared for AtomicU64 {}

/// A slice of values in shared memory, mapped until it is dropped.
#[derive(Debug)]
pub(super) struct Page<T: Shared> {
    start: NonNull<T>,
    len: usize,
}

// SAFETY: the memory stays mapped for as long as the value lives, and `T` is `Sync`.
unsafe impl<T: Shared> Send for Page<T> {}
// SAFETY: access is through `&T` only, and `T` is `Sync`.
unsafe impl<T: Shared> Sync for Page<T> {}

impl<T: Shared> Page<T> {
    /// `len` values of zero bytes, shared with processes that this one forks. Memory is used where
    /// it is written to.
    pub(super) fn anonymous(len: usize) -> Result<Self, Errno> {
        let bytes = Self::bytes(len)?;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, flags)? };
        Ok(Self { start: NonNull::new(start.cast()).ok_or(Errno::NOMEM)?, len })
    }

    /// The first `len` values of a file. The caller has checked its size: access beyond the end of
    /// the file is SIGBUS.
    pub(super) fn of_file(file: impl AsFd, len: usize) -> Result<Self, Errno> {
        let bytes = Self::bytes(len)?;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { mmap(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, file, 0)? };
        Ok(Self { start: NonNull::new(start.cast()).ok_or(Errno::NOMEM)?, len })
    }

    fn bytes(len: usize) -> Result<usize, Errno> {
        const { assert!(align_of::<T>() <= 4096) };
        len.checked_mul(size_of::<T>()).ok_or(Errno::NOMEM)
    }
}

impl<T: Shared> Deref for Page<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` values are mapped at a page's start, which is aligned for `T`, and any
        // bytes are values (`Shared`).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Shared> Drop for Page<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by the constructors with this length; references into it borrow the value,
        // so none is left.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len * size_of::<T>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn two_mappings_of_a_file_are_one_memory() {
        let file = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, 4096).unwrap();
        let [a, b] = [(); 2].map(|()| Page::<AtomicU64>::of_file(&file, 512).unwrap());
        a[511].store(7, Ordering::SeqCst);
        assert_eq!((b[511].load(Ordering::SeqCst), b.len()), (7, 512));
        assert!(Page::<AtomicU64>::anonymous(1000).unwrap().iter().all(|word| word.load(Ordering::SeqCst) == 0));
        assert!(matches!(Page::<AtomicU64>::anonymous(usize::MAX), Err(Errno::NOMEM)));
    }
}
