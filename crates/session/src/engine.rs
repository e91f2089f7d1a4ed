//! What an engine is: the trait, records, errors.
//!
//! Responsible for: the meaning that all engines share (tests/store.rs holds them to it). Must never: read a clock; times are given.
//! Called by: [`crate::store`]; implemented by [`crate::disk`], [`crate::memory`] and httpd's socache.
use crate::error::Error;
use crate::id::Key;

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When it began, milliseconds since 1970.
    pub created_ms: u64,
    /// When it was used last, as far as that has been written.
    pub accessed_ms: u64,
    /// Seconds without use after which it is over.
    pub timeout_s: u32,
    /// What the application keeps in it.
    pub data: Vec<u8>,
}

/// Bytes of a record before its data: a check sum, then the three numbers.
const HEADER: usize = 4 + 8 + 8 + 4;

impl Record {
    /// The first millisecond at which it is over.
    #[must_use]
    pub fn expires_ms(&self) -> u64 {
        self.accessed_ms.saturating_add(u64::from(self.timeout_s) * 1000)
    }

    /// Whether it was never used after the request that made it.
    #[must_use]
    pub const fn is_unused(&self) -> bool {
        self.accessed_ms <= self.created_ms
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_expired(&self, now_ms: u64) -> bool {
        now_ms >= self.expires_ms()
    }

    /// As it is stored: check sum (CRC-32 of the rest), created, accessed, timeout, data; numbers little-endian.
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

    /// Reads what [`Record::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let damaged = || Error::Damaged("a record does not match its check sum".into());
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

/// What is expected to be there before something is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// Nothing that lives: else [`Error::Exists`].
    Create,
    /// A session that lives: else [`Error::Missing`].
    Replace,
    /// Whatever.
    Any,
}

/// What a sweep has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Sessions removed.
    pub removed: usize,
    /// There is more to do.
    pub more: bool,
}

/// For the log and the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Sessions, expired ones that no sweep has found yet included.
    pub sessions: u64,
    /// Bytes they take in memory or on disk.
    pub bytes: u64,
}

/// Where sessions are kept. All methods may be called by many threads at once.
pub trait Engine: Send + Sync {
    /// A session that lives.
    fn load(&self, key: &Key, now_ms: u64) -> Result<Option<Record>, Error>;
    /// Stores one. After an error the old value is still there.
    fn put(&self, key: &Key, record: &Record, how: Put, now_ms: u64) -> Result<(), Error>;
    /// Sets when a session was used last, if it is there.
    fn touch(&self, key: &Key, accessed_ms: u64) -> Result<(), Error>;
    /// Removes one; whether it lived.
    fn remove(&self, key: &Key, now_ms: u64) -> Result<bool, Error>;
    /// Removes expired sessions, looking at `budget` of them at most.
    fn sweep(&self, now_ms: u64, budget: usize) -> Result<Swept, Error>;
    /// Makes what has been stored survive the machine's sudden death, where the engine can.
    fn sync(&self) -> Result<(), Error>;
    /// Figures; may cost a little.
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
