//! Reading a message and leaving it in the queue.
//!
//! Responsible for: copies of the descriptors that a waiting message carries. Must never: take the
//! message. Called by: droverd, for the store in which queues outlive it.
use super::recvmsg::recvmsg;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use std::os::fd::{AsFd, OwnedFd};

/// As [`crate::channel::receive`] without waiting, but the message stays.
pub fn peek(fd: impl AsFd, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<usize, Errno> {
    let before = fds.len();
    let got = recvmsg(fd.as_fd(), buffer, RecvFlags::DONTWAIT | RecvFlags::PEEK, fds)?;
    if got.is_truncated {
        fds.truncate(before);
        return Err(Errno::MSGSIZE);
    }
    Ok(got.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{cookie, packet_pair, receive, send};

    #[test]
    fn a_message_is_read_twice() {
        let (a, b) = packet_pair().unwrap();
        let (x, _y) = packet_pair().unwrap();
        send(&a, &[b"one"], &[x.as_fd()], false).unwrap();
        let (mut buffer, mut fds) = ([0; 8], Vec::new());
        assert_eq!(peek(&b, &mut buffer, &mut fds).unwrap(), 3);
        assert_eq!(receive(&b, &mut buffer, &mut fds, false).unwrap(), 3);
        assert_eq!(cookie(&fds[0]).unwrap(), cookie(&fds[1]).unwrap());
        assert_eq!(peek(&b, &mut buffer, &mut fds), Err(Errno::AGAIN));
    }
}
