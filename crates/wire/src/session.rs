//! What the application's session says to httpd, and what httpd answers: the payload of SESSION frames, in both directions.
//!
//! Responsible for: the layout of each operation and each answer, and their limits. Must never: know what a session is good for,
//! hold a copy of its data (they stand last, so that the sender may send them as a piece of their own). Called by: the worker
//! (`crates/worker/src/session.rs`), `src/handler` (the other side).
//!
//! A frame to httpd has an [`Op`] as its code, one to the worker a [`Status`]. To each [`Request`] comes exactly one answer, in
//! the order of the requests, but none to [`Request::Used`] and to a [`Save`] that says so.
use crate::codec::{Reader, WireError, put_short};

/// The largest data of one session that the wire carries.
pub const MAX_DATA: usize = 16 * 1024 * 1024;
/// The largest payload of a SESSION frame.
pub const MAX_SESSION: usize = MAX_DATA + 1024;
/// The longest key.
pub const MAX_KEY: usize = 128;
/// The longest text of an error; a longer one is cut.
pub const MAX_TEXT: usize = 512;

/// What the worker wants; the code of the frame.
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

/// How it went; the code of the frame to the worker. The payload of all but `Ok` is one line of text for the exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Status {
    /// Done; the payload is the answer that belongs to the operation.
    Ok = 0,
    /// Another request holds the session, and DroverSessionLockTimeout is over.
    LockTimeout = 1,
    /// The store cannot be reached or is damaged.
    Unavailable = 2,
    /// More data than DroverSessionMaxSize allows.
    TooLarge = 3,
    /// [`Put::Create`], and a living session has that key.
    Exists = 4,
    /// [`Put::Replace`], and no living session has that key.
    Missing = 5,
    /// DroverSession is off for this request.
    Off = 6,
    /// The cookie has to be set or deleted, but the head has been sent.
    HeadSent = 7,
    /// The key is not made of 1 to 128 letters, digits, `_` and `-`.
    BadKey = 8,
    /// There is no room in the store.
    Full = 9,
}

impl Status {
    /// The status with this number; an unknown one means that the store cannot be understood.
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

/// What a session's data are by DroverSessionSerializer.
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

/// What must hold for a session to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Put {
    /// No living session has the key.
    Create = 0,
    /// A living session has it.
    Replace = 1,
    /// Nothing.
    Any = 2,
}

/// One operation. A key of `None` is the session of the request's cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// Reads a session, with its lock or without; answered by [`Opened`].
    Open {
        /// Which.
        key: Option<&'a str>,
        /// Wait for its lock and keep it until the request ends.
        lock: bool,
    },
    /// Writes a session; answered by its key ([`decode_key`]).
    Save(Save<'a>),
    /// Removes a session; answered by whether there was one ([`decode_bool`]).
    Remove {
        /// Which.
        key: Option<&'a str>,
        /// Delete the client's cookie.
        cookie: bool,
    },
    /// Asks whether a session lives; answered by [`decode_bool`].
    Exists {
        /// Which.
        key: &'a str,
    },
    /// Takes a session's lock, kept until the request ends; answered by nothing.
    Lock {
        /// Which.
        key: Option<&'a str>,
    },
    /// Gives it back; answered by nothing.
    Unlock {
        /// Which.
        key: Option<&'a str>,
    },
    /// The application has read the session that was sent ahead. There is no answer.
    Used {
        /// With its lock: the worker has taken the token.
        lock: bool,
    },
}

/// What is written, and what goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Save<'a> {
    /// `None`: under a new key, which httpd makes and locks.
    pub key: Option<&'a str>,
    /// What must hold.
    pub put: Put,
    /// Seconds without access after which it expires; 0: DroverSessionTimeout.
    pub timeout_s: u32,
    /// When it was made, milliseconds since 1970; 0: now.
    pub created_ms: u64,
    /// The client gets the key as its cookie.
    pub cookie: bool,
    /// This session is removed in the same step (a new key for the same data).
    pub replaces: Option<&'a str>,
    /// No answer is wanted. httpd carries it out before it uses the head; when it fails, the client gets an error.
    pub no_reply: bool,
    /// Its lock is kept until the request ends; else it is given back.
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

    /// Appends everything but the data of a [`Save`], which come behind it.
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

    /// Reads the payload of a frame with this code.
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

/// The answer to [`Request::Open`].
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
    /// What keeps the sessions, for the application to show.
    pub engine: &'a str,
    /// What is stored, if it is there.
    pub record: Option<Stored<'a>>,
}

/// A session as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored<'a> {
    /// When it was made, milliseconds since 1970.
    pub created_ms: u64,
    /// When it was last used before, milliseconds since 1970.
    pub accessed_ms: u64,
    /// Seconds without access after which it expires.
    pub timeout_s: u32,
    /// Its data, serialised.
    pub data: &'a [u8],
}

