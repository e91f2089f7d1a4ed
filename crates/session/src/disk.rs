//! Sessions in a file that all processes of one machine share: an LMDB environment (<http://www.lmdb.tech/doc/>).
//!
//! Responsible for: what was stored being there after any process died at any moment; a damaged store being moved aside while the service
//! goes on. Must never: be opened before a fork, or be put on a network file system. Called by: [`crate::store`], [`crate::memory`].
//!
//! The directory `store` holds one table, as each more is a page more in each commit: records, under 'r' and their key, and an index, under 'e',
//! the minute of expiry and the key, from which a sweep takes the oldest without looking at the others. Commits are not synchronised one by one
//! unless asked for: [`Disk::sync`] does that now and then. Who moves a store aside takes its file's permission to write away: that tells
//! all who have it open.
#![allow(unsafe_code)]
use crate::engine::{Engine, Error, Figures, Put, Record, Swept};
use crate::id::Key;
use crate::turns::{self, Turns};
use drover_sys::filelock::{self, Hold};
use drover_sys::mutex::Held;
use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, MdbError, RoTxn, RwTxn, WithoutTls};
use parking_lot::RwLock;
use rustix::fs::{FallocateFlags, Mode, fallocate, fchmod, fstat};
use rustix::io::Errno;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// Threads of all children of httpd that can read at the same time.
const READERS: u32 = 16_384;
/// Bytes of `lock.mdb` with so many: a line of the cache for each, and some for what is common to all (mdb.c: mdb_env_setup_locks).
const LOCK_FILE: u64 = (READERS as u64 + 7) * 64;
/// The pages that describe the store: a file that is shorter is none.
const META_PAGES: u64 = 2;
/// Where in a page that describes the store its last page stands: after the page's head, four numbers and two tables.
const LAST_PAGE: usize = 16 + 24 + 2 * 48;
/// More bytes than any store has: what a process can map at all.
const LARGEST: u64 = 1 << 46;
/// How often an operation is begun: opened, opened again after damage, and as the store is growing.
const ATTEMPTS: usize = 4;
/// Damaged stores that one process moves aside within one second.
const MOST_ASIDE: u32 = 100;
/// Milliseconds in one step of the index.
const STEP_MS: u64 = 60_000;
/// Which byte of `locks` is held while the store is moved aside or opened.
const MOVING: i64 = 2;

/// The two parts of the table.
const RECORDS: u8 = b'r';
const INDEX: u8 = b'e';
/// The part, the minute of expiry, the key.
type IndexKey = [u8; 41];

/// Whom to tell what the administrator must know: a line of text.
pub type Say = Box<dyn Fn(&str) + Send + Sync>;

/// See the head of this file.
pub struct Disk {
    directory: PathBuf,
    map_size: usize,
    always_sync: bool,
    patience: Duration,
    only_existing: bool,
    guard: File,
    opened: RwLock<Option<Opened>>,
    unsynced: AtomicBool,
    openings: AtomicU64,
    say: Say,
}

type Table = Database<Bytes, Bytes>;

struct Opened {
    env: Env<WithoutTls>,
    turns: Box<Turns>,
    table: Table,
    file: File,
    seen: Seen,
}

/// Which of the times that this process has opened the store, and which file that was.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    number: u64,
    inode: u64,
}

