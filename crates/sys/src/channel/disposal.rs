//! Closing descriptors of an untrusted sender.
//!
//! Closing a socket can wait as long as its sender likes (SO_LINGER), and closing a Unix socket in
//! turn closes the descriptors in its queue. Closing a file can wait for its file system.
//! Responsible for: not waiting for that, and keeping at most [`MAX_OPEN`] descriptors open
//! meanwhile, however many a message carries and however deep they are nested. Must never: work
//! without bound. Called by: `channel`, droverd, httpd's children.
use crate::channel::closer::{close_elsewhere, may_wait};
use crate::channel::{Received, packet_pair, receive_any, send_many, set_send_buffer};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Limit of work in one call: each discarded message counts one, and each descriptor.
const MAX_STEPS: usize = 100_000;
/// Descriptors that are open at a time. SCM_MAX_FD more may arrive with the last message.
const MAX_OPEN: usize = 256;
/// A SEQPACKET message without bytes looks like the end of file. Only this many in a row, more than
/// a send buffer holds, are taken for the end.
const MAX_EMPTY_MESSAGES: usize = 1024;
/// Send buffer of the socket pair in which descriptors wait.
const WAITING_BUFFER_BYTES: usize = 4 << 20;

/// Shuts down and empties a socket to which an untrusted peer sends, so that closing it does not
/// wait.
pub fn discard(fd: impl AsFd) {
    let mut disposal = Disposal::new(Vec::new());
    disposal.empty(fd.as_fd());
    disposal.run();
}

/// Closes descriptors of an untrusted sender without waiting. Sockets among them are emptied first,
/// and so are the sockets found in these. What may wait is closed in another thread.
pub fn dispose(fds: Vec<OwnedFd>) {
    if !fds.is_empty() {
        Disposal::new(fds).run();
    }
}

/// Descriptors that are still to be closed.
struct Disposal {
    open: Vec<OwnedFd>,
    /// Descriptors beyond [`MAX_OPEN`] wait in the queue of this socket pair, where they need no
    /// descriptor number.
    waiting: Option<(OwnedFd, OwnedFd)>,
    steps_left: usize,
    /// So many of `open` are known not to wait.
    sorted: usize,
}

impl Disposal {
    const fn new(open: Vec<OwnedFd>) -> Self {
        Self { open, waiting: None, steps_left: MAX_STEPS, sorted: 0 }
    }

    fn run(mut self) {
        loop {
            self.close_slow_ones();
            while let Some(fd) = self.open.pop() {
                self.sorted = self.open.len();
                self.empty(fd.as_fd());
                drop(fd);
                self.close_slow_ones();
            }
            let Some((_, read)) = &self.waiting else { return };
            if self.steps_left == 0 || receive_any(read.as_fd(), &mut [0; 8], &mut self.open, false).is_err() {
                return;
            }
        }
    }

    /// Hands what may wait to a thread. Afterwards only descriptors are open whose close does not.
    fn close_slow_ones(&mut self) {
        close_elsewhere(self.open.extract_if(self.sorted.., |fd| may_wait(fd)).collect());
        self.sorted = self.open.len();
    }

    fn step(&mut self) -> Option<()> {
        self.steps_left = self.steps_left.checked_sub(1)?;
        Some(())
    }

    /// Takes everything out of a socket's queue, and stops it from receiving more.
    fn empty(&mut self, fd: BorrowedFd<'_>) {
        if sockopt::socket_domain(fd) != Ok(AddressFamily::UNIX) {
            return; // its queue cannot hold descriptors
        }
        // Fails for a socket that is not connected, which cannot receive.
        let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Read);
        if sockopt::socket_acceptconn(fd) == Ok(true) {
            // Pending connections would be closed with it, and the descriptors in them.
            while let Some(connection) =
                self.step().and_then(|()| rustix::net::accept_with(fd, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).ok())
            {
                self.open.push(connection);
                self.set_aside();
            }
            return;
        }
        let max_ends = if sockopt::socket_type(fd) == Ok(SocketType::SEQPACKET) { MAX_EMPTY_MESSAGES } else { 1 };
        let (mut buffer, mut ends) = ([0; 4096], 0);
        while ends < max_ends && self.step().is_some() {
            let Ok(Received { bytes, before, .. }) = receive_any(fd, &mut buffer, &mut self.open, false) else { return };
            ends = if bytes == 0 { ends + 1 } else { 0 };
            self.steps_left = self.steps_left.saturating_sub(self.open.len().saturating_sub(before));
            self.set_aside();
        }
    }

    /// Sends descriptors beyond the limit to the waiting pair. If it is full or cannot be made,
    /// they are closed as they are.
    fn set_aside(&mut self) {
        if self.open.len() < MAX_OPEN {
            return;
        }
        self.close_slow_ones();
        self.sorted = 0;
        if self.waiting.is_none() {
            self.waiting = packet_pair().ok();
            if let Some((write, _)) = &self.waiting {
                set_send_buffer(write, WAITING_BUFFER_BYTES);
            }
        }
        let all = std::mem::take(&mut self.open);
        if let Some((write, _)) = &self.waiting {
            // Descriptors that cannot be sent are closed here.
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

    /// A socket with a message in its queue that carries `wrapped`.
    fn inside(wrapped: &[BorrowedFd<'_>]) -> OwnedFd {
        let (a, b) = packet_pair().unwrap();
        ask_for_everything(&b);
        send(&a, &[&[7; 5000]], wrapped, true).unwrap();
        b
    }

    #[test]
    fn no_discarded_socket_lingers_however_deep_it_is_nested() {
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
        assert!(!lingers(&theirs), "with a truncated message");
        crate::channel::name_senders(&b, true).unwrap();
        send(&a, &[b"x"], &[wrapped().as_fd()], true).unwrap();
        crate::channel::receive_named(&b, &mut [0; 1]).unwrap();
        assert!(!lingers(&theirs), "with a named sender");
    }

    #[test]
    fn few_of_many_descriptors_are_open_at_a_time() {
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
        assert!(disposal.open.len() < MAX_OPEN && disposal.waiting.is_some(), "{}", disposal.open.len());
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
