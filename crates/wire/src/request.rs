//! One request as one message on the group's queue.
//!
//! Responsible for: the layout of the request message. Must never: know how it is sent. Called by:
//! `src/dispatch` (encode), `crates/worker` and `crates/supervisor` (decode).
//!
//! The message is a fixed prefix of [`PREFIX`] bytes, which states its [`MessageKind`]. The payload
//! follows: script, callable, the environment as pairs of (2-byte length, key), (4-byte length,
//! value), the prefetched session, and the inline part of the body. Descriptor 0 is the worker's
//! end of the reply socket. When [`EXTERNAL`] is set, the payload is in descriptor 1, a sealed
//! memory file.
use crate::codec::{Reader, WireError, put_long, put_short};

/// First four bytes of every request message.
pub const MAGIC: u32 = u32::from_ne_bytes(*b"DRVQ");
/// Bytes of the fixed part.
pub const PREFIX: usize = 88;
/// The largest message that is sent as one datagram; a larger one uses a memory file
/// ([`EXTERNAL`]).
pub const MAX_INLINE: usize = 160 * 1024;
/// The largest inline part of a body.
pub const MAX_INLINE_BODY: usize = 64 * 1024;
/// The largest prefetched session, as `session::Opened` with its data.
pub const MAX_AHEAD: usize = 16 * 1024;
/// The largest environment (script and callable included) that is accepted.
pub const MAX_ENVIRONMENT: usize = 16 * 1024 * 1024;

/// Flag: the rest of the body follows as BODY frames on the reply socket.
pub const BODY_FOLLOWS: u16 = 1;
/// Flag: httpd has not read the body yet. It starts when the worker sends a WANT frame (`Expect:
/// 100-continue`).
pub const BODY_ON_DEMAND: u16 = 1 << 1;
/// Flag: the payload is in a memory file, the second descriptor.
pub const EXTERNAL: u16 = 1 << 2;
/// Flag: droverd has requeued the message for the new code, after a worker found its script
/// changed.
pub const RESENT: u16 = 1 << 3;
/// Flag: the request does not count against inactivity-timeout (WSGIIgnoreActivity).
pub const UNCOUNTED: u16 = 1 << 4;
/// Flag: httpd stores sessions for this request (DroverSession is not off), so SESSION frames may
/// be sent.
pub const SESSIONS: u16 = 1 << 5;
/// Flag: the prefetched session is one that the application names itself, not that of
/// DroverSessionCookie.
pub const AHEAD_BY_KEY: u16 = 1 << 6;

/// Position of the flags in a message.
const FLAGS: std::ops::Range<usize> = 6..8;

/// Where the seat stands.
const SEAT: std::ops::Range<usize> = 84..88;

/// Writes a seat into a prefix. Does nothing to what is none.
pub fn set_seat(prefix: &mut [u8], place: u32) {
    if let Some(bytes) = prefix.get_mut(SEAT) {
        bytes.copy_from_slice(&place.saturating_add(1).to_ne_bytes());
    }
}

/// Whether a whole message has [`EXTERNAL`] set.
#[must_use]
pub fn is_external(message: &[u8]) -> bool {
    message.get(FLAGS).and_then(|bytes| bytes.first_chunk()).is_some_and(|bytes| u16::from_ne_bytes(*bytes) & EXTERNAL != 0)
}

/// Marks a whole message as [`RESENT`]. Leaves anything else unchanged.
pub fn mark_resent(message: &mut [u8]) {
    if let Some([low, high]) = message.get_mut(FLAGS) {
        [*low, *high] = (u16::from_ne_bytes([*low, *high]) | RESENT).to_ne_bytes();
    }
}

/// What is asked of the worker. A worker and droverd refuse a message of a kind that they do not
/// know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum MessageKind {
    /// A request for the application: the response is a HEAD frame, BODY frames and END.
    #[default]
    Request = 1,
}

impl MessageKind {
    const fn decode(byte: u8) -> Result<Self, WireError> {
        match byte {
            1 => Ok(Self::Request),
            _ => Err(WireError::Bad("message kind")),
        }
    }
}

