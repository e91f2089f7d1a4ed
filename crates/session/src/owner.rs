//! Who may keep sessions in memory: the process that is alone with a store.
//!
//! Responsible for: at most one process being alone, and its learning at once that another one has come. Must never: wait. Called by:
//! [`crate::store`].
//!
//! Byte 0 of the file `locks` is held exclusively by who is alone, and shared by all others; the kernel lets go of it when a process dies. Who
//! comes and finds somebody alone writes a byte into the FIFO `knock`, which who is alone reads.
use crate::error::Error;
use drover_sys::filelock::{self, Hold};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::SystemTime;

const OWNER: i64 = 0;
/// Which byte is held by the process that sweeps.
const SWEEPER: i64 = 1;

/// See the head of this file.
#[derive(Debug)]
pub struct Owner {
    file: File,
    knock: OwnedFd,
}

fn unavailable(what: &str) -> impl Fn(Errno) -> Error {
    move |e| Error::Unavailable(format!("{what}: {e}"))
}

impl Owner {
    /// Neither alone nor not alone yet. `file`: a description of `locks` of its own.
    pub fn new(directory: &Path, file: File) -> Result<Self, Error> {
        let path = directory.join("knock");
        match mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(unavailable("cannot make the FIFO knock")(e)),
        }
        // For reading and writing, so that neither opening nor closing tells anybody anything.
        let knock = open(&path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
            .map_err(unavailable("cannot open the FIFO knock"))?;
        Ok(Self { file, knock })
    }

    /// Tries to be alone. A process that shared goes on sharing when that fails.
    pub fn try_exclusive(&self) -> Result<bool, Error> {
        filelock::set(&self.file, OWNER, Hold::Exclusive).map_err(unavailable("cannot lock"))
    }

    /// Tries to be one of several, and leaves whoever is alone in peace.
    pub fn try_shared_quietly(&self) -> Result<bool, Error> {
        filelock::set(&self.file, OWNER, Hold::Shared).map_err(unavailable("cannot lock"))
    }

    /// Tries to be one of several; handover_requests when somebody is alone.
    pub fn try_shared(&self) -> Result<bool, Error> {
        let shares = self.try_shared_quietly()?;
        if !shares {
            // A full FIFO says the same.
            let _ = rustix::io::write(&self.knock, b"!");
        }
        Ok(shares)
    }

    /// Readable when somebody has knocked.
    pub fn handover_requests(&self) -> BorrowedFd<'_> {
        self.knock.as_fd()
    }

    /// Whether somebody has knocked since the last time.
    pub fn take_handover_request(&self) -> bool {
        matches!(rustix::io::read(&self.knock, &mut [0; 64]), Ok(n) if n > 0)
    }

    /// Tries to be the one that sweeps.
    pub fn try_sweep(&self) -> bool {
        filelock::set(&self.file, SWEEPER, Hold::Exclusive) == Ok(true)
    }

    /// For those who look for stores that nobody looks after ([`crate::visit`]): the time of the file `locks` is good for nothing else.
    pub fn note_maintained(&self, at: SystemTime) {
        // Without it the store is visited, which does no harm.
        let _ = self.file.set_modified(at);
    }

    /// Lets another one sweep.
    pub fn end_sweep(&self) {
        // Else the kernel does it when the process ends.
        let _ = filelock::set(&self.file, SWEEPER, Hold::Free);
    }
}