/// Why an operation was not carried out.
enum Trouble {
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
    fn of(path: &Path, e: std::io::Error) -> Self {
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

fn page_size() -> usize {
    rustix::param::page_size().max(4096)
}

/// Where a record stands in the table.
fn record_key(key: &Key) -> [u8; 33] {
    let mut out = [RECORDS; 33];
    out[1..].copy_from_slice(&key.0);
    out
}

/// Where its entry in the index stands.
fn index_key(expires_ms: u64, key: &Key) -> IndexKey {
    let mut out = [INDEX; 41];
    let (minute, rest) = out[1..].split_at_mut(8);
    minute.copy_from_slice(&expires_ms.div_ceil(STEP_MS).to_be_bytes());
    rest.copy_from_slice(&key.0);
    out
}

/// The minute that an entry of the index names.
fn minute_of(entry: &[u8]) -> Option<u64> {
    entry.get(1..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// When a stored record expires, from its first bytes alone.
fn expiry(bytes: &[u8]) -> Option<u64> {
    let accessed = bytes.get(12..20)?.first_chunk().map(|b| u64::from_le_bytes(*b))?;
    let timeout = bytes.get(20..24)?.first_chunk().map(|b| u32::from_le_bytes(*b))?;
    Some(Record { created_ms: 0, accessed_ms: accessed, timeout_s: timeout, data: Vec::new() }.expires_ms())
}

impl Disk {
    /// A store below `directory`, which exists; opened at its first use. `map_size`: the most it may become, bytes.
    pub fn new(directory: &Path, map_size: u64, always_sync: bool, guard: File, say: Say) -> Self {
        let page = page_size();
        let map_size = usize::try_from(map_size).unwrap_or(usize::MAX / 2).max(1 << 20) / page * page;
        Self {
            directory: directory.to_owned(),
            map_size,
            always_sync,
            patience: turns::PATIENCE,
            only_existing: false,
            guard,
            opened: RwLock::new(None),
            unsynced: AtomicBool::new(false),
            openings: AtomicU64::new(0),
            say,
        }
    }

    /// With another end to each wait than [`turns::PATIENCE`].
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The store as it is, or none: it is neither made nor moved aside.
    #[must_use]
    pub fn only_existing(self) -> Self {
        Self { only_existing: true, ..self }
    }

    fn store(&self) -> PathBuf {
        self.directory.join("store")
    }

    /// Runs an operation on the store, opens it before if need be; after damage once more on a new one.
    fn run<T>(&self, operation: impl Fn(&Opened) -> Result<T, Trouble>) -> Result<T, Error> {
        let mut cleared = false;
        for _ in 0..ATTEMPTS {
            let (seen, trouble) = {
                let opened = self.opened.read();
                let result = opened.as_ref().map_or(Err(Trouble::Stale), |opened| opened.is_sound().and_then(|()| operation(opened)));
                match result {
                    Ok(done) => return Ok(done),
                    // Perhaps it is full of what readers hold that have died.
                    Err(Trouble::Told(Error::Full)) if !cleared && opened.as_ref().is_some_and(Opened::clear_dead_readers) => {
                        cleared = true;
                        continue;
                    }
                    Err(Trouble::Told(e)) => return Err(e),
                    Err(trouble) => (opened.as_ref().map(|opened| opened.seen), trouble),
                }
            };
            self.open_again(seen, trouble)?;
        }
        Err(Error::Unavailable("it had to be opened again and again".into()))
    }

    /// Opens the store that is at its path now in place of the one that was seen; moves that aside before if it is damaged and still there.
    fn open_again(&self, seen: Option<Seen>, trouble: Trouble) -> Result<(), Error> {
        let mut opened = self.opened.write();
        if opened.as_ref().map(|opened| opened.seen) != seen {
            return Ok(()); // another thread was faster
        }
        let _moving = Moving::begin(&self.guard);
        // Closed before it is opened again: LMDB cannot have one file open twice in a process.
        *opened = None;
        let is_at_its_path = seen.is_some() && seen.map(|seen| seen.inode) == inode_of(&self.store());
        let mut damage = if let Trouble::Damaged(why) = &trouble { Some(why.clone()).filter(|_| is_at_its_path) } else { None };
        // Others may have a higher limit, before or after a reload. What they have mapped is mapped then, which the store knows.
        let map_size = if is_at_its_path && matches!(trouble, Trouble::Outgrown) { None } else { Some(self.map_size) };
        for _ in 0..2 {
            if let Some(why) = damage.take() {
                if self.only_existing {
                    return Err(Error::Damaged(format!("{}: {why}", self.store().display())));
                }
                self.move_aside(&why)?;
            }
            match self.open(map_size) {
                Ok(new) => {
                    *opened = Some(new);
                    return Ok(());
                }
                Err(Trouble::Told(e)) => return Err(e),
                // Others have made it longer just now; the next attempt sees that.
                Err(Trouble::Stale | Trouble::Outgrown) => return Ok(()),
                Err(Trouble::Damaged(why)) => damage = Some(why),
            }
        }
        Err(Error::Damaged("a new store could not be begun either".into()))
    }

    fn move_aside(&self, why: &str) -> Result<(), Error> {
        let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let refused = |e: std::io::Error| Error::Unavailable(format!("{}: {e}", self.store().display()));
        for n in 0..MOST_ASIDE {
            let aside = self.directory.join(format!("store.damaged-{seconds}-{}-{n}", std::process::id()));
            match std::fs::rename(self.store(), &aside) {
                // Of the same second: a directory takes the place of an empty one only.
                Err(e) if matches!(e.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => {}
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(refused(e)),
                _ => {
                    // Else they look at its path each second.
                    let _ = File::open(aside.join("data.mdb")).map(|file| fchmod(file, Mode::RUSR));
                    (self.say)(&format!(
                        "the session store was damaged ({why}); it lies now at {}, and a new one is begun",
                        aside.display()
                    ));
                    return Ok(());
                }
            }
        }
        Err(refused(ErrorKind::AlreadyExists.into()))
    }

    /// With `None` as large as any process has had it.
    fn open(&self, map_size: Option<usize>) -> Result<Opened, Trouble> {
        let path = self.store();
        let refused = |e: std::io::Error| Trouble::Told(Error::Unavailable(format!("{}: {e}", path.display())));
        match if self.only_existing { is_begun(&self.directory) } else { DirBuilder::new().mode(0o700).create(&path) } {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(refused(e)),
            _ => {}
        }
        let turns = Turns::open(&self.directory, self.patience).map_err(|e| Trouble::of(&self.directory.join("turns"), e))?;
        let turns = Box::new(turns);
        let flags = if self.always_sync { EnvFlags::empty() } else { EnvFlags::NO_SYNC };
        let data = path.join("data.mdb");
        look_at_head(&data)?;
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.max_readers(READERS);
        if let Some(size) = map_size {
            options.map_size(size);
        }
        let turn = turns.reader()?;
        allocate_lock_file(&path.join("lock.mdb"))?;
        // SAFETY: the file is changed through LMDB only, by processes that keep to its locks: the directory is its owner's alone (0700), and
        // `is_sound` looks at its size before each use.
        let env = unsafe { options.flags(flags).open(&path)? };
        drop(turn);
        let Ok(file) = OpenOptions::new().read(true).write(true).open(&data) else { return Err(Trouble::Stale) };
        let found = file.metadata().map_err(refused)?;
        is_whole(&env, &turns, &file, found.len())?;
        let table = table(&env, &turns)?;
        let seen = Seen { number: self.openings.fetch_add(1, Ordering::Relaxed), inode: found.ino() };
        let opened = Opened { env, turns, table, file, seen };
        if inode_of(&path) == Some(seen.inode) { Ok(opened) } else { Err(Trouble::Stale) }
    }

    fn commit(&self, txn: Writing<'_>) -> Result<(), Trouble> {
        txn.txn.commit()?;
        self.unsynced.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn sweep_step(&self, now_ms: u64, budget: usize) -> Result<Swept, Error> {
        self.run(|opened| {
            if inode_of(&self.store()) != Some(opened.seen.inode) || !opened.turns.are_shared() {
                return Err(Trouble::Stale); // its directory was moved, and nobody has marked it; or the file of turns was removed
            }
            opened.clear_dead_readers();
            let nothing = {
                let txn = opened.read()?;
                let first = opened.table.prefix_iter(&txn, &[INDEX])?.next().transpose()?.and_then(|(entry, _)| minute_of(entry));
                first.is_none_or(|minute| minute.saturating_mul(STEP_MS) > now_ms)
            };
            if nothing {
                return Ok(Swept::default());
            }
            let mut txn = opened.write()?;
            let swept = opened.sweep(&mut txn, now_ms, budget)?;
            self.commit(txn)?;
            Ok(swept)
        })
    }

    /// Stores many at once, whatever was there; for memory that is written down.
    pub fn put_all(&self, all: &[(Key, &Record)]) -> Result<(), Error> {
        self.run(|opened| {
            let mut txn = opened.write()?;
            for (key, record) in all {
                opened.replace(&mut txn, key, record)?;
            }
            self.commit(txn)
        })
    }
}

/// Whether there is a store below this directory. An empty file is none: it would become a new one.
pub(crate) fn is_begun(directory: &Path) -> std::io::Result<()> {
    let data = std::fs::metadata(directory.join("store/data.mdb"))?;
    if data.len() > 0 { Ok(()) } else { Err(ErrorKind::NotFound.into()) }
}

/// Held while a store is moved aside or opened, so that two processes do not move each other's.
struct Moving<'f>(&'f File);

impl<'f> Moving<'f> {
    fn begin(file: &'f File) -> Option<Self> {
        // Whoever holds it needs a few milliseconds; after a second its holder is stopped, and it is better to go on.
        for _ in 0..200 {
            if filelock::set(file, MOVING, Hold::Exclusive) == Ok(true) {
                return Some(Self(file));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }
}

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        // Else the kernel does it when the process ends.
        let _ = filelock::set(self.0, MOVING, Hold::Free);
    }
}

fn inode_of(store: &Path) -> Option<u64> {
    std::fs::metadata(store.join("data.mdb")).ok().map(|m| m.ino())
}

/// What describes a store, before LMDB maps it: that would trust a file that was cut short, or says that it is larger than any can be.
fn look_at_head(data: &Path) -> Result<(), Trouble> {
    let page = page_size();
    let Ok(file) = File::open(data) else { return Ok(()) };
    let mut head = Vec::new();
    file.take(META_PAGES * page as u64).read_to_end(&mut head).map_err(heed::Error::Io)?;
    // An empty one is new.
    if !head.is_empty() && head.len() as u64 != META_PAGES * page as u64 {
        return Err(Trouble::Damaged("it was cut short".into()));
    }
    let last = |meta: &[u8]| meta.get(LAST_PAGE..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_ne_bytes(*bytes));
    if head.chunks(page).any(|meta| last(meta) > LARGEST / page as u64) {
        return Err(Trouble::Damaged("it names pages that no store has".into()));
    }
    Ok(())
}

/// The file is as long as the store says of itself: reading past the end of a mapped file would end the process.
fn is_whole(env: &Env<WithoutTls>, turns: &Turns, file: &File, len: u64) -> Result<(), Trouble> {
    if len < META_PAGES * page_size() as u64 {
        return Err(Trouble::Damaged("it was cut short".into()));
    }
    let info = env.info();
    let needed = bytes_of(info.last_page_number);
    if needed > info.map_size as u64 {
        return Err(Trouble::Outgrown);
    }
    if len < needed {
        lengthen(env, turns, file)?;
    }
    Ok(())
}

/// The last pages of a sound store may never have been written. If this one was cut, empty pages are an error, missing ones death.
///
/// Only a writer makes the file longer: while we are it, nobody else does, and nothing is cut off that was written since the first look.
fn lengthen(env: &Env<WithoutTls>, turns: &Turns, file: &File) -> Result<(), Trouble> {
    let _writer = Writing::begin(env, turns)?;
    let needed = bytes_of(env.info().last_page_number);
    if file.metadata().map_err(heed::Error::Io)?.len() < needed {
        file.set_len(needed).map_err(heed::Error::Io)?;
    }
    Ok(())
}

/// Gives the file of LMDB's locks its blocks on the disk: LMDB makes it of one hole, and on a full disk a write into that would end the process. A
/// file of this length and nothing but zeros is to LMDB as good as none. Not while this process has the store open: LMDB's locks of the
/// file would go when it is closed here.
fn allocate_lock_file(path: &Path) -> Result<(), Trouble> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(|e| Trouble::of(path, e))?;
    // One that is in use keeps its length: it says how many readers there can be.
    let len = match file.metadata().map_err(|e| Trouble::of(path, e))?.len() {
        0 => LOCK_FILE,
        len => len,
    };
    loop {
        match fallocate(&file, FallocateFlags::empty(), 0, len) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(e) => return Err(Trouble::of(path, e.into())),
        }
    }
}

/// LMDB's own table, which is always there; found without a write: reading does not wait for who writes.
fn table(env: &Env<WithoutTls>, turns: &Turns) -> Result<Table, Trouble> {
    let turn = turns.reader()?;
    let txn = env.read_txn()?;
    drop(turn);
    let table = env.open_database(&txn, None)?.ok_or_else(|| Trouble::Damaged("it has no table".into()))?;
    txn.commit()?;
    Ok(table)
}

/// Bytes of a store with this last page.
fn bytes_of(last_page: usize) -> u64 {
    (last_page as u64).saturating_add(1).saturating_mul(page_size() as u64)
}

/// A write, with the turn for it.
struct Writing<'o> {
    // Ends before the turn does.
    txn: RwTxn<'o>,
    _turn: Held<'o>,
}

impl<'o> Writing<'o> {
    fn begin(env: &'o Env<WithoutTls>, turns: &'o Turns) -> Result<Self, Trouble> {
        let turn = turns.writer()?;
        Ok(Self { txn: env.write_txn()?, _turn: turn })
    }
}

impl<'o> Deref for Writing<'o> {
    type Target = RwTxn<'o>;

    fn deref(&self) -> &Self::Target {
        &self.txn
    }
}

impl DerefMut for Writing<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.txn
    }
}

