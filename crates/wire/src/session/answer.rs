//! httpd's answers to the application's session.
//!
//! Responsible for: the layout of each answer. Must never: hold a copy of the data. Called by:
//! `src/session` (encodes), the worker (decodes).
use super::{MAX_DATA, MAX_TEXT, ended, put_key, put_name, take_bool, take_data, take_key, take_name};
use crate::codec::{Reader, WireError};

/// The result; the code of the frame to the worker. The payload of all but `Ok` is one line of text
/// for the exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Status {
    /// Success; the payload is the operation's result.
    Ok = 0,
    /// Another request held the lock until DroverSessionLockTimeout.
    LockTimeout = 1,
    /// The store is not available or is damaged.
    Unavailable = 2,
    /// More data than DroverSessionMaxSize allows.
    TooLarge = 3,
    /// [`Put::Create`](super::Put::Create), and a living session has that key.
    Exists = 4,
    /// [`Put::Replace`](super::Put::Replace), and no living session has that key.
    Missing = 5,
    /// DroverSession is off for this request.
    Off = 6,
    /// A cookie must be set or deleted, but the response headers were sent.
    HeadSent = 7,
    /// The key is not 1 to 128 letters, digits, `_` and `-`.
    BadKey = 8,
    /// The store is full.
    Full = 9,
}

impl Status {
    /// The status with this number; an unknown one counts as `Unavailable`.
    #[must_use]
    pub const fn from_code(code: u16) -> Self {
        match code {
            0 => Self::Ok,
            1 => Self::LockTimeout,
            3 => Self::TooLarge,
            4 => Self::Exists,
            5 => Self::Missing,
            6 => Self::Off,
            7 => Self::HeadSent,
            8 => Self::BadKey,
            9 => Self::Full,
            _ => Self::Unavailable,
        }
    }
}

/// The format of a session's data (DroverSessionSerializer).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Serializer {
    /// JSON.
    Json = 0,
    /// Python's pickle.
    Pickle = 1,
    /// MessagePack.
    Msgpack = 2,
}

/// The answer to [`Request::Open`](super::Request::Open).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened<'a> {
    /// The session's key; `None` when the cookie names no living session.
    pub id: Option<&'a str>,
    /// DroverSessionTimeout.
    pub default_timeout_s: u32,
    /// DroverSessionSerializer.
    pub serializer: Serializer,
    /// DroverSessionMaxSize.
    pub max_size: u32,
    /// The name of the engine, for display.
    pub engine: &'a str,
    /// The stored session, if it exists.
    pub record: Option<Stored<'a>>,
}

/// A stored session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored<'a> {
    /// When it was created, milliseconds since 1970.
    pub created_ms: u64,
    /// When it was last used, milliseconds since 1970.
    pub accessed_ms: u64,
    /// Seconds without access after which it expires.
    pub timeout_s: u32,
    /// Its data, serialized.
    pub data: &'a [u8],
}

impl<'a> Opened<'a> {
    /// Appends everything but the data, which follow.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        put_key(out, self.id)?;
        out.extend_from_slice(&self.default_timeout_s.to_ne_bytes());
        out.push(self.serializer as u8);
        out.extend_from_slice(&self.max_size.to_ne_bytes());
        put_name(out, self.engine)?;
        let Some(record) = &self.record else {
            out.push(0);
            return Ok(());
        };
        if record.data.len() > MAX_DATA {
            return Err(WireError::TooLarge("session data"));
        }
        out.push(1);
        out.extend_from_slice(&record.created_ms.to_ne_bytes());
        out.extend_from_slice(&record.accessed_ms.to_ne_bytes());
        out.extend_from_slice(&record.timeout_s.to_ne_bytes());
        Ok(())
    }

    /// Decodes the payload of an answer with [`Status::Ok`].
    pub fn decode(payload: &'a [u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(payload);
        let id = take_key(&mut r)?;
        let default_timeout_s = r.u32("timeout")?;
        let serializer = match r.u8("serializer")? {
            0 => Serializer::Json,
            1 => Serializer::Pickle,
            2 => Serializer::Msgpack,
            _ => return Err(WireError::Bad("serializer")),
        };
        let max_size = r.u32("largest size")?;
        let engine = take_name(&mut r, "engine")?.ok_or(WireError::Bad("engine"))?;
        let opened = Self { id, default_timeout_s, serializer, max_size, engine, record: None };
        if !take_bool(&mut r)? {
            return ended(&r, opened);
        }
        let (created_ms, accessed_ms, timeout_s) = (r.u64("time")?, r.u64("time")?, r.u32("timeout")?);
        Ok(Self { record: Some(Stored { created_ms, accessed_ms, timeout_s, data: take_data(&r)? }), ..opened })
    }
}

/// The answer to [`Request::Save`](super::Request::Save): the session's key.
pub fn encode_key(out: &mut Vec<u8>, key: &str) -> Result<(), WireError> {
    put_key(out, Some(key))
}

/// Decodes the form of [`encode_key`].
pub fn decode_key(payload: &[u8]) -> Result<&str, WireError> {
    let mut r = Reader::new(payload);
    let key = take_key(&mut r)?.ok_or(WireError::Bad("session key"))?;
    ended(&r, key)
}

/// The answer to [`Request::Remove`](super::Request::Remove) and [`Request::Exists`](super::Request::Exists).
pub fn encode_bool(out: &mut Vec<u8>, yes: bool) {
    out.push(u8::from(yes));
}

/// Decodes the form of [`encode_bool`].
pub fn decode_bool(payload: &[u8]) -> Result<bool, WireError> {
    let mut r = Reader::new(payload);
    let yes = take_bool(&mut r)?;
    ended(&r, yes)
}

/// The payload of an answer that is not [`Status::Ok`]: the text, truncated to its limit.
#[must_use]
pub fn error_text(text: &str) -> &str {
    let cut = (0..=MAX_TEXT.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    text.get(..cut).unwrap_or_default()
}
