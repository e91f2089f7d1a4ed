//! Descriptors that a program was started with.
//!
//! Responsible for: owning each at most once, and passing none of them on by accident. Must never:
//! take a descriptor that this program opened. Called by: droverd's main, before it opens anything.
#![allow(unsafe_code)]
use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};
use std::ffi::c_uint;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Takes the descriptors with these numbers, which the parent process left open for this one, and
/// makes every descriptor but the standard ones close-on-exec.
///
/// The close-on-exec flag proves the ownership. execve(2) keeps only descriptors without it; std
/// and this crate set it on all that they open. So a number without the flag was inherited, and it
/// was not taken before, as taking sets the flag on all.
pub fn take<const N: usize>(numbers: [RawFd; N]) -> Result<[OwnedFd; N], (RawFd, Errno)> {
    let mut seen = Vec::new();
    for number in numbers {
        if number < 3 || seen.contains(&number) {
            return Err((number, Errno::BADF));
        }
        seen.push(number);
        // SAFETY: the borrow ends with the statement; for a number that is not open the call
        // returns EBADF.
        let flags = fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) }).map_err(|e| (number, e))?;
        if flags.contains(FdFlags::CLOEXEC) {
            return Err((number, Errno::BUSY));
        }
    }
    // SAFETY: the call changes flags only. An old kernel without it leaves them; those that are
    // taken are set one by one.
    unsafe { libc::syscall(libc::SYS_close_range, 3 as c_uint, c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    for number in numbers {
        // SAFETY: the borrow ends with the statement, and the number was open before.
        fcntl_setfd(unsafe { BorrowedFd::borrow_raw(number) }, FdFlags::CLOEXEC).map_err(|e| (number, e))?;
    }
    // SAFETY: each is open, named once, and has no owner: it was inherited and not taken before, as
    // its flag said.
    Ok(numbers.map(|number| unsafe { OwnedFd::from_raw_fd(number) }))
}

/// Opens /dev/null for those of the three standard descriptors that are closed, so that no other
/// file gets their numbers.
pub fn fill_standard() {
    use rustix::fs::{Mode, OFlags, open};
    // open returns the lowest free number. While one of 0, 1, 2 is free it is used; the first above
    // them is closed again.
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
    use std::os::fd::{AsRawFd, IntoRawFd};

    #[test]
    fn numbers_are_checked() {
        assert!(matches!(take([1]), Err((1, Errno::BADF))));
        assert!(matches!(take([900]), Err((900, Errno::BADF))));
        assert!(matches!(take([900, 900]), Err((900, Errno::BADF))));
    }

    #[test]
    fn a_descriptor_with_an_owner_is_refused() {
        let own = std::fs::File::open("/dev/null").unwrap();
        let number = own.as_raw_fd();
        assert_eq!(take([number]).unwrap_err(), (number, Errno::BUSY), "opened by this program");
        // Without the flag, as execve(2) would leave it.
        let inherited = rustix::io::dup(&own).unwrap().into_raw_fd();
        let [taken] = take([inherited]).unwrap();
        assert_eq!(taken.as_raw_fd(), inherited);
        assert_eq!(take([inherited]).unwrap_err(), (inherited, Errno::BUSY), "taken before");
    }
}
