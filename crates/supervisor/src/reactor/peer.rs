//! Sockets to untrusted processes: workers, fork servers and clients of the control socket.
//!
//! Responsible for: emptying such a socket, and every unexpected descriptor from it, before it is
//! closed. Otherwise closing it may block for as long as the sender likes. Must never: interpret
//! messages. Called by: the holders of such sockets.
use drover_sys::Errno;
use drover_sys::channel::{discard, dispose, receive};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// droverd's end of the socket.
#[derive(Debug)]
pub struct Peer(OwnedFd);

impl Peer {
    /// Receives a message without waiting and discards any descriptors.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let mut fds = Vec::new();
        let got = receive(&self.0, buffer, &mut fds, false);
        dispose(fds);
        got
    }
}

impl From<OwnedFd> for Peer {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        discard(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_sys::channel::{packet_pair, send};
    use rustix::net::sockopt::{set_socket_linger, socket_linger};

    #[test]
    fn what_was_not_read_does_not_linger() {
        let (ours, theirs) = packet_pair().unwrap();
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let lingering = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        set_socket_linger(&lingering, Some(std::time::Duration::from_secs(600))).unwrap();
        for fds in [&[][..], &[lingering.as_fd()]] {
            send(&theirs, &[b"x"], fds, true).unwrap();
        }
        let ours = Peer::from(ours);
        assert_eq!(ours.receive(&mut [0; 8]), Ok(1));
        drop(ours);
        assert_eq!(socket_linger(&lingering).unwrap(), None);
    }
}