impl<'a> Opened<'a> {
    /// Appends everything but the data, which come behind it.
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

    /// Reads the payload of an answer with [`Status::Ok`].
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

/// The answer to [`Request::Save`]: the session's key.
pub fn encode_key(out: &mut Vec<u8>, key: &str) -> Result<(), WireError> {
    put_key(out, Some(key))
}

/// Reads what [`encode_key`] has written.
pub fn decode_key(payload: &[u8]) -> Result<&str, WireError> {
    let mut r = Reader::new(payload);
    let key = take_key(&mut r)?.ok_or(WireError::Bad("session key"))?;
    ended(&r, key)
}

/// The answer to [`Request::Remove`] and [`Request::Exists`].
pub fn encode_bool(out: &mut Vec<u8>, yes: bool) {
    out.push(u8::from(yes));
}

/// Reads what [`encode_bool`] has written.
pub fn decode_bool(payload: &[u8]) -> Result<bool, WireError> {
    let mut r = Reader::new(payload);
    let yes = take_bool(&mut r)?;
    ended(&r, yes)
}

/// The payload of an answer that is not [`Status::Ok`]: the text, without its end if it is too long.
#[must_use]
pub fn error_text(text: &str) -> &str {
    let cut = (0..=MAX_TEXT.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    text.get(..cut).unwrap_or_default()
}

/// Whether a text may name a session.
#[must_use]
pub fn is_key(text: &str) -> bool {
    (1..=MAX_KEY).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn put_key(out: &mut Vec<u8>, key: Option<&str>) -> Result<(), WireError> {
    match key {
        Some("") => Err(WireError::Bad("session key")),
        key => put_name(out, key.unwrap_or_default()),
    }
}

fn put_name(out: &mut Vec<u8>, name: &str) -> Result<(), WireError> {
    if name.len() > MAX_KEY { Err(WireError::TooLarge("session key")) } else { put_short(out, name.as_bytes(), "session key") }
}

fn take_key<'a>(r: &mut Reader<'a>) -> Result<Option<&'a str>, WireError> {
    take_name(r, "session key").map(|key| key.filter(|key| !key.is_empty()))
}

fn take_name<'a>(r: &mut Reader<'a>, part: &'static str) -> Result<Option<&'a str>, WireError> {
    let bytes = r.short_bytes(part)?;
    if bytes.len() > MAX_KEY {
        return Err(WireError::TooLarge(part));
    }
    std::str::from_utf8(bytes).map(Some).map_err(|_| WireError::Bad(part))
}

fn take_bool(r: &mut Reader<'_>) -> Result<bool, WireError> {
    match r.u8("flag")? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(WireError::Bad("flag")),
    }
}

fn take_data<'a>(r: &Reader<'a>) -> Result<&'a [u8], WireError> {
    let data = r.rest();
    if data.len() > MAX_DATA { Err(WireError::TooLarge("session data")) } else { Ok(data) }
}

