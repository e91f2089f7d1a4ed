//! Why an operation on the store was not carried out, and what follows from that.
//!
//! Responsible for: each error of LMDB meaning one of four things. Called by: [`super`] and its parts.
use crate::error::Error;
use heed::MdbError;
use rustix::io::Errno;
use std::path::Path;

/// Why an operation was not carried out.
pub(super) enum Trouble {
    /// To be told to the caller.
    Told(Error),
    /// The store is to be opened again: it is not the one at its path any more, or LMDB refuses to go on.
    Stale,
    /// The store is to be opened again: another process has made it larger than what is mapped here.
    Outgrown,
    /// The store is damaged.
    Damaged(String),
}

impl Trouble {
    /// A file that cannot be used.
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
            // A page that describes the store could not be written: LMDB wants to be closed, and the other one is good.
            heed::Error::Mdb(MdbError::Panic) => Self::Stale,
            // LMDB says EIO when a write was cut short, as it is where a disk becomes full.
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
