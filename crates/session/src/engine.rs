//! What an engine is: the trait and its records.
//!
//! Responsible for: the semantics that all engines share (tests/store.rs checks them). Must never: read a clock; callers pass times.
//! Called by: [`crate::store`]; implemented by [`crate::disk`], [`crate::memory`] and httpd's socache.
use crate::error::Error;
use crate::id::Key;

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When it was created, milliseconds since 1970.
    pub created_ms: u64,
    /// When it was last used, as far as that was written.
    pub accessed_ms: u64,
    /// Seconds without use after which it expires.
    pub timeout_s: u32,
    /// The application's data.
    pub data: Vec<u8>,
}

/// Bytes of a record before its data: a checksum, then the three numbers.
const HEADER: usize = 4 + 8 + 8 + 4;

impl Record {
    /// The first millisecond at which it has expired.
    #[must_use]
    pub fn expires_ms(&self) -> u64 {
        self.accessed_ms.saturating_add(u64::from(self.timeout_s) * 1000)
    }

    /// Whether it was never used after the request that created it.
    #[must_use]
    pub const fn is_unused(&self) -> bool {
        self.accessed_ms <= self.created_ms
    }

    /// Whether it has expired.
    #[must_use]
    pub fn is_expired(&self, now_ms: u64) -> bool {
        now_ms >= self.expires_ms()
    }

    /// The stored form: checksum (CRC-32 of the rest), created, accessed, timeout, data; numbers little-endian.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.data.len());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.created_ms.to_le_bytes());
        out.extend_from_slice(&self.accessed_ms.to_le_bytes());
        out.extend_from_slice(&self.timeout_s.to_le_bytes());
        out.extend_from_slice(&self.data);
        let sum = crc32fast::hash(out.get(4..).unwrap_or_default());
        if let Some(place) = out.first_chunk_mut() {
            *place = sum.to_le_bytes();
        }
        out
    }

    /// Decodes the form of [`Record::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let damaged = || Error::Damaged("a record does not match its checksum".into());
        let (sum, rest) = bytes.split_first_chunk().ok_or_else(damaged)?;
        if u32::from_le_bytes(*sum) != crc32fast::hash(rest) {
            return Err(damaged());
        }
        let (created, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
        let (accessed, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
        let (timeout, data) = rest.split_first_chunk().ok_or_else(damaged)?;
        Ok(Self {
            created_ms: u64::from_le_bytes(*created),
            accessed_ms: u64::from_le_bytes(*accessed),
            timeout_s: u32::from_le_bytes(*timeout),
            data: data.to_vec(),
        })
    }
}

/// The condition for a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// No live session has the key, else [`Error::Exists`].
    Create,
    /// A live session has the key, else [`Error::Missing`].
    Replace,
    /// No condition.
    Any,
}

/// The result of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Sessions removed.
    pub removed: usize,
    /// Whether expired sessions remain.
    pub more: bool,
}

/// Figures for the log and the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Sessions, including expired ones that no sweep has removed yet.
    pub sessions: u64,
    /// Bytes they take in memory or on disk.
    pub bytes: u64,
}

/// A place where sessions are stored. Many threads may call all methods at once.
pub trait Engine: Send + Sync {
    /// Loads a live session.
    fn load(&self, key: &Key, now_ms: u64) -> Result<Option<Record>, Error>;
    /// Stores a session. After an error the old value is unchanged.
    fn put(&self, key: &Key, record: &Record, how: Put, now_ms: u64) -> Result<(), Error>;
    /// Sets when a session was last used, if it exists.
    fn touch(&self, key: &Key, accessed_ms: u64) -> Result<(), Error>;
    /// Removes a session; returns whether it was live.
    fn remove(&self, key: &Key, now_ms: u64) -> Result<bool, Error>;
    /// Removes at most `budget` expired sessions.
    fn sweep(&self, now_ms: u64, budget: usize) -> Result<Swept, Error>;
    /// Makes all changes survive a crash of the machine, where the engine can.
    fn sync(&self) -> Result<(), Error>;
    /// Figures; slower than a load.
    fn figures(&self) -> Result<Figures, Error>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_come_back_and_damage_is_seen(created: u64, accessed: u64, timeout: u32, data: Vec<u8>, at: prop::sample::Index, bit in 0..8u8) {
            let record = Record { created_ms: created, accessed_ms: accessed, timeout_s: timeout, data };
            let mut bytes = record.encode();
            prop_assert_eq!(&Record::decode(&bytes).unwrap(), &record);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(Record::decode(&bytes).is_err());
            prop_assert!(Record::decode(&bytes[..at]).is_err());
        }
    }

    #[test]
    fn the_end_comes_at_its_millisecond() {
        let record = Record { created_ms: 0, accessed_ms: 500, timeout_s: 2, data: vec![] };
        assert_eq!((record.is_expired(2499), record.is_expired(2500)), (false, true));
        assert!(!Record { accessed_ms: u64::MAX, ..record }.is_expired(u64::MAX - 1));
    }
}
