//! Unix socket pairs, and messages that carry descriptors.
//!
//! Responsible for: every descriptor that is made or received here being close-on-exec, for refusing truncated messages, and for no received
//! socket making its last close(2) wait: its sender may have set SO_LINGER. `recvmsg` receives, `disposal` closes.
//! Must never: block unless the socket does. Called by: everybody who sends or receives.
mod disposal;
pub mod outgoing;
pub mod peek;
mod recvmsg;

use self::recvmsg::{Message, recvmsg};
use crate::wait::{PollFd, PollFlags, poll_until};
use rustix::io::{Errno, IoSlice};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg, socketpair, sockopt,
};
use rustix::process::Pid;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub use self::disposal::{discard, dispose};
pub use self::recvmsg::{ask_for_nothing_beside, refuse_descriptors};

/// The most descriptors that one message of ours carries.
pub const MAX_FDS: usize = 251;
/// The most descriptors that one message can carry (the kernel's SCM_MAX_FD).
const MAX_FDS_OF_KERNEL: usize = 253;
/// The most descriptors that travel with a request or a frame.
const FEW: usize = 4;

/// A connected pair of SOCK_SEQPACKET sockets: messages keep their borders.
pub fn packet_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// A connected pair of SOCK_STREAM sockets.
pub fn stream_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
}

/// Makes the sending buffer `bytes` large; beyond the system's limit where the process may (CAP_NET_ADMIN), else up to it.
pub fn set_send_buffer(fd: impl AsFd, bytes: usize) {
    if sockopt::set_socket_send_buffer_size_force(&fd, bytes).is_err() {
        // Without the capability the kernel's own maximum is what there is: fewer requests fit in the queue.
        let _ = sockopt::set_socket_send_buffer_size(&fd, bytes);
    }
}

/// The kernel's number for a socket, unique while the machine runs: tells whether two descriptors are one socket.
pub fn cookie(fd: impl AsFd) -> Result<u64, Errno> {
    sockopt::socket_cookie(fd)
}

