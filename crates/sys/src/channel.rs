//! Unix socket pairs, and messages that carry descriptors.
//!
//! Responsible for: every descriptor that is made or received here being close-on-exec, for refusing truncated messages, and for no received
//! socket making its last close(2) wait: whoever sent it may have set SO_LINGER.
//! Must never: block unless the socket does. Called by: everybody who sends or receives.
use crate::wait::{PollFd, PollFlags, poll_until};
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketFlags, SocketType, recvmsg, sendmsg, socketpair, sockopt,
};
use rustix::process::Pid;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The most descriptors that one message of ours carries.
pub const MAX_FDS: usize = 251;
/// The most descriptors that one message can carry (the kernel's SCM_MAX_FD). There is always room for them: the kernel would close what
/// has none, and could have to wait for it.
const ROOM: usize = 253;
/// The most descriptors that travel with a request or a frame.
const FEW: usize = 4;
/// Messages that are thrown away at most when a socket is closed.
const MOST_DISCARDED: usize = 100_000;
/// So many ends of file in a row are one: a SEQPACKET message without bytes looks the same. More than a sending buffer holds of those.
const ENDS: usize = 1024;

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
/// of bytes; 0 is end-of-file, or a message without bytes, as only a stranger sends one ([`has_ended`] tells). A message that did not fit, or whose descriptors did not, is `Errno::MSGSIZE`, with the
/// descriptors that came already closed.
pub fn receive(fd: impl AsFd, buffer: &mut [u8], fds: &mut Vec<OwnedFd>, wait: bool) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ROOM))];
    receive_any(fd.as_fd(), buffer, &mut space, fds, wait).and_then(|got| got.unless_cut(fds))
}

/// As [`receive`], without waiting, from somebody who may be trusted not to send sockets that linger (a worker's httpd): a system call less.
pub fn receive_trusted(fd: impl AsFd, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ROOM))];
    receive_as_is(fd.as_fd(), buffer, &mut space, fds, false).and_then(|got| got.unless_cut(fds))
}

/// Receives a piece of a stream without waiting. Its bytes are good whatever becomes of the descriptors: if those did not fit (a process
/// with all its files open has no room for them), they are closed, and it is as if they had not been sent.
pub fn receive_piece(fd: impl AsFd, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ROOM))];
    let got = receive_any(fd.as_fd(), buffer, &mut space, fds, false)?;
    if got.cut {
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

/// Ends what a peer sends that is not trusted, so that closing the socket does not wait: what lies in it is thrown away here.
pub fn discard(fd: impl AsFd) {
    let (mut found, mut left) = (Vec::new(), MOST_DISCARDED);
    empty(fd.as_fd(), &mut found, &mut left);
    dispose_within(found, left);
}

/// Closes descriptors that came from somebody who is not trusted, without waiting: what lies in those that are sockets is taken out first,
/// and what lies in that.
pub fn dispose(fds: Vec<OwnedFd>) {
    dispose_within(fds, MOST_DISCARDED);
}

fn dispose_within(mut fds: Vec<OwnedFd>, mut left: usize) {
    while let Some(fd) = fds.pop() {
        empty(fd.as_fd(), &mut fds, &mut left);
    }
}

/// Takes out what lies in a socket, and lets nothing in any more. Its descriptors are appended to `found`; `left` receives are made at most.
fn empty(fd: BorrowedFd<'_>, found: &mut Vec<OwnedFd>, left: &mut usize) {
    if sockopt::socket_domain(fd) != Ok(AddressFamily::UNIX) {
        return; // no descriptor can lie in it
    }
    // One that is not connected says so, and takes nothing from anybody.
    let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Read);
    if sockopt::socket_acceptconn(fd) == Ok(true) {
        // Connections that wait are closed with it, with what lies in them.
        while let Some(connection) =
            take_one(left).and_then(|()| rustix::net::accept_with(fd, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).ok())
        {
            found.push(connection);
        }
        return;
    }
    let patience = if sockopt::socket_type(fd) == Ok(SocketType::SEQPACKET) { ENDS } else { 1 };
    let (mut buffer, mut space) = ([0; 4096], [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ROOM))]);
    let mut ends = 0;
    while ends < patience && take_one(left).is_some() {
        match receive_any(fd, &mut buffer, &mut space, found, false) {
            Ok(Got { bytes: 0, .. }) => ends += 1,
            Ok(_) => ends = 0,
            Err(_) => return,
        }
    }
}

