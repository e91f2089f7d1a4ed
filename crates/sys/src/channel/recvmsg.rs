//! recvmsg(2) with every control message accounted for.
//!
//! Responsible for: every descriptor that the kernel installs while it receives a message gets an
//! owner. Any process that shares a socket can set options (SO_PASSPIDFD, SO_PASSCRED, SO_PASSSEC,
//! SO_TIMESTAMP) that add control messages, and one of these brings a descriptor that no process
//! has sent.
//! Must never: block unless the socket does. Called by: `channel`, `disposal`, `peek`.
#![allow(unsafe_code)]
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::process::Pid;
use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Space for control messages. 253 descriptors (SCM_MAX_FD) need 1,032 bytes; without space the
/// kernel closes them itself. The rest is for timestamps, credentials and a security label, which
/// come before them.
const CONTROL_BYTES: usize = 4096;
/// Since Linux 6.5: the sender as a pidfd. Not in libc yet.
const SCM_PIDFD: c_int = 4;
/// Since Linux 6.5.
const SO_PASSPIDFD: c_int = 76;
/// Since Linux 6.16.
const SO_PASSRIGHTS: c_int = 83;

#[repr(C, align(16))]
struct ControlRoom([MaybeUninit<u8>; CONTROL_BYTES]);

/// One received message, without its descriptors.
pub(crate) struct Message {
    pub bytes: usize,
    /// Bytes or descriptors did not fit.
    pub is_truncated: bool,
    /// Control messages did not fit.
    pub has_control: bool,
    /// The sending process, if the socket has SO_PASSCRED.
    pub sender: Option<Pid>,
}

/// Receives once, without waiting and without a control message: a descriptor that comes with the
/// message gets no number here. It is discarded with the message, or stays there (PEEK).
pub(crate) fn recvmsg_bare(fd: BorrowedFd<'_>, buffer: &mut [u8], flags: RecvFlags) -> Result<Message, Errno> {
    let mut piece = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: a msghdr is integers and pointers, for which zero is a value (recvmsg(2)).
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut piece;
    header.msg_iovlen = 1;
    let flags = (flags | RecvFlags::DONTWAIT).bits().cast_signed();
    // SAFETY: `header` names `buffer` with its length, which lives through the call, and no other
    // memory.
    let got = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, flags) };
    let Ok(bytes) = usize::try_from(got) else {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    };
    let has_control = header.msg_flags & libc::MSG_CTRUNC != 0;
    Ok(Message { bytes, is_truncated: has_control || header.msg_flags & libc::MSG_TRUNC != 0, has_control, sender: None })
}

/// Receives once. Descriptors are close-on-exec and are appended to `fds`. Pidfds are closed.
/// Nothing else in a control message is a descriptor.
pub(crate) fn recvmsg(fd: BorrowedFd<'_>, buffer: &mut [u8], flags: RecvFlags, fds: &mut Vec<OwnedFd>) -> Result<Message, Errno> {
    let mut room = MaybeUninit::<ControlRoom>::uninit();
    let mut piece = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: a msghdr is integers and pointers, for which zero is a value (recvmsg(2)).
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut piece;
    header.msg_iovlen = 1;
    header.msg_control = room.as_mut_ptr().cast();
    header.msg_controllen = CONTROL_BYTES;
    let flags = flags.bits().cast_signed() | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: `header` names `buffer` and `room` with their lengths; both live through the call,
    // and the kernel writes only there.
    let got = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, flags) };
    let Ok(bytes) = usize::try_from(got) else {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    };
    let sender = take_control(&header, fds);
    let has_control = header.msg_flags & libc::MSG_CTRUNC != 0;
    Ok(Message { bytes, is_truncated: has_control || header.msg_flags & libc::MSG_TRUNC != 0, has_control, sender })
}

/// Walks the control messages of a header that recvmsg(2) has just filled in.
fn take_control(header: &libc::msghdr, fds: &mut Vec<OwnedFd>) -> Option<Pid> {
    let mut sender = None;
    // SAFETY: the kernel has set msg_controllen to the bytes that it wrote at msg_control, which is
    // aligned for a cmsghdr.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !next.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return only headers that are whole within
        // msg_controllen.
        let (message, data) = unsafe { (next.read(), libc::CMSG_DATA(next)) };
        let len = message.cmsg_len.saturating_sub(data.addr().saturating_sub(next.addr()));
        match (message.cmsg_level, message.cmsg_type) {
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => each_descriptor(data, len, |fd| fds.push(fd)),
            (libc::SOL_SOCKET, SCM_PIDFD) => each_descriptor(data, len, drop),
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if len >= size_of::<libc::ucred>() => {
                // SAFETY: the kernel has written `len` bytes there, of which any are a value of
                // this type; read without alignment.
                let who = unsafe { data.cast::<libc::ucred>().read_unaligned() };
                sender = Pid::from_raw(who.pid);
            }
            _ => {}
        }
        // SAFETY: as for CMSG_FIRSTHDR; `next` came from it or from CMSG_NXTHDR.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
    sender
}

/// Gives an owner to each descriptor in the data of a control message. A negative number marks one
/// that could not be installed.
fn each_descriptor(data: *const u8, len: usize, mut own: impl FnMut(OwnedFd)) {
    for index in 0..len / size_of::<RawFd>() {
        // SAFETY: within the `len` bytes that the kernel has written; read without alignment.
        let number = unsafe { data.cast::<RawFd>().add(index).read_unaligned() };
        if number >= 0 {
            // SAFETY: the kernel has just installed this descriptor, so it has no other owner.
            own(unsafe { OwnedFd::from_raw_fd(number) });
        }
    }
}

