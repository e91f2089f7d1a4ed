//! The keys of records and their index in the table, and the operations on both.
//!
//! Responsible for: a record and its index entry changing in one transaction. Must never: begin or
//! end one. Called by: [`super`].
use super::environment::Opened;
use super::trouble::Trouble;
use crate::engine::{Record, Swept};
use crate::id::Key;
use heed::{AnyTls, RoTxn, RwTxn};

/// Milliseconds of one step of the index.
const STEP_MS: u64 = 60_000;
/// Key prefixes: the records, and the index of those that were used again and of those that were
/// not.
const RECORDS: u8 = b'r';
const INDEX: u8 = b'e';
const UNUSED: u8 = b'f';
const NOTHING: u8 = b'n';
const INDEXES: [u8; 2] = [INDEX, UNUSED];
/// The prefix, the minute of expiry, the key.
type IndexKey = [u8; 41];

/// The key of a record in the table.
pub(super) fn record_key(key: &Key) -> [u8; 33] {
    let mut out = [RECORDS; 33];
    out[1..].copy_from_slice(&key.0);
    out
}

/// What the index needs of a record.
#[derive(Clone, Copy)]
pub(super) struct Indexed {
    pub(super) expires_ms: u64,
    unused: bool,
}

impl From<&Record> for Indexed {
    fn from(record: &Record) -> Self {
        Self { expires_ms: record.expires_ms(), unused: record.is_unused() }
    }
}

/// The key of its index entry in the table.
fn index_key(indexed: Indexed, key: &Key) -> IndexKey {
    let mut out = [if indexed.unused { UNUSED } else { INDEX }; 41];
    let (minute, rest) = out[1..].split_at_mut(8);
    minute.copy_from_slice(&indexed.expires_ms.div_ceil(STEP_MS).to_be_bytes());
    rest.copy_from_slice(&key.0);
    out
}

/// The minute of an index entry.
fn minute_of(entry: &[u8]) -> Option<u64> {
    entry.get(1..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// When a stored record expires.
pub(super) fn expiry(bytes: &[u8]) -> Option<u64> {
    indexed(bytes).map(|indexed| indexed.expires_ms)
}

/// Reads that from the first bytes of a stored record.
fn indexed(bytes: &[u8]) -> Option<Indexed> {
    let created = bytes.get(4..12)?.first_chunk().map(|b| u64::from_le_bytes(*b))?;
    let accessed = bytes.get(12..20)?.first_chunk().map(|b| u64::from_le_bytes(*b))?;
    let timeout = bytes.get(20..24)?.first_chunk().map(|b| u32::from_le_bytes(*b))?;
    Some(Indexed::from(&Record { created_ms: created, accessed_ms: accessed, timeout_s: timeout, data: Vec::new() }))
}

impl Opened {
    /// Stores a record and moves its index entry.
    pub(super) fn replace(&self, txn: &mut RwTxn<'_>, key: &Key, record: &Record) -> Result<(), Trouble> {
        let new = index_key(record.into(), key);
        let place = record_key(key);
        let old = self.table.get(txn, &place)?.and_then(indexed).map(|indexed| index_key(indexed, key));
        if old != Some(new) {
            if let Some(old) = old {
                self.table.delete(txn, &old)?;
            }
            self.table.put(txn, &new, &[])?;
        }
        self.table.put(txn, &place, &record.encode())?;
        Ok(())
    }

    /// Pages that records and index take.
    pub(super) fn pages(&self, txn: &RoTxn<'_, AnyTls>) -> Result<usize, Trouble> {
        let stat = self.table.stat(txn)?;
        Ok(stat.branch_pages + stat.leaf_pages + stat.overflow_pages)
    }

    /// Makes the commit of a transaction that changes nothing a real one.
    pub(super) fn change_nothing(&self, txn: &mut RwTxn<'_>) -> Result<(), Trouble> {
        self.table.put(txn, &[NOTHING], &[])?;
        self.table.delete(txn, &[NOTHING])?;
        Ok(())
    }

    /// Removes a record; returns when it would have expired.
    pub(super) fn delete(&self, txn: &mut RwTxn<'_>, key: &Key) -> Result<Option<u64>, Trouble> {
        let place = record_key(key);
        let indexed = self.table.get(txn, &place)?.and_then(indexed);
        if let Some(indexed) = indexed {
            self.table.delete(txn, &index_key(indexed, key))?;
        }
        self.table.delete(txn, &place)?;
        Ok(indexed.map(|indexed| indexed.expires_ms))
    }

    /// Whether [`Opened::sweep`] may find anything.
    pub(super) fn has_expired(&self, txn: &RoTxn<'_, AnyTls>, now_ms: u64) -> Result<bool, Trouble> {
        for index in INDEXES {
            let first = self.table.prefix_iter(txn, &[index])?.next().transpose()?.and_then(|(entry, _)| minute_of(entry));
            if first.is_some_and(|minute| minute.saturating_mul(STEP_MS) <= now_ms) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes at most `budget` sessions that were never used again, except `except`, the oldest
    /// first.
    pub(super) fn evict(&self, txn: &mut RwTxn<'_>, except: &Key, budget: usize) -> Result<usize, Trouble> {
        let mut found: Vec<Key> = Vec::new();
        for entry in self.table.prefix_iter(txn, &[UNUSED])? {
            if found.len() >= budget {
                break;
            }
            let (entry, _) = entry?;
            found.extend(entry.last_chunk().map(|bytes| Key(*bytes)).filter(|key| key != except));
        }
        for key in &found {
            self.delete(txn, key)?;
        }
        Ok(found.len())
    }

    /// Removes expired sessions, with at most `budget` entries examined.
    pub(super) fn sweep(&self, txn: &mut RwTxn<'_>, now_ms: u64, budget: usize) -> Result<Swept, Trouble> {
        let mut found: Vec<IndexKey> = Vec::new();
        let mut more = false;
        for index in INDEXES {
            for entry in self.table.prefix_iter(txn, &[index])? {
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
        }
        let mut removed = 0;
        for entry in found {
            let Some(key) = entry.last_chunk().map(|b| Key(*b)) else { continue };
            match self.table.get(txn, &record_key(&key))?.and_then(indexed) {
                Some(indexed) if indexed.expires_ms <= now_ms => {
                    self.table.delete(txn, &record_key(&key))?;
                    removed += 1;
                }
                // It is live: its index entry was wrong.
                Some(indexed) => self.table.put(txn, &index_key(indexed, &key), &[])?,
                None => {}
            }
            self.table.delete(txn, &entry)?;
        }
        Ok(Swept { removed, more })
    }
}
