//! Sessions in a file that all processes of one machine share: an LMDB environment
//! (<http://www.lmdb.tech/doc/>).
//!
//! Responsible for: stored sessions surviving the death of any process at any moment; a damaged
//! store being moved aside while the service continues. Must never: be opened before a fork, or be
//! on a network file system. Called by: [`crate::store`], [`crate::memory`].
//!
//! The directory `store` holds one table, as each further table adds a page to each commit. It has
//! records, under 'r' and their key, and an index, under 'e', the minute of expiry and the key,
//! from which a sweep takes the oldest entries. Sessions that were never used again have their
//! index under 'f', from which they are evicted when the store is full. Commits are synced one by
//! one only if configured; otherwise [`Disk::sync`] does it periodically. Moving a store aside
//! removes its file's write permission: that tells all processes which have it open.
mod environment;
mod records;
mod trouble;

use crate::engine::{Engine, Figures, Put, Record, Swept};
use crate::error::Error;
use crate::id::Key;
use crate::stop::{Ended, Stop};
use crate::store_locks::{self, StoreLocks};
use drover_sys::clock::monotonic_ns;
use drover_sys::filelock::{self, Hold};
use environment::{Access, Opened, Seen, Writing, inode_of, page_size};
use heed::EnvFlags;
use parking_lot::RwLock;
use records::{expiry, record_key};
use rustix::fs::{Mode, fchmod};
use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use trouble::Trouble;

/// Attempts for one operation: opening, opening again after damage, and while the store grows.
const ATTEMPTS: usize = 4;
/// The most stores that one process moves aside within one second.
const MOST_ASIDE: u32 = 100;
/// The most rounds of evictions for one change, and the sessions evicted in the first; each round
/// doubles the number.
const EVICTIONS: usize = 9;
const EVICTED_FIRST: usize = 2;
/// The reserve: a share of the size, and its minimum in bytes.
const RESERVE_SHARE: usize = 16;
const LEAST_RESERVE: usize = 1024 * 1024;
/// The byte of `locks` that is held while the store is moved aside or opened.
const MOVING: i64 = 2;
/// How long a process waits for that byte, and the pause between two attempts: the kernel has no
/// wait with a deadline.
const MOVING_PATIENCE: Duration = Duration::from_secs(1);
const MOVING_PAUSE: Duration = Duration::from_millis(5);

/// Writes a line for the administrator to the log.
pub type Say = Box<dyn Fn(&str) + Send + Sync>;

/// The sessions in one LMDB environment.
pub struct Disk {
    directory: PathBuf,
    /// The limit of the file, bytes: records, index, and a reserve. A change needs space before it
    /// frees the old value, and so does a removal.
    map_size: usize,
    always_sync: bool,
    patience: Duration,
    only_existing: bool,
    guard: File,
    stop: Stop,
    opened: RwLock<Option<Opened>>,
    unsynced: AtomicBool,
    evicted: Evicted,
    openings: AtomicU64,
    say: Say,
}

impl Disk {
    /// A store below the existing directory, opened at its first use. `size`: its limit in bytes.
    /// `stop` ends the waits of all operations but [`Disk::put_all`], [`Disk::put_at_last`] and
    /// `sync`.
    pub fn new(directory: &Path, size: u64, always_sync: bool, guard: File, stop: Stop, say: Say) -> Self {
        let page = page_size();
        let most = usize::try_from(size).unwrap_or(usize::MAX / 2).max(1 << 20) / page * page;
        let map_size = most + (most / RESERVE_SHARE).max(LEAST_RESERVE) / page * page;
        Self {
            directory: directory.to_owned(),
            map_size,
            always_sync,
            patience: store_locks::PATIENCE,
            only_existing: false,
            guard,
            stop,
            opened: RwLock::new(None),
            unsynced: AtomicBool::new(false),
            evicted: Evicted::default(),
            openings: AtomicU64::new(0),
            say,
        }
    }

    /// With another limit for each wait than [`store_locks::PATIENCE`].
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Neither creates the store nor moves it aside.
    #[must_use]
    pub fn only_existing(self) -> Self {
        Self { only_existing: true, ..self }
    }

    fn store(&self) -> PathBuf {
        self.directory.join("store")
    }

