//! Frames on the reply socket, the stream socket of one request.
//!
//! Responsible for: framing both directions, and their limits. Must never: buffer (the caller owns
//! the buffer). Called by: `src/dispatch` and the worker, each of which reads what the other
//! writes.
//!
//! A frame is a header of [`HEADER`] bytes and its payload. The header is: payload length (4
//! bytes), request number (4), kind (1), flags (1, all 0 today; others are refused), code (2).
//!
//! A descriptor belongs to a frame. It is sent as SCM_RIGHTS in the call that sends the frame, so
//! it arrives no later than the frame's first byte. Today one frame carries one: the END of the
//! worker, which returns the worker's end of the socket to httpd. httpd uses the pair again for its
//! next request to the same group. While a request runs, httpd has no copy of that end and sees
//! end-of-file at once when the worker dies. A second kind of descriptor needs a flag in the
//! header, and then each frame with the flag owns the next descriptor, in the order of arrival.
use crate::codec::{Reader, WireError};

/// Bytes before a frame's payload.
pub const HEADER: usize = 12;
/// The largest LOG payload.
pub const MAX_LOG: usize = 64 * 1024;
/// The largest FAIL payload.
pub const MAX_FAIL: usize = 8 * 1024;

/// Kind of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Worker → httpd: status line and header fields ([`crate::head`]).
    Head = 1,
    /// Both directions: bytes of a body.
    Body = 2,
    /// Both directions: the body is complete. Worker → httpd: the request is complete and its
    /// socket may be used again.
    End = 3,
    /// Worker → httpd: the request failed; `code` is a [`Failure`], the payload one line for the
    /// log. httpd → worker: the body ends here, incomplete; `code` is a [`BodyFailure`].
    Fail = 4,
    /// Worker → httpd: text for the error log; `code` is httpd's log level.
    Log = 5,
    /// Worker → httpd: send the body ([`crate::request::BODY_ON_DEMAND`], or after
    /// [`Kind::Pause`]).
    Want = 6,
    /// Worker → httpd: the request is running, although no part of its response was sent. Sent only
    /// when its deadline to be taken ([`crate::request::Prefix::take_by`]) is near, so that httpd
    /// can tell a slow request from one in the queue.
    Taken = 7,
    /// Both directions: an operation on the application's session, and its result
    /// ([`crate::session`]); `code` is an [`crate::session::Op`] or a [`crate::session::Status`].
    /// Only in requests with the flag [`crate::request::SESSIONS`].
    Session = 8,
    /// Worker → httpd: the request is not running; droverd is requeueing it. Ends with
    /// [`Kind::Taken`], which is then the first frame of the worker that takes it.
    Held = 9,
    /// Worker → httpd: stop sending the body until [`Kind::Want`]. The worker buffers body bytes
    /// that arrive while it waits for a session, and has reached its limit.
    Pause = 10,
}

impl Kind {
    fn decode(byte: u8) -> Result<Self, WireError> {
        Ok(match byte {
            1 => Self::Head,
            2 => Self::Body,
            3 => Self::End,
            4 => Self::Fail,
            5 => Self::Log,
            6 => Self::Want,
            7 => Self::Taken,
            8 => Self::Session,
            9 => Self::Held,
            10 => Self::Pause,
            _ => return Err(WireError::Bad("frame kind")),
        })
    }

    const fn limit(self) -> usize {
        match self {
            Self::Head => crate::head::MAX_HEAD,
            Self::Body => u32::MAX as usize,
            Self::Fail => MAX_FAIL,
            Self::Log => MAX_LOG,
            Self::Session => crate::session::MAX_SESSION,
            Self::End | Self::Want | Self::Taken | Self::Held | Self::Pause => 0,
        }
    }
}

