//! Looking at a message without taking it.
//!
//! Responsible for: copies of a waiting message's descriptors, the message itself staying where it is. Called by: droverd, for
//! the store in which queues outlive it.
use rustix::io::{Errno, IoSliceMut};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

/// As [`crate::channel::receive`] without waiting, but the message stays.
pub fn peek(fd: impl AsFd, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT | RecvFlags::PEEK;
    let got = recvmsg(fd, &mut [IoSliceMut::new(buffer)], &mut control, flags)?;
    let before = fds.len();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
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
    fn a_message_is_seen_twice() {
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