impl Opened {
    /// The store was neither moved aside nor removed, and can be read.
    fn is_sound(&self) -> Result<(), Trouble> {
        let found = fstat(&self.file).map_err(|e| heed::Error::Io(e.into()))?;
        if found.st_nlink == 0 || !Mode::from_raw_mode(found.st_mode).contains(Mode::WUSR) {
            return Err(Trouble::Stale);
        }
        is_whole(&self.env, &self.turns, &self.file, u64::try_from(found.st_size).unwrap_or_default())
    }

    fn read(&self) -> Result<RoTxn<'_, WithoutTls>, Trouble> {
        let _turn = self.turns.reader()?;
        Ok(self.env.read_txn()?)
    }

    fn write(&self) -> Result<Writing<'_>, Trouble> {
        Writing::begin(&self.env, &self.turns)
    }

    /// Readers that were killed hold on to old pages; whether there were any.
    fn clear_dead_readers(&self) -> bool {
        self.turns.reader().is_ok_and(|_turn| self.env.clear_stale_readers().is_ok_and(|n| n > 0))
    }

    /// Puts a record and moves its entry in the index.
    fn replace(&self, txn: &mut RwTxn<'_>, key: &Key, record: &Record) -> Result<(), Trouble> {
        let new = index_key(record.expires_ms(), key);
        let place = record_key(key);
        let old = self.table.get(txn, &place)?.and_then(expiry).map(|expires| index_key(expires, key));
        if old != Some(new) {
            if let Some(old) = old {
                self.table.delete(txn, &old)?;
            }
            self.table.put(txn, &new, &[])?;
        }
        self.table.put(txn, &place, &record.encode())?;
        Ok(())
    }

    fn delete(&self, txn: &mut RwTxn<'_>, key: &Key) -> Result<Option<u64>, Trouble> {
        let place = record_key(key);
        let expires = self.table.get(txn, &place)?.and_then(expiry);
        if let Some(expires) = expires {
            self.table.delete(txn, &index_key(expires, key))?;
        }
        self.table.delete(txn, &place)?;
        Ok(expires)
    }

    fn sweep(&self, txn: &mut RwTxn<'_>, now_ms: u64, budget: usize) -> Result<Swept, Trouble> {
        let mut found: Vec<IndexKey> = Vec::new();
        let mut more = false;
        for entry in self.table.prefix_iter(txn, &[INDEX])? {
            let (entry, _) = entry?;
            let minute = minute_of(entry).unwrap_or(0);
            if minute.saturating_mul(STEP_MS) > now_ms {
                break;
            }
            if found.len() >= budget {
                more = true;
                break;
            }
            found.extend(IndexKey::try_from(entry).ok());
        }
        let mut removed = 0;
        for entry in found {
            let Some(key) = entry.last_chunk().map(|b| Key(*b)) else { continue };
            match self.table.get(txn, &record_key(&key))?.and_then(expiry) {
                Some(expires) if expires <= now_ms => {
                    self.table.delete(txn, &record_key(&key))?;
                    removed += 1;
                }
                // It lives: its place in the index was wrong.
                Some(expires) => self.table.put(txn, &index_key(expires, &key), &[])?,
                None => {}
            }
            self.table.delete(txn, &entry)?;
        }
        Ok(Swept { removed, more })
    }
}

