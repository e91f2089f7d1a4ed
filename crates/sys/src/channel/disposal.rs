//! Closing descriptors that come from somebody who is not trusted.
//!
//! Closing a socket can wait for as long as its sender likes (SO_LINGER), and closing a Unix socket closes what lies in it, in turn.
//! Responsible for: neither waiting for that, nor holding more than [`MAX_HELD`] descriptors meanwhile, however many one message holds
//! and however deep they are packed. Must never: work without bound. Called by: `channel`, droverd, httpd's children.
use crate::channel::{Received, packet_pair, receive_any, send_many, set_send_buffer};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Work that one call does at most: each message that is thrown away counts one, and each descriptor.
const MAX_STEPS: usize = 100_000;
/// Descriptors from sockets that are emptied, held at a time. The kernel's SCM_MAX_FD more may come with the last message.
const MAX_HELD: usize = 256;
/// So many ends of file in a row are one: a SEQPACKET message without bytes looks the same. More than a send buffer holds of those.
const MAX_EMPTY_MESSAGES: usize = 1024;
/// Bytes of the send buffer of the pair in which descriptors wait.
const WAITING_ROOM_BYTES: usize = 4 << 20;

/// Ends what an untrusted peer sends, so that closing the socket does not wait: what lies in it is thrown away here.
pub fn discard(fd: impl AsFd) {
    let mut disposal = Disposal::new(Vec::new());
    disposal.empty(fd.as_fd());
    disposal.run();
}

/// Closes descriptors of an untrusted sender without waiting: what lies in those that are sockets is taken out first, and what lies in
/// that.
pub fn dispose(fds: Vec<OwnedFd>) {
    if !fds.is_empty() {
        Disposal::new(fds).run();
    }
}

/// Descriptors that are still to be closed.
struct Disposal {
    held: Vec<OwnedFd>,
    /// Those beyond [`MAX_HELD`] wait in flight, in a socket pair of ours, where they take no descriptor number.
    waiting: Option<(OwnedFd, OwnedFd)>,
    steps_left: usize,
}

impl Disposal {
    const fn new(held: Vec<OwnedFd>) -> Self {
        Self { held, waiting: None, steps_left: MAX_STEPS }
    }

    fn run(mut self) {
        loop {
            while let Some(fd) = self.held.pop() {
                self.empty(fd.as_fd());
            }
            let Some((_, read)) = &self.waiting else { return };
            if self.steps_left == 0 || receive_any(read.as_fd(), &mut [0; 8], &mut self.held, false).is_err() {
                return;
            }
        }
    }

    fn step(&mut self) -> Option<()> {
        self.steps_left = self.steps_left.checked_sub(1)?;
        Some(())
    }

