//! Reads a small request body before a worker is needed, so that a slow client occupies no worker.
//!
//! Responsible for: how much of a body is read in advance, and for how long. Must never: wait more than a moment for a body of
//! unknown length, which may be a dialogue. Called by: `handler`.
use crate::handler::head::BodyLength;
use crate::handler::limits::MemoryAccount;
use crate::handler::request::{BodyError, BodyRead, RequestView};
use drover_sys::clock::monotonic_ns;
use drover_sys::wait::{PollFd, PollFlags, poll_until};
use drover_wire::request::{BODY_FOLLOWS, BODY_ON_DEMAND, MAX_INLINE_BODY};

/// How long a body of unknown length has to prove small, in nanoseconds.
const UNKNOWN_LENGTH_WAIT_NS: u64 = 200_000_000;

/// How the rest of the body is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upload {
    /// There is no rest.
    None,
    /// Only when the application asks for it (`Expect: 100-continue`).
    OnDemand,
    /// As it arrives.
    Open,
}

/// Where the rest of the body comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source<'b> {
    /// From the client.
    Client,
    /// From this buffer, which holds all of it.
    Kept(&'b [u8]),
    /// From this buffer, then from the client.
    Begun(&'b [u8]),
}

/// The part of a body that was read in advance; it begins in the caller's buffer.
#[derive(Debug)]
pub struct Received<'c> {
    /// This many bytes of the buffer go into the message.
    pub inline: usize,
    /// How the rest is sent.
    pub upload: Upload,
    /// More that was read in advance.
    kept: Option<Kept>,
    /// Counts `kept`.
    _account: MemoryAccount<'c>,
}

/// A body that was read before a worker is needed.
#[derive(Debug)]
struct Kept {
    bytes: Vec<u8>,
    whole: bool,
}

/// Reads what may be read in advance: a small body into `buffer`, and a body whose length is at most `most` bytes into memory.
pub fn receive<'r, 'c>(
    r: &mut impl RequestView<'r>,
    length: BodyLength,
    most: u64,
    buffer: &mut [u8],
    mut account: MemoryAccount<'c>,
) -> Result<Received<'c>, BodyError> {
    let (inline, upload) = read_small(r, length, buffer)?;
    let kept = match (upload, length) {
        // An input filter that changes the length removes Content-Length at its first read.
        (Upload::Open, BodyLength::Known(length)) if has_length(r) => read_moderate(r, length, most, (buffer, inline), &mut account)?,
        _ => None,
    };
    Ok(Received { inline, upload, kept, _account: account })
}

impl Received<'_> {
    /// The whole body was read, so it can be sent again.
    pub fn is_whole(&self) -> bool {
        self.upload == Upload::None || self.kept.as_ref().is_some_and(|kept| kept.whole)
    }

    /// There is no body.
    pub fn is_empty(&self) -> bool {
        self.upload == Upload::None && self.inline == 0
    }

    /// Where the part outside the message comes from.
    pub fn source(&self) -> Source<'_> {
        self.kept.as_ref().map_or(Source::Client, |kept| if kept.whole { Source::Kept(&kept.bytes) } else { Source::Begun(&kept.bytes) })
    }

    /// The flags that announce the rest to the worker.
    pub const fn flags(&self) -> u16 {
        match self.upload {
            Upload::Open => BODY_FOLLOWS,
            Upload::OnDemand => BODY_FOLLOWS | BODY_ON_DEMAND,
            Upload::None => 0,
        }
    }

    /// Makes CONTENT_LENGTH match the body.
    pub fn correct_length<'r>(&self, r: &mut impl RequestView<'r>) {
        let read = self.inline + self.kept.as_ref().map_or(0, |kept| kept.bytes.len());
        if read > 0 && self.is_whole() {
            // RFC 3875 §4.1.2: the length after transfer codings are removed, known now for a chunked or compressed body too.
            r.set_env(c"CONTENT_LENGTH", read.to_string().as_bytes());
        } else if read > 0 && !has_length(r) {
            r.unset_env(c"CONTENT_LENGTH"); // an input filter made it wrong
        }
    }
}

/// Whether Content-Length is still present after the input filters ran.
fn has_length<'r>(r: &impl RequestView<'r>) -> bool {
    r.header(c"Content-Length").is_some()
}

/// Reads a small body into `buffer`. Returns how much it read, and how the rest is sent.
fn read_small<'r>(r: &mut impl RequestView<'r>, length: BodyLength, buffer: &mut [u8]) -> Result<(usize, Upload), BodyError> {
    match length {
        BodyLength::None | BodyLength::Known(0) => return Ok((0, Upload::None)),
        BodyLength::Known(n) if n > MAX_INLINE_BODY as u64 => {
            return Ok((0, if r.expects_continue() { Upload::OnDemand } else { Upload::Open }));
        }
        BodyLength::Known(_) | BodyLength::Unknown => {}
    }
    let until = monotonic_ns() + UNKNOWN_LENGTH_WAIT_NS;
    let mut have = 0;
    while let Some(room) = buffer.get_mut(have..).filter(|b| !b.is_empty()) {
        // A body of unknown length may be a dialogue, so the wait for it is short.
        let wait = length != BodyLength::Unknown || (r.socket().is_none() && have == 0);
        match r.read_body(room, wait) {
            BodyRead::Data(n) => have += n,
            BodyRead::End => return Ok((have, Upload::None)),
            BodyRead::NotYet => {
                if monotonic_ns() >= until || !wait_for_client(r, until) {
                    return Ok((have, Upload::Open));
                }
            }
            BodyRead::Failed(e) => return Err(e),
        }
    }
    Ok((have, Upload::Open))
}

fn wait_for_client<'r>(r: &impl RequestView<'r>, until: u64) -> bool {
    let Some(socket) = r.socket() else { return false };
    matches!(poll_until(&mut [PollFd::new(&socket, PollFlags::IN)], Some(until)), Ok(n) if n > 0)
}

/// Reads a body of `length` bytes into memory; `None` when that is more than `most`. A filter may enlarge the body: then a rest
/// remains.
fn read_moderate<'r>(
    r: &mut impl RequestView<'r>,
    length: u64,
    most: u64,
    (buffer, inline): (&mut [u8], usize),
    account: &mut MemoryAccount<'_>,
) -> Result<Option<Kept>, BodyError> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let fits = usize::try_from(length).is_ok_and(|n| n <= most);
    // The bytes before `inline` belong to the message.
    let Some(scratch) = buffer.get_mut(inline..).filter(|room| fits && !room.is_empty() && account.has_room()) else { return Ok(None) };
    let mut bytes = Vec::new();
    while bytes.len() < most {
        match r.read_body(scratch, true) {
            BodyRead::Data(n) => bytes.extend_from_slice(scratch.get(..n).unwrap_or_default()),
            BodyRead::End => return Ok(Some(Kept { bytes, whole: true })),
            BodyRead::NotYet => return Err(BodyError::ClientGone),
            BodyRead::Failed(e) => return Err(e),
        }
        account.set(bytes.len());
    }
    Ok(Some(Kept { bytes, whole: false }))
}
