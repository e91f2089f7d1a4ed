//! Sessions in the memory of one process.
//!
//! Responsible for: the speed of a map while the process is the exclusive owner ([`crate::owner`]),
//! and access to the disk while it is not; every session being on disk before another process reads
//! it. Must never: exceed its limit: the least recently used sessions move to disk. Called by:
//! [`crate::store`].
use crate::disk::Disk;
use crate::engine::{Engine, Figures, Put, Record, Swept};
use crate::error::Error;
use crate::id::{ByKey, Key};
use hashlink::LinkedHashMap;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeSet;

/// Parts of the map, each with its own lock.
const SHARDS: usize = 16;
/// Approximate bytes of a session besides its data.
const OVERHEAD: u64 = 200;
/// Sessions that are examined to find one to evict.
const MAX_LOOKS: usize = 1000;
/// Sessions that one transaction writes to disk.
const STEP: usize = 500;

/// The sessions, and the disk behind them.
#[derive(Debug)]
pub struct Memory {
    disk: Disk,
    shards: Box<[Mutex<Shard>; SHARDS]>,
    /// The limit of a shard, bytes.
    most: u64,
    exclusive: RwLock<bool>,
}

/// One part of the map, in order of last use.
#[derive(Debug, Default)]
struct Shard {
    slots: LinkedHashMap<Key, Slot, ByKey>,
    /// The sessions by the step of time in which they expire. A session that is used mostly keeps
    /// its step.
    ends: BTreeSet<(u64, Key)>,
    bytes: u64,
}

#[derive(Debug)]
struct Slot {
    record: Record,
    /// The record on disk, if any, is older.
    dirty: bool,
    /// The disk may have a record of this key.
    on_disk: bool,
}

/// Milliseconds in one step of `Shard::ends`.
const STEP_MS: u64 = 60_000;

/// The first step that ends after the record expires.
fn end(record: &Record) -> u64 {
    record.expires_ms().div_ceil(STEP_MS)
}

fn weight(record: &Record) -> u64 {
    OVERHEAD + record.data.len() as u64
}

impl Shard {
    fn insert(&mut self, key: Key, slot: Slot) {
        self.remove(&key);
        self.bytes += weight(&slot.record);
        self.ends.insert((end(&slot.record), key));
        self.slots.insert(key, slot);
    }

    fn remove(&mut self, key: &Key) -> Option<Slot> {
        let slot = self.slots.remove(key)?;
        self.ends.remove(&(end(&slot.record), *key));
        self.bytes = self.bytes.saturating_sub(weight(&slot.record));
        Some(slot)
    }

    /// Replaces a record in place. False: it does not fit.
    fn replace(&mut self, key: &Key, record: &Record, most: u64) -> bool {
        let Some(slot) = self.slots.get_mut(key) else { return false };
        let bytes = self.bytes.saturating_sub(weight(&slot.record)) + weight(record);
        if bytes > most {
            return false;
        }
        let (before, after) = (end(&slot.record), end(record));
        if before != after {
            self.ends.remove(&(before, *key));
            self.ends.insert((after, *key));
        }
        self.bytes = bytes;
        slot.record.clone_from(record);
        slot.dirty = true;
        true
    }

    /// Makes room: sessions are on disk before they leave memory.
    fn make_room(&mut self, bytes: u64, most: u64, disk: &Disk) -> Result<(), Error> {
        while self.bytes + bytes > most {
            let Some((key, slot)) = self.slots.front() else { return Ok(()) };
            let key = *key;
            match if slot.dirty { disk.put(&key, &slot.record, Put::Any, 0) } else { Ok(()) } {
                Ok(()) => self.remove(&key),
                // The disk is full: as on disk, sessions that were never used again are evicted
                // first.
                Err(Error::Full) => {
                    let unused = |(_, slot): &(&Key, &Slot)| slot.record.is_unused() && !slot.on_disk;
                    let Some(key) = self.slots.iter().take(MAX_LOOKS).find(unused).map(|(key, _)| *key) else { return Err(Error::Full) };
                    disk.note_evicted(1);
                    self.remove(&key)
                }
                Err(e) => return Err(e),
            };
        }
        Ok(())
    }
}

