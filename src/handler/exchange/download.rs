//! The response, from the worker's frames to the client.
//!
//! Responsible for: not trusting the worker's framing: no body beyond Content-Length, and no shorter body that looks complete;
//! holding what a slow client does not accept yet, within bounds. Must never: wait for a client that can be polled. Called by:
//! [`super::relay`], [`super::frames`].
use super::outcome::{Outcome, RelayOptions};
use super::state::ResponseState;
use crate::dispatch::DispatchError;
use crate::handler::failure::RequestError;
use crate::handler::limits::MemoryAccount;
use crate::handler::request::{Client, NotPassed, Pass};
use drover_sys::clock::monotonic_ns;
use drover_wire::head::Head;

/// A first piece of at most this many bytes is passed on without checking whether the client accepts it.
const UNCHECKED: usize = 16 * 1024;
/// The least and the most bytes that are passed to a slow client at a time.
const SLOW_PIECE: (usize, usize) = (8 * 1024, 256 * 1024);

/// The response of one request.
pub struct Download<'a> {
    options: RelayOptions,
    outcome: Outcome,
    state: ResponseState,
    length: Length,
    backlog: Backlog<'a>,
}

/// How much more body is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    /// There is no Content-Length.
    Any,
    /// This many bytes.
    Left(u64),
    /// The status allows no body.
    None,
}

/// What the worker sent and the client has not accepted.
#[derive(Default)]
struct Backlog<'a> {
    bytes: Vec<u8>,
    account: MemoryAccount<'a>,
    taken: usize,
    /// When the client last accepted something.
    accepted_at: u64,
    /// Bytes of the worker's frames that are held besides.
    frames: usize,
}

impl Backlog<'_> {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.taken >= self.bytes.len()
    }

    fn add(&mut self, pieces: &[&[u8]]) {
        if self.is_empty() {
            self.accepted_at = monotonic_ns();
        }
        if self.taken > self.bytes.len() / 2 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        pieces.iter().for_each(|piece| self.bytes.extend_from_slice(piece));
        self.count();
    }

    fn count(&mut self) {
        self.account.set(self.bytes.len() + self.frames);
    }

    fn take(&mut self, n: usize) {
        self.taken += n;
        self.accepted_at = monotonic_ns();
        if self.is_empty() {
            // The memory is freed at once: most clients are slow only once.
            (self.bytes, self.taken) = (Vec::new(), 0);
            self.count();
        }
    }
}

impl<'a> Download<'a> {
    /// Nothing has arrived. `account` counts what is held for the client.
    pub fn new(options: RelayOptions, account: MemoryAccount<'a>) -> Self {
        let backlog = Backlog { account, ..Backlog::default() };
        Self { options, outcome: Outcome::Complete, state: ResponseState::Awaited, length: Length::Any, backlog }
    }

    /// What becomes of it, once it has ended.
    pub fn into_outcome(self) -> Outcome {
        self.outcome
    }

    /// The headers have arrived.
    pub fn has_head(&self) -> bool {
        self.state != ResponseState::Awaited
    }

    /// Part of it was sent to the client.
    pub fn is_sent(&self) -> bool {
        self.state == ResponseState::Sent
    }

    /// The client accepted all that has arrived.
    pub fn is_accepted(&self) -> bool {
        self.backlog.is_empty()
    }

    /// When the client last accepted something of what is held for it.
    pub const fn accepted_at(&self) -> u64 {
        self.backlog.accepted_at
    }

    /// Whether more may be held.
    pub fn has_room(&self) -> bool {
        // A large frame that has begun is read to its end; otherwise its memory would never be freed.
        self.backlog.rest().len() < self.options.response_buffer && (self.backlog.frames > 0 || self.has_memory())
    }

    /// Whether the memory account allows more.
    pub fn has_memory(&self) -> bool {
        self.backlog.account.has_room()
    }

    /// Sets how many bytes of the worker's frames are held besides.
    pub fn count_frames(&mut self, bytes: usize) {
        if self.backlog.frames != bytes {
            self.backlog.frames = bytes;
            self.backlog.count();
        }
    }

    /// The body is shorter than its Content-Length.
    pub const fn is_short(&self) -> bool {
        matches!(self.length, Length::Left(left) if left > 0)
    }

    /// Handles the headers. `cookie` is the Set-Cookie value of the session.
    pub fn head(&mut self, client: &mut impl Client, payload: &[u8], cookie: Option<String>) -> Result<(), RequestError> {
        let head = Head::decode(payload).map_err(DispatchError::Wire)?;
        self.length = match head.status {
            204 | 304 => Length::None,
            _ if client.is_head() => Length::Any,
            _ => content_length(&head)?.map_or(Length::Any, Length::Left),
        };
        self.outcome = outcome_of(&head, self.options);
        match self.outcome {
            Outcome::Complete => client.set_head(&head).map_err(|e| RequestError::Head(e.0))?,
            Outcome::Status(_) => client.set_error_head(&head),
            Outcome::Redirect(_) => {}
        }
        if let Some(cookie) = cookie {
            client.set_cookie(&cookie);
        }
        self.state = self.state.begun();
        Ok(())
    }