    /// Runs an operation on the store, which it opens if necessary; after damage once more on a new
    /// store.
    fn run<T>(&self, stop: &Stop, operation: impl Fn(&Access<'_>) -> Result<T, Trouble>) -> Result<T, Error> {
        let mut cleared = false;
        for _ in 0..ATTEMPTS {
            let (seen, trouble) = {
                let wait = stop.wait(self.opening_patience(), |slice| self.opened.try_read_for(slice));
                let opened = wait.map_err(|ended| self.busy(ended))?;
                let access = opened.as_ref().map(|opened| Access { opened, stop });
                let result = access.as_ref().map_or(Err(Trouble::Stale), |access| access.is_sound().and_then(|()| operation(access)));
                match result {
                    Ok(done) => return Ok(done),
                    // Readers that died may keep its pages from being reused.
                    Err(Trouble::Told(Error::Full)) if !cleared && access.as_ref().is_some_and(Access::clear_dead_readers) => {
                        cleared = true;
                        continue;
                    }
                    Err(Trouble::Told(e)) => return Err(e),
                    Err(trouble) => (opened.as_ref().map(|opened| opened.seen), trouble),
                }
            };
            self.open_again(seen, trouble, stop)?;
        }
        Err(Error::Unavailable("it could not be opened in several attempts".into()))
    }

    /// Runs a change to the session `key`. While the store is full, evicts sessions that were never
    /// used again, the oldest first.
    fn change<T>(&self, key: &Key, stop: &Stop, operation: impl Fn(&Access<'_>) -> Result<T, Trouble>) -> Result<T, Error> {
        let mut budget = EVICTED_FIRST;
        for _ in 0..EVICTIONS {
            match self.run(stop, &operation) {
                Err(Error::Full) if self.evict(key, budget, stop) => budget *= 2,
                other => return other,
            }
        }
        self.run(stop, operation)
    }

    /// Evicts sessions; returns whether there were any.
    fn evict(&self, except: &Key, budget: usize, stop: &Stop) -> bool {
        let mut step = budget;
        let evicted = loop {
            let evicted = self.run(stop, |opened| {
                let mut txn = opened.write()?;
                let evicted = opened.evict(&mut txn, except, step)?;
                self.commit(txn)?;
                Ok(evicted)
            });
            match evicted {
                // Removing needs space as well.
                Err(Error::Full) if step > 1 => step = (step / 4).max(1),
                other => break other.unwrap_or(0),
            }
        };
        self.note_evicted(evicted);
        // LMDB reuses freed pages only after one more commit.
        evicted > 0
            && self
                .run(stop, |opened| {
                    let mut txn = opened.write()?;
                    opened.change_nothing(&mut txn)?;
                    self.commit(txn)
                })
                .is_ok()
    }

    /// Counts evictions, and logs their number once a second.
    pub(crate) fn note_evicted(&self, evicted: usize) {
        if let Some(n) = self.evicted.due(evicted, monotonic_ns()) {
            let directory = self.directory.display();
            (self.say)(&format!(
                "the session store at {directory} is full: {n} sessions were evicted that were used only by the request that created them (clients \
                 without cookies create a session with each request). Raise DroverSessionDiskSize or lower DroverSessionTimeout"
            ));
        }
    }

    /// How long a thread waits for another one that opens the store, which waits for both locks and
    /// for the byte [`MOVING`].
    fn opening_patience(&self) -> Duration {
        self.patience.saturating_mul(2).saturating_add(MOVING_PATIENCE)
    }

    fn busy(&self, ended: Ended) -> Error {
        if ended == Ended::Stopping {
            return Error::Stopping;
        }
        let waited = self.opening_patience();
        Error::Unavailable(format!("{}: another thread of this process has been opening it for {waited:?}", self.store().display()))
    }

    /// Opens the store at its path in place of the one that was seen; moves that aside first if it
    /// is damaged and still there.
    fn open_again(&self, seen: Option<Seen>, trouble: Trouble, stop: &Stop) -> Result<(), Error> {
        let wait = stop.wait(self.opening_patience(), |slice| self.opened.try_write_for(slice));
        let mut opened = wait.map_err(|ended| self.busy(ended))?;
        if opened.as_ref().map(|opened| opened.seen) != seen {
            return Ok(()); // another thread was faster
        }
        let _moving = Moving::begin(&self.guard, stop)?;
        // Closed first: LMDB cannot have one file open twice in a process.
        *opened = None;
        let is_at_its_path = seen.is_some() && seen.map(|seen| seen.inode) == inode_of(&self.store());
        let mut damage = if let Trouble::Damaged(why) = &trouble { Some(why.clone()).filter(|_| is_at_its_path) } else { None };
        // Other processes may have a higher limit, before or after a reload. They have mapped that
        // size then, and the store records it.
        let map_size = if is_at_its_path && matches!(trouble, Trouble::Outgrown) { None } else { Some(self.map_size) };
        for _ in 0..2 {
            if let Some(why) = damage.take() {
                if self.only_existing {
                    return Err(Error::Damaged(format!("{}: {why}", self.store().display())));
                }
                self.move_aside(&why)?;
            }
            match self.open(map_size, stop) {
                Ok(new) => {
                    *opened = Some(new);
                    return Ok(());
                }
                Err(Trouble::Told(e)) => return Err(e),
                // Another process has just made it longer; the next attempt sees that.
                Err(Trouble::Stale | Trouble::Outgrown) => return Ok(()),
                Err(Trouble::Damaged(why)) => damage = Some(why),
            }
        }
        Err(Error::Damaged("a new store could not be created either".into()))
    }

    fn move_aside(&self, why: &str) -> Result<(), Error> {
        let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let refused = |e: std::io::Error| Error::Unavailable(format!("{}: {e}", self.store().display()));
        for n in 0..MOST_ASIDE {
            let aside = self.directory.join(format!("store.damaged-{seconds}-{}-{n}", std::process::id()));
            match std::fs::rename(self.store(), &aside) {
                // Moved within the same second: a directory replaces only an empty one.
                Err(e) if matches!(e.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => {}
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(refused(e)),
                _ => {
                    // Marks it for the processes that have it open.
                    let _ = File::open(aside.join("data.mdb")).map(|file| fchmod(file, Mode::RUSR));
                    (self.say)(&format!(
                        "the session store was damaged ({why}); it was moved to {}, and a new one was created",
                        aside.display()
                    ));
                    return Ok(());
                }
            }
        }
        Err(refused(ErrorKind::AlreadyExists.into()))
    }

    /// With `None` as large as any process has had it.
    fn open(&self, map_size: Option<usize>, stop: &Stop) -> Result<Opened, Trouble> {
        let path = self.store();
        let refused = |e: std::io::Error| Trouble::Told(Error::Unavailable(format!("{}: {e}", path.display())));
        match if self.only_existing { is_begun(&self.directory) } else { DirBuilder::new().mode(0o700).create(&path) } {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(refused(e)),
            _ => {}
        }
        let store_locks = StoreLocks::open(&self.directory, self.patience).map_err(|e| Trouble::of(&self.directory.join("turns"), e))?;
        let flags = if self.always_sync { EnvFlags::empty() } else { EnvFlags::NO_SYNC };
        Opened::open(&path, Box::new(store_locks), map_size, flags, self.openings.fetch_add(1, Ordering::Relaxed), stop)
    }

    /// Refuses a change that exceeds the limit. `before`: the pages before the change.
    fn must_fit(&self, opened: &Opened, txn: &Writing<'_>, before: usize) -> Result<(), Trouble> {
        let pages = opened.pages(txn)?;
        // A larger limit of another process holds for all.
        let map_size = opened.env.info().map_size.max(self.map_size);
        let most = map_size.saturating_sub((map_size / (RESERVE_SHARE + 1)).max(LEAST_RESERVE)) / page_size();
        if pages > before && pages > most { Err(Error::Full.into()) } else { Ok(()) }
    }

    fn commit(&self, txn: Writing<'_>) -> Result<(), Trouble> {
        txn.commit()?;
        self.unsynced.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn sweep_step(&self, now_ms: u64, budget: usize) -> Result<Swept, Error> {
        self.run(&self.stop, |opened| {
            if inode_of(&self.store()) != Some(opened.seen.inode) || !opened.store_locks.are_shared() {
                return Err(Trouble::Stale); // its directory was moved without the mark, or the lock file was removed
            }
            opened.clear_dead_readers();
            if !opened.has_expired(&*opened.read()?, now_ms)? {
                return Ok(Swept::default());
            }
            let mut txn = opened.write()?;
            let swept = opened.sweep(&mut txn, now_ms, budget)?;
            self.commit(txn)?;
            Ok(swept)
        })
    }

    /// Stores many sessions, without a condition. Used to write sessions from memory to disk, also
    /// by a process that is being stopped: the stop signal does not end its waits.
    pub fn put_all(&self, all: &[(Key, &Record)]) -> Result<(), Error> {
        self.run(&Stop::never(), |opened| {
            let mut txn = opened.write()?;
            let before = opened.pages(&txn)?;
            for (key, record) in all {
                opened.replace(&mut txn, key, record)?;
            }
            self.must_fit(opened, &txn, before)?;
            self.commit(txn)
        })
    }

    /// Like [`Disk::put_all`] for one session; evicts others if the store is full.
    pub fn put_at_last(&self, key: &Key, record: &Record) -> Result<(), Error> {
        self.put_until(key, record, Put::Any, 0, &Stop::never())
    }

    fn put_until(&self, key: &Key, record: &Record, how: Put, now_ms: u64, stop: &Stop) -> Result<(), Error> {
        self.change(key, stop, |opened| {
            let mut txn = opened.write()?;
            if how != Put::Any {
                let lives = opened.table.get(&txn, &record_key(key))?.and_then(expiry).is_some_and(|expires| now_ms < expires);
                match (how, lives) {
                    (Put::Create, true) => return Err(Error::Exists.into()),
                    (Put::Replace, false) => return Err(Error::Missing.into()),
                    _ => {}
                }
            }
            let before = opened.pages(&txn)?;
            opened.replace(&mut txn, key, record)?;
            self.must_fit(opened, &txn, before)?;
            self.commit(txn)
        })
    }
}

/// Whether this directory has a store. An empty file is none: LMDB would make it a new one.
pub(crate) fn is_begun(directory: &Path) -> std::io::Result<()> {
    let data = std::fs::metadata(directory.join("store/data.mdb"))?;
    if data.len() > 0 { Ok(()) } else { Err(ErrorKind::NotFound.into()) }
}

/// Evictions since the last log line.
#[derive(Debug, Default)]
struct Evicted {
    number: AtomicU64,
    said_at: AtomicU64,
}

impl Evicted {
    /// Adds `n` evictions. Returns the number to log, at most once a second.
    fn due(&self, n: usize, now_ns: u64) -> Option<u64> {
        self.number.fetch_add(n as u64, Ordering::Relaxed);
        let said_at = self.said_at.load(Ordering::Relaxed);
        if n == 0 || (said_at != 0 && now_ns.saturating_sub(said_at) < 1_000_000_000) {
            return None;
        }
        let first = self.said_at.compare_exchange(said_at, now_ns, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        first.then(|| self.number.swap(0, Ordering::Relaxed))
    }
}

/// Held while a store is moved aside or opened, so that two processes do not move each other's.
struct Moving<'f>(&'f File);

impl<'f> Moving<'f> {
    /// `None`: another process has held it for a second. It needs milliseconds, so it was stopped,
    /// and this process continues without.
    fn begin(file: &'f File, stop: &Stop) -> Result<Option<Self>, Error> {
        let waited = stop.wait(MOVING_PATIENCE, |_| {
            let got = filelock::set(file, MOVING, Hold::Exclusive) == Ok(true);
            if !got {
                stop.sleep(MOVING_PAUSE);
            }
            got.then_some(Self(file))
        });
        match waited {
            Ok(moving) => Ok(Some(moving)),
            Err(Ended::TimedOut) => Ok(None),
            Err(Ended::Stopping) => Err(Error::Stopping),
        }
    }
}

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        // After an error the kernel releases it when the process ends.
        let _ = filelock::set(self.0, MOVING, Hold::Free);
    }
}

impl Engine for Disk {
    fn load(&self, key: &Key, now_ms: u64) -> Result<Option<Record>, Error> {
        let found = self.run(&self.stop, |opened| {
            let txn = opened.read()?;
            Ok(opened.table.get(&txn, &record_key(key))?.map(Record::decode))
        })?;
        match found {
            Some(Err(e)) => {
                // A damaged record does not affect the others.
                (self.say)(&format!("a session was damaged and was removed: {e}"));
                self.remove(key, now_ms)?;
                Ok(None)
            }
            other => Ok(other.transpose()?.filter(|record| !record.is_expired(now_ms))),
        }
    }

    fn put(&self, key: &Key, record: &Record, how: Put, now_ms: u64) -> Result<(), Error> {
        self.put_until(key, record, how, now_ms, &self.stop)
    }

    fn touch(&self, key: &Key, accessed_ms: u64) -> Result<(), Error> {
        self.change(key, &self.stop, |opened| {
            let mut txn = opened.write()?;
            let Some(Ok(mut record)) = opened.table.get(&txn, &record_key(key))?.map(Record::decode) else { return Ok(()) };
            record.accessed_ms = record.accessed_ms.max(accessed_ms);
            opened.replace(&mut txn, key, &record)?;
            self.commit(txn)
        })
    }

    fn remove(&self, key: &Key, now_ms: u64) -> Result<bool, Error> {
        self.change(key, &self.stop, |opened| {
            let mut txn = opened.write()?;
            let expires = opened.delete(&mut txn, key)?;
            self.commit(txn)?;
            Ok(expires.is_some_and(|expires| now_ms < expires))
        })
    }

    fn sweep(&self, now_ms: u64, budget: usize) -> Result<Swept, Error> {
        // Removing needs space for the new versions of changed pages: a full store takes a few at a
        // time.
        let mut step = budget;
        loop {
            match self.sweep_step(now_ms, step) {
                Err(Error::Full) if step > 1 => step = (step / 4).max(1),
                other => return other,
            }
        }
    }

    fn sync(&self) -> Result<(), Error> {
        if !self.unsynced.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        // Also by a process that is being stopped, as its last operation on the store.
        self.run(&Stop::never(), |opened| Ok(opened.env.force_sync()?))
    }

    fn figures(&self) -> Result<Figures, Error> {
        self.run(&self.stop, |opened| {
            let txn = opened.read()?;
            // Each session has a record and an index entry.
            Ok(Figures { sessions: opened.table.len(&txn)? / 2, bytes: opened.env.real_disk_size()? })
        })
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").field("directory", &self.directory).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
