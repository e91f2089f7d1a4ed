//! Which process is at the other end of a Unix socket.
//!
//! Responsible for: an answer also where the kernel has none: process 0 stands for one that cannot be seen from here, or for nobody. Must
//! never: conclude anything from it. Called by: droverd.
#![allow(unsafe_code)]
use rustix::io::Errno;
use rustix::process::Pid;
use std::os::fd::{AsFd, AsRawFd};

/// Who it was when the sockets were connected (of a pair: who made it): the process, where it has a number here, and its user.
pub fn of_peer(socket: impl AsFd) -> Result<(Option<Pid>, u32), Errno> {
    let mut who = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut len = libc::socklen_t::try_from(size_of::<libc::ucred>()).map_err(|_| Errno::INVAL)?;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `who` and `len` live through the call, and `len` is how many bytes may be written to `who`, for which any bytes are valid.
    let answer = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut who).cast(), &raw mut len) };
    if answer != 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    Ok((Pid::from_raw(who.pid), who.uid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

    #[test]
    fn one_or_nobody() {
        let (a, _b) = crate::channel::stream_pair().unwrap();
        assert_eq!(of_peer(&a), Ok((Some(rustix::process::getpid()), rustix::process::getuid().as_raw())));
        let alone = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        assert_eq!(of_peer(&alone), Ok((None, u32::MAX)));
        assert!(of_peer(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
