//! The client of a request as the handler's [`Client`]: its body through the input filters, its response through the output
//! filters.
//!
//! Responsible for: the calls of httpd's filters and tables, and translating their errors. Must never: decide anything; keep a
//! pointer beyond the request. Called by: `handler`.
use super::request::Request;
use super::{ffi, log};
use crate::handler::request::{BadHead, BodyError, BodyRead, Client, NotPassed, Pass, RequestView};
use drover_wire::head::{Head, is_hop_by_hop};
use drover_wire::text::pieces;
use std::ffi::c_int;
use std::os::fd::BorrowedFd;

fn body_error(raw: *mut ffi::request_rec, status: c_int) -> BodyError {
    // SAFETY: the request is live.
    let aborted = unsafe { (*(*raw).connection).aborted != 0 };
    // SAFETY: a pure function of numbers (http_protocol.h).
    match unsafe { ffi::ap_map_http_request_error(status, ffi::HTTP_BAD_REQUEST) } {
        _ if aborted => BodyError::ClientGone,
        ffi::HTTP_REQUEST_TIME_OUT => BodyError::Timeout,
        ffi::HTTP_REQUEST_ENTITY_TOO_LARGE => BodyError::TooLarge,
        status if status < 0 => BodyError::Answered,
        _ if is_disconnect(status) => BodyError::ClientGone,
        _ => BodyError::Malformed,
    }
}

const fn is_disconnect(status: c_int) -> bool {
    matches!(status, ffi::APR_EOF | libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED | libc::ENOTCONN)
}

/// Bytes that mod_http2 buffers for a stream before [`Client::pass`] may block: half the default of H2StreamMaxMemSize.
const MAX_BUFFERED: usize = 32 * 1024;

impl Request<'_> {
    /// Creates the brigade and the ledger of the response, once.
    fn open_output(&mut self) {
        if self.output.is_null() {
            // SAFETY: the brigade lives in the request's pool.
            self.output = unsafe { ffi::drover_brigade(self.raw) };
            // SAFETY: the request is live; the ledger is kept no longer than it.
            self.ledger = unsafe { ffi::drover_ledger_open(self.raw) };
        }
    }
}

