//! Locks on bytes of a file that belong to an open file (F_OFD_SETLK, fcntl(2)), or to a process
//! (F_SETLK).
//!
//! Responsible for: locks that the kernel frees when their owner dies. Must never: wait. Called by:
//! `crates/session`, `shared`.
#![allow(unsafe_code)]
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd};

/// The lock that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// No other owner may have a lock.
    Exclusive,
    /// Other owners may have a shared lock.
    Shared,
    /// Unlocked.
    Free,
}

/// Changes the lock on the byte at `offset`. `Ok(false)`: the lock of another owner conflicts, and
/// nothing has changed.
pub fn set(file: impl AsFd, offset: i64, hold: Hold) -> Result<bool, Errno> {
    change(file, libc::F_OFD_SETLK, offset, hold)
}

/// As [`set`], but the owner is the calling process, whichever of its descriptors for the file it
/// names. The lock is not inherited by a fork. It ends with the process, or when the process closes
/// any descriptor for the file.
pub fn set_for_process(file: impl AsFd, offset: i64, hold: Hold) -> Result<bool, Errno> {
    change(file, libc::F_SETLK, offset, hold)
}

fn change(file: impl AsFd, command: std::ffi::c_int, offset: i64, hold: Hold) -> Result<bool, Errno> {
    let kind = match hold {
        Hold::Exclusive => libc::F_WRLCK,
        Hold::Shared => libc::F_RDLCK,
        Hold::Free => libc::F_UNLCK,
    };
    // SAFETY: a struct of integers, for which zero is a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::c_short::try_from(kind).unwrap_or(0);
    lock.l_whence = libc::c_short::try_from(libc::SEEK_SET).unwrap_or(0);
    lock.l_start = offset;
    lock.l_len = 1;
    loop {
        // SAFETY: fcntl(2) reads the struct; the descriptor is borrowed.
        if unsafe { libc::fcntl(file.as_fd().as_raw_fd(), command, &raw const lock) } == 0 {
            return Ok(true);
        }
        match Errno::from_io_error(&std::io::Error::last_os_error()) {
            Some(Errno::AGAIN | Errno::ACCESS) => return Ok(false),
            Some(Errno::INTR) => {}
            other => return Err(other.unwrap_or(Errno::IO)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_owns_its_lock() {
        let path = std::env::temp_dir().join(format!("drover-filelock-{}", std::process::id()));
        let open = || std::fs::OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).unwrap();
        let (a, b) = (open(), open());
        assert_eq!(set(&a, 7, Hold::Exclusive), Ok(true));
        assert_eq!((set(&b, 7, Hold::Shared), set(&b, 8, Hold::Exclusive)), (Ok(false), Ok(true)));
        assert_eq!((set(&a, 7, Hold::Shared), set(&b, 7, Hold::Shared)), (Ok(true), Ok(true)));
        assert_eq!(set(&a, 7, Hold::Exclusive), Ok(false), "still shared");
        drop(b);
        assert_eq!(set(&a, 7, Hold::Exclusive), Ok(true));
        std::fs::remove_file(path).unwrap();
    }
}
