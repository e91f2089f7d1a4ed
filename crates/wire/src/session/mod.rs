//! The payload of SESSION frames: what the application's session asks of httpd, and the answers.
//!
//! Responsible for: the layout and limits of each operation and each answer. Must never: interpret
//! a session, or hold a copy of its data (which come last, so that they can be sent as a separate
//! piece). Called by: the worker (`crates/worker/src/session.rs`), `src/session` (the other side).
//!
//! A frame to httpd has an [`Op`] as its code, one to the worker a [`Status`]. Each [`Request`]
//! gets exactly one answer, in the order of the requests, except [`Request::Used`] and a [`Save`]
//! with `no_reply`.
//!
//! * `question`: what the worker sends.
//! * `answer`: what httpd answers, also with a prefetched session.
mod answer;
mod question;

pub use answer::{Opened, Serializer, Status, Stored, decode_bool, decode_key, encode_bool, encode_key, error_text};
pub use question::{Op, Put, Request, Save};

use crate::codec::{Reader, WireError, put_short};

/// The largest data of one session that the wire carries.
pub const MAX_DATA: usize = 16 * 1024 * 1024;
/// The largest payload of a SESSION frame.
pub const MAX_SESSION: usize = MAX_DATA + 1024;
/// The longest key.
pub const MAX_KEY: usize = 128;
/// The longest text of an error; a longer one is truncated.
pub const MAX_TEXT: usize = 512;

/// Whether a text is a valid session key.
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
mod tests;
