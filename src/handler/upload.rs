//! The client's body before a worker is asked for: what is small is read first, so that a slow client holds no worker.
//!
//! Responsible for: what of a body is waited for, how long and up to which size; what is left for the relay. Must never: wait longer than a moment
//! for a body of unknown length, which may be a conversation. Called by: `handler::mod`.
use super::account::Account;
use super::checks;
use super::client::{BodyError, BodyRead, Client};
use crate::httpd::Request;
use drover_sys::clock::monotonic_ns;
use drover_sys::wait::{PollFd, PollFlags, poll_until};
use drover_wire::request::{BODY_FOLLOWS, BODY_ON_DEMAND, MAX_INLINE_BODY};

/// How long a chunked body is given to show itself small, nanoseconds.
const SMALL_CHUNKED_NS: u64 = 200_000_000;

/// Where the body stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upload {
    /// It was all in the message, or there is none.
    None,
    /// It waits until the application wants it (`Expect: 100-continue`).
    OnDemand,
    /// It is sent as it comes.
    Open,
}

/// Where the rest of the body comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source<'b> {
    /// The client, as it sends it.
    Client,
    /// It was read before.
    Kept(&'b [u8]),
    /// This was, and the client sends the rest.
    Begun(&'b [u8]),
}

/// What was read of a body; its beginning lies in the buffer.
#[derive(Debug)]
pub struct Received<'c> {
    /// So many bytes at the buffer's beginning ride inside the message.
    pub inline: usize,
    /// What is left to do for the rest.
    pub upload: Upload,
    /// What was read besides.
    kept: Option<Kept>,
    /// Counts it.
    _account: Account<'c>,
}

/// A body that was read before a worker is asked for.
#[derive(Debug)]
struct Kept {
    bytes: Vec<u8>,
    /// There is no more of it.
    whole: bool,
}

/// Reads what is to be read of the body before a worker is asked for: into `buffer` what is small, and up to `most` bytes of what says that it is
/// not larger.
pub fn receive<'c>(r: &mut Request<'_>, most: u64, buffer: &mut [u8], mut account: Account<'c>) -> Result<Received<'c>, BodyError> {
    let (inline, upload) = read_small(r, buffer)?;
    let kept = match upload {
        Upload::Open => read_moderate(r, most, (buffer, inline), &mut account)?,
        _ => None,
    };
    Ok(Received { inline, upload, kept, _account: account })
}

impl Received<'_> {
    /// All of the body is here, so that it can be sent again.
    pub fn is_whole(&self) -> bool {
        self.upload == Upload::None || self.kept.as_ref().is_some_and(|kept| kept.whole)
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.upload == Upload::None && self.inline == 0
    }

    /// Where what does not ride inside the message comes from.
    pub fn source(&self) -> Source<'_> {
        self.kept.as_ref().map_or(Source::Client, |kept| if kept.whole { Source::Kept(&kept.bytes) } else { Source::Begun(&kept.bytes) })
    }

    /// The flags that tell the worker of the rest.
    pub const fn flags(&self) -> u16 {
        match self.upload {
            Upload::Open => BODY_FOLLOWS,
            Upload::OnDemand => BODY_FOLLOWS | BODY_ON_DEMAND,
            Upload::None => 0,
        }
    }

    /// Makes CONTENT_LENGTH true.
    pub fn correct_length(&self, r: &mut Request<'_>) {
        let read = self.inline + self.kept.as_ref().map_or(0, |kept| kept.bytes.len());
        if read > 0 && self.is_whole() {
            // RFC 3875 §4.1.2: the length after transfer codings are removed; it is known now, also for a chunked or a compressed body.
            r.set_env(c"CONTENT_LENGTH", read.to_string().as_bytes());
        } else if read > 0 && r.header(c"Content-Length").is_none() {
            r.unset_env(c"CONTENT_LENGTH"); // a filter has made it untrue
        }
    }
}

/// Reads the body if it is small. Returns how much of it is in `buffer`, and what is left to do for the rest.
fn read_small(r: &mut Request<'_>, buffer: &mut [u8]) -> Result<(usize, Upload), BodyError> {
    let length = checks::content_length(r);
    let chunked = r.header(c"Transfer-Encoding").is_some();
    match length {
        None if !chunked && !r.is_stream() => return Ok((0, Upload::None)),
        Some(0) => return Ok((0, Upload::None)),
        Some(n) if n > MAX_INLINE_BODY as u64 => return Ok((0, if r.expects_continue() { Upload::OnDemand } else { Upload::Open })),
        _ => {}
    }
    let patience = monotonic_ns() + SMALL_CHUNKED_NS;
    let mut have = 0;
    while let Some(room) = buffer.get_mut(have..).filter(|b| !b.is_empty()) {
        // A body of unknown length may be a conversation: it is not waited for longer than a moment.
        let wait = length.is_some() || (r.socket().is_none() && have == 0);
        match r.read_body(room, wait) {
            BodyRead::Data(n) => have += n,
            BodyRead::End => return Ok((have, Upload::None)),
            BodyRead::NotYet => {
                if monotonic_ns() >= patience || !wait_for_client(r, patience) {
                    return Ok((have, Upload::Open));
                }
            }
            BodyRead::Failed(e) => return Err(e),
        }
    }
    Ok((have, Upload::Open))
}

fn wait_for_client(r: &Request<'_>, until: u64) -> bool {
    let Some(socket) = r.socket() else { return false };
    matches!(poll_until(&mut [PollFd::new(&socket, PollFlags::IN)], Some(until)), Ok(n) if n > 0)
}

/// Reads a body that says that it is at most `most` bytes long. `None`: it says something else. A filter may make more of it: then there is a rest.
fn read_moderate(
    r: &mut Request<'_>,
    most: u64,
    (buffer, inline): (&mut [u8], usize),
    account: &mut Account<'_>,
) -> Result<Option<Kept>, BodyError> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let fits = checks::content_length(r).is_some_and(|n| usize::try_from(n).is_ok_and(|n| n <= most));
    // What was read already stays at its place in the buffer.
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
