//! Answers requests that no worker can run.
//!
//! Responsible for: sending a FAIL frame on each reply socket at once, so that no client waits for
//! a timeout. Must never: wait, or trust the contents of a message. Called by: the supervisor, for
//! pools that cannot start and for returned requests.
use drover_sys::Errno;
use drover_sys::channel::{has_ended, receive, send};
use drover_wire::frame::{Failure, Header, Kind, MAX_FAIL};
use drover_wire::request::{MAX_INLINE, Prefix};
use drover_wire::text;
use std::os::fd::{AsFd, OwnedFd};

/// Requests answered before the loop serves another descriptor.
const MAX_PER_TURN: usize = 64;

/// A request as it was queued: the message and its descriptors.
pub type QueuedRequest = (Vec<u8>, Vec<OwnedFd>);

/// Takes a bounded number of requests from the queue. An error means that the queue is unusable.
pub fn take_waiting(queue: &OwnedFd) -> Result<Vec<QueuedRequest>, Errno> {
    let mut buffer = vec![0; MAX_INLINE + 4096];
    let mut all = Vec::new();
    for _ in 0..MAX_PER_TURN {
        let mut fds = Vec::new();
        match receive(queue, &mut buffer, &mut fds, false) {
            Ok(0) if !has_ended(queue) => {} // an empty message is no valid request
            Ok(0) if all.is_empty() => return Err(Errno::PIPE),
            Ok(0) => break,
            Ok(n) => all.push((buffer.get(..n).unwrap_or_default().to_vec(), fds)),
            // The kernel is out of memory; the message stays queued.
            Err(Errno::AGAIN | Errno::NOMEM | Errno::NOBUFS) => break,
            // Larger than any valid message; receiving it closed its reply socket, which httpd
            // sees.
            Err(Errno::MSGSIZE) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(all)
}

/// Answers one request. `message` starts with the prefix, and the first of `fds` is the reply
/// socket.
pub fn answer(message: &[u8], fds: &[OwnedFd], failure: Failure, reason: &str) {
    let (Ok(prefix), Some(way_back)) = (Prefix::decode(message), fds.first()) else { return };
    let line = text::one_line(reason, MAX_FAIL / 4);
    let len = u32::try_from(line.len()).unwrap_or(0);
    let header = Header { len, number: prefix.number, kind: Kind::Fail, code: failure as u16 }.encode();
    // If this fails, the socket is closed afterwards, which the waiting thread sees.
    let _ = send(way_back.as_fd(), &[&header, line.as_bytes()], &[], false);
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_sys::channel::{packet_pair, stream_pair};
    use drover_wire::frame::{Deframer, Event};
    use drover_wire::request::Builder;

    #[test]
    fn each_is_answered_with_its_number() {
        let (sender, receiver) = packet_pair().unwrap();
        let (near, far) = stream_pair().unwrap();
        let mut b = Builder::default();
        b.begin(b"/a.wsgi", b"application").unwrap();
        let message = b.finish(Prefix { number: 77, ..Prefix::default() }, b"", b"body").unwrap();
        send(&sender, &[b"nonsense"], &[], false).unwrap();
        send(&sender, &[b""], &[], false).unwrap();
        send(&sender, &[message], &[far.as_fd()], false).unwrap();
        drop(far);
        for (message, fds) in take_waiting(&receiver).unwrap() {
            answer(&message, &fds, Failure::CannotStart, "no such\nuser");
        }
        let (mut buffer, mut got) = (vec![0; 1000], Vec::new());
        loop {
            match receive(&near, &mut buffer, &mut Vec::new(), true).unwrap() {
                0 => break,
                n => got.extend_from_slice(&buffer[..n]),
            }
        }
        let Ok(Some((Event::Frame(h, text), n))) = Deframer::new(77).next(&got) else { panic!() };
        assert_eq!((h.kind, Failure::from_code(h.code), text, n), (Kind::Fail, Failure::CannotStart, &b"no such user"[..], got.len()));
        drop(sender);
        assert_eq!(take_waiting(&receiver).map(|all| all.len()), Err(Errno::PIPE));
    }
}