impl Engine for Disk {
    fn load(&self, key: &Key, now_ms: u64) -> Result<Option<Record>, Error> {
        let found = self.run(|opened| {
            let txn = opened.read()?;
            Ok(opened.table.get(&txn, &record_key(key))?.map(Record::decode))
        })?;
        match found {
            Some(Err(e)) => {
                // One bad record is no reason to leave the others.
                (self.say)(&format!("a session was damaged and is removed: {e}"));
                self.remove(key, now_ms)?;
                Ok(None)
            }
            other => Ok(other.transpose()?.filter(|record| !record.is_expired(now_ms))),
        }
    }

    fn put(&self, key: &Key, record: &Record, how: Put, now_ms: u64) -> Result<(), Error> {
        self.run(|opened| {
            let mut txn = opened.write()?;
            if how != Put::Any {
                let lives = opened.table.get(&txn, &record_key(key))?.and_then(expiry).is_some_and(|expires| now_ms < expires);
                match (how, lives) {
                    (Put::Create, true) => return Err(Error::Exists.into()),
                    (Put::Replace, false) => return Err(Error::Missing.into()),
                    _ => {}
                }
            }
            opened.replace(&mut txn, key, record)?;
            self.commit(txn)
        })
    }

    fn touch(&self, key: &Key, accessed_ms: u64) -> Result<(), Error> {
        self.run(|opened| {
            let mut txn = opened.write()?;
            let Some(Ok(mut record)) = opened.table.get(&txn, &record_key(key))?.map(Record::decode) else { return Ok(()) };
            record.accessed_ms = record.accessed_ms.max(accessed_ms);
            opened.replace(&mut txn, key, &record)?;
            self.commit(txn)
        })
    }

    fn remove(&self, key: &Key, now_ms: u64) -> Result<bool, Error> {
        self.run(|opened| {
            let mut txn = opened.write()?;
            let expires = opened.delete(&mut txn, key)?;
            self.commit(txn)?;
            Ok(expires.is_some_and(|expires| now_ms < expires))
        })
    }

    fn sweep(&self, now_ms: u64, budget: usize) -> Result<Swept, Error> {
        // To remove takes room as well, for the new versions of the pages that are changed: in a full store, a few at a time.
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
        self.run(|opened| Ok(opened.env.force_sync()?))
    }

    fn figures(&self) -> Result<Figures, Error> {
        self.run(|opened| {
            let txn = opened.read()?;
            // Each has a record and its entry in the index.
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
#[path = "disk_tests.rs"]
mod tests;
