//! What can go wrong with a session.
//!
//! Responsible for: texts that tell the administrator what happened and what to do. Called by: all of this crate, `src/session`.
use std::fmt;

/// What can go wrong. The text tells the administrator what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// A session of this name lives.
    Exists,
    /// No session of this name lives.
    Missing,
    /// The data is larger than allowed: its size, and what is allowed.
    TooLarge(u64, u64),
    /// The disk or the store is full; what was stored before is still there.
    Full,
    /// The store cannot be used now.
    Unavailable(String),
    /// The store is damaged.
    Damaged(String),
    /// Somebody else held the session for too long.
    LockTimeout,
    /// The caller has lost interest while it waited for a lock.
    Cancelled,
    /// httpd stops this process.
    Stopping,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists => f.write_str("a session of this name exists already"),
            Self::Missing => f.write_str("there is no session of this name any more"),
            Self::TooLarge(size, most) => {
                write!(f, "the session has {size} bytes, and {most} are allowed: raise DroverSessionMaxSize, or keep less in it")
            }
            Self::Full => f.write_str(
                "the session store is full or cannot be written: make room on its disk or raise DroverSessionDiskSize; what was stored before is still there",
            ),
            Self::Unavailable(why) => write!(f, "the session store cannot be used: {why}"),
            Self::Damaged(why) => write!(f, "the session store is damaged: {why}"),
            Self::LockTimeout => f.write_str("another request has held the session for longer than DroverSessionLockTimeout"),
            Self::Cancelled => f.write_str("nobody waits for the session any more"),
            Self::Stopping => f.write_str("httpd stops this child, so it no longer waits for the session store"),
        }
    }
}

impl std::error::Error for Error {}
