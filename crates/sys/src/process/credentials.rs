//! What the kernel knows about a Unix socket: its peer, and whether messages that are sent to it
//! arrive.
//!
//! Responsible for: a result also where the kernel has none: no process, if the peer is in another
//! pid namespace or there is none. Must never: conclude anything from it. Called by: droverd.
#![allow(unsafe_code)]
use rustix::io::Errno;
use rustix::process::Pid;
use std::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd};

/// Since Linux 6.16; libc does not name it yet.
const SO_PASSRIGHTS: c_int = 83;

/// The peer at the time of the connection (of a pair: the process that made it): its process id,
/// where it has one here, and its user.
pub fn of_peer(socket: impl AsFd) -> Result<(Option<Pid>, u32), Errno> {
    let mut who = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    option(socket, libc::SO_PEERCRED, std::slice::from_mut(&mut who))?;
    Ok((Pid::from_raw(who.pid), who.uid))
}

/// Whether a process that has the socket made it discard messages (SO_ATTACH_FILTER) or refuse
/// descriptors (SO_PASSRIGHTS). A kernel without the latter cannot refuse them.
pub fn is_deaf(socket: impl AsFd) -> bool {
    // Called with no room, the kernel returns the length of the filter; for one that is not classic
    // BPF it returns EACCES.
    let filter = option::<u8>(&socket, libc::SO_GET_FILTER, &mut []);
    let mut takes = [1 as c_int];
    let refuses = option(&socket, SO_PASSRIGHTS, &mut takes).is_ok() && takes == [0];
    refuses || filter.is_ok_and(|len| len > 0) || filter == Err(Errno::ACCESS)
}

/// getsockopt(2) on the level SOL_SOCKET, for types of which any bytes are a value. Returns the
/// length that the kernel reports.
fn option<T: Plain>(socket: impl AsFd, name: c_int, value: &mut [T]) -> Result<libc::socklen_t, Errno> {
    let mut len = libc::socklen_t::try_from(size_of_val(value)).map_err(|_| Errno::INVAL)?;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `value` and `len` live through the call, `len` is how many bytes may be written to
    // `value`, and those may be any (Plain).
    let status = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, value.as_mut_ptr().cast(), &raw mut len) };
    if status == 0 { Ok(len) } else { Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)) }
}

/// Types of which any bytes are a value.
trait Plain {}
impl Plain for u8 {}
impl Plain for c_int {}
impl Plain for libc::ucred {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{packet_pair, send, stream_pair};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

    #[test]
    fn the_peer_is_known_or_none() {
        let (a, _b) = stream_pair().unwrap();
        assert_eq!(of_peer(&a), Ok((Some(rustix::process::getpid()), rustix::process::getuid().as_raw())));
        let alone = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        assert_eq!(of_peer(&alone), Ok((None, u32::MAX)));
        assert!(of_peer(std::fs::File::open("/dev/null").unwrap()).is_err());
    }

    /// False: this kernel does not know the option.
    fn set<T>(socket: impl AsFd, name: c_int, value: &T) -> bool {
        let len = libc::socklen_t::try_from(size_of::<T>()).unwrap();
        // SAFETY: the kernel reads `len` bytes of `value`, which lives through the call.
        let status = unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), libc::SOL_SOCKET, name, (&raw const *value).cast(), len) };
        status == 0
    }

    #[test]
    fn a_socket_that_discards_messages_is_detected() {
        let (a, b) = packet_pair().unwrap();
        assert!(!is_deaf(&a) && !is_deaf(&b));
        let mut nothing = [libc::sock_filter { code: 6, jt: 0, jf: 0, k: 0 }];
        assert!(set(&b, libc::SO_ATTACH_FILTER, &libc::sock_fprog { len: 1, filter: nothing.as_mut_ptr() }));
        send(&a, &[b"x"], &[], false).unwrap();
        assert!(is_deaf(&b) && !is_deaf(&a) && !crate::wait::readable_now(&b));
        let (a, b) = packet_pair().unwrap();
        if set(&b, SO_PASSRIGHTS, &(0 as c_int)) {
            assert_eq!(send(&a, &[b"x"], &[a.as_fd()], false), Err(Errno::PERM));
            assert!(is_deaf(&b));
        }
        assert!(!is_deaf(&a));
    }
}
