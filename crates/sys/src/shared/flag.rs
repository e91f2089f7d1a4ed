//! A flag in memory that a process shares with its forks.
//!
//! Responsible for: one atomic flag, mapped before the fork. Must never: be cleared. Called by: the
//! module, for messages that are logged once a server.
use super::page::Page;
use rustix::io::Errno;
use std::sync::atomic::{AtomicU64, Ordering};

/// A flag that starts as false.
#[derive(Debug)]
pub struct Flag(Page<AtomicU64>);

impl Flag {
    /// Maps memory for the flag.
    pub fn new() -> Result<Self, Errno> {
        Page::anonymous(1).map(Self)
    }

    /// Sets the flag; true for the first caller in any process.
    #[must_use]
    pub fn set(&self) -> bool {
        // A load first: once the flag is set, no caller takes the cache line from another.
        self.0.first().is_some_and(|flag| flag.load(Ordering::Acquire) == 0 && flag.swap(1, Ordering::AcqRel) == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_caller_sets_it() {
        let flag = Flag::new().unwrap();
        assert_eq!([flag.set(), flag.set()], [true, false]);
    }
}
