//! LMDB's environment as this process has it open.
//!
//! Responsible for: LMDB never meeting a file that would end the process (SIGBUS) or a wait without an end: sizes are compared before each use, and
//! each begin of a transaction has its turn. Must never: keep a reader's turn while it reads. Called by: [`super`].
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

/// Threads of all children of httpd that can read at the same time.
pub(super) const READERS: u32 = 16_384;
/// Bytes of `lock.mdb` with so many: a line of the cache for each, and some for what is common to all (mdb.c: mdb_env_setup_locks).
pub(super) const LOCK_FILE: u64 = (READERS as u64 + 7) * 64;
/// The pages that describe the store: a file that is shorter is none.
const META_PAGES: u64 = 2;
/// Where in a page that describes the store its last page stands: after the page's head, four numbers and two tables.
const LAST_PAGE: usize = 16 + 24 + 2 * 48;
/// More bytes than any store has: what a process can map at all.
const LARGEST: u64 = 1 << 46;
pub(super) type Table = Database<Bytes, Bytes>;

/// The store, open.
pub(super) struct Opened {
    pub(super) env: Env<WithoutTls>,
    pub(super) store_locks: Box<StoreLocks>,
    pub(super) table: Table,
    pub(super) file: File,
    pub(super) seen: Seen,
}

/// Which of the times that this process has opened the store, and which file that was.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) number: u64,
    pub(super) inode: u64,
}

pub(super) fn page_size() -> usize {
    rustix::param::page_size().max(4096)
}

/// Which file the store at this path is.
pub(super) fn inode_of(store: &Path) -> Option<u64> {
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
fn is_whole(env: &Env<WithoutTls>, store_locks: &StoreLocks, stop: &Stop, file: &File, len: u64) -> Result<(), Trouble> {
    if len < META_PAGES * page_size() as u64 {
        return Err(Trouble::Damaged("it was cut short".into()));
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

/// The last pages of a sound store may never have been written. If this one was cut, empty pages are an error, missing ones death.
///
/// Only a writer makes the file longer: while we are it, nobody else does, and nothing is cut off that was written since the first look.
fn lengthen(env: &Env<WithoutTls>, store_locks: &StoreLocks, stop: &Stop, file: &File) -> Result<(), Trouble> {
    let _writer = Writing::begin(env, store_locks, stop)?;
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
fn table(env: &Env<WithoutTls>, store_locks: &StoreLocks, stop: &Stop) -> Result<Table, Trouble> {
    let turn = store_locks.reader(stop)?;
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
pub(super) struct Writing<'o> {
    // Ends before the turn does.
    txn: RwTxn<'o>,
    _turn: Held<'o>,
}

impl<'o> Writing<'o> {
    fn begin(env: &'o Env<WithoutTls>, store_locks: &'o StoreLocks, stop: &Stop) -> Result<Self, Trouble> {
        let turn = store_locks.writer(stop)?;
        Ok(Self { txn: env.write_txn()?, _turn: turn })
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
    /// Opens the store in the directory `path`, which exists; with `map_size` None as large as any process has had it. `number`: how many times
    /// it was opened before.
    pub(super) fn open(
        path: &Path,
        store_locks: Box<StoreLocks>,
        map_size: Option<usize>,
        flags: EnvFlags,
        number: u64,
        stop: &Stop,
    ) -> Result<Self, Trouble> {
        let data = path.join("data.mdb");
        look_at_head(&data)?;
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.max_readers(READERS);
        if let Some(size) = map_size {
            options.map_size(size);
        }
        let turn = store_locks.reader(stop)?;
        allocate_lock_file(&path.join("lock.mdb"))?;
        // SAFETY: the file is changed through LMDB only, by processes that keep to its locks: the directory is its owner's alone (0700), and
        // `is_sound` looks at its size before each use.
        let env = unsafe { options.flags(flags).open(path)? };
        drop(turn);
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
    /// The store was neither moved aside nor removed, and can be read.
    pub(super) fn is_sound(&self) -> Result<(), Trouble> {
        let found = fstat(&self.file).map_err(|e| heed::Error::Io(e.into()))?;
        if found.st_nlink == 0 || !Mode::from_raw_mode(found.st_mode).contains(Mode::WUSR) {
            return Err(Trouble::Stale);
        }
        is_whole(&self.env, &self.store_locks, self.stop, &self.file, u64::try_from(found.st_size).unwrap_or_default())
    }

    pub(super) fn read(&self) -> Result<RoTxn<'o, WithoutTls>, Trouble> {
        let _turn = self.store_locks.reader(self.stop)?;
        Ok(self.opened.env.read_txn()?)
    }

    pub(super) fn write(&self) -> Result<Writing<'o>, Trouble> {
        Writing::begin(&self.opened.env, &self.opened.store_locks, self.stop)
    }

    /// Readers that were killed hold on to old pages; whether there were any.
    pub(super) fn clear_dead_readers(&self) -> bool {
        self.store_locks.reader(self.stop).is_ok_and(|_turn| self.env.clear_stale_readers().is_ok_and(|n| n > 0))
    }
}
