//! A token that exactly one of those who hold its descriptor takes, in whichever process they are.
//!
//! Responsible for: one taker, and nobody ever waiting for it, whatever another holder does to the descriptor. Called by: the locks of
//! sessions (`crates/session`), the worker.
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, IoSliceMut, ReadWriteFlags, preadv2};
use std::os::fd::{AsFd, OwnedFd};

/// "At its place in the file", for what has none.
const NOWHERE: u64 = u64::MAX;

/// A token that nobody has taken.
pub fn new() -> Result<OwnedFd, Errno> {
    eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
}

/// Takes it. False: somebody else has.
#[must_use]
pub fn take(token: impl AsFd) -> bool {
    let mut count = [0; 8];
    // Not read(2): another process could have made the descriptor one that waits.
    matches!(preadv2(token, &mut [IoSliceMut::new(&mut count)], NOWHERE, ReadWriteFlags::NOWAIT), Ok(8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{OFlags, fcntl_setfl};

    #[test]
    fn one_takes_it() {
        let token = new().unwrap();
        let taken: usize = std::thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(|| usize::from(take(&token)))).collect();
            all.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(taken, 1);
    }

    #[test]
    fn nobody_can_make_another_wait() {
        let token = new().unwrap();
        assert!(take(&token));
        fcntl_setfl(&token, OFlags::empty()).unwrap();
        assert!(!take(&token));
        let (a, _b) = crate::channel::stream_pair().unwrap();
        assert!(!take(&a));
    }
}
