//! Where records and their index stand in the table, and the operations on both together.
//!
//! Responsible for: a record and its entry in the index changing in one transaction. Must never: begin or end one. Called by: [`super`].
use super::environment::Opened;
use super::trouble::Trouble;
use crate::engine::{Record, Swept};
use crate::id::Key;
use heed::{AnyTls, RoTxn, RwTxn};

/// Milliseconds in one step of the index.
const STEP_MS: u64 = 60_000;
/// The two parts of the table.
const RECORDS: u8 = b'r';
const INDEX: u8 = b'e';
/// The part, the minute of expiry, the key.
type IndexKey = [u8; 41];

/// Where a record stands in the table.
pub(super) fn record_key(key: &Key) -> [u8; 33] {
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
pub(super) fn expiry(bytes: &[u8]) -> Option<u64> {
    let accessed = bytes.get(12..20)?.first_chunk().map(|b| u64::from_le_bytes(*b))?;
    let timeout = bytes.get(20..24)?.first_chunk().map(|b| u32::from_le_bytes(*b))?;
    Some(Record { created_ms: 0, accessed_ms: accessed, timeout_s: timeout, data: Vec::new() }.expires_ms())
}

impl Opened {
    /// Puts a record and moves its entry in the index.
    pub(super) fn replace(&self, txn: &mut RwTxn<'_>, key: &Key, record: &Record) -> Result<(), Trouble> {
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

    /// Removes a record: when it would have expired.
    pub(super) fn delete(&self, txn: &mut RwTxn<'_>, key: &Key) -> Result<Option<u64>, Trouble> {
        let place = record_key(key);
        let expires = self.table.get(txn, &place)?.and_then(expiry);
        if let Some(expires) = expires {
            self.table.delete(txn, &index_key(expires, key))?;
        }
        self.table.delete(txn, &place)?;
        Ok(expires)
    }

    /// Whether there may be anything for [`Opened::sweep`].
    pub(super) fn has_expired(&self, txn: &RoTxn<'_, AnyTls>, now_ms: u64) -> Result<bool, Trouble> {
        let first = self.table.prefix_iter(txn, &[INDEX])?.next().transpose()?.and_then(|(entry, _)| minute_of(entry));
        Ok(first.is_some_and(|minute| minute.saturating_mul(STEP_MS) <= now_ms))
    }

    /// Removes what has expired, after a look at no more than `budget` entries.
    pub(super) fn sweep(&self, txn: &mut RwTxn<'_>, now_ms: u64, budget: usize) -> Result<Swept, Trouble> {
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