impl Client for Request<'_> {
    fn read_body(&mut self, buffer: &mut [u8], wait: bool) -> BodyRead {
        if self.ended {
            return BodyRead::End;
        }
        if self.input.is_null() {
            // SAFETY: the brigade lives in the request's pool.
            self.input = unsafe { ffi::drover_brigade(self.raw) };
        }
        if !wait {
            // SAFETY: the request is live; does nothing unless the client waits for 100 Continue.
            unsafe { ffi::drover_send_continue(self.raw) };
        }
        let (mut got, mut end) = (0, 0);
        // SAFETY: at most `buffer.len()` bytes are written to it; the brigade is ours.
        let status = unsafe {
            ffi::drover_body_read(
                self.raw,
                self.input,
                c_int::from(wait),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                &raw mut got,
                &raw mut end,
            )
        };
        self.ended = status == ffi::APR_SUCCESS && end != 0;
        match status {
            ffi::APR_SUCCESS if got > 0 => BodyRead::Data(got),
            ffi::APR_SUCCESS if end != 0 => BodyRead::End,
            ffi::APR_SUCCESS | ffi::APR_EAGAIN if !wait => BodyRead::NotYet,
            ffi::APR_SUCCESS => BodyRead::Failed(BodyError::ClientGone),
            status if is_disconnect(status) => BodyRead::Failed(BodyError::ClientGone),
            status => BodyRead::Failed(body_error(self.raw, status)),
        }
    }

    fn is_head(&self) -> bool {
        // SAFETY: the request is live.
        unsafe { (*self.raw).header_only != 0 }
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: the request is live.
        let fd = unsafe { ffi::drover_client_fd(self.raw) };
        // SAFETY: the client's socket stays open while its request runs, which `self` borrows.
        (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
    }

    fn has_left(&self) -> bool {
        // SAFETY: the request is live.
        let aborted = unsafe { (*(*self.raw).connection).aborted != 0 };
        aborted || self.socket().is_some_and(drover_sys::wait::ended_now)
    }

    fn set_head(&mut self, head: &Head<'_>) -> Result<(), BadHead> {
        if head.status < 200 {
            return Err(BadHead(format!("status {} is reserved for httpd", head.status)));
        }
        let separator: &[u8] = if head.reason.is_empty() { b"" } else { b" " };
        let line = [head.status.to_string().as_bytes(), separator, head.reason].concat();
        let line = self.pooled(&line);
        let r = self.raw;
        // SAFETY: the request is live; removes one of its filters.
        unsafe { ffi::drover_leave_ranges(r) };
        // SAFETY: the line lies in the request's pool. httpd adds a known reason phrase to a bare number; without a status line it
        // would replace an unknown status by 500.
        unsafe {
            (*r).status = c_int::from(head.status);
            (*r).status_line = line;
        }
        // Values of one name become one list, as RFC 9110 §5.3 allows and mod_wsgi does. They are joined here because apr_table_merge
        // would copy the whole list for each value.
        let mut lists: Vec<(&[u8], Vec<u8>)> = Vec::new();
        for field in head.fields {
            let (name, value) = field.map_err(|e| BadHead(e.to_string()))?;
            // RFC 9110 §5.5: leading whitespace is not part of the value; Django's cookies have it. (Trailing whitespace stays, as with
            // mod_wsgi.)
            let value = value.trim_ascii_start();
            if is_hop_by_hop(name) {
                return Err(BadHead(format!("{} is a hop-by-hop field, which only httpd may set", name.escape_ascii())));
            } else if name.eq_ignore_ascii_case(b"Content-Type") {
                // SAFETY: the copy lies in the request's pool.
                unsafe { ffi::ap_set_content_type(r, self.pooled(value)) };
            } else if name.eq_ignore_ascii_case(b"Content-Length") {
                let digits = value.trim_ascii_end();
                let length =
                    str::from_utf8(digits).ok().filter(|_| digits.iter().all(u8::is_ascii_digit)).and_then(|t| t.parse::<i64>().ok());
                let Some(length) = length else { return Err(BadHead("Content-Length is not a number".into())) };
                // SAFETY: the request is live.
                unsafe { ffi::ap_set_content_length(r, length) };
            } else if [b"Set-Cookie".as_slice(), b"WWW-Authenticate"].iter().any(|several| name.eq_ignore_ascii_case(several)) {
                // SAFETY: both copies lie in the request's pool; names and values hold no NUL (Fields has checked).
                unsafe { ffi::apr_table_addn((*r).headers_out, self.pooled(name), self.pooled(value)) };
            } else if let Some((_, list)) = lists.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
                list.extend_from_slice(b", ");
                list.extend_from_slice(value);
            } else {
                lists.push((name, value.to_vec()));
            }
        }
        for (name, list) in lists {
            // SAFETY: as above; apr_table_merge copies.
            unsafe { ffi::apr_table_merge((*r).headers_out, self.pooled(name), self.pooled(&list)) };
        }
        Ok(())
    }

    fn set_error_head(&mut self, head: &Head<'_>) {
        // RFC 9110 §15.5.2: a 401 must say how to authenticate. As in mod_wsgi, all other fields are discarded with the body.
        for (name, value) in head.fields.flatten().filter(|(name, _)| name.eq_ignore_ascii_case(b"WWW-Authenticate")) {
            // SAFETY: both copies lie in the request's pool; error responses include err_headers_out (httpd.h).
            unsafe { ffi::apr_table_addn((*self.raw).err_headers_out, self.pooled(name), self.pooled(value)) };
        }
    }

    fn pass(&mut self, pieces: &[&[u8]], how: Pass) -> Result<(), NotPassed> {
        self.open_output();
        for piece in pieces {
            // SAFETY: the pieces stay borrowed until drover_pass sent or copied them.
            unsafe { ffi::drover_append(self.raw, self.output, piece.as_ptr().cast(), piece.len()) };
        }
        let size: usize = pieces.iter().map(|piece| piece.len()).sum();
        if !self.ledger.is_null() && size > 0 {
            // SAFETY: the ledger lives as long as the request; the brigade is ours.
            unsafe { ffi::drover_ledger_mark(self.raw, self.ledger, self.output, size) };
            self.passed += size;
        }
        let how = match how {
            Pass::Flush => 0,
            Pass::End => 1,
            Pass::Cut => 2,
        };
        // SAFETY: the brigade is ours; its data is valid until the call returns, which empties it.
        let status = unsafe { ffi::drover_pass(self.raw, self.output, how) };
        match status {
            ffi::DROVER_PASSED => Ok(()),
            ffi::DROVER_ANSWERED => Err(NotPassed::Answered),
            ffi::DROVER_REFUSED => Err(NotPassed::Refused),
            ffi::DROVER_ABORTED_MIDWAY => Err(NotPassed::AbortedMidway),
            _ => Err(NotPassed::Gone),
        }
    }

    fn room(&mut self) -> usize {
        if let Some(socket) = self.socket() {
            return drover_sys::outgoing::room(socket);
        }
        self.open_output();
        if self.ledger.is_null() {
            return usize::MAX;
        }
        // SAFETY: the ledger lives as long as the request; the brigade is ours and empty.
        let taken = unsafe { ffi::drover_ledger_taken(self.raw, self.ledger, self.output) };
        // For a broken stream, the next pass returns the error.
        usize::try_from(taken).map_or(usize::MAX, |taken| MAX_BUFFERED.saturating_sub(self.passed.saturating_sub(taken)))
    }

    fn cookies(&self) -> Option<&[u8]> {
        self.header(c"Cookie")
    }

    fn set_cookie(&mut self, value: &str) {
        let value = self.pooled(value.as_bytes());
        // SAFETY: a static name, a value in the request's pool. Error responses include err_headers_out (httpd.h).
        unsafe { ffi::apr_table_addn((*self.raw).err_headers_out, c"Set-Cookie".as_ptr(), value) };
    }

    fn note_session(&mut self, name: &str) {
        let name = self.pooled(name.as_bytes());
        // SAFETY: a static name, a value in the request's pool.
        unsafe { ffi::apr_table_setn((*self.raw).notes, c"drover-session-id".as_ptr(), name) };
    }

    fn application_log(&mut self, level: u16, text: &[u8]) {
        // httpd truncates a message at 8192 bytes, including its own prefix and escapes.
        for line in text.split(|b| *b == b'\n').filter(|l| !l.is_empty()).flat_map(|l| pieces(l, 7000)) {
            log::request_raw(self.raw, c_int::from(level), line);
        }
    }
}
