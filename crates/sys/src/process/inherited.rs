//! Descriptors that a program was started with.
//!
//! Responsible for: owning each at most once, and none of them going further by accident. Called by: droverd's main, before it
//! opens anything.
#![allow(unsafe_code)]
use rustix::io::Errno;
use std::ffi::c_uint;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Takes the descriptors with these numbers, which the parent has left open for us, and makes all but the standard ones
/// close-on-exec. To be called once, before anything else is opened.
pub fn take<const N: usize>(numbers: [RawFd; N]) -> Result<[OwnedFd; N], (RawFd, Errno)> {
    // SAFETY: the call changes flags only. An old kernel without it leaves them; those named below are set one by one.
    unsafe { libc::syscall(libc::SYS_close_range, 3 as c_uint, c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    let mut seen = Vec::new();
    for number in numbers {
        if number < 3 || seen.contains(&number) {
            return Err((number, Errno::BADF));
        }
        seen.push(number);
        // SAFETY: the borrow ends with the statement; a number that is not open is answered with EBADF.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC).map_err(|e| (number, e))?;
    }
    // SAFETY: each is open, named once, and nothing in this process knows it yet (the caller's promise: nothing was opened).
    Ok(numbers.map(|number| unsafe { OwnedFd::from_raw_fd(number) }))
}

/// Opens /dev/null for those of the three standard descriptors that are closed, so that no other file ever gets their numbers.
pub fn fill_standard() {
    use rustix::fs::{Mode, OFlags, open};
    // open gives the lowest free number: as long as one of 0, 1, 2 is free, it is taken; the first above them is closed again.
    while let Ok(fd) = open("/dev/null", OFlags::RDWR, Mode::empty()) {
        if std::os::fd::AsRawFd::as_raw_fd(&fd) > 2 {
            return;
        }
        let _ = std::os::fd::IntoRawFd::into_raw_fd(fd);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_checked() {
        assert!(matches!(take([1]), Err((1, Errno::BADF))));
        assert!(matches!(take([900]), Err((900, Errno::BADF))));
        assert!(matches!(take([900, 900]), Err((900, Errno::BADF))));
    }
}
