//! Unix socket pairs, and messages that carry descriptors.
//!
//! Responsible for: every descriptor that is made or received here is close-on-exec; truncated
//! messages are refused; the last close(2) of a received socket does not wait, although its sender
//! may have set SO_LINGER. Must never: block unless the socket does. Called by: every part that
//! sends or receives.
//!
//! * `recvmsg`: receives, with every control message accounted for.
//! * `closer`: threads for a close(2) that may wait without limit.
//! * `disposal`: closes descriptors of an untrusted sender.
//! * [`peek`]: reads a message and leaves it in the queue.
//! * [`outgoing`]: free space in a send buffer.
mod closer;
mod disposal;
pub mod outgoing;
pub mod peek;
mod recvmsg;

use self::recvmsg::{Message, recvmsg, recvmsg_bare};
use crate::wait::{PollFd, PollFlags, poll_until};
use rustix::io::{Errno, IoSlice};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg, socketpair, sockopt,
};
use rustix::process::Pid;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub use self::closer::may_wait;
pub use self::disposal::{discard, dispose};
pub use self::recvmsg::{ask_for_nothing_beside, refuse_descriptors};

/// The most descriptors that this module sends with one message.
pub const MAX_FDS: usize = 251;
/// The most descriptors that the kernel allows with one message (SCM_MAX_FD).
const KERNEL_MAX_FDS: usize = 253;
/// Up to this many descriptors, the control message is built on the stack: as many as a request or
/// a frame carries.
const FEW: usize = 4;

/// A connected pair of SOCK_SEQPACKET sockets, which keep the boundaries of messages.
pub fn packet_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// A connected pair of SOCK_STREAM sockets.
pub fn stream_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
}

/// Sets the size of the send buffer; beyond the system's limit if the process has CAP_NET_ADMIN,
/// else up to it.
pub fn set_send_buffer(fd: impl AsFd, bytes: usize) {
    if sockopt::set_socket_send_buffer_size_force(&fd, bytes).is_err() {
        // Without the capability the kernel's maximum applies: fewer requests fit into the queue.
        let _ = sockopt::set_socket_send_buffer_size(&fd, bytes);
    }
}

/// The kernel's number for a socket, unique until the next boot. Two descriptors with the same
/// number are one socket.
pub fn cookie(fd: impl AsFd) -> Result<u64, Errno> {
    sockopt::socket_cookie(fd)
}

/// Switches on or off that the kernel names the sender of each message that arrives
/// ([`receive_named`]).
pub fn name_senders(fd: impl AsFd, on: bool) -> Result<(), Errno> {
    sockopt::set_socket_passcred(fd, on)
}

/// Sends one message; returns how many bytes the kernel took. Never raises SIGPIPE.
pub fn send(fd: impl AsFd, parts: &[&[u8]], fds: &[BorrowedFd<'_>], wait: bool) -> Result<usize, Errno> {
    const PARTS: usize = 8;
    let mut slices = [IoSlice::new(&[]); PARTS];
    let mut used = 0;
    for (slot, part) in slices.iter_mut().zip(parts) {
        *slot = IoSlice::new(part);
        used += 1;
    }
    if used < parts.len() {
        return Err(Errno::INVAL);
    }
    let slices = slices.get(..used).unwrap_or_default();
    let flags = if wait { SendFlags::NOSIGNAL } else { SendFlags::NOSIGNAL | SendFlags::DONTWAIT };
    if fds.len() <= FEW {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FEW))];
        send_control(fd.as_fd(), slices, &mut space, fds, flags)
    } else {
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        send_control(fd.as_fd(), slices, &mut space, fds, flags)
    }
}

/// Sends descriptors with as many messages as they need, without waiting.
pub(crate) fn send_many(fd: BorrowedFd<'_>, fds: &[OwnedFd]) -> Result<(), Errno> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(KERNEL_MAX_FDS))];
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    for some in fds.chunks(KERNEL_MAX_FDS) {
        let some: Vec<_> = some.iter().map(AsFd::as_fd).collect();
        send_control(fd, &[IoSlice::new(b"x")], &mut space, &some, flags)?;
    }
    Ok(())
}

