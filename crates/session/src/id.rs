//! Identifiers of sessions, and the keys under which they are stored.
//!
//! Responsible for: identifiers that cannot be guessed, and keys that reveal neither the identifier nor the scope. Must never:
//! compare identifiers byte by byte. Called by: `src/session`.
use crate::error::Error;
use sha2::{Digest, Sha256};
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// Random bytes of an identifier.
const BYTES: usize = 20;
const LETTERS: usize = 2 * BYTES;
/// The longest session name that a framework may choose.
pub const LONGEST_NAME: usize = 128;

/// Prefix of the name of a scope's directory.
pub const DIRECTORY: &str = "scope-";

/// An identifier that mod_drover generated: 160 random bits of the system, as 40 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Id([u8; LETTERS]);

impl Id {
    /// A new identifier.
    pub fn new() -> Result<Self, Error> {
        let mut random = [0u8; BYTES];
        getrandom::fill(&mut random).map_err(|e| Error::Unavailable(format!("no random numbers: {e}")))?;
        let mut text = [0u8; LETTERS];
        for (pair, byte) in text.chunks_exact_mut(2).zip(random) {
            for (letter, digit) in pair.iter_mut().zip([byte >> 4, byte & 15]) {
                *letter = b"0123456789abcdef".get(usize::from(digit)).copied().unwrap_or(b'0');
            }
        }
        Ok(Self(text))
    }

    /// Parses an identifier from a client; `None`: mod_drover cannot have generated it.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let letters: [u8; LETTERS] = text.try_into().ok()?;
        letters.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')).then_some(Self(letters))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Prevents printing by accident.
impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Id(…)")
    }
}

/// The name under which a session is stored: SHA-256 of the length of the scope, the scope, and the identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(pub [u8; 32]);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Not the byte that `part` uses, which all keys of a part share.
        let [.., a, b, c, d, e, f, g, h] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

/// Hasher for tables of keys: a key is a hash already.
pub(crate) type ByKey = BuildHasherDefault<KeyHasher>;

/// The hasher of [`ByKey`].
#[derive(Debug, Default)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Key {
    /// The key of an identifier in a scope.
    #[must_use]
    pub fn derive(scope: &[u8], id: &Id) -> Self {
        Self::hash(scope, &id.0)
    }

    /// The key of a name that a framework chose: 1 to 128 letters, digits, `_` and `-`. `None`: not such a name.
    #[must_use]
    pub fn named(scope: &[u8], name: &[u8]) -> Option<Self> {
        let good = (1..=LONGEST_NAME).contains(&name.len()) && name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        good.then(|| Self::hash(scope, name))
    }

    /// Selects one of several parts; the same key always selects the same part.
    pub(crate) fn part<'p, T, const N: usize>(&self, parts: &'p [T; N]) -> &'p T {
        const { assert!(N > 0) };
        let [first, ..] = self.0;
        #[allow(clippy::indexing_slicing)] // the remainder is below N
        &parts[usize::from(first) % N]
    }

    fn hash(scope: &[u8], name: &[u8]) -> Self {
        let len = u64::try_from(scope.len()).unwrap_or(u64::MAX);
        Self(Sha256::new().chain_update(len.to_le_bytes()).chain_update(scope).chain_update(name).finalize().into())
    }
}

/// The name of an identifier in logs: 16 digits of a one-way hash.
#[must_use]
pub fn log_name(id: &[u8]) -> String {
    digits(Sha256::new().chain_update(b"log\0").chain_update(id))
}

/// The name of the directory of a scope's store.
#[must_use]
pub fn directory_name(scope: &[u8]) -> String {
    format!("{DIRECTORY}{}", digits(Sha256::new().chain_update(scope)))
}

fn digits(hash: Sha256) -> String {
    let number = hash.finalize().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    format!("{number:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_ours_or_nobodys() {
        let (a, b) = (Id::new().unwrap(), Id::new().unwrap());
        assert_ne!(a, b);
        assert_eq!(Id::parse(a.as_str().as_bytes()), Some(a));
        let upper = "A".repeat(40);
        for bad in ["", "0", upper.as_str(), &"0".repeat(39), &"0".repeat(41), &"g".repeat(40), &"é".repeat(20)] {
            assert_eq!(Id::parse(bad.as_bytes()), None, "{bad}");
        }
        assert!(!format!("{a:?}").contains(a.as_str()));
    }

    #[test]
    fn keys_tell_scopes_apart() {
        let id = Id::new().unwrap();
        assert_ne!(Key::derive(b"a", &id), Key::derive(b"b", &id));
        assert_ne!(Key::named(b"ab", b"c"), Key::named(b"a", b"bc"));
        assert_eq!(Key::named(b"a", id.as_str().as_bytes()), Some(Key::derive(b"a", &id)));
        for bad in [&b""[..], b"a/b", b"a b", b"\0", "é".as_bytes(), &[b'a'; 129]] {
            assert_eq!(Key::named(b"a", bad), None);
        }
        assert_eq!(log_name(b"x").len(), 16);
        assert_eq!(directory_name(b"abc"), "scope-ba7816bf8f01cfea");
    }
}