impl Memory {
    /// Empty; passes everything to the disk until [`Memory::begin_exclusive`].
    #[must_use]
    pub fn new(disk: Disk, bytes: u64) -> Self {
        let shards = Box::new(std::array::from_fn(|_| Mutex::default()));
        Self { disk, shards, most: bytes / SHARDS as u64, exclusive: RwLock::new(false) }
    }

    fn shard(&self, key: &Key) -> &Mutex<Shard> {
        key.part(&self.shards)
    }

    /// This process is the exclusive owner from now on.
    pub fn begin_exclusive(&self) {
        let mut exclusive = self.exclusive.write();
        for shard in self.shards.iter() {
            *shard.lock() = Shard::default();
        }
        *exclusive = true;
    }

    /// Other processes will use the disk: writes everything to it. The error has the number of
    /// sessions that are lost.
    pub fn end_exclusive(&self) -> Result<(), (usize, Error)> {
        let mut exclusive = self.exclusive.write();
        if !std::mem::take(&mut *exclusive) {
            return Ok(());
        }
        let mut lost = None;
        for shard in self.shards.iter() {
            let shard = std::mem::take(&mut *shard.lock());
            let dirty: Vec<(Key, &Record)> =
                shard.slots.iter().filter(|(_, slot)| slot.dirty).map(|(key, slot)| (*key, &slot.record)).collect();
            for step in dirty.chunks(STEP) {
                if self.disk.put_all(step).is_ok() {
                    continue;
                }
                // Some of them may fit.
                for (key, record) in step {
                    if let Err(e) = self.disk.put_at_last(key, record) {
                        lost = Some((lost.map_or(1, |(n, _)| n + 1), e));
                    }
                }
            }
        }
        lost.map_or(Ok(()), Err)
    }

    /// The record in memory, else the one on disk, marked as used. The shard is locked throughout,
    /// so that no old record from the disk replaces a newer one.
    fn find<'s>(&self, shard: &'s mut Shard, key: &Key, now_ms: u64) -> Result<Found<'s>, Error> {
        // Moves it to the end of the order.
        if shard.slots.to_back(key).is_none() {
            let Some(record) = self.disk.load(key, now_ms)? else { return Ok(Found::Nothing) };
            // Memory has no room, as sessions cannot be written to disk; reading must not fail for
            // that.
            if shard.make_room(weight(&record), self.most, &self.disk).is_err() {
                return Ok(Found::OnDisk(record));
            }
            shard.insert(*key, Slot { record, dirty: false, on_disk: true });
        }
        Ok(shard.slots.get(key).map_or(Found::Nothing, Found::Here))
    }
}

/// A record, and where it is.
enum Found<'s> {
    Nothing,
    Here(&'s Slot),
    /// It does not fit into memory.
    OnDisk(Record),
}

impl Found<'_> {
    fn record(&self) -> Option<&Record> {
        match self {
            Self::Nothing => None,
            Self::Here(slot) => Some(&slot.record),
            Self::OnDisk(record) => Some(record),
        }
    }
}

impl Memory {
    fn sweep_shard(&self, shard: &mut Shard, now_ms: u64, budget: usize) -> Result<usize, Error> {
        let mut removed = 0;
        while removed < budget
            && let Some((end, key)) = shard.ends.first().copied().filter(|(end, _)| end.saturating_mul(STEP_MS) <= now_ms)
        {
            if shard.slots.get(&key).is_some_and(|slot| slot.on_disk) {
                self.disk.remove(&key, now_ms)?;
            }
            shard.remove(&key);
            shard.ends.remove(&(end, key));
            removed += 1;
        }
        Ok(removed)
    }
}