/// Has the kernel name the sender of each message that arrives from now on ([`receive_named`]), or no more.
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
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS_OF_KERNEL))];
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    for some in fds.chunks(MAX_FDS_OF_KERNEL) {
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

/// Receives one message or a piece of a stream: its bytes into `buffer`, its descriptors appended to `fds`. Returns the number
/// of bytes; 0 is end-of-file, or a message without bytes, as only a stranger sends one ([`has_ended`] tells). A message that did not
/// fit, or whose descriptors did not, is `Errno::MSGSIZE`, with the descriptors that came already closed.
pub fn receive(fd: impl AsFd, buffer: &mut [u8], fds: &mut Vec<OwnedFd>, wait: bool) -> Result<usize, Errno> {
    receive_any(fd.as_fd(), buffer, fds, wait).and_then(|got| got.unless_truncated(fds))
}

/// As [`receive`], without waiting, from a sender who may be trusted not to send sockets that linger (a worker's httpd): a system call
/// less. Its socket need not be trusted.
pub fn receive_trusted(fd: impl AsFd, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<usize, Errno> {
    receive_as_is(fd.as_fd(), buffer, fds, false).and_then(|got| got.unless_truncated(fds))
}

/// Receives a piece of a stream without waiting. Its bytes are good whatever becomes of the descriptors: if those did not fit (a process
/// with all its files open has no room for them), they are closed, and it is as if they had not been sent.
pub fn receive_piece(fd: impl AsFd, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<usize, Errno> {
    let got = receive_any(fd.as_fd(), buffer, fds, false)?;
    if got.is_truncated {
        dispose(fds.split_off(got.before));
    }
    Ok(got.bytes)
}

/// Whether the 0 that a packet socket gave was its end: nobody can send any more, and no byte is left. Else it was a message without bytes.
pub fn has_ended(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::RDHUP)];
    let hung_up = matches!(poll_until(&mut fds, Some(0)), Ok(n) if n > 0);
    // Asked for in this order: once it has hung up nothing is added. What cannot be asked is read no further.
    hung_up && rustix::io::ioctl_fionread(&fd).map_or(true, |bytes| bytes == 0)
}

/// A received socket is closed without waiting for what its sender has left unsent.
fn never_linger(fds: &[OwnedFd]) {
    for fd in fds {
        // What is no socket has no such option; closing it does not wait for a network.
        let _ = sockopt::set_socket_linger(fd, None);
    }
}

/// Receives one message without waiting, on a socket that names senders ([`name_senders`]): how many bytes, and which process sent
/// them. The kernel answers for that; only a process that may do everything can give another's number. Descriptors are closed.
pub fn receive_named(fd: impl AsFd, buffer: &mut [u8]) -> Result<(usize, Option<Pid>), Errno> {
    let mut fds = Vec::new();
    let got = receive_any(fd.as_fd(), buffer, &mut fds, false)?;
    let sender = got.sender;
    let bytes = got.unless_truncated(&mut fds);
    dispose(fds);
    Ok((bytes?, sender))
}

/// What came.
pub(crate) struct Received {
    pub bytes: usize,
    /// Something of it did not fit.
    pub is_truncated: bool,
    /// So many descriptors were there before.
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

/// As [`receive`]; what was cut is told, and is no error.
pub(crate) fn receive_any(fd: BorrowedFd<'_>, buffer: &mut [u8], fds: &mut Vec<OwnedFd>, wait: bool) -> Result<Received, Errno> {
    let got = receive_as_is(fd, buffer, fds, wait)?;
    never_linger(fds.get(got.before..).unwrap_or_default());
    Ok(got)
}

/// As [`receive_any`]; sockets are as their sender has left them.
fn receive_as_is(fd: BorrowedFd<'_>, buffer: &mut [u8], fds: &mut Vec<OwnedFd>, wait: bool) -> Result<Received, Errno> {
    let flags = if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
    let before = fds.len();
    let Message { bytes, is_truncated, sender } = loop {
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
        for (n, thrown_away) in [(2, false), (MAX_FDS_OF_KERNEL, false), (1, true)] {
            sockopt::set_socket_linger(&theirs, Some(std::time::Duration::from_secs(600))).unwrap();
            let many = vec![theirs.as_fd(); n];
            let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS_OF_KERNEL))];
            send_control(a.as_fd(), &[IoSlice::new(b"x")], &mut space, &many, SendFlags::NOSIGNAL).unwrap();
            let mut fds = Vec::new();
            if thrown_away {
                discard(&b);
            } else {
                receive(&b, &mut [0; 16], &mut fds, true).unwrap();
                assert_eq!(fds.len(), n);
            }
            assert_eq!(sockopt::socket_linger(&theirs).unwrap(), None, "{n}");
        }
    }

    #[test]
    fn a_cut_message_is_an_error_and_its_descriptors_are_closed() {
        let (a, b) = packet_pair().unwrap();
        let (x, y) = stream_pair().unwrap();
        send(&a, &[&[1; 100]], &[y.as_fd()], true).unwrap();
        drop(y);
        let mut fds = Vec::new();
        assert_eq!(receive(&b, &mut [0u8; 10], &mut fds, true), Err(Errno::MSGSIZE));
        assert!(fds.is_empty());
        assert_eq!(receive(&x, &mut [0u8; 10], &mut fds, true), Ok(0), "the other end was closed");
    }

    #[test]
    fn the_sender_is_named_while_it_is_wanted() {
        let (a, b) = packet_pair().unwrap();
        name_senders(&b, true).unwrap();
        send(&a, &[b"one"], &[], true).unwrap();
        send(&a, &[b"two"], &[a.as_fd()], true).unwrap();
        let mut buffer = [0u8; 8];
        assert_eq!(receive_named(&b, &mut buffer), Ok((3, Some(rustix::process::getpid()))));
        name_senders(&b, false).unwrap();
        let mut fds = Vec::new();
        assert_eq!(receive(&b, &mut buffer, &mut fds, true), Ok(3), "what was sent before has no name any more");
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
        assert!(read() == Ok(0) && !has_ended(&b), "there is more, although nobody can send any more");
        assert_eq!(read(), Ok(3));
        assert!(read() == Ok(0) && has_ended(&b), "nothing worth reading");
        assert!(read() == Ok(0) && has_ended(&b));
    }

    #[test]
    fn a_full_queue_says_so() {
        let (a, _b) = packet_pair().unwrap();
        set_send_buffer(&a, 4096);
        let full = (0..1000).find_map(|_| send(&a, &[&[0; 1000]], &[], false).err());
        assert_eq!(full, Some(Errno::AGAIN));
    }
}
