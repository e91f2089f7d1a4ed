//! The role of a process at a store: the exclusive owner may keep sessions in memory, all others share the disk.
//!
//! Responsible for: at most one exclusive owner, which learns at once that another process wants the store. Must never: wait.
//! Called by: [`crate::store`], [`crate::orphan`].
//!
//! The exclusive owner holds byte 0 of the file `locks` exclusively, all others share it; the kernel releases it when a process
//! dies. A process that finds an exclusive owner sends a handover request: a byte in the FIFO `knock`, which the owner reads.
use crate::error::Error;
use drover_sys::filelock::{self, Hold};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::SystemTime;

const OWNER: i64 = 0;
/// The byte that the process holds which sweeps.
const SWEEPER: i64 = 1;

/// The process's role at one store.
#[derive(Debug)]
pub struct Owner {
    file: File,
    handover: OwnedFd,
}

fn unavailable(what: &str) -> impl Fn(Errno) -> Error {
    move |e| Error::Unavailable(format!("{what}: {e}"))
}

impl Owner {
    /// No role yet. `file`: an open file description of `locks` that nothing else uses.
    pub fn new(directory: &Path, file: File) -> Result<Self, Error> {
        let path = directory.join("knock");
        match mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(unavailable("cannot create the FIFO knock")(e)),
        }
        // For reading and writing: then opening does not wait for the other end, and closing does not signal it.
        let handover = open(&path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
            .map_err(unavailable("cannot open the FIFO knock"))?;
        Ok(Self { file, handover })
    }

    /// Tries to become the exclusive owner. If that fails, a process that shares the store still shares it.
    pub fn try_exclusive(&self) -> Result<bool, Error> {
        filelock::set(&self.file, OWNER, Hold::Exclusive).map_err(unavailable("cannot lock"))
    }

    /// Tries to share the store, without a handover request.
    pub fn try_shared_quietly(&self) -> Result<bool, Error> {
        filelock::set(&self.file, OWNER, Hold::Shared).map_err(unavailable("cannot lock"))
    }

    /// Tries to share the store; sends a handover request if there is an exclusive owner.
    pub fn try_shared(&self) -> Result<bool, Error> {
        let shares = self.try_shared_quietly()?;
        if !shares {
            // A full FIFO is a request as well.
            let _ = rustix::io::write(&self.handover, b"!");
        }
        Ok(shares)
    }

    /// Readable when a handover request was sent.
    pub fn handover_requests(&self) -> BorrowedFd<'_> {
        self.handover.as_fd()
    }

    /// Takes the handover requests from the FIFO; returns whether there were any.
    pub fn take_handover_request(&self) -> bool {
        matches!(rustix::io::read(&self.handover, &mut [0; 64]), Ok(n) if n > 0)
    }

    /// Tries to become the process that sweeps.
    pub fn try_sweep(&self) -> bool {
        filelock::set(&self.file, SWEEPER, Hold::Exclusive) == Ok(true)
    }

    /// Notes that the store is maintained, for [`crate::orphan`]: the time of the file `locks` has no other use.
    pub fn note_maintained(&self, at: SystemTime) {
        // Without it another process sweeps the store too, which does no harm.
        let _ = self.file.set_modified(at);
    }

    /// Lets another process sweep.
    pub fn end_sweep(&self) {
        // After an error the kernel releases it when the process ends.
        let _ = filelock::set(&self.file, SWEEPER, Hold::Free);
    }
}
