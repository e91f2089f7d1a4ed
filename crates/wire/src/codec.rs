//! Reading numbers and byte strings from a message.
//!
//! Responsible for: bounds. Must never: panic, or allocate by a length that was not checked. Called
//! by: the other files here.
use std::fmt;

/// What is wrong with the bytes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireError {
    /// The message ends within the named part.
    Short(&'static str),
    /// The message does not begin with the magic number.
    NotOurs,
    /// The sender uses another protocol.
    Protocol(u16),
    /// The named part has an invalid value.
    Bad(&'static str),
    /// The named part is larger than its limit.
    TooLarge(&'static str),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short(part) => write!(f, "message truncated in: {part}"),
            Self::NotOurs => f.write_str("not a mod_drover message"),
            Self::Protocol(theirs) => write!(
                f,
                "the sender uses protocol {theirs}, the receiver protocol {}: two versions are running; stop and start httpd",
                crate::PROTOCOL
            ),
            Self::Bad(part) => write!(f, "invalid {part}"),
            Self::TooLarge(part) => write!(f, "{part} is larger than allowed"),
        }
    }
}

impl std::error::Error for WireError {}

/// A cursor over received bytes. Every method returns a value, or an error that names the part that
/// is truncated.
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

    /// The bytes that were not taken yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Takes the start of every message: its magic number, and the number of the sender's protocol.
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

    /// Takes a number of two bytes, in this machine's byte order: messages never leave it.
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

    /// Takes a byte string after its two-byte length.
    pub fn short_bytes(&mut self, part: &'static str) -> Result<&'a [u8], WireError> {
        let n = self.u16(part)?;
        self.take(usize::from(n), part)
    }

    /// Takes a byte string after its four-byte length.
    pub fn long_bytes(&mut self, part: &'static str) -> Result<&'a [u8], WireError> {
        let n = self.u32(part)?;
        self.take(n as usize, part)
    }
}

/// Appends a byte string after its two-byte length.
pub(crate) fn put_short(out: &mut Vec<u8>, bytes: &[u8], part: &'static str) -> Result<(), WireError> {
    let n = u16::try_from(bytes.len()).map_err(|_| WireError::TooLarge(part))?;
    out.extend_from_slice(&n.to_ne_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// Appends a byte string after its four-byte length.
pub(crate) fn put_long(out: &mut Vec<u8>, bytes: &[u8], part: &'static str) -> Result<(), WireError> {
    let n = u32::try_from(bytes.len()).map_err(|_| WireError::TooLarge(part))?;
    out.extend_from_slice(&n.to_ne_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}
