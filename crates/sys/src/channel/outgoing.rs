//! How much a connected socket accepts without waiting.
//!
//! Responsible for: an estimate that is never too high. Must never: change the socket. Called by:
//! `src/httpd/client.rs`, for clients that read slowly; the command `drover`, to see whether its
//! request was read.
#![allow(unsafe_code)]
use std::os::fd::{AsFd, AsRawFd};

/// socket(7): SO_MEMINFO, an array of nine numbers (linux/sock_diag.h), two of which are the size
/// and the fill of the buffer.
const SO_MEMINFO: libc::c_int = 55;
const NUMBERS: usize = 9;
const SNDBUF: usize = 3;
const WMEM_QUEUED: usize = 5;

/// Bytes that can be written now, at least; 0 if that is unknown.
#[must_use]
pub fn room(socket: impl AsFd) -> usize {
    let mut numbers = [0u32; NUMBERS];
    let mut len = libc::socklen_t::try_from(size_of_val(&numbers)).unwrap_or(0);
    // SAFETY: getsockopt(2) writes at most `len` bytes to an array of that size; the descriptor is
    // borrowed.
    let failed =
        unsafe { libc::getsockopt(socket.as_fd().as_raw_fd(), libc::SOL_SOCKET, SO_MEMINFO, numbers.as_mut_ptr().cast(), &raw mut len) }
            < 0;
    if failed {
        return 0;
    }
    let [size, queued] = [SNDBUF, WMEM_QUEUED].map(|at| numbers.get(at).map_or(0, |n| *n as usize));
    // The kernel counts its overhead as well. Half of the rest is certain, and more while the
    // buffer is empty.
    let left = size.saturating_sub(queued);
    if queued == 0 { left / 4 * 3 } else { left / 2 }
}

/// Whether the peer of a Unix socket has read everything; false if that is unknown.
#[must_use]
pub fn is_read(socket: impl AsFd) -> bool {
    let mut unread: libc::c_int = 0;
    // SAFETY: TIOCOUTQ (SIOCOUTQ, unix(7)) writes one int; the descriptor is borrowed.
    unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut unread) == 0 && unread == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn unread_data_is_seen() {
        let (a, b) = crate::channel::packet_pair().unwrap();
        assert!(is_read(&a));
        crate::channel::send(&a, &[b"x"], &[], true).unwrap();
        assert!(!is_read(&a));
        crate::channel::receive(&b, &mut [0; 8], &mut Vec::new(), true).unwrap();
        assert!(is_read(&a));
    }

    #[test]
    fn the_estimate_is_accepted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut writer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (reader, _) = listener.accept().unwrap();
        writer.set_nonblocking(true).unwrap();
        // Writes pieces of odd sizes until the estimate is small. Each must be accepted whole.
        for turn in 1.. {
            let promised = room(&writer).min(turn * 997);
            if promised < 4096 && turn > 100 {
                break;
            }
            assert_eq!(writer.write(&vec![0; promised]).unwrap(), promised);
        }
        drop(reader);
    }
}
