//! Sockets to untrusted processes: workers, fork servers and clients of the control socket.
//!
//! Responsible for: opening no unexpected descriptor here. Closing it may block for as long as its
//! sender likes, and for a file on FUSE nothing ends that wait. A socket that still holds such a
//! message is closed by a process that exits. Must never: interpret messages. Called by: the holders
//! of such sockets.
use drover_sys::Errno;
use drover_sys::bury::keeper;
use drover_sys::channel::{discard, has_ended, look, receive};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Messages that are checked one by one before the socket is closed; the rest is left to a process
/// that exits.
const MAX_UNREAD: usize = 1000;

/// droverd's end of the socket.
#[derive(Debug)]
pub struct Peer {
    socket: OwnedFd,
    /// Closed after the socket.
    keeper: Option<OwnedFd>,
}

impl Peer {
    /// Receives a message without waiting. A message with descriptors is `Errno::BADMSG` and stays
    /// unread.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        if look(&self.socket, buffer)?.has_descriptors {
            return Err(Errno::BADMSG);
        }
        receive(&self.socket, buffer, &mut Vec::new(), false)
    }

    /// Takes away messages without descriptors. Returns whether one with descriptors is left, or perhaps.
    fn is_laden(&self) -> bool {
        let mut buffer = [0; 1];
        for _ in 0..MAX_UNREAD {
            match self.receive(&mut buffer) {
                Ok(0) if has_ended(&self.socket) => return false,
                Ok(_) | Err(Errno::MSGSIZE) => {}
                Err(Errno::AGAIN | Errno::CONNRESET) => return false,
                Err(_) => return true,
            }
        }
        true
    }
}

impl From<OwnedFd> for Peer {
    fn from(fd: OwnedFd) -> Self {
        Self { socket: fd, keeper: None }
    }
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Nothing may come after the look.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Read);
        if self.is_laden() {
            match keeper() {
                Ok(keeper) => self.keeper = Some(keeper),
                Err(_) => discard(&self.socket),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_sys::channel::stream_pair;
    use drover_sys::channel::{packet_pair, send};

    #[test]
    fn a_descriptor_is_never_opened_and_is_closed_with_the_socket() {
        let (ours, theirs) = packet_pair().unwrap();
        let (near, far) = stream_pair().unwrap();
        for fds in [&[][..], &[far.as_fd()]] {
            send(&theirs, &[b"x"], fds, true).unwrap();
        }
        drop(far);
        let ours = Peer::from(ours);
        assert_eq!(ours.receive(&mut [0; 8]), Ok(1));
        assert_eq!(ours.receive(&mut [0; 8]), Err(Errno::BADMSG));
        assert_eq!(ours.receive(&mut [0; 8]), Err(Errno::BADMSG), "it stays there");
        drop(ours);
        // Ends when the last copy of the other end is closed.
        assert_eq!(rustix::io::read(&near, &mut [0; 1]), Ok(0));
    }

    #[test]
    fn a_socket_without_descriptors_needs_no_process() {
        let (ours, theirs) = packet_pair().unwrap();
        send(&theirs, &[b"xyz"], &[], true).unwrap();
        let ours = Peer::from(ours);
        assert!(!ours.is_laden());
        drop(theirs);
        assert!(!ours.is_laden());
    }
}