fn send_control(
    fd: BorrowedFd<'_>,
    slices: &[IoSlice<'_>],
    space: &mut [MaybeUninit<u8>],
    fds: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> Result<usize, Errno> {
    let mut control = SendAncillaryBuffer::new(space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::INVAL);
    }
    loop {
        match sendmsg(fd, slices, &mut control, flags) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Receives one message or a piece of a stream: its bytes into `buffer`, its descriptors appended
/// to `fds`. Returns the number of bytes. 0 is end-of-file or a message without bytes, which only a
/// foreign sender sends ([`has_ended`] tells). A message that did not fit, or whose descriptors did
/// not, is `Errno::MSGSIZE`; the descriptors that arrived are closed.
pub fn receive(fd: impl AsFd, buffer: &mut [u8], fds: &mut Vec<OwnedFd>, wait: bool) -> Result<usize, Errno> {
    receive_any(fd.as_fd(), buffer, fds, wait).and_then(|got| got.unless_truncated(fds))
}

/// As [`receive`], without waiting, from a sender that is trusted not to send sockets that linger
/// (httpd, for a worker): one system call less. Its socket need not be trusted.
pub fn receive_trusted(fd: impl AsFd, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<usize, Errno> {
    receive_as_is(fd.as_fd(), buffer, fds, false).and_then(|got| got.unless_truncated(fds))
}

/// Receives a piece of a stream without waiting. Its bytes are valid even if the descriptors did
/// not fit, as in a process that is at its limit of open files. Those are closed, as if they had
/// not been sent.
pub fn receive_piece(fd: impl AsFd, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<usize, Errno> {
    if closer::is_full() {
        // Somebody sends descriptors whose close hangs.
        return recvmsg_bare(fd.as_fd(), buffer, RecvFlags::empty()).map(|got| got.bytes);
    }
    let got = receive_any(fd.as_fd(), buffer, fds, false)?;
    if got.is_truncated {
        dispose(fds.split_off(got.before));
    }
    Ok(got.bytes)
}

/// A message that [`look`] has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Bytes of the buffer that it fills.
    pub bytes: usize,
    /// Descriptors are attached to it.
    pub has_descriptors: bool,
}

/// Copies the next message without waiting, and leaves it and its descriptors in the queue. No
/// descriptor is opened: even closing one could wait. Only for a socket that no other process
/// shares: one that does could ask for other control messages.
pub fn look(fd: impl AsFd, buffer: &mut [u8]) -> Result<Seen, Errno> {
    let got = recvmsg_bare(fd.as_fd(), buffer, RecvFlags::PEEK)?;
    Ok(Seen { bytes: got.bytes, has_descriptors: got.has_control })
}

/// Whether the 0 that a packet socket returned was its end: no process can send any more, and no
/// byte is left. Else it was a message without bytes.
pub fn has_ended(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::RDHUP)];
    let hung_up = matches!(poll_until(&mut fds, Some(0)), Ok(n) if n > 0);
    // In this order: after the hang-up nothing is added. A socket that cannot be queried counts as
    // ended.
    hung_up && rustix::io::ioctl_fionread(&fd).map_or(true, |bytes| bytes == 0)
}

/// Makes closing a received socket not wait for unsent data.
fn never_linger(fds: &[OwnedFd]) {
    for fd in fds {
        // A descriptor that is no socket has no such option, and its close does not wait for a
        // network.
        let _ = sockopt::set_socket_linger(fd, None);
    }
}

/// Receives one message without waiting, on a socket that names senders ([`name_senders`]): the
/// number of bytes, and the process that sent them. The kernel vouches for it: only a privileged
/// process can send another's id. Descriptors are closed.
pub fn receive_named(fd: impl AsFd, buffer: &mut [u8]) -> Result<(usize, Option<Pid>), Errno> {
    let mut fds = Vec::new();
    let got = receive_any(fd.as_fd(), buffer, &mut fds, false)?;
    let sender = got.sender;
    let bytes = got.unless_truncated(&mut fds);
    dispose(fds);
    Ok((bytes?, sender))
}

/// What was received.
pub(crate) struct Received {
    pub bytes: usize,
    /// Bytes or descriptors did not fit.
    pub is_truncated: bool,
    /// Number of descriptors in the list before.
    pub before: usize,
    sender: Option<Pid>,
}

impl Received {
    fn unless_truncated(self, fds: &mut Vec<OwnedFd>) -> Result<usize, Errno> {
        if self.is_truncated {
            dispose(fds.split_off(self.before));
            return Err(Errno::MSGSIZE);
        }
        Ok(self.bytes)
    }
}

/// As [`receive`]; a truncated message is reported as such, not as an error.
pub(crate) fn receive_any(fd: BorrowedFd<'_>, buffer: &mut [u8], fds: &mut Vec<OwnedFd>, wait: bool) -> Result<Received, Errno> {
    let got = receive_as_is(fd, buffer, fds, wait)?;
    never_linger(fds.get(got.before..).unwrap_or_default());
    Ok(got)
}

/// As [`receive_any`], but leaves SO_LINGER of received sockets as it is.
fn receive_as_is(fd: BorrowedFd<'_>, buffer: &mut [u8], fds: &mut Vec<OwnedFd>, wait: bool) -> Result<Received, Errno> {
    let flags = if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
    let before = fds.len();
    let Message { bytes, is_truncated, sender, .. } = loop {
        match recvmsg(fd, buffer, flags, fds) {
            Err(Errno::INTR) if !wait => {}
            other => break other?,
        }
    };
    Ok(Received { bytes, is_truncated, before, sender })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_travels_and_is_the_same_socket() {
        let (a, b) = packet_pair().unwrap();
        let (x, y) = stream_pair().unwrap();
        send(&a, &[b"he", b"llo"], &[y.as_fd()], true).unwrap();
        let (mut buffer, mut fds) = ([0u8; 16], Vec::new());
        assert_eq!(receive(&b, &mut buffer, &mut fds, true).unwrap(), 5);
        assert_eq!(&buffer[..5], b"hello");
        assert_eq!(cookie(&fds[0]).unwrap(), cookie(&y).unwrap());
        assert_ne!(cookie(&x).unwrap(), cookie(&y).unwrap());
        assert!(rustix::io::fcntl_getfd(&fds[0]).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn no_received_socket_makes_its_close_wait() {
        let (a, b) = packet_pair().unwrap();
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let theirs = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        for (n, discarded) in [(2, false), (KERNEL_MAX_FDS, false), (1, true)] {
            sockopt::set_socket_linger(&theirs, Some(std::time::Duration::from_secs(600))).unwrap();
            let many = vec![theirs.as_fd(); n];
            let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(KERNEL_MAX_FDS))];
            send_control(a.as_fd(), &[IoSlice::new(b"x")], &mut space, &many, SendFlags::NOSIGNAL).unwrap();
            let mut fds = Vec::new();
            if discarded {
                discard(&b);
            } else {
                receive(&b, &mut [0; 16], &mut fds, true).unwrap();
                assert_eq!(fds.len(), n);
            }
            assert_eq!(sockopt::socket_linger(&theirs).unwrap(), None, "{n}");
        }
    }

    #[test]
    fn a_truncated_message_is_an_error_and_its_descriptors_are_closed() {
        let (a, b) = packet_pair().unwrap();
        let (x, y) = stream_pair().unwrap();
        send(&a, &[&[1; 100]], &[y.as_fd()], true).unwrap();
        drop(y);
        let mut fds = Vec::new();
        assert_eq!(receive(&b, &mut [0u8; 10], &mut fds, true), Err(Errno::MSGSIZE));
        assert!(fds.is_empty());
        assert_eq!(receive(&x, &mut [0u8; 10], &mut fds, true), Ok(0), "the peer was closed");
    }

    #[test]
    fn the_sender_is_named_while_the_option_is_on() {
        let (a, b) = packet_pair().unwrap();
        name_senders(&b, true).unwrap();
        send(&a, &[b"one"], &[], true).unwrap();
        send(&a, &[b"two"], &[a.as_fd()], true).unwrap();
        let mut buffer = [0u8; 8];
        assert_eq!(receive_named(&b, &mut buffer), Ok((3, Some(rustix::process::getpid()))));
        name_senders(&b, false).unwrap();
        let mut fds = Vec::new();
        assert_eq!(receive(&b, &mut buffer, &mut fds, true), Ok(3), "a message that was sent before is no longer named");
        assert_eq!(fds.len(), 1);
        assert_eq!(receive_named(&b, &mut buffer), Err(Errno::AGAIN));
        drop((a, fds));
        assert_eq!(receive_named(&b, &mut buffer), Ok((0, None)));
    }

    #[test]
    fn a_message_without_bytes_is_not_the_end() {
        let (a, b) = packet_pair().unwrap();
        let read = || receive(&b, &mut [0; 8], &mut Vec::new(), false);
        for bytes in [&b""[..], b"one", b"", b"two", b""] {
            send(&a, &[bytes], &[], true).unwrap();
        }
        assert!(read() == Ok(0) && !has_ended(&b));
        assert_eq!(read(), Ok(3));
        drop(a);
        assert!(read() == Ok(0) && !has_ended(&b), "messages are left, although no process can send any more");
        assert_eq!(read(), Ok(3));
        assert!(read() == Ok(0) && has_ended(&b), "only messages without bytes are left");
        assert!(read() == Ok(0) && has_ended(&b));
    }

    #[test]
    fn a_full_queue_returns_again() {
        let (a, _b) = packet_pair().unwrap();
        set_send_buffer(&a, 4096);
        let full = (0..1000).find_map(|_| send(&a, &[&[0; 1000]], &[], false).err());
        assert_eq!(full, Some(Errno::AGAIN));
    }
}