impl Engine for Memory {
    fn load(&self, key: &Key, now_ms: u64) -> Result<Option<Record>, Error> {
        let exclusive = self.exclusive.read();
        if !*exclusive {
            return self.disk.load(key, now_ms);
        }
        let mut shard = self.shard(key).lock();
        let found = self.find(&mut shard, key, now_ms)?;
        Ok(found.record().filter(|record| !record.is_expired(now_ms)).cloned())
    }

    fn put(&self, key: &Key, record: &Record, how: Put, now_ms: u64) -> Result<(), Error> {
        let exclusive = self.exclusive.read();
        if !*exclusive {
            return self.disk.put(key, record, how, now_ms);
        }
        let mut shard = self.shard(key).lock();
        let found = self.find(&mut shard, key, now_ms)?;
        let lives = found.record().is_some_and(|record| !record.is_expired(now_ms));
        match how {
            Put::Create if lives => return Err(Error::Exists),
            Put::Replace if !lives => return Err(Error::Missing),
            _ => {}
        }
        // An expired record on disk is not found above; a sweep of the disk removes it, or a newer
        // record replaces it.
        let on_disk = match found {
            Found::Nothing => false,
            Found::Here(slot) => slot.on_disk,
            Found::OnDisk(_) => true,
        };
        if shard.replace(key, record, self.most) {
            return Ok(());
        }
        if let Some(old) = shard.remove(key)
            && let Err(e) = shard.make_room(weight(record), self.most, &self.disk)
        {
            shard.insert(*key, old);
            return Err(e);
        }
        shard.make_room(weight(record), self.most, &self.disk)?;
        shard.insert(*key, Slot { record: record.clone(), dirty: true, on_disk });
        Ok(())
    }

    fn touch(&self, key: &Key, accessed_ms: u64) -> Result<(), Error> {
        let exclusive = self.exclusive.read();
        if !*exclusive {
            return self.disk.touch(key, accessed_ms);
        }
        let mut shard = self.shard(key).lock();
        if matches!(self.find(&mut shard, key, accessed_ms)?, Found::OnDisk(_)) {
            return self.disk.touch(key, accessed_ms);
        }
        if let Some(mut slot) = shard.remove(key) {
            slot.record.accessed_ms = slot.record.accessed_ms.max(accessed_ms);
            slot.dirty = true;
            shard.insert(*key, slot);
        }
        Ok(())
    }

    fn remove(&self, key: &Key, now_ms: u64) -> Result<bool, Error> {
        let exclusive = self.exclusive.read();
        if !*exclusive {
            return self.disk.remove(key, now_ms);
        }
        let mut shard = self.shard(key).lock();
        // The disk first: if that fails, memory still has the newest record, and no older one
        // reappears.
        let lived = match shard.slots.get(key) {
            Some(slot) if !slot.on_disk => false,
            _ => self.disk.remove(key, now_ms)?,
        };
        Ok(shard.remove(key).map_or(lived, |slot| !slot.record.is_expired(now_ms)))
    }

    fn sweep(&self, now_ms: u64, budget: usize) -> Result<Swept, Error> {
        let exclusive = self.exclusive.read();
        let mut swept = Swept::default();
        if *exclusive {
            for shard in self.shards.iter() {
                swept.removed += self.sweep_shard(&mut shard.lock(), now_ms, budget.saturating_sub(swept.removed))?;
            }
            swept.more = swept.removed >= budget;
        }
        let disk = self.disk.sweep(now_ms, budget)?;
        Ok(Swept { removed: swept.removed + disk.removed, more: swept.more || disk.more })
    }

    fn sync(&self) -> Result<(), Error> {
        self.disk.sync()
    }

    fn figures(&self) -> Result<Figures, Error> {
        let _exclusive = self.exclusive.read();
        let disk = self.disk.figures()?;
        let mut figures = Figures { sessions: disk.sessions, bytes: disk.bytes };
        for shard in self.shards.iter() {
            let shard = shard.lock();
            figures.sessions += shard.slots.values().filter(|slot| !slot.on_disk).count() as u64;
            figures.bytes += shard.bytes;
        }
        Ok(figures)
    }
}
