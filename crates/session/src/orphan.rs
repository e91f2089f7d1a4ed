//! The sweep of an orphaned store: one that no process uses any more.
//!
//! Responsible for: removing expired sessions of scopes that no request uses. Must never: create a store, disturb a process that
//! uses one, or keep one open. The caller must not have the store open. Called by: `src/session/stores.rs`.
use crate::disk::{self, Disk, Say};
use crate::engine::{Engine, Swept};
use crate::error::Error;
use crate::owner::Owner;
use crate::stop::Stop;
use crate::store::{self, Limits, lock_file};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A store is orphaned this long after its last maintenance. Processes that use a store maintain it once a minute.
pub const ORPHANED_AFTER: Duration = Duration::from_secs(600);
/// How long a sweep waits for other processes.
const PATIENCE: Duration = Duration::from_millis(100);
/// The largest number of steps of one sweep.
const STEPS: usize = 10;

/// When the store of this directory was last maintained; `None`: it does not exist.
#[must_use]
pub fn maintained_at(directory: &Path) -> Option<SystemTime> {
    disk::is_begun(directory).ok()?;
    std::fs::metadata(directory.join("locks")).ok()?.modified().ok()
}

/// Whether a store is orphaned. A time in the future counts as none.
#[must_use]
pub fn is_due(maintained_at: SystemTime) -> bool {
    maintained_at.elapsed().is_ok_and(|since| since >= ORPHANED_AFTER) || maintained_at > SystemTime::now()
}

/// Removes expired sessions. `None`: the store does not exist, or other processes maintain it. If more remain, it is due again
/// at once.
pub fn sweep(directory: &Path, limits: &Limits, now_ms: u64, stop: Stop, say: Say) -> Result<Option<Swept>, Error> {
    if !maintained_at(directory).is_some_and(is_due) {
        return Ok(None);
    }
    let owner = Owner::new(directory, lock_file(directory)?)?;
    // Fails if a process has the sessions in memory; a process that opens the store now shares it with this one.
    if !owner.try_shared_quietly()? || !owner.try_sweep() {
        return Ok(None);
    }
    // First, so that a store that cannot be swept is not tried again and again.
    owner.note_maintained(SystemTime::now());
    let disk = Disk::new(directory, limits.disk_bytes, limits.always_sync, lock_file(directory)?, stop, say)
        .with_patience(PATIENCE)
        .only_existing();
    let all = store::sweep(&disk, now_ms, STEPS)?;
    disk.sync()?;
    if all.more {
        owner.note_maintained(SystemTime::UNIX_EPOCH);
    }
    Ok(Some(all))
}
