//! Questions of the application's session to httpd.
//!
//! Responsible for: the layout of each operation. Must never: hold a copy of the data. Called by:
//! the worker (encodes), `src/session` (decodes).
use super::{MAX_DATA, ended, put_key, take_bool, take_data, take_key};
use crate::codec::{Reader, WireError};

/// The operation; the code of the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Op {
    /// [`Request::Open`].
    Open = 1,
    /// [`Request::Save`].
    Save = 2,
    /// [`Request::Remove`].
    Remove = 3,
    /// [`Request::Exists`].
    Exists = 4,
    /// [`Request::Lock`].
    Lock = 5,
    /// [`Request::Unlock`].
    Unlock = 6,
    /// [`Request::Used`].
    Used = 7,
}

/// The condition for a save.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Put {
    /// No live session has the key.
    Create = 0,
    /// A live session has the key.
    Replace = 1,
    /// No condition.
    Any = 2,
}

/// One operation. A key of `None` is the session of the request's cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// Reads a session, with or without its lock; answered by [`Opened`](super::Opened).
    Open {
        /// The session's key.
        key: Option<&'a str>,
        /// Wait for its lock and hold it until the request ends.
        lock: bool,
    },
    /// Writes a session; answered by its key ([`decode_key`](super::decode_key)).
    Save(Save<'a>),
    /// Removes a session; answered by whether it existed ([`decode_bool`](super::decode_bool)).
    Remove {
        /// The session's key.
        key: Option<&'a str>,
        /// Delete the client's cookie.
        cookie: bool,
    },
    /// Asks whether a session is live; answered by [`decode_bool`](super::decode_bool).
    Exists {
        /// The session's key.
        key: &'a str,
    },
    /// Takes a session's lock until the request ends; the answer is empty.
    Lock {
        /// The session's key.
        key: Option<&'a str>,
    },
    /// Releases it; the answer is empty.
    Unlock {
        /// The session's key.
        key: Option<&'a str>,
    },
    /// The application has used the prefetched session. There is no answer.
    Used {
        /// With its lock: the worker has taken the lease's token.
        lock: bool,
    },
}

/// A session to save.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Save<'a> {
    /// `None`: under a new key, which httpd generates and locks.
    pub key: Option<&'a str>,
    /// The condition.
    pub put: Put,
    /// Seconds without access after which it expires; 0: DroverSessionTimeout.
    pub timeout_s: u32,
    /// When it was created, milliseconds since 1970; 0: now.
    pub created_ms: u64,
    /// The client gets the key as a cookie.
    pub cookie: bool,
    /// This session is removed in the same step: its data get a new key.
    pub replaces: Option<&'a str>,
    /// There is no answer. httpd saves before it uses the response headers; if that fails, the
    /// client gets an error.
    pub no_reply: bool,
    /// The lock is held until the request ends, else it is released.
    pub keep_lock: bool,
    /// The data, serialised.
    pub data: &'a [u8],
}

const COOKIE: u8 = 1;
const NO_REPLY: u8 = 1 << 1;
const KEEP_LOCK: u8 = 1 << 2;

impl<'a> Request<'a> {
    /// The code of its frame.
    #[must_use]
    pub const fn op(&self) -> Op {
        match self {
            Self::Open { .. } => Op::Open,
            Self::Save(_) => Op::Save,
            Self::Remove { .. } => Op::Remove,
            Self::Exists { .. } => Op::Exists,
            Self::Lock { .. } => Op::Lock,
            Self::Unlock { .. } => Op::Unlock,
            Self::Used { .. } => Op::Used,
        }
    }

    /// Appends everything but the data of a [`Save`], which follow.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        match self {
            Self::Open { key, lock: flag } | Self::Remove { key, cookie: flag } => {
                out.push(u8::from(*flag));
                put_key(out, *key)
            }
            Self::Save(save) => save.encode(out),
            Self::Exists { key } => put_key(out, Some(key)),
            Self::Lock { key } | Self::Unlock { key } => put_key(out, *key),
            Self::Used { lock } => {
                out.push(u8::from(*lock));
                Ok(())
            }
        }
    }

    /// Decodes the payload of a frame with this code.
    pub fn decode(code: u16, payload: &'a [u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(payload);
        let request = match code {
            1 => Self::Open { lock: take_bool(&mut r)?, key: take_key(&mut r)? },
            2 => return Save::decode(r).map(Self::Save),
            3 => Self::Remove { cookie: take_bool(&mut r)?, key: take_key(&mut r)? },
            4 => Self::Exists { key: take_key(&mut r)?.ok_or(WireError::Bad("session key"))? },
            5 => Self::Lock { key: take_key(&mut r)? },
            6 => Self::Unlock { key: take_key(&mut r)? },
            7 => Self::Used { lock: take_bool(&mut r)? },
            _ => return Err(WireError::Bad("session operation")),
        };
        ended(&r, request)
    }
}

impl<'a> Save<'a> {
    /// Whether a save whose payload begins with this byte has no answer.
    #[must_use]
    pub const fn is_quiet(first: u8) -> bool {
        first & NO_REPLY != 0
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        if self.data.len() > MAX_DATA {
            return Err(WireError::TooLarge("session data"));
        }
        let flag = |on, bit| if on { bit } else { 0 };
        out.push(flag(self.cookie, COOKIE) | flag(self.no_reply, NO_REPLY) | flag(self.keep_lock, KEEP_LOCK));
        out.push(self.put as u8);
        out.extend_from_slice(&self.timeout_s.to_ne_bytes());
        out.extend_from_slice(&self.created_ms.to_ne_bytes());
        put_key(out, self.key)?;
        put_key(out, self.replaces)
    }

    fn decode(mut r: Reader<'a>) -> Result<Self, WireError> {
        let flags = r.u8("flags")?;
        if flags & !(COOKIE | NO_REPLY | KEEP_LOCK) != 0 {
            return Err(WireError::Bad("flags"));
        }
        let put = match r.u8("condition")? {
            0 => Put::Create,
            1 => Put::Replace,
            2 => Put::Any,
            _ => return Err(WireError::Bad("condition")),
        };
        let (timeout_s, created_ms) = (r.u32("timeout")?, r.u64("time")?);
        let (key, replaces) = (take_key(&mut r)?, take_key(&mut r)?);
        let data = take_data(&r)?;
        let on = |bit| flags & bit != 0;
        Ok(Self { key, put, timeout_s, created_ms, cookie: on(COOKIE), replaces, no_reply: on(NO_REPLY), keep_lock: on(KEEP_LOCK), data })
    }
}
