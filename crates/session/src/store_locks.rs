//! The writer lock and the reader lock of a store on disk. LMDB's own mutexes have no wait with a
//! deadline, so every thread takes one of these first.
//!
//! Responsible for: an error that names the process which blocks the others. LMDB's mutexes still
//! guarantee a single writer; only the deadline rests on these. Must never: be held while the other
//! one is waited for. Called by: [`crate::disk`].
use crate::error::Error;
use crate::stop::{Ended, Stop};
use drover_sys::clock::monotonic_ns;
use drover_sys::mutex::{Held, Mutexes, Refused};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a thread waits for one of the locks. A write takes microseconds, a large step of a
/// sweep milliseconds, and up to a second on a slow and busy disk.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The writer lock stands for LMDB's writer mutex, which is held from the begin of a write to its
/// end.
const WRITER: usize = 0;
/// The reader lock stands for LMDB's mutex of its reader table, and for its lock of the file
/// `lock.mdb`.
const READER: usize = 1;

/// The locks of one store.
#[derive(Debug)]
pub struct StoreLocks {
    mutexes: Mutexes,
    path: PathBuf,
    patience: Duration,
}

impl StoreLocks {
    /// Opens the locks of the store below this directory.
    pub fn open(directory: &Path, patience: Duration) -> io::Result<Self> {
        let path = directory.join("turns");
        Ok(Self { mutexes: Mutexes::open(&path)?, path, patience })
    }

    /// Takes the writer lock, which is held during each write.
    pub fn writer(&self, stop: &Stop) -> Result<Held<'_>, Error> {
        self.take(WRITER, stop, "writes to it")
    }

    /// Takes the reader lock, which is held while a read begins, not to its end, and while the
    /// store is opened.
    pub fn reader(&self, stop: &Stop) -> Result<Held<'_>, Error> {
        self.take(READER, stop, "begins to read it or opens it")
    }

    /// Whether the lock file is still the one that other processes use.
    #[must_use]
    pub fn are_shared(&self) -> bool {
        self.mutexes.is_at(&self.path)
    }

    fn take(&self, which: usize, stop: &Stop, what: &str) -> Result<Held<'_>, Error> {
        // An uncontended lock does not ask the clock.
        let holder = match self.mutexes.lock(which, 0) {
            Ok(held) => return Ok(held),
            Err(Refused::Busy(holder)) => holder,
            Err(other) => return Err(self.told(other, None, what)),
        };
        // A thread has waited for this owner in vain: not every request should wait as long.
        if self.mutexes.is_endless(which, holder) {
            return Err(self.told(Refused::Busy(holder), holder.pid(), what));
        }
        let mut last = holder;
        let waited = stop.wait(self.patience, |slice| {
            let slice = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
            match self.mutexes.lock(which, monotonic_ns().saturating_add(slice)) {
                Err(Refused::Busy(holder)) => {
                    last = holder;
                    None
                }
                done => Some(done),
            }
        });
        match waited {
            Ok(done) => done.map_err(|refused| self.told(refused, None, what)),
            Err(Ended::Stopping) => Err(Error::Stopping),
            Err(Ended::TimedOut) => {
                let lasted = last == holder;
                if lasted && self.patience >= PATIENCE {
                    self.mutexes.note_endless(which, holder);
                }
                Err(self.told(Refused::Busy(last), holder.pid().filter(|_| lasted), what))
            }
        }
    }

    fn told(&self, refused: Refused, holder: Option<u32>, what: &str) -> Error {
        let path = self.path.display();
        Error::Unavailable(match refused {
            Refused::Busy(_) => match holder {
                None => format!("no lock in {:?}, as other processes use it all the time ({path})", self.patience),
                Some(pid) => format!(
                    "process {pid} {what} for more than {:?} and blocks all other processes{}: continue it (kill -CONT {pid}) or kill \
                     it (kill -KILL {pid}); the store remains intact",
                    self.patience,
                    state_of(pid)
                ),
            },
            Refused::Lost => format!("{path} is damaged: remove it while httpd is stopped"),
            Refused::System(e) => format!("{path}: {e}"),
        })
    }
}

/// The state of a process, if it explains why the process does not continue.
fn state_of(pid: u32) -> &'static str {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    match stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()) {
        Some('T' | 't') => ", as it is stopped (by SIGSTOP or a debugger)",
        Some('D') => ", as it waits for the disk",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_that_times_out_is_waited_for_once() {
        let directory = tempfile::tempdir().unwrap();
        let open = |patience| StoreLocks::open(directory.path(), patience).unwrap();
        let (others, hasty) = (open(Duration::ZERO), open(Duration::from_millis(1)));
        let writer = others.writer(&Stop::never()).unwrap();
        let Err(Refused::Busy(holder)) = hasty.mutexes.lock(WRITER, 0) else { panic!("it is held") };
        assert!(hasty.writer(&Stop::never()).is_err() && !hasty.mutexes.is_endless(WRITER, holder), "who is in a hurry condemns nobody");
        others.mutexes.note_endless(WRITER, holder);
        let patient = open(Duration::MAX); // waits for ever, if it waits
        let Err(Error::Unavailable(why)) = patient.writer(&Stop::never()) else { panic!("it is held") };
        assert!(why.contains(&format!("process {}", std::process::id())) && patient.reader(&Stop::never()).is_ok(), "{why}");
        drop(writer);
        drop(patient.writer(&Stop::never()).unwrap());
        // The next owner's time counts anew.
        let _writer = others.writer(&Stop::never()).unwrap();
        let Err(Refused::Busy(next)) = hasty.mutexes.lock(WRITER, 0) else { panic!("it is held") };
        assert!(next != holder && !hasty.mutexes.is_endless(WRITER, next));
    }
}
