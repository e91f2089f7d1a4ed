//! LMDB's environment as this process has it open.
//!
//! Responsible for: LMDB never meeting a file that would kill the process (SIGBUS), or a wait
//! without a deadline: sizes are compared before each use, and each transaction begins with the
//! lock for it. Must never: keep the reader lock while it reads. Called by: [`super`].
#![allow(unsafe_code)]
use super::trouble::Trouble;
use crate::stop::Stop;
use crate::store_locks::StoreLocks;
use drover_sys::mutex::Held;
use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, RoTxn, RwTxn, WithoutTls};
use rustix::fs::{FallocateFlags, Mode, fallocate, fstat};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Threads of all child processes of httpd that can read at the same time.
pub(super) const READERS: u32 = 16_384;
/// Bytes of `lock.mdb` for that number: a cache line for each reader, and the common part (mdb.c:
/// mdb_env_setup_locks).
pub(super) const LOCK_FILE: u64 = (READERS as u64 + 7) * 64;
/// The meta pages. A shorter file is not a store.
const META_PAGES: u64 = 2;
/// The offset of the last page's number in a meta page: after the page header, four numbers and two
/// tables (mdb.c: MDB_meta). A test compares it with what LMDB itself reports.
pub(super) const LAST_PAGE: usize = 16 + 24 + 2 * 48;
/// More bytes than a process can map.
const LARGEST: u64 = 1 << 46;
pub(super) type Table = Database<Bytes, Bytes>;

/// An open store.
pub(super) struct Opened {
    pub(super) env: Env<WithoutTls>,
    pub(super) store_locks: Box<StoreLocks>,
    pub(super) table: Table,
    pub(super) file: File,
    pub(super) seen: Seen,
}

/// Which opening of the store by this process this is, and its file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) number: u64,
    pub(super) inode: u64,
}

pub(super) fn page_size() -> usize {
    rustix::param::page_size().max(4096)
}

/// The inode of the store at this path.
pub(super) fn inode_of(store: &Path) -> Option<u64> {
    std::fs::metadata(store.join("data.mdb")).ok().map(|m| m.ino())
}

/// Checks the meta pages before LMDB maps the file: LMDB would trust one that is truncated, or that
/// claims an impossible size.
fn check_meta_pages(data: &Path) -> Result<(), Trouble> {
    let page = page_size();
    let Ok(file) = File::open(data) else { return Ok(()) };
    let mut head = Vec::new();
    file.take(META_PAGES * page as u64).read_to_end(&mut head).map_err(heed::Error::Io)?;
    // An empty file is a new store.
    if !head.is_empty() && head.len() as u64 != META_PAGES * page as u64 {
        return Err(Trouble::Damaged("it is truncated".into()));
    }
    let last = |meta: &[u8]| meta.get(LAST_PAGE..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_ne_bytes(*bytes));
    if head.chunks(page).any(|meta| last(meta) > LARGEST / page as u64) {
        return Err(Trouble::Damaged("it refers to pages that cannot exist".into()));
    }
    Ok(())
}

/// Checks that the file is as long as its meta pages say: reading past the end of a mapped file
/// kills the process.
fn is_whole(env: &Env<WithoutTls>, store_locks: &StoreLocks, stop: &Stop, file: &File, len: u64) -> Result<(), Trouble> {
    if len < META_PAGES * page_size() as u64 {
        return Err(Trouble::Damaged("it is truncated".into()));
    }
    let info = env.info();
    let needed = bytes_of(info.last_page_number);
    if needed > info.map_size as u64 {
        return Err(Trouble::Outgrown);
    }
    if len < needed {
        lengthen(env, store_locks, stop, file)?;
    }
    Ok(())
}

/// Extends the file to its full length: the last pages of an intact store may never have been
/// written. In a truncated file, empty pages are an error, but missing ones kill the process.
///
/// Only the writer makes the file longer. With the writer lock held, no other process does, and
/// nothing that was written since the first check is cut off.
fn lengthen(env: &Env<WithoutTls>, store_locks: &StoreLocks, stop: &Stop, file: &File) -> Result<(), Trouble> {
    let _writer = Writing::begin(env, store_locks, stop)?;
    let needed = bytes_of(env.info().last_page_number);
    if file.metadata().map_err(heed::Error::Io)?.len() < needed {
        file.set_len(needed).map_err(heed::Error::Io)?;
    }
    Ok(())
}

