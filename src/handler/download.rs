//! The answer on its way to the client.
//!
//! Responsible for: what httpd passes on of a worker's answer, which it does not believe: no body beyond Content-Length, none that is shorter
//! taken for whole; what the client does not take at once being kept, within bounds. Must never: wait for the client where it can be asked.
//! Called by: [`super::relay`], [`super::frames`].
use super::account::Account;
use super::client::{Client, NotPassed, Pass};
use super::failure::Failed;
use super::phase::Progress;
use super::relay::{Answer, Manner};
use crate::dispatch::DispatchError;
use drover_sys::clock::monotonic_ns;
use drover_wire::head::Head;

/// The first piece of an answer is passed on without asking whether the client takes it if it is not larger than this.
const UNASKED: usize = 16 * 1024;
/// What is passed on at once of an answer that the client takes slowly.
const PIECE: (usize, usize) = (8 * 1024, 256 * 1024);

/// See the head of this file.
pub struct Download<'a> {
    manner: Manner,
    answer: Answer,
    progress: Progress,
    length: Length,
    backlog: Backlog<'a>,
}

/// How much of the body may still follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    /// Content-Length does not say.
    Any,
    /// So many bytes.
    Left(u64),
    /// The status allows no body.
    None,
}

/// What the worker has given and the client has not taken.
#[derive(Default)]
struct Backlog<'a> {
    bytes: Vec<u8>,
    account: Account<'a>,
    taken: usize,
    /// When the client took something last.
    moved_at: u64,
    /// Bytes that frames of the worker take besides.
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
            self.moved_at = monotonic_ns();
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
        self.moved_at = monotonic_ns();
        if self.is_empty() {
            // Not kept for the next piece: most clients are slow once.
            (self.bytes, self.taken) = (Vec::new(), 0);
            self.count();
        }
    }
}

impl<'a> Download<'a> {
    /// Nothing has come yet. What is kept for the client is counted in `account`.
    pub fn new(manner: Manner, account: Account<'a>) -> Self {
        let backlog = Backlog { account, ..Backlog::default() };
        Self { manner, answer: Answer::Whole, progress: Progress::Awaited, length: Length::Any, backlog }
    }

    /// How it ends, once it has ended.
    pub fn into_answer(self) -> Answer {
        self.answer
    }

    /// The head has come.
    pub fn has_head(&self) -> bool {
        self.progress != Progress::Awaited
    }

    /// The client has part of it.
    pub fn is_sent(&self) -> bool {
        self.progress == Progress::Sent
    }

    /// The client has taken all that has come.
    pub fn is_taken(&self) -> bool {
        self.backlog.is_empty()
    }

    /// When the client took something last of what is kept for it.
    pub const fn moved_at(&self) -> u64 {
        self.backlog.moved_at
    }

    /// Whether more may be kept.
    pub fn has_room(&self) -> bool {
        // A large frame that has begun is taken to its end, or nobody would give memory back.
        self.backlog.rest().len() < self.manner.answer_buffer && (self.backlog.frames > 0 || self.has_memory())
    }

    /// Whether httpd may keep more, for this request or at all.
    pub fn has_memory(&self) -> bool {
        self.backlog.account.has_room()
    }

    /// So many bytes of the worker's frames are kept besides.
    pub fn count_frames(&mut self, bytes: usize) {
        if self.backlog.frames != bytes {
            self.backlog.frames = bytes;
            self.backlog.count();
        }
    }

    /// Bytes of body are missing that Content-Length has promised.
    pub const fn is_short(&self) -> bool {
        matches!(self.length, Length::Left(left) if left > 0)
    }

    /// Takes the head. `cookie`: Set-Cookie of the session.
    pub fn head(&mut self, client: &mut impl Client, payload: &[u8], cookie: Option<String>) -> Result<(), Failed> {
        let head = Head::decode(payload).map_err(DispatchError::Wire)?;
        self.length = match head.status {
            204 | 304 => Length::None,
            _ if client.is_head() => Length::Any,
            _ => content_length(&head)?.map_or(Length::Any, Length::Left),
        };
        self.answer = answer_for(&head, self.manner);
        match self.answer {
            Answer::Whole => client.set_head(&head).map_err(|e| Failed::Head(e.0))?,
            Answer::Status(_) => client.set_error_head(&head),
            Answer::Redirect(_) => {}
        }
        if let Some(cookie) = cookie {
            client.set_cookie(&cookie);
        }
        self.progress = self.progress.begun();
        Ok(())
    }

