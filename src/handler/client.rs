//! What the handler needs of httpd, as a trait: so that a request's story can be tested without a server.
//!
//! Must never: name an ap_* type. Implemented by: `httpd::client` for httpd's requests, and by tests.
use drover_wire::head::Head;
use std::os::fd::BorrowedFd;

/// One step of reading the request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyRead {
    /// So many bytes are in the buffer.
    Data(usize),
    /// The body is complete.
    End,
    /// Nothing is there now; only when not asked to wait.
    NotYet,
    /// It will not be complete.
    Failed(BodyError),
}

/// Why a body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// The client closed the connection.
    ClientGone,
    /// The client was too slow.
    Timeout,
    /// Larger than LimitRequestBody.
    TooLarge,
    /// Not proper chunks.
    Malformed,
    /// An input filter has answered the request itself.
    Answered,
}

/// How bytes of the answer are passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// To the client, now.
    Flush,
    /// They are the last: end the answer.
    End,
    /// Cut the connection so that the client can see that the answer is not complete.
    Cut,
}

/// Why the answer could not be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotPassed {
    /// The client does not take it any more.
    Gone,
    /// One of httpd's output filters has answered in its place; nothing is left to be done.
    Answered,
    /// One of them has failed before anything had gone out, so that the client can still be told.
    Refused,
    /// One of them has failed in the middle of the answer.
    Spoilt,
}

/// What of a head could not be used; the text goes to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadHead(pub String);

/// One request of httpd.
pub trait Client {
    /// Reads some of the body into `buffer`; waits for the first byte if `wait`.
    fn read_body(&mut self, buffer: &mut [u8], wait: bool) -> BodyRead;
    /// Whether the client has asked for the head alone.
    fn is_head(&self) -> bool;
    /// The client's socket, if there is one to wait on.
    fn socket(&self) -> Option<BorrowedFd<'_>>;
    /// Whether the client has closed its side of the connection, or the connection (or its HTTP/2 stream) is broken.
    fn has_left(&self) -> bool;
    /// Sets status and headers. Nothing is sent before the first [`Client::pass`].
    fn set_head(&mut self, head: &Head<'_>) -> Result<(), BadHead>;
    /// Of a head whose answer is left to ErrorDocument: keeps what the client cannot do without.
    fn set_error_head(&mut self, head: &Head<'_>);
    /// Passes pieces of the answer's body on.
    fn pass(&mut self, pieces: &[&[u8]], how: Pass) -> Result<(), NotPassed>;
    /// Bytes that [`Client::pass`] takes without waiting for the client, about; `usize::MAX`: as many as one likes, or it cannot be told.
    fn room(&mut self) -> usize;
    /// The Cookie header.
    fn cookies(&self) -> Option<&[u8]>;
    /// Adds a Set-Cookie header, for whatever answer it becomes.
    fn set_cookie(&mut self, value: &str);
    /// What logs may say of the request's session.
    fn note_session(&mut self, name: &str);
    /// A line of the application for the request's error log, at httpd's `level`.
    fn application_log(&mut self, level: u16, text: &[u8]);
}