fn take_one(left: &mut usize) -> Option<()> {
    *left = left.checked_sub(1)?;
    Some(())
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
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ROOM), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let got = loop {
        match recvmsg(fd.as_fd(), &mut [IoSliceMut::new(buffer)], &mut control, flags) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    let (mut sender, mut fds) = (None, Vec::new());
    for message in control.drain() {
        match message {
            RecvAncillaryMessage::ScmCredentials(who) => sender = Some(who.pid),
            RecvAncillaryMessage::ScmRights(received) => fds.extend(received),
            _ => {}
        }
    }
    never_linger(&fds);
    dispose(fds);
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Errno::MSGSIZE);
    }
    Ok((got.bytes, sender))
}

/// What came.
struct Got {
    bytes: usize,
    /// Something of it did not fit.
    cut: bool,
    /// So many descriptors were there before.
    before: usize,
}

impl Got {
    fn unless_cut(self, fds: &mut Vec<OwnedFd>) -> Result<usize, Errno> {
        if self.cut {
            dispose(fds.split_off(self.before));
            return Err(Errno::MSGSIZE);
        }
        Ok(self.bytes)
    }
}

/// As [`receive`]; what was cut is told, and is no error.
fn receive_any(
    fd: BorrowedFd<'_>,
    buffer: &mut [u8],
    space: &mut [MaybeUninit<u8>],
    fds: &mut Vec<OwnedFd>,
    wait: bool,
) -> Result<Got, Errno> {
    let got = receive_as_is(fd, buffer, space, fds, wait)?;
    never_linger(fds.get(got.before..).unwrap_or_default());
    Ok(got)
}

/// As [`receive_any`]; sockets are as their sender has left them.
fn receive_as_is(
    fd: BorrowedFd<'_>,
    buffer: &mut [u8],
    space: &mut [MaybeUninit<u8>],
    fds: &mut Vec<OwnedFd>,
    wait: bool,
) -> Result<Got, Errno> {
    let mut control = RecvAncillaryBuffer::new(space);
    let flags = if wait { RecvFlags::CMSG_CLOEXEC } else { RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT };
    let got = loop {
        match recvmsg(fd, &mut [IoSliceMut::new(buffer)], &mut control, flags) {
            Err(Errno::INTR) if !wait => {}
            other => break other?,
        }
    };
    let before = fds.len();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    Ok(Got { bytes: got.bytes, cut: got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC), before })
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
        for (n, thrown_away) in [(2, false), (ROOM, false), (1, true)] {
            sockopt::set_socket_linger(&theirs, Some(std::time::Duration::from_secs(600))).unwrap();
            let many = vec![theirs.as_fd(); n];
            let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ROOM))];
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
    fn what_is_thrown_away_does_not_linger_however_deep_it_lies() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let theirs = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let lingers = || sockopt::socket_linger(&theirs).unwrap().is_some();
        let inside = |wrapped: &OwnedFd| {
            let (a, b) = packet_pair().unwrap();
            send(&a, &[&[7; 5000]], &[wrapped.as_fd()], true).unwrap();
            b
        };
        let wrapped = || {
            sockopt::set_socket_linger(&theirs, Some(std::time::Duration::from_secs(600))).unwrap();
            inside(&inside(&OwnedFd::from(theirs.try_clone().unwrap())))
        };
        dispose(vec![wrapped()]);
        assert!(!lingers(), "in a socket in a socket");
        discard(inside(&wrapped()));
        assert!(!lingers(), "in a socket that is discarded");
        let (a, b) = packet_pair().unwrap();
        let (empty, fds) = (IoSlice::new(b""), [wrapped()]);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FEW))];
        for fds in [&[][..], &[fds[0].as_fd()]] {
            send_control(a.as_fd(), &[empty], &mut space, fds, SendFlags::NOSIGNAL).unwrap();
        }
        drop((a, fds));
        discard(&b);
        assert!(!lingers(), "behind a message that looks like the end");
        let (a, b) = packet_pair().unwrap();
        send(&a, &[b"too long"], &[wrapped().as_fd()], true).unwrap();
        assert_eq!(receive(&b, &mut [0; 1], &mut Vec::new(), false), Err(Errno::MSGSIZE));
        assert!(!lingers(), "with a message that was cut");
        name_senders(&b, true).unwrap();
        send(&a, &[b"x"], &[wrapped().as_fd()], true).unwrap();
        receive_named(&b, &mut [0; 1]).unwrap();
        assert!(!lingers(), "beside a name");
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
