//! Locks on bytes of a file that belong to an open file (F_OFD_SETLK, fcntl(2)), or to a process (F_SETLK).
//!
//! Responsible for: locks that the kernel frees when their holder dies. Must never: wait. Called by: `crates/session`, `tally`.
#![allow(unsafe_code)]
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd};

/// What is to become of the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Nobody else may hold it.
    Exclusive,
    /// Others may share it.
    Shared,
    /// It is let go.
    Free,
}

/// Changes the one byte at `offset`. `Ok(false)`: somebody else holds it in a way that forbids that; what was held before is still held.
pub fn set(file: impl AsFd, offset: i64, hold: Hold) -> Result<bool, Errno> {
    change(file, libc::F_OFD_SETLK, offset, hold)
}

/// As [`set`] for the calling process, whichever of its descriptors for the file it names: the lock is not inherited by a fork, and ends
/// with the process, or when that closes any descriptor for the file.
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
    fn an_open_file_holds_not_a_process() {
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