/// Why a request failed in the worker, or in droverd for a group that cannot start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Failure {
    /// The application raised an exception.
    Exception = 1,
    /// The script could not be imported.
    Import = 2,
    /// The script was not found.
    ScriptMissing = 3,
    /// The script has no callable of that name.
    NoCallable = 4,
    /// The application raised SystemExit.
    SystemExit = 5,
    /// The application violated PEP 3333 (no start_response, bad header field, …).
    BadResponse = 6,
    /// The request was interrupted because it exceeded request-timeout.
    Timeout = 7,
    /// No worker took the request before its deadline.
    Expired = 8,
    /// The group's workers cannot start.
    CannotStart = 9,
    /// The worker is shutting down and could not run the request.
    Stopping = 10,
    /// The client disconnected, or its body ended early; no response can be sent.
    ClientGone = 11,
    /// An internal error of the worker, not of the application.
    Internal = 12,
    /// The application did not handle an error of its session: another request has it locked, or
    /// its store is unavailable.
    Session = 13,
}

impl Failure {
    /// The failure with this number; unknown numbers are [`Failure::Internal`].
    #[must_use]
    pub const fn from_code(code: u16) -> Self {
        match code {
            1 => Self::Exception,
            2 => Self::Import,
            3 => Self::ScriptMissing,
            4 => Self::NoCallable,
            5 => Self::SystemExit,
            6 => Self::BadResponse,
            7 => Self::Timeout,
            8 => Self::Expired,
            9 => Self::CannotStart,
            10 => Self::Stopping,
            11 => Self::ClientGone,
            13 => Self::Session,
            _ => Self::Internal,
        }
    }
}

/// Why a request's body is incomplete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum BodyFailure {
    /// The client closed the connection.
    ClientGone = 1,
    /// Reading from the client timed out.
    Timeout = 2,
    /// The body is larger than LimitRequestBody.
    TooLarge = 3,
    /// The body is malformed (an invalid chunk).
    Malformed = 4,
}

impl BodyFailure {
    /// The failure with this number.
    #[must_use]
    pub const fn from_code(code: u16) -> Self {
        match code {
            2 => Self::Timeout,
            3 => Self::TooLarge,
            4 => Self::Malformed,
            _ => Self::ClientGone,
        }
    }
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the payload.
    pub len: u32,
    /// The request's number.
    pub number: u32,
    /// The kind of frame.
    pub kind: Kind,
    /// [`Failure`], [`BodyFailure`], log level, session operation or its status, by kind; else 0.
    pub code: u16,
}

impl Header {
    /// The header as bytes.
    #[must_use]
    pub const fn encode(&self) -> [u8; HEADER] {
        let [a, b, c, d] = self.len.to_ne_bytes();
        let [e, f, g, h] = self.number.to_ne_bytes();
        let [i, j] = self.code.to_ne_bytes();
        [a, b, c, d, e, f, g, h, self.kind as u8, 0, i, j]
    }

    fn decode(bytes: &[u8; HEADER]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let (len, number) = (r.u32("length")?, r.u32("number")?);
        let kind = Kind::decode(r.u8("kind")?)?;
        if r.u8("flags")? != 0 {
            return Err(WireError::Bad("frame flags"));
        }
        let code = r.u16("code")?;
        if len as usize > kind.limit() {
            return Err(WireError::TooLarge("frame"));
        }
        Ok(Self { len, number, kind, code })
    }
}

/// One step of reading.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A frame other than BODY, whole.
    Frame(Header, &'a [u8]),
    /// Some bytes of a body. A large BODY frame yields a piece for each fill of the caller's
    /// buffer.
    Body(&'a [u8]),
    /// A SESSION frame above the limit, with the first byte of its payload. [`Event::Skipped`]
    /// follows for the rest.
    Oversized(Header, u8),
    /// Bytes of an oversized frame, to be dropped.
    Skipped,
}

/// Splits a stream of bytes into frames. It buffers nothing: the caller passes everything received
/// and not yet consumed.
#[derive(Debug, Default)]
pub struct Deframer {
    /// The number every frame must carry.
    number: u32,
    /// The rest of a frame that arrives in pieces.
    left: Left,
    sessions: Sessions,
}

/// The rest of a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Left {
    /// The next bytes are a header.
    #[default]
    None,
    /// Bytes of a BODY frame.
    Body(usize),
    /// Bytes of an oversized frame.
    Skip(usize),
}