/// The fixed part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Prefix {
    /// What is asked.
    pub kind: MessageKind,
    /// Any of the flags of this module.
    pub flags: u16,
    /// Number of the request, which every frame on its reply socket carries.
    pub number: u32,
    /// Deadline for the request to be *taken*, CLOCK_MONOTONIC nanoseconds; 0: no limit.
    pub take_by: u64,
    /// Deadline for its *response*, CLOCK_MONOTONIC nanoseconds; 0: no limit.
    pub answer_by: u64,
    /// Time at which the request was queued, CLOCK_MONOTONIC nanoseconds.
    pub queued_at: u64,
    /// Time at which httpd began the request (`r->request_time`), microseconds since 1970.
    pub started_us: u64,
    /// The script's modification time as httpd saw it, microseconds since 1970; 0: not compared
    /// (WSGIScriptReloading Off).
    pub script_mtime_us: u64,
    /// The lease of the prefetched session's lock, which passes to the request when the worker
    /// takes it; 0: none.
    pub token: u64,
    /// Slot of that lease on the queue's board.
    pub token_place: u32,
    /// httpd's LogLevel for this request (0 emerg … 7 debug, 15 trace8).
    pub log_level: u8,
    /// Number of pairs in the environment.
    pub pairs: u16,
    /// Bytes of script, callable and environment.
    pub env_len: u32,
    /// Bytes of the prefetched session after the environment, as `session::Opened`; 0: none.
    pub ahead_len: u32,
    /// Bytes of the body after that.
    pub body_len: u32,
    /// The request's seat on the queue's roster, counted from 1; 0: it has none ([`set_seat`]).
    pub seat: u32,
}

impl Prefix {
    /// The fixed part as bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; PREFIX] {
        let mut out = [0u8; PREFIX];
        let mut at = out.as_mut_slice();
        let mut put = |bytes: &[u8]| {
            if let Some((head, tail)) = std::mem::take(&mut at).split_at_mut_checked(bytes.len()) {
                head.copy_from_slice(bytes);
                at = tail;
            }
        };
        put(&MAGIC.to_ne_bytes());
        put(&crate::PROTOCOL.to_ne_bytes());
        put(&self.flags.to_ne_bytes());
        put(&self.number.to_ne_bytes());
        // Two bytes are reserved.
        put(&[self.log_level, self.kind as u8, 0, 0]);
        put(&self.take_by.to_ne_bytes());
        put(&self.answer_by.to_ne_bytes());
        put(&self.queued_at.to_ne_bytes());
        put(&self.started_us.to_ne_bytes());
        put(&self.script_mtime_us.to_ne_bytes());
        put(&self.token.to_ne_bytes());
        put(&self.token_place.to_ne_bytes());
        put(&u32::from(self.pairs).to_ne_bytes());
        put(&self.env_len.to_ne_bytes());
        put(&self.ahead_len.to_ne_bytes());
        put(&self.body_len.to_ne_bytes());
        put(&self.seat.to_ne_bytes());
        out
    }

    /// Reads the fixed part.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        r.opening(MAGIC)?;
        let flags = r.u16("flags")?;
        let number = r.u32("number")?;
        let (log_level, kind) = (r.u8("log level")?, MessageKind::decode(r.u8("message kind")?)?);
        if r.u16("reserved bytes")? != 0 {
            return Err(WireError::Bad("reserved bytes"));
        }
        let (take_by, answer_by, queued_at) = (r.u64("take_by")?, r.u64("answer_by")?, r.u64("queued_at")?);
        let (started_us, script_mtime_us) = (r.u64("started")?, r.u64("mtime")?);
        let (token, token_place) = (r.u64("token")?, r.u32("token slot")?);
        let pairs = u16::try_from(r.u32("pairs")?).map_err(|_| WireError::Bad("number of pairs"))?;
        let (env_len, ahead_len, body_len) = (r.u32("env length")?, r.u32("session length")?, r.u32("body length")?);
        let seat = r.u32("seat")?;
        if env_len as usize > MAX_ENVIRONMENT {
            return Err(WireError::TooLarge("environment"));
        }
        if ahead_len as usize > MAX_AHEAD {
            return Err(WireError::TooLarge("prefetched session"));
        }
        if body_len as usize > MAX_INLINE_BODY {
            return Err(WireError::TooLarge("inline body"));
        }
        Ok(Self {
            kind,
            flags,
            number,
            take_by,
            answer_by,
            queued_at,
            started_us,
            script_mtime_us,
            token_place,
            token,
            log_level,
            pairs,
            env_len,
            ahead_len,
            body_len,
            seat,
        })
    }

    /// Bytes of the payload.
    #[must_use]
    pub const fn payload_len(&self) -> usize {
        self.env_len as usize + self.ahead_len as usize + self.body_len as usize
    }
}

