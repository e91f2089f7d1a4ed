//! Status line and header fields in a HEAD frame.
//!
//! Responsible for: the layout, and the rules for names and values of header fields (RFC 9110 §5.5,
//! PEP 3333). The worker applies them to the application, httpd to the worker. Must never: change a
//! field. Called by: the worker (encode), `src/httpd/client.rs` and `src/handler` (decode).
use crate::codec::{Reader, WireError, put_long, put_short};

/// The largest HEAD frame that httpd accepts.
pub const MAX_HEAD: usize = 1024 * 1024;

/// The most header fields of a response.
pub const MAX_FIELDS: u16 = 1000;

/// Whether a header field belongs to the connection, which httpd controls: PEP 3333 forbids those
/// to applications (`wsgiref.util.is_hop_by_hop`). RFC 9110 spells one of them Trailer.
#[must_use]
pub fn is_hop_by_hop(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 9] = [
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"trailers",
        b"transfer-encoding",
        b"upgrade",
    ];
    NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// The status line and header fields, decoded.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// Status code, 100 to 999 (PEP 3333); httpd refuses 1xx.
    pub status: u16,
    /// The reason phrase; may be empty.
    pub reason: &'a [u8],
    /// The header fields.
    pub fields: Fields<'a>,
}

/// Appends the status line and the number of fields to `out`.
pub fn begin(out: &mut Vec<u8>, status: u16, reason: &[u8], fields: u16) -> Result<(), WireError> {
    out.extend_from_slice(&status.to_ne_bytes());
    out.extend_from_slice(&fields.to_ne_bytes());
    put_short(out, reason, "reason phrase")
}

/// Appends one field.
pub fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) -> Result<(), WireError> {
    put_short(out, name, "header name")?;
    put_long(out, value, "header value")
}

impl<'a> Head<'a> {
    /// Reads the payload of a HEAD frame. [`Fields`] checks each name and value as it yields it.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let status = r.u16("status")?;
        let left = r.u16("number of fields")?;
        let reason = r.short_bytes("reason phrase")?;
        if left > MAX_FIELDS {
            return Err(WireError::TooLarge("number of fields"));
        }
        if !(100..=999).contains(&status) {
            return Err(WireError::Bad("status"));
        }
        if !is_field_value(reason) {
            return Err(WireError::Bad("reason phrase"));
        }
        Ok(Self { status, reason, fields: Fields { reader: r, left } })
    }
}

/// Iterates over the header fields.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    reader: Reader<'a>,
    left: u16,
}

impl<'a> Fields<'a> {
    fn step(&mut self) -> Result<(&'a [u8], &'a [u8]), WireError> {
        let name = self.reader.short_bytes("header name")?;
        let value = self.reader.long_bytes("header value")?;
        if !is_field_name(name) {
            return Err(WireError::Bad("header name"));
        }
        if !is_field_value(value) {
            return Err(WireError::Bad("header value"));
        }
        Ok((name, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let item = self.step();
        if item.is_err() {
            self.left = 0;
        }
        Some(item)
    }
}

/// True for a token of RFC 9110 §5.6.2.
#[must_use]
pub fn is_field_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

/// True when no byte can end or fold a field line: no CR, LF, NUL or other control character except
/// TAB (RFC 9110 §5.5).
#[must_use]
pub fn is_field_value(value: &[u8]) -> bool {
    value.iter().all(|&b| b == b'\t' || (b >= 0x20 && b != 0x7f))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn response_splitting_is_refused() {
        for bad in [&b"a\r\nSet-Cookie: x"[..], b"a\nb", b"a\0b", b"\x7f"] {
            let mut out = Vec::new();
            begin(&mut out, 200, b"OK", 1).unwrap();
            field(&mut out, b"X-A", bad).unwrap();
            assert_eq!(Head::decode(&out).unwrap().fields.next(), Some(Err(WireError::Bad("header value"))));
        }
        for bad in [&b""[..], b"A B", b"A:", b"A\n", b"\xe9"] {
            let mut out = Vec::new();
            begin(&mut out, 200, b"OK", 1).unwrap();
            field(&mut out, bad, b"x").unwrap();
            assert_eq!(Head::decode(&out).unwrap().fields.next(), Some(Err(WireError::Bad("header name"))));
        }
    }

    proptest! {
        #[test]
        fn round_trip(status in 100u16..=999, reason in "[ -~]{0,30}", fields in proptest::collection::vec(("[A-Za-z-]{1,20}", "[ -~]{0,80}"), 0..40)) {
            let mut out = Vec::new();
            begin(&mut out, status, reason.as_bytes(), fields.len() as u16).unwrap();
            for (n, v) in &fields { field(&mut out, n.as_bytes(), v.as_bytes()).unwrap(); }
            let head = Head::decode(&out).unwrap();
            prop_assert_eq!(head.status, status);
            prop_assert_eq!(head.reason, reason.as_bytes());
            let back: Vec<_> = head.fields.collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(back, fields.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect::<Vec<_>>());
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(h) = Head::decode(&bytes) { h.fields.for_each(drop); }
        }
    }
}
