//! What the request's header fields say about its body, parsed once.
//!
//! Responsible for: the one reading of Content-Length and Transfer-Encoding. Must never: log or refuse; `prepare::checks`
//! does. Called by: `prepare::checks` (makes it), `exchange::upload` (uses it).
use super::request::RequestView;

/// The length of a request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// There is no body.
    None,
    /// Content-Length gives it.
    Known(u64),
    /// A chunked body, or an HTTP/2 stream without Content-Length.
    Unknown,
}

/// Why the header fields cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadRequestHead<'r> {
    /// An unknown Transfer-Encoding.
    TransferEncoding(&'r [u8]),
    /// Content-Length is not a number.
    ContentLength,
}

/// The header fields that frame the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHead {
    /// The length of the body.
    pub body: BodyLength,
    /// Transfer-Encoding is chunked.
    pub is_chunked: bool,
}

impl RequestHead {
    /// Parses them.
    pub fn parse<'r>(r: &impl RequestView<'r>) -> Result<Self, BadRequestHead<'r>> {
        let is_stream = r.is_stream();
        let encoding = r.header(c"Transfer-Encoding");
        if let Some(encoding) = encoding.filter(|e| !is_stream && !e.eq_ignore_ascii_case(b"chunked")) {
            return Err(BadRequestHead::TransferEncoding(encoding));
        }
        let body = match r.header(c"Content-Length") {
            Some(text) => BodyLength::Known(parse_length(text).ok_or(BadRequestHead::ContentLength)?),
            None if encoding.is_some() || is_stream => BodyLength::Unknown,
            None => BodyLength::None,
        };
        Ok(Self { body, is_chunked: encoding.is_some() && !is_stream })
    }
}

fn parse_length(text: &[u8]) -> Option<u64> {
    let digits = text.trim_ascii();
    str::from_utf8(digits).ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
}