/// Builds a request message; reused from request to request.
#[derive(Debug, Default)]
pub struct Builder {
    out: Vec<u8>,
    pairs: u16,
    env_len: usize,
}

impl Builder {
    /// Begins a message: drops the previous one, writes the script's path and the callable's name.
    pub fn begin(&mut self, script: &[u8], callable: &[u8]) -> Result<(), WireError> {
        self.out.clear();
        self.out.resize(PREFIX, 0);
        self.pairs = 0;
        self.env_len = 0;
        put_short(&mut self.out, script, "script")?;
        put_short(&mut self.out, callable, "callable")
    }

    /// Adds one environment variable. A later one with the same key wins.
    pub fn pair(&mut self, key: &[u8], value: &[u8]) -> Result<(), WireError> {
        self.pairs = self.pairs.checked_add(1).ok_or(WireError::TooLarge("number of variables"))?;
        put_short(&mut self.out, key, "variable's name")?;
        put_long(&mut self.out, value, "variable's value")?;
        if self.out.len() > PREFIX + MAX_ENVIRONMENT { Err(WireError::TooLarge("environment")) } else { Ok(()) }
    }

    /// Ends the environment, appends the prefetched session (at most [`MAX_AHEAD`] bytes) and the
    /// inline part of the body (at most [`MAX_INLINE_BODY`] bytes), and fills in the prefix.
    /// Returns the whole message, prefix first.
    pub fn finish(&mut self, mut prefix: Prefix, ahead: &[u8], body: &[u8]) -> Result<&[u8], WireError> {
        if body.len() > MAX_INLINE_BODY {
            return Err(WireError::TooLarge("inline body"));
        }
        if ahead.len() > MAX_AHEAD {
            return Err(WireError::TooLarge("prefetched session"));
        }
        self.env_len = self.out.len().saturating_sub(PREFIX);
        prefix.pairs = self.pairs;
        prefix.env_len = u32::try_from(self.env_len).map_err(|_| WireError::TooLarge("environment"))?;
        prefix.ahead_len = u32::try_from(ahead.len()).map_err(|_| WireError::TooLarge("prefetched session"))?;
        prefix.body_len = u32::try_from(body.len()).map_err(|_| WireError::TooLarge("inline body"))?;
        if self.out.len() + ahead.len() + body.len() > MAX_INLINE {
            prefix.flags |= EXTERNAL;
        }
        self.out.extend_from_slice(ahead);
        self.out.extend_from_slice(body);
        if let Some(start) = self.out.get_mut(..PREFIX) {
            start.copy_from_slice(&prefix.encode());
        }
        Ok(&self.out)
    }
}

/// The payload, decoded.
#[derive(Debug, Clone, Copy)]
pub struct Payload<'a> {
    /// The script's path in the filesystem.
    pub script: &'a [u8],
    /// Name of the object in the script.
    pub callable: &'a [u8],
    /// The environment variables.
    pub environment: Pairs<'a>,
    /// The prefetched session, as `session::Opened`; empty: none.
    pub ahead: &'a [u8],
    /// The inline part of the body.
    pub body: &'a [u8],
}

impl<'a> Payload<'a> {
    /// Splits the payload as `prefix` describes it. The bytes must be exactly
    /// [`Prefix::payload_len`].
    pub fn decode(prefix: &Prefix, bytes: &'a [u8]) -> Result<Self, WireError> {
        if bytes.len() != prefix.payload_len() {
            return Err(WireError::Short("request"));
        }
        let (env, rest) = bytes.split_at_checked(prefix.env_len as usize).ok_or(WireError::Short("environment"))?;
        let (ahead, body) = rest.split_at_checked(prefix.ahead_len as usize).ok_or(WireError::Short("prefetched session"))?;
        let mut r = Reader::new(env);
        let script = r.short_bytes("script")?;
        let callable = r.short_bytes("callable")?;
        Ok(Self { script, callable, environment: Pairs { reader: r, left: prefix.pairs }, ahead, body })
    }
}

