//! What can go wrong with a session.
//!
//! Responsible for: texts that tell the administrator what happened and what to do. Called by: all of this crate, `src/session`.
use std::fmt;

/// A failed operation. The text tells the administrator what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// A live session has this name.
    Exists,
    /// No live session has this name.
    Missing,
    /// The data is larger than the limit: its size, and the limit.
    TooLarge(u64, u64),
    /// The disk or the store is full; existing sessions are unchanged.
    Full,
    /// The store cannot be used now.
    Unavailable(String),
    /// The store is damaged.
    Damaged(String),
    /// Another request held the session's lock for too long.
    LockTimeout,
    /// The caller cancelled its wait for a lock.
    Cancelled,
    /// httpd stops this process.
    Stopping,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists => f.write_str("a session of this name already exists"),
            Self::Missing => f.write_str("no session of this name exists any more"),
            Self::TooLarge(size, most) => {
                write!(f, "the session has {size} bytes, which exceeds the limit of {most}: raise DroverSessionMaxSize or store less in it")
            }
            Self::Full => f.write_str(
                "the session store is full or cannot be written: free space on its disk or raise DroverSessionDiskSize; existing sessions are unchanged",
            ),
            Self::Unavailable(why) => write!(f, "the session store cannot be used: {why}"),
            Self::Damaged(why) => write!(f, "the session store is damaged: {why}"),
            Self::LockTimeout => f.write_str("another request has held the session for longer than DroverSessionLockTimeout"),
            Self::Cancelled => f.write_str("the request for the session was cancelled"),
            Self::Stopping => f.write_str("httpd stops this child process, so it no longer waits for the session store"),
        }
    }
}

impl std::error::Error for Error {}
