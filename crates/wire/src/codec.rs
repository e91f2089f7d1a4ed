//! Reading numbers and byte strings from a message without ever panicking.
//!
//! Responsible for: bounds. Must never: allocate by a length it has not checked. Called by: the other files here.
use std::fmt;

/// What is wrong with the bytes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireError {
    /// The message ends in the middle of the named part.
    Short(&'static str),
    /// The message does not begin with our magic number.
    NotOurs,
    /// The other side speaks another protocol number.
    Protocol(u16),
    /// The named part has a value that it cannot have.
    Bad(&'static str),
    /// The named part is larger than its limit.
    TooLarge(&'static str),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short(part) => write!(f, "message cut short in {part}"),
            Self::NotOurs => f.write_str("not a mod_drover message"),
            Self::Protocol(theirs) => write!(
                f,
                "the other side speaks protocol {theirs}, this one {}: parts of two versions run together; stop and start httpd",
                crate::PROTOCOL
            ),
            Self::Bad(part) => write!(f, "invalid {part}"),
            Self::TooLarge(part) => write!(f, "{part} is larger than allowed"),
        }
    }
}

impl std::error::Error for WireError {}

/// A cursor over received bytes. Every `take_*` either yields a value or says which part was cut short.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been taken yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Takes what every message begins with: its magic number, and the number of the protocol that the sender speaks.
    pub fn opening(&mut self, magic: u32) -> Result<(), WireError> {
        if self.u32("magic")? != magic {
            return Err(WireError::NotOurs);
        }
        match self.u16("protocol")? {
            crate::PROTOCOL => Ok(()),
            theirs => Err(WireError::Protocol(theirs)),
        }
    }

    /// Takes `n` bytes.
    pub fn take(&mut self, n: usize, part: &'static str) -> Result<&'a [u8], WireError> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or(WireError::Short(part))?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self, part: &'static str) -> Result<[u8; N], WireError> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(WireError::Short(part))?;
        self.rest = tail;
        Ok(*head)
    }

    /// Takes one byte.
    pub fn u8(&mut self, part: &'static str) -> Result<u8, WireError> {
        self.array::<1>(part).map(|[b]| b)
    }

    /// Takes a number of two bytes (this machine's order: messages never leave it).
    pub fn u16(&mut self, part: &'static str) -> Result<u16, WireError> {
        self.array(part).map(u16::from_ne_bytes)
    }

    /// Takes a number of four bytes.
    pub fn u32(&mut self, part: &'static str) -> Result<u32, WireError> {
        self.array(part).map(u32::from_ne_bytes)
    }

    /// Takes a number of eight bytes.
    pub fn u64(&mut self, part: &'static str) -> Result<u64, WireError> {
        self.array(part).map(u64::from_ne_bytes)
    }

    /// Takes a byte string behind a two-byte length.
    pub fn short_bytes(&mut self, part: &'static str) -> Result<&'a [u8], WireError> {
        let n = self.u16(part)?;
        self.take(usize::from(n), part)
    }

    /// Takes a byte string behind a four-byte length.
    pub fn long_bytes(&mut self, part: &'static str) -> Result<&'a [u8], WireError> {
        let n = self.u32(part)?;
        self.take(n as usize, part)
    }
}

/// Appends a byte string behind a two-byte length.
pub(crate) fn put_short(out: &mut Vec<u8>, bytes: &[u8], part: &'static str) -> Result<(), WireError> {
    let n = u16::try_from(bytes.len()).map_err(|_| WireError::TooLarge(part))?;
    out.extend_from_slice(&n.to_ne_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// Appends a byte string behind a four-byte length.
pub(crate) fn put_long(out: &mut Vec<u8>, bytes: &[u8], part: &'static str) -> Result<(), WireError> {
    let n = u32::try_from(bytes.len()).map_err(|_| WireError::TooLarge(part))?;
    out.extend_from_slice(&n.to_ne_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}