/// Allocates the blocks of LMDB's lock file. LMDB creates it as a hole, and a write into that on a
/// full disk kills the process. LMDB accepts a file of this length that is all zeros. Must not be
/// called while this process has the store open: closing the file here would release LMDB's locks.
fn allocate_lock_file(path: &Path) -> Result<(), Trouble> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(|e| Trouble::of(path, e))?;
    // A file in use keeps its length, which is the number of readers.
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

/// LMDB's unnamed table, which always exists. Found without a write, so that reading does not wait
/// for a writer.
fn table(env: &Env<WithoutTls>, store_locks: &StoreLocks, stop: &Stop) -> Result<Table, Trouble> {
    let lock = store_locks.reader(stop)?;
    let txn = env.read_txn()?;
    drop(lock);
    let table = env.open_database(&txn, None)?.ok_or_else(|| Trouble::Damaged("it has no table".into()))?;
    txn.commit()?;
    Ok(table)
}

/// The length of a store with this last page.
fn bytes_of(last_page: usize) -> u64 {
    (last_page as u64).saturating_add(1).saturating_mul(page_size() as u64)
}

/// A write transaction and its lock.
pub(super) struct Writing<'o> {
    // Dropped before the lock.
    txn: RwTxn<'o>,
    _lock: Held<'o>,
}

impl<'o> Writing<'o> {
    fn begin(env: &'o Env<WithoutTls>, store_locks: &'o StoreLocks, stop: &Stop) -> Result<Self, Trouble> {
        let lock = store_locks.writer(stop)?;
        Ok(Self { txn: env.write_txn()?, _lock: lock })
    }

    pub(super) fn commit(self) -> Result<(), Trouble> {
        Ok(self.txn.commit()?)
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
    /// Opens the store in the existing directory `path`; with `map_size` None as large as any
    /// process has had it. `number`: how many times it was opened before.
    pub(super) fn open(
        path: &Path,
        store_locks: Box<StoreLocks>,
        map_size: Option<usize>,
        flags: EnvFlags,
        number: u64,
        stop: &Stop,
    ) -> Result<Self, Trouble> {
        let data = path.join("data.mdb");
        check_meta_pages(&data)?;
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.max_readers(READERS);
        if let Some(size) = map_size {
            options.map_size(size);
        }
        let lock = store_locks.reader(stop)?;
        allocate_lock_file(&path.join("lock.mdb"))?;
        // SAFETY: the file is changed through LMDB only, by processes that keep to its locks: the
        // directory is its owner's alone (0700), and `is_sound` checks its size before each use.
        let env = unsafe { options.flags(flags).open(path)? };
        drop(lock);
        let Ok(file) = OpenOptions::new().read(true).write(true).open(&data) else { return Err(Trouble::Stale) };
        let found = file.metadata().map_err(|e| Trouble::of(&data, e))?;
        is_whole(&env, &store_locks, stop, &file, found.len())?;
        let table = table(&env, &store_locks, stop)?;
        let seen = Seen { number, inode: found.ino() };
        if inode_of(path) == Some(seen.inode) { Ok(Self { env, store_locks, table, file, seen }) } else { Err(Trouble::Stale) }
    }
}

/// The open store as one operation uses it.
pub(super) struct Access<'o> {
    pub(super) opened: &'o Opened,
    /// Ends the operation's waits.
    pub(super) stop: &'o Stop,
}

impl Deref for Access<'_> {
    type Target = Opened;

    fn deref(&self) -> &Opened {
        self.opened
    }
}

impl<'o> Access<'o> {
    /// Checks that the store was neither moved aside nor removed, and can be read.
    pub(super) fn is_sound(&self) -> Result<(), Trouble> {
        let found = fstat(&self.file).map_err(|e| heed::Error::Io(e.into()))?;
        if found.st_nlink == 0 || !Mode::from_raw_mode(found.st_mode).contains(Mode::WUSR) {
            return Err(Trouble::Stale);
        }
        is_whole(&self.env, &self.store_locks, self.stop, &self.file, u64::try_from(found.st_size).unwrap_or_default())
    }

    pub(super) fn read(&self) -> Result<RoTxn<'o, WithoutTls>, Trouble> {
        let _lock = self.store_locks.reader(self.stop)?;
        Ok(self.opened.env.read_txn()?)
    }

    pub(super) fn write(&self) -> Result<Writing<'o>, Trouble> {
        Writing::begin(&self.opened.env, &self.opened.store_locks, self.stop)
    }

    /// Clears the readers that were killed, which keep old pages from being reused; returns whether
    /// there were any.
    pub(super) fn clear_dead_readers(&self) -> bool {
        self.store_locks.reader(self.stop).is_ok_and(|_lock| self.env.clear_stale_readers().is_ok_and(|n| n > 0))
    }
}
