//! Our lines in httpd's error log: `[wsgi:level] … DROVERnnnn: text`.
//!
//! Responsible for: text always being data, never a format; no work for a level that is off. Must never: decide what is
//! worth a line. Called by: `src/httpd/`, and `handler` through [`super::request::Request`].
use super::ffi;
use crate::messages::Code;
use std::ffi::c_int;

/// httpd's levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum Level {
    /// Action must be taken now.
    Crit = 2,
    /// Something failed.
    Error = 3,
    /// Something may be wrong.
    Warn = 4,
    /// Normal but significant.
    Notice = 5,
    /// For who watches.
    Info = 6,
    /// For who looks for a fault.
    Debug = 7,
}

fn line(code: Code, text: &str) -> String {
    format!("{code}: {text}")
}

fn c_len(text: &[u8]) -> c_int {
    c_int::try_from(text.len()).unwrap_or(c_int::MAX)
}

/// A line for a server (virtual host).
pub fn server(s: *mut ffi::server_rec, level: Level, code: Code, text: &str) {
    let line = line(code, text);
    // SAFETY: `s` is a server_rec of the live configuration, or null, which ap_log_error takes as the main server (http_log.h);
    // the text is passed with its length.
    unsafe { ffi::drover_log_server(s, level as c_int, line.as_ptr().cast(), c_len(line.as_bytes())) }
}

/// A line before there is a server: to the terminal as well.
pub fn startup(level: Level, code: Code, text: &str) {
    let line = line(code, text);
    // SAFETY: ap_log_error with a null server writes to the terminal or the default log (http_log.h: APLOG_STARTUP).
    unsafe { ffi::drover_log_startup(level as c_int, line.as_ptr().cast(), c_len(line.as_bytes())) }
}

/// A line for a request, raw: `text` as it is.
pub fn request_raw(r: *mut ffi::request_rec, level: c_int, text: &[u8]) {
    // SAFETY: `r` is the live request of the calling thread; the text is passed with its length.
    unsafe { ffi::drover_log_request(r, level, text.as_ptr().cast(), c_len(text)) }
}

/// A line for a request.
pub fn request(r: *mut ffi::request_rec, level: Level, code: Code, text: &str) {
    request_raw(r, level as c_int, line(code, text).as_bytes());
}