fn ended<T>(r: &Reader<'_>, value: T) -> Result<T, WireError> {
    if r.rest().is_empty() { Ok(value) } else { Err(WireError::Bad("bytes behind a session's message")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(request: &Request<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        request.encode(&mut out).unwrap();
        if let Request::Save(save) = request {
            out.extend_from_slice(save.data);
        }
        out
    }

    fn save(data: &[u8]) -> Save<'_> {
        Save {
            key: None,
            put: Put::Any,
            timeout_s: 0,
            created_ms: 0,
            cookie: false,
            replaces: None,
            no_reply: false,
            keep_lock: false,
            data,
        }
    }

    #[test]
    fn each_operation_comes_back() {
        for request in [
            Request::Open { key: None, lock: true },
            Request::Open { key: Some("abc"), lock: false },
            Request::Save(save(b"data")),
            Request::Remove { key: Some("abc"), cookie: true },
            Request::Remove { key: None, cookie: false },
            Request::Exists { key: "abc" },
            Request::Lock { key: None },
            Request::Unlock { key: Some("abc") },
            Request::Used { lock: true },
        ] {
            let payload = bytes(&request);
            assert_eq!(Request::decode(request.op() as u16, &payload), Ok(request));
        }
    }

    #[test]
    fn what_no_worker_of_ours_sends_is_refused() {
        for (code, payload, error) in [
            (0, &b""[..], WireError::Bad("session operation")),
            (8, b"", WireError::Bad("session operation")),
            (7, b"\x02", WireError::Bad("flag")),
            (1, b"", WireError::Short("flag")),
            (1, b"\x02\0\0", WireError::Bad("flag")),
            (1, b"\x01", WireError::Short("session key")),
            (1, b"\x01\0\0x", WireError::Bad("bytes behind a session's message")),
            (4, b"\0\0", WireError::Bad("session key")),
            (5, b"\x01\0\xff", WireError::Bad("session key")),
            (2, b"\x08\0", WireError::Bad("flags")),
            (2, b"\0\x03", WireError::Bad("condition")),
        ] {
            assert_eq!(Request::decode(code, payload), Err(error), "{code} {payload:?}");
        }
        let long = [&(MAX_KEY as u16 + 1).to_ne_bytes()[..], &[b'a'; MAX_KEY + 1]].concat();
        assert_eq!(Request::decode(4, &long), Err(WireError::TooLarge("session key")));
    }

    #[test]
    fn limits_hold_when_writing() {
        let (long, large) = ("a".repeat(MAX_KEY + 1), vec![0; MAX_DATA + 1]);
        let mut out = Vec::new();
        assert_eq!(Request::Exists { key: &long }.encode(&mut out), Err(WireError::TooLarge("session key")));
        assert_eq!(Request::Exists { key: "" }.encode(&mut out), Err(WireError::Bad("session key")));
        assert_eq!(Request::Save(save(&large)).encode(&mut out), Err(WireError::TooLarge("session data")));
        let full = Save { key: Some(&long[1..]), replaces: Some(&long[1..]), data: &large[1..], ..save(b"") };
        assert!(bytes(&Request::Save(full)).len() <= MAX_SESSION);
    }

    #[test]
    fn keys_are_plain() {
        for (text, good) in [("a", true), ("Az09_-", true), ("", false), ("a b", false), ("ä", false), ("a/b", false)] {
            assert_eq!(is_key(text), good, "{text}");
        }
        assert!(is_key(&"a".repeat(MAX_KEY)) && !is_key(&"a".repeat(MAX_KEY + 1)));
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(error_text("why"), "why");
        assert_eq!(error_text(&"ä".repeat(400)).len(), MAX_TEXT);
        assert_eq!(error_text(&format!("x{}", "ä".repeat(400))).len(), MAX_TEXT - 1);
    }

    #[test]
    fn short_answers_come_back() {
        let mut out = Vec::new();
        encode_key(&mut out, "abc").unwrap();
        assert_eq!(decode_key(&out), Ok("abc"));
        assert_eq!(decode_key(b"\0\0"), Err(WireError::Bad("session key")));
        for yes in [true, false] {
            let mut out = Vec::new();
            encode_bool(&mut out, yes);
            assert_eq!(decode_bool(&out), Ok(yes));
        }
        assert_eq!(decode_bool(b"\0\0"), Err(WireError::Bad("bytes behind a session's message")));
        assert_eq!(Status::from_code(Status::Full as u16), Status::Full);
        assert_eq!(Status::from_code(77), Status::Unavailable);
    }

    fn key() -> impl Strategy<Value = Option<String>> {
        proptest::option::of("[A-Za-z0-9_-]{1,128}")
    }

    proptest! {
        #[test]
        fn saves_come_back((key, replaces) in (key(), key()), put in 0u8..3, timeout_s: u32, created_ms: u64, flags in 0u8..8,
                           data in proptest::collection::vec(any::<u8>(), 0..300)) {
            let put = [Put::Create, Put::Replace, Put::Any][usize::from(put)];
            let (cookie, no_reply, keep_lock) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
            let save = Save { key: key.as_deref(), put, timeout_s, created_ms, cookie, replaces: replaces.as_deref(), no_reply, keep_lock, data: &data };
            let payload = bytes(&Request::Save(save));
            prop_assert_eq!(Request::decode(Op::Save as u16, &payload), Ok(Request::Save(save)));
        }

        #[test]
        fn what_was_opened_comes_back(id in key(), default_timeout_s: u32, max_size: u32, engine in "[a-z:]{0,40}", serializer in 0u8..3,
                                      record in proptest::option::of((any::<u64>(), any::<u64>(), any::<u32>(), proptest::collection::vec(any::<u8>(), 0..300)))) {
            let serializer = [Serializer::Json, Serializer::Pickle, Serializer::Msgpack][usize::from(serializer)];
            let record = record.as_ref().map(|(created_ms, accessed_ms, timeout_s, data)| {
                Stored { created_ms: *created_ms, accessed_ms: *accessed_ms, timeout_s: *timeout_s, data }
            });
            let opened = Opened { id: id.as_deref(), default_timeout_s, serializer, max_size, engine: &engine, record };
            let mut out = Vec::new();
            opened.encode(&mut out).unwrap();
            out.extend_from_slice(record.map_or(&[], |r| r.data));
            prop_assert_eq!(Opened::decode(&out), Ok(opened));
        }

        #[test]
        fn never_panics(code in 0u16..9, bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Request::decode(code, &bytes), Opened::decode(&bytes), decode_key(&bytes), decode_bool(&bytes));
        }

        #[test]
        fn a_cut_front_is_an_error(cut in 1usize..20) {
            let whole = bytes(&Request::Save(Save { key: Some("abc"), ..save(b"") }));
            prop_assert!(Request::decode(2, &whole[..whole.len() - cut.min(whole.len())]).is_err());
        }
    }
}