    /// Takes out what lies in a socket, and lets nothing in any more.
    fn empty(&mut self, fd: BorrowedFd<'_>) {
        if sockopt::socket_domain(fd) != Ok(AddressFamily::UNIX) {
            return; // no descriptor can lie in it
        }
        // One that is not connected says so, and takes nothing from anybody.
        let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Read);
        if sockopt::socket_acceptconn(fd) == Ok(true) {
            // Connections that wait are closed with it, with what lies in them.
            while let Some(connection) =
                self.step().and_then(|()| rustix::net::accept_with(fd, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).ok())
            {
                self.held.push(connection);
                self.put_aside();
            }
            return;
        }
        let patience = if sockopt::socket_type(fd) == Ok(SocketType::SEQPACKET) { MAX_EMPTY_MESSAGES } else { 1 };
        let (mut buffer, mut ends) = ([0; 4096], 0);
        while ends < patience && self.step().is_some() {
            let Ok(Received { bytes, before, .. }) = receive_any(fd, &mut buffer, &mut self.held, false) else { return };
            ends = if bytes == 0 { ends + 1 } else { 0 };
            self.steps_left = self.steps_left.saturating_sub(self.held.len().saturating_sub(before));
            self.put_aside();
        }
    }

    /// Sends what is too much to hold into the waiting pair. When that is full, or cannot be made, it is closed as it is.
    fn put_aside(&mut self) {
        if self.held.len() < MAX_HELD {
            return;
        }
        if self.waiting.is_none() {
            self.waiting = packet_pair().ok();
            if let Some((write, _)) = &self.waiting {
                set_send_buffer(write, WAITING_ROOM_BYTES);
            }
        }
        let all = std::mem::take(&mut self.held);
        if let Some((write, _)) = &self.waiting {
            // What cannot be sent has no other place to be than closed.
            let _ = send_many(write.as_fd(), &all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::recvmsg::tests::ask_for_everything;
    use crate::channel::{receive, send};
    use rustix::io::Errno;
    use std::time::Duration;

    fn lingering() -> std::net::TcpStream {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap()
    }

    fn set_linger(socket: &std::net::TcpStream) {
        sockopt::set_socket_linger(socket, Some(Duration::from_secs(600))).unwrap();
    }

    fn lingers(socket: &std::net::TcpStream) -> bool {
        sockopt::socket_linger(socket).unwrap().is_some()
    }

    /// A socket in which a message lies with these.
    fn inside(wrapped: &[BorrowedFd<'_>]) -> OwnedFd {
        let (a, b) = packet_pair().unwrap();
        ask_for_everything(&b);
        send(&a, &[&[7; 5000]], wrapped, true).unwrap();
        b
    }

    #[test]
    fn what_is_thrown_away_does_not_linger_however_deep_it_lies() {
        let theirs = lingering();
        let wrapped = || {
            set_linger(&theirs);
            inside(&[inside(&[theirs.as_fd()]).as_fd()])
        };
        dispose(vec![wrapped()]);
        assert!(!lingers(&theirs), "in a socket in a socket");
        discard(inside(&[wrapped().as_fd()]));
        assert!(!lingers(&theirs), "in a socket that is discarded");
        let (a, b) = packet_pair().unwrap();
        let inner = wrapped();
        send(&a, &[b""], &[], false).unwrap();
        send(&a, &[b""], &[inner.as_fd()], false).unwrap();
        drop((a, inner));
        discard(&b);
        assert!(!lingers(&theirs), "behind a message that looks like the end");
        let (a, b) = packet_pair().unwrap();
        send(&a, &[b"too long"], &[wrapped().as_fd()], true).unwrap();
        assert_eq!(receive(&b, &mut [0; 1], &mut Vec::new(), false), Err(Errno::MSGSIZE));
        assert!(!lingers(&theirs), "with a message that was cut");
        crate::channel::name_senders(&b, true).unwrap();
        send(&a, &[b"x"], &[wrapped().as_fd()], true).unwrap();
        crate::channel::receive_named(&b, &mut [0; 1]).unwrap();
        assert!(!lingers(&theirs), "beside a name");
    }

    #[test]
    fn few_are_held_of_many() {
        let theirs = lingering();
        set_linger(&theirs);
        let (a, b) = packet_pair().unwrap();
        ask_for_everything(&b);
        set_send_buffer(&a, 4 << 20);
        for _ in 0..20 {
            let sockets: Vec<_> = (0..200).map(|_| inside(&[theirs.as_fd(), a.as_fd()])).collect();
            send(&a, &[b"x"], &sockets.iter().map(AsFd::as_fd).collect::<Vec<_>>(), false).unwrap();
        }
        let mut disposal = Disposal::new(Vec::new());
        disposal.empty(b.as_fd());
        assert!(disposal.held.len() < MAX_HELD && disposal.waiting.is_some(), "{}", disposal.held.len());
        disposal.run();
        assert!(!lingers(&theirs));
    }

    #[test]
    fn the_work_is_bounded() {
        let (a, b) = packet_pair().unwrap();
        set_send_buffer(&a, 4 << 20);
        while send(&a, &[b"x"], &[], false).is_ok() {}
        let mut disposal = Disposal { steps_left: 10, ..Disposal::new(Vec::new()) };
        disposal.empty(b.as_fd());
        assert_eq!((disposal.steps_left, crate::wait::readable_now(&b)), (0, true));
    }
}