/// Iterates over the pairs of an environment. Ends with an error if it is truncated or has bytes
/// after its last pair.
#[derive(Debug, Clone, Copy)]
pub struct Pairs<'a> {
    reader: Reader<'a>,
    left: u16,
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            if self.reader.rest().is_empty() {
                return None;
            }
            self.reader = Reader::new(&[]);
            return Some(Err(WireError::Bad("bytes after the environment")));
        }
        self.left -= 1;
        let pair = self.reader.short_bytes("variable's name").and_then(|k| Ok((k, self.reader.long_bytes("variable's value")?)));
        if pair.is_err() {
            self.left = 0;
            self.reader = Reader::new(&[]);
        }
        Some(pair)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(usize::from(self.left) + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prefix_fills_its_bytes() {
        let p = Prefix { body_len: 7, seat: 0x0102_0304, ..Prefix::default() };
        let mut e = p.encode();
        assert_eq!(u32::from_ne_bytes(e[PREFIX - 4..].try_into().unwrap()), 0x0102_0304);
        set_seat(&mut e, 4);
        assert_eq!(Prefix::decode(&e), Ok(Prefix { seat: 5, ..p }));
        set_seat(&mut [], 4);
    }

    #[test]
    fn a_message_is_marked() {
        let mut e = Prefix { flags: EXTERNAL, ..Prefix::default() }.encode();
        mark_resent(&mut e);
        assert_eq!(Prefix::decode(&e).unwrap().flags, EXTERNAL | RESENT);
        assert!(is_external(&e));
        mark_resent(&mut []);
        assert!(!is_external(&[]) && !is_external(&Prefix { flags: !EXTERNAL, ..Prefix::default() }.encode()));
    }

    #[test]
    fn an_unknown_kind_is_refused() {
        let bytes = Prefix::default().encode();
        assert_eq!(Prefix::decode(&bytes).unwrap().kind, MessageKind::Request);
        for (at, what) in [(13, "message kind"), (14, "reserved bytes"), (15, "reserved bytes")] {
            let mut bytes = bytes;
            bytes[at] = 9;
            assert_eq!(Prefix::decode(&bytes), Err(WireError::Bad(what)));
        }
    }

    #[test]
    fn other_protocol_is_named() {
        let mut e = Prefix::default().encode();
        e[4] = 0x77;
        e[5] = 0;
        assert_eq!(Prefix::decode(&e), Err(WireError::Protocol(0x77)));
    }

    proptest! {
        #[test]
        fn round_trip(script in ".{0,40}", pairs in proptest::collection::vec(("[A-Z_]{0,20}", proptest::collection::vec(any::<u8>(), 0..300)), 0..30),
                      ahead in proptest::collection::vec(any::<u8>(), 0..500), body in proptest::collection::vec(any::<u8>(), 0..2000),
                      number in any::<u32>()) {
            let mut b = Builder::default();
            b.begin(script.as_bytes(), b"application").unwrap();
            for (k, v) in &pairs { b.pair(k.as_bytes(), v).unwrap(); }
            let message = b.finish(Prefix { number, ..Prefix::default() }, &ahead, &body).unwrap();
            let p = Prefix::decode(message).unwrap();
            prop_assert_eq!(p.number, number);
            let payload = Payload::decode(&p, &message[PREFIX..]).unwrap();
            prop_assert_eq!(payload.script, script.as_bytes());
            prop_assert_eq!(payload.callable, b"application");
            prop_assert_eq!((payload.ahead, payload.body), (&ahead[..], &body[..]));
            let back: Vec<_> = payload.environment.collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(back.len(), pairs.len());
            for ((k, v), (a, b)) in pairs.iter().zip(back) { prop_assert_eq!(k.as_bytes(), a); prop_assert_eq!(&v[..], b); }
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(p) = Prefix::decode(&bytes)
                && let Some(rest) = bytes.get(PREFIX..)
                    && let Ok(payload) = Payload::decode(&p, rest) { payload.environment.for_each(drop); }
        }

        #[test]
        fn cut_is_an_error(cut in 1usize..60) {
            let mut b = Builder::default();
            b.begin(b"/srv/a.wsgi", b"application").unwrap();
            b.pair(b"A", b"1234567890123456789012345678901234567890").unwrap();
            let m = b.finish(Prefix::default(), b"", b"").unwrap().to_vec();
            let p = Prefix::decode(&m).unwrap();
            prop_assert!(Payload::decode(&p, &m[PREFIX..m.len() - cut]).is_err());
        }
    }
}
