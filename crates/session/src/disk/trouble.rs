//! Why an operation on the store failed, and what follows.
//!
//! Responsible for: each error of LMDB having one of four meanings. Called by: [`super`] and its
//! parts.
use crate::error::Error;
use heed::MdbError;
use rustix::io::Errno;
use std::path::Path;

/// Why an operation failed.
pub(super) enum Trouble {
    /// The caller gets this error.
    Told(Error),
    /// The store must be opened again: the one at its path is another, or LMDB refuses to continue.
    Stale,
    /// The store must be opened again: another process has made it larger than what is mapped here.
    Outgrown,
    /// The store is damaged.
    Damaged(String),
}

impl Trouble {
    /// For a file that cannot be used.
    pub(super) fn of(path: &Path, e: std::io::Error) -> Self {
        match Self::from(heed::Error::Io(e)) {
            Self::Told(Error::Unavailable(why)) => Self::Told(Error::Unavailable(format!("{}: {why}", path.display()))),
            other => other,
        }
    }
}

impl From<heed::Error> for Trouble {
    fn from(e: heed::Error) -> Self {
        match e {
            heed::Error::Mdb(MdbError::MapFull | MdbError::TxnFull) => Self::Told(Error::Full),
            heed::Error::Mdb(
                why @ (MdbError::PageNotFound
                | MdbError::Corrupted
                | MdbError::VersionMismatch
                | MdbError::Invalid
                | MdbError::Incompatible
                | MdbError::CursorFull
                | MdbError::PageFull
                | MdbError::BadTxn
                | MdbError::BadDbi),
            ) => Self::Damaged(why.to_string()),
            heed::Error::Mdb(MdbError::MapResized) => Self::Outgrown,
            // A meta page could not be written: LMDB must be closed, and the other meta page is
            // valid.
            heed::Error::Mdb(MdbError::Panic) => Self::Stale,
            // LMDB reports EIO for a short write, which a full disk causes.
            heed::Error::Io(e) if matches!(Errno::from_io_error(&e), Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::IO)) => {
                Self::Told(Error::Full)
            }
            other => Self::Told(Error::Unavailable(other.to_string())),
        }
    }
}

impl From<Error> for Trouble {
    fn from(e: Error) -> Self {
        Self::Told(e)
    }
}