    /// The part of a body piece that is passed on. (Our worker cut it already and logged that.)
    pub fn body<'b>(&mut self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let bytes = match &mut self.length {
            Length::Left(left) => {
                let allowed = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= allowed as u64;
                bytes.get(..allowed).unwrap_or_default()
            }
            Length::Any => bytes,
            Length::None => &[],
        };
        (self.outcome == Outcome::Complete && !bytes.is_empty()).then_some(bytes)
    }

    /// Passes pieces of the body on, or holds them for a client that does not accept them now.
    pub fn deliver(&mut self, client: &mut impl Client, pieces: &mut Vec<&[u8]>, ended: bool) -> Result<(), RequestError> {
        if self.outcome != Outcome::Complete || (!ended && pieces.is_empty()) {
            return Ok(());
        }
        if self.is_wanted(client, pieces) {
            self.pass(client, pieces, ended)?;
        } else {
            self.backlog.add(pieces);
        }
        pieces.clear();
        Ok(())
    }

    fn pass(&mut self, client: &mut impl Client, pieces: &[&[u8]], ended: bool) -> Result<(), RequestError> {
        let result = client.pass(pieces, if ended { Pass::End } else { Pass::Flush });
        self.settle(result)
    }

    /// Records whether the piece was sent. A piece that a filter refused was not.
    fn settle(&mut self, result: Result<(), NotPassed>) -> Result<(), RequestError> {
        if !matches!(result, Err(NotPassed::Answered | NotPassed::Refused)) {
            self.state = self.state.sent();
        }
        result.map_err(RequestError::from)
    }

    /// Whether the client accepts these pieces now, as far as httpd can tell.
    fn is_wanted(&self, client: &mut impl Client, pieces: &[&[u8]]) -> bool {
        let size: usize = pieces.iter().map(|piece| piece.len()).sum();
        self.backlog.is_empty() && ((!self.is_sent() && size <= UNCHECKED) || size == 0 || client.room() >= size)
    }

    /// Passes on as much of the backlog as the client accepts, without waiting. `accepts`: its socket is writable; `ended`: no
    /// more will arrive.
    pub fn pass_backlog(&mut self, client: &mut impl Client, accepts: bool, ended: bool) -> Result<(), RequestError> {
        if self.backlog.is_empty() {
            return Ok(());
        }
        let rest = self.backlog.rest();
        // Without a socket to poll (HTTP/2), httpd itself waits, but only when no worker could continue meanwhile.
        let room = if client.socket().is_none() && (ended || !self.has_room()) { rest.len() } else { client.room() };
        if room < SLOW_PIECE.0.min(rest.len()) && !accepts {
            return Ok(());
        }
        let room = room.clamp(SLOW_PIECE.0, SLOW_PIECE.1);
        let piece = rest.get(..room).unwrap_or(rest);
        let last = ended && piece.len() == rest.len();
        let n = piece.len();
        let result = client.pass(&[piece], if last { Pass::End } else { Pass::Flush });
        self.settle(result)?;
        self.backlog.take(n);
        Ok(())
    }
}

/// The value of Content-Length, if present. Two of them are an error, as in a request.
fn content_length(head: &Head<'_>) -> Result<Option<u64>, RequestError> {
    let mut lengths = head.fields.flatten().filter(|(name, _)| name.eq_ignore_ascii_case(b"Content-Length")).map(|(_, value)| value);
    let Some(value) = lengths.next() else { return Ok(None) };
    let digits = value.trim_ascii();
    let number = str::from_utf8(digits).ok().filter(|_| digits.iter().all(u8::is_ascii_digit)).and_then(|text| text.parse().ok());
    match (number, lengths.next()) {
        (Some(number), None) => Ok(Some(number)),
        _ => Err(RequestError::Head("Content-Length is not a number, or occurs twice".into())),
    }
}

fn outcome_of(head: &Head<'_>, options: RelayOptions) -> Outcome {
    if options.error_override && (400..600).contains(&head.status) {
        return Outcome::Status(head.status);
    }
    if head.status == 200 {
        let location = head.fields.flatten().find(|(name, _)| name.eq_ignore_ascii_case(b"Location"));
        if let Some((_, url)) = location.filter(|(_, url)| url.starts_with(b"/")) {
            return Outcome::Redirect(url.to_vec());
        }
    }
    Outcome::Complete
}