/// Switches off every control message except descriptors that were sent. A process that shares the
/// socket can undo that, which costs time and nothing else.
pub fn ask_for_nothing_beside(socket: impl AsFd) {
    for option in [SO_PASSPIDFD, libc::SO_PASSCRED, libc::SO_PASSSEC, libc::SO_TIMESTAMP, libc::SO_TIMESTAMPNS] {
        // An older kernel without the option has nothing to switch off.
        let _ = set(&socket, option, 0);
    }
}

/// Makes the kernel refuse descriptors that are sent to the socket, and to sockets accepted from it
/// (Linux 6.16 and later). Returns whether it will; older kernels deliver them.
pub fn refuse_descriptors(socket: impl AsFd) -> bool {
    set(&socket, SO_PASSRIGHTS, 0)
}

fn set(socket: &impl AsFd, option: c_int, value: c_int) -> bool {
    let len = libc::socklen_t::try_from(size_of::<c_int>()).unwrap_or(4);
    // SAFETY: the kernel reads `len` bytes of `value`, which lives through the call.
    unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), libc::SOL_SOCKET, option, (&raw const value).cast(), len) == 0 }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::channel::peek::peek;
    use crate::channel::{discard, dispose};
    use crate::channel::{name_senders, packet_pair, receive, receive_named, receive_piece, receive_trusted, send, send_many, stream_pair};
    use std::sync::Mutex;

    /// Receives a message of at most 8 bytes.
    type Receive = fn(&OwnedFd, &mut Vec<OwnedFd>) -> usize;

    /// Locked by tests that receive pidfds: they count those of the whole process.
    static PIDFDS: Mutex<()> = Mutex::new(());

    /// Switches on every option that adds a control message, except pidfds.
    pub(crate) fn ask_for_everything(socket: impl AsFd) {
        for option in [libc::SO_PASSCRED, libc::SO_PASSSEC, libc::SO_TIMESTAMP, libc::SO_TIMESTAMPNS] {
            set(&socket, option, 1);
        }
    }

    fn pidfds() -> usize {
        let links = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
        links.filter(|link| link.to_string_lossy().contains("pidfd")).count()
    }

    #[test]
    fn no_function_leaves_a_descriptor_that_was_not_sent() {
        let _alone = PIDFDS.lock();
        let functions: [(&str, Receive); 5] = [
            ("receive", |fd, fds| receive(fd, &mut [0; 8], fds, false).unwrap()),
            ("receive_trusted", |fd, fds| receive_trusted(fd, &mut [0; 8], fds).unwrap()),
            ("receive_piece", |fd, fds| receive_piece(fd, &mut [0; 8], fds).unwrap()),
            ("receive_named", |fd, _| receive_named(fd, &mut [0; 8]).unwrap().0),
            ("peek", |fd, fds| peek(fd, &mut [0; 8], fds).unwrap()),
        ];
        for (what, call) in functions {
            for (a, b) in [packet_pair().unwrap(), stream_pair().unwrap()] {
                ask_for_everything(&b);
                set(&b, SO_PASSPIDFD, 1);
                for count in [0, 1, 253] {
                    for _ in 0..3 {
                        let mut fds = Vec::new();
                        send_many(a.as_fd(), &(0..count).map(|_| a.try_clone().unwrap()).collect::<Vec<_>>()).unwrap();
                        if count == 0 {
                            send(&a, &[b"x"], &[], false).unwrap();
                        }
                        assert_eq!(call(&b, &mut fds), 1, "{what} with {count}");
                        assert!(fds.len() == count || what == "receive_named", "{what}: {} of {count}", fds.len());
                        assert!(fds.iter().all(|fd| rustix::io::fcntl_getfd(fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC)));
                        assert_eq!(pidfds(), 0, "{what} with {count}");
                        if what == "peek" {
                            receive(&b, &mut [0; 8], &mut Vec::new(), false).unwrap();
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn descriptors_in_a_socket_with_every_option_are_closed_with_it() {
        let _alone = PIDFDS.lock();
        let wrap = |fd: OwnedFd| {
            let (a, b) = packet_pair().unwrap();
            ask_for_everything(&b);
            set(&b, SO_PASSPIDFD, 1);
            for _ in 0..50 {
                send(&a, &[b"x"], &[fd.as_fd()], false).unwrap();
            }
            b
        };
        let (near, far) = stream_pair().unwrap();
        discard(wrap(wrap(far.try_clone().unwrap())));
        dispose(vec![wrap(wrap(far))]);
        assert!(crate::wait::ended_now(&near), "no copy of the innermost is left");
        assert_eq!(pidfds(), 0);
    }

    #[test]
    fn the_sender_is_found_among_all_control_messages() {
        let (a, b) = packet_pair().unwrap();
        ask_for_everything(&b);
        name_senders(&b, true).unwrap();
        send(&a, &[b"one"], &[a.as_fd()], true).unwrap();
        assert_eq!(receive_named(&b, &mut [0; 8]), Ok((3, Some(rustix::process::getpid()))));
    }

    #[test]
    fn control_messages_can_be_switched_off() {
        let (a, b) = packet_pair().unwrap();
        ask_for_everything(&b);
        ask_for_nothing_beside(&b);
        send(&a, &[b"one"], &[], true).unwrap();
        let got = recvmsg(b.as_fd(), &mut [0; 8], RecvFlags::empty(), &mut Vec::new()).unwrap();
        assert!(got.sender.is_none() && got.bytes == 3 && !got.is_truncated);
        if refuse_descriptors(&b) {
            assert_eq!(send(&a, &[b"x"], &[a.as_fd()], false), Err(Errno::PERM));
            send(&a, &[b"x"], &[], false).unwrap();
        }
    }
}
