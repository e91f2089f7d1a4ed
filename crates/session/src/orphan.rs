//! A look at a store that nobody uses, to remove what has expired there.
//!
//! Responsible for: sessions of scopes that no request asks for any more not staying for ever. Must never: make a store, disturb whoever uses one,
//! or keep one open. Not for a store that this process has open. Called by: `src/session/stores.rs`.
use crate::disk::{self, Disk, Say};
use crate::engine::{Engine, Swept};
use crate::error::Error;
use crate::owner::Owner;
use crate::stop::Stop;
use crate::store::{self, Limits, lock_file};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A store is left alone for so long after anybody has looked after it: those who use it do that once a minute.
pub const ORPHANED_AFTER: Duration = Duration::from_secs(600);
/// How long a visit waits for others: hardly at all.
const PATIENCE: Duration = Duration::from_millis(100);
/// Steps of a sweep in one visit.
const STEPS: usize = 10;

/// When somebody has looked after the store of this directory last; `None`: there is none.
#[must_use]
pub fn maintained_at(directory: &Path) -> Option<SystemTime> {
    disk::is_begun(directory).ok()?;
    std::fs::metadata(directory.join("locks")).ok()?.modified().ok()
}

/// Whether a store has been left alone for long enough to be visited. A time that is yet to come is none.
#[must_use]
pub fn is_due(maintained_at: SystemTime) -> bool {
    maintained_at.elapsed().is_ok_and(|since| since >= ORPHANED_AFTER) || maintained_at > SystemTime::now()
}

/// Removes expired sessions; `None`: it is not there, or others look after it. When more are left it is due at once again.
pub fn sweep(directory: &Path, limits: &Limits, now_ms: u64, stop: Stop, say: Say) -> Result<Option<Swept>, Error> {
    if !maintained_at(directory).is_some_and(is_due) {
        return Ok(None);
    }
    let owner = Owner::new(directory, lock_file(directory)?)?;
    // Those who have it in memory have it for themselves alone; for those who come now we are one of several.
    if !owner.try_shared_quietly()? || !owner.try_sweep() {
        return Ok(None);
    }
    // First, so that one that makes trouble is not visited again and again.
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