    /// What is to be passed on of a piece of body. (A worker of ours has cut it already, and said so in the log.)
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
        (self.answer == Answer::Whole && !bytes.is_empty()).then_some(bytes)
    }

    /// Passes pieces of the body on, or keeps them for a client that does not take them now.
    pub fn deliver(&mut self, client: &mut impl Client, pieces: &mut Vec<&[u8]>, ended: bool) -> Result<(), Failed> {
        if self.answer != Answer::Whole || (!ended && pieces.is_empty()) {
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

    fn pass(&mut self, client: &mut impl Client, pieces: &[&[u8]], ended: bool) -> Result<(), Failed> {
        let result = client.pass(pieces, if ended { Pass::End } else { Pass::Flush });
        self.settle(result)
    }

    /// Notes what has become of the first piece: what a filter has refused has not gone out.
    fn settle(&mut self, result: Result<(), NotPassed>) -> Result<(), Failed> {
        if !matches!(result, Err(NotPassed::Answered | NotPassed::Refused)) {
            self.progress = self.progress.sent();
        }
        result.map_err(Failed::from)
    }

    /// Whether the client takes these pieces now, as far as can be told.
    fn is_wanted(&self, client: &mut impl Client, pieces: &[&[u8]]) -> bool {
        let size: usize = pieces.iter().map(|piece| piece.len()).sum();
        self.backlog.is_empty() && ((!self.is_sent() && size <= UNASKED) || size == 0 || client.room() >= size)
    }

    /// Passes on what the client takes of what is kept for it, without waiting. `takes`: it has just said that it takes something; `ended`:
    /// no more will come.
    pub fn pass_backlog(&mut self, client: &mut impl Client, takes: bool, ended: bool) -> Result<(), Failed> {
        if self.backlog.is_empty() {
            return Ok(());
        }
        let rest = self.backlog.rest();
        // Where nothing can be waited on (HTTP/2), httpd waits itself, once that holds no worker up that could go on.
        let room = if client.socket().is_none() && (ended || !self.has_room()) { rest.len() } else { client.room() };
        if room < PIECE.0.min(rest.len()) && !takes {
            return Ok(());
        }
        let room = room.clamp(PIECE.0, PIECE.1);
        let piece = rest.get(..room).unwrap_or(rest);
        let last = ended && piece.len() == rest.len();
        let n = piece.len();
        let result = client.pass(&[piece], if last { Pass::End } else { Pass::Flush });
        self.settle(result)?;
        self.backlog.take(n);
        Ok(())
    }
}

/// What Content-Length says, if it is there; twice is an error, as it is in a request.
fn content_length(head: &Head<'_>) -> Result<Option<u64>, Failed> {
    let mut lengths = head.fields.flatten().filter(|(name, _)| name.eq_ignore_ascii_case(b"Content-Length")).map(|(_, value)| value);
    let Some(value) = lengths.next() else { return Ok(None) };
    let digits = value.trim_ascii();
    let number = str::from_utf8(digits).ok().filter(|_| digits.iter().all(u8::is_ascii_digit)).and_then(|text| text.parse().ok());
    match (number, lengths.next()) {
        (Some(number), None) => Ok(Some(number)),
        _ => Err(Failed::Head("Content-Length is not a number, or is there twice".into())),
    }
}

fn answer_for(head: &Head<'_>, manner: Manner) -> Answer {
    if manner.error_override && (400..600).contains(&head.status) {
        return Answer::Status(head.status);
    }
    if head.status == 200 {
        let location = head.fields.flatten().find(|(name, _)| name.eq_ignore_ascii_case(b"Location"));
        if let Some((_, url)) = location.filter(|(_, url)| url.starts_with(b"/")) {
            return Answer::Redirect(url.to_vec());
        }
    }
    Answer::Whole
}