/// Which SESSION frames are expected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Sessions {
    /// As large as the protocol allows.
    #[default]
    Any,
    /// None.
    None,
    /// At most this many bytes.
    UpTo(usize),
}

impl Deframer {
    /// Reads frames of request `number`.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self { number, left: Left::None, sessions: Sessions::Any }
    }

    /// As [`Deframer::new`], for a request without sessions: their frames, which may be large, are
    /// an error.
    #[must_use]
    pub const fn without_sessions(number: u32) -> Self {
        Self { number, left: Left::None, sessions: Sessions::None }
    }

    /// From now on, SESSION frames with a larger payload are skipped as they arrive
    /// ([`Event::Oversized`]). Without effect for a request without sessions.
    pub fn limit_sessions(&mut self, most: usize) {
        if self.sessions != Sessions::None {
            self.sessions = Sessions::UpTo(most.max(1));
        }
    }

    fn is_oversized(&self, header: &Header) -> bool {
        header.kind == Kind::Session && matches!(self.sessions, Sessions::UpTo(most) if header.len as usize > most)
    }

    /// Reads the bytes received and not consumed. `Ok(None)`: more are needed. `Ok(Some((event,
    /// n)))`: the event uses the first `n` bytes. After an error the stream cannot be read further.
    pub fn next<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<(Event<'a>, usize)>, WireError> {
        if let Left::Body(left) | Left::Skip(left) = self.left {
            let n = left.min(bytes.len());
            let Some(piece) = bytes.get(..n).filter(|p| !p.is_empty()) else { return Ok(None) };
            let skips = matches!(self.left, Left::Skip(_));
            self.left = match left - n {
                0 => Left::None,
                left if skips => Left::Skip(left),
                left => Left::Body(left),
            };
            return Ok(Some((if skips { Event::Skipped } else { Event::Body(piece) }, n)));
        }
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
        let header = Header::decode(header)?;
        if header.number != self.number {
            return Err(WireError::Bad("request number"));
        }
        if self.sessions == Sessions::None && header.kind == Kind::Session {
            return Err(WireError::Bad("session frame in a request without sessions"));
        }
        let len = header.len as usize;
        if header.kind == Kind::Body {
            let n = len.min(rest.len());
            let Some(piece) = rest.get(..n) else { return Ok(None) };
            self.left = if len > n { Left::Body(len - n) } else { Left::None };
            return Ok(Some((Event::Body(piece), HEADER + n)));
        }
        if self.is_oversized(&header) {
            let Some(first) = rest.first() else { return Ok(None) };
            self.left = if len > 1 { Left::Skip(len - 1) } else { Left::None };
            return Ok(Some((Event::Oversized(header, *first), HEADER + 1)));
        }
        Ok(rest.get(..len).map(|payload| (Event::Frame(header, payload), HEADER + len)))
    }

    /// The buffer size that the frame at the start of these bytes needs. A BODY frame needs only
    /// its header.
    #[must_use]
    pub fn wanted(&self, bytes: &[u8]) -> usize {
        match bytes.first_chunk::<HEADER>().map(Header::decode) {
            Some(Ok(h)) if self.left == Left::None && self.is_oversized(&h) => HEADER + 1,
            Some(Ok(h)) if self.left == Left::None && h.kind != Kind::Body => HEADER + h.len as usize,
            _ => HEADER,
        }
    }

    /// Whether the last BODY frame is complete: only then may a stream end.
    #[must_use]
    pub const fn at_boundary(&self) -> bool {
        matches!(self.left, Left::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: Kind, number: u32, code: u16, payload: &[u8]) -> Vec<u8> {
        let mut v = Header { len: payload.len() as u32, number, kind, code }.encode().to_vec();
        v.extend_from_slice(payload);
        v
    }

    #[test]
    fn wrong_number_is_refused() {
        assert_eq!(Deframer::new(1).next(&frame(Kind::End, 2, 0, b"")), Err(WireError::Bad("request number")));
    }

    #[test]
    fn unknown_kinds_and_flags_are_refused() {
        let mut bytes = frame(Kind::End, 1, 0, b"");
        bytes[9] = 1;
        assert_eq!(Deframer::new(1).next(&bytes), Err(WireError::Bad("frame flags")));
        bytes[8] = 0x7f;
        assert_eq!(Deframer::new(1).next(&bytes), Err(WireError::Bad("frame kind")));
    }

    #[test]
    fn limits_hold() {
        let h = Header { len: MAX_LOG as u32 + 1, number: 1, kind: Kind::Log, code: 3 }.encode();
        assert_eq!(Deframer::new(1).next(&h), Err(WireError::TooLarge("frame")));
        let h = Header { len: 1, number: 1, kind: Kind::End, code: 0 }.encode();
        assert_eq!(Deframer::new(1).next(&h), Err(WireError::TooLarge("frame")));
    }

    #[test]
    fn an_oversized_frame_is_skipped_as_it_arrives() {
        let stream = [frame(Kind::Session, 1, 2, &[9; 5000]), frame(Kind::End, 1, 0, b"")].concat();
        let mut d = Deframer::new(1);
        d.limit_sessions(100);
        let header = Header { len: 5000, number: 1, kind: Kind::Session, code: 2 };
        assert_eq!((d.next(&stream[..HEADER]), d.wanted(&stream[..HEADER])), (Ok(None), HEADER + 1));
        assert_eq!(d.next(&stream), Ok(Some((Event::Oversized(header, 9), HEADER + 1))));
        assert_eq!((d.next(&stream[13..1000]), d.at_boundary()), (Ok(Some((Event::Skipped, 987))), false));
        assert_eq!(d.next(&stream[1000..]), Ok(Some((Event::Skipped, 4012))));
        assert!(matches!(d.next(&stream[5012..]), Ok(Some((Event::Frame(Header { kind: Kind::End, .. }, b""), 12)))));
        let fits = frame(Kind::Session, 1, 2, &[9; 100]);
        assert!(matches!(d.next(&fits), Ok(Some((Event::Frame(..), 112)))));
    }

    proptest! {
        /// The same frames are read however the stream is split.
        #[test]
        fn any_cut(bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..500), 0..6), cuts in proptest::collection::vec(1usize..200, 1..40)) {
            let mut stream = frame(Kind::Head, 7, 0, b"head");
            for b in &bodies { stream.extend(frame(Kind::Body, 7, 0, b)); }
            stream.extend(frame(Kind::Log, 7, 3, b"line"));
            stream.extend(frame(Kind::End, 7, 0, b""));
            let (mut d, mut buffer, mut body, mut kinds, mut fed) = (Deframer::new(7), Vec::new(), Vec::new(), Vec::new(), 0);
            let mut cuts = cuts.iter().cycle();
            loop {
                match d.next(&buffer).unwrap() {
                    Some((Event::Body(b), n)) => { body.extend_from_slice(b); buffer.drain(..n); }
                    Some((Event::Frame(h, p), n)) => { kinds.push((h.kind, p.to_vec())); buffer.drain(..n); }
                    Some((other, _)) => panic!("{other:?}"),
                    None => {
                        if fed == stream.len() { break; }
                        let n = (*cuts.next().unwrap()).min(stream.len() - fed);
                        buffer.extend_from_slice(&stream[fed..fed + n]);
                        fed += n;
                    }
                }
            }
            prop_assert!(buffer.is_empty() && d.at_boundary());
            prop_assert_eq!(body, bodies.concat());
            prop_assert_eq!(kinds, vec![(Kind::Head, b"head".to_vec()), (Kind::Log, b"line".to_vec()), (Kind::End, vec![])]);
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), number in 0u32..3) {
            let mut d = Deframer::new(number);
            let mut rest = &bytes[..];
            while let Ok(Some((_, n))) = d.next(rest) { if n == 0 { break; } rest = &rest[n..]; }
        }
    }
}
