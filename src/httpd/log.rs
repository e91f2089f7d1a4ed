//! Our messages in httpd's error log: `[wsgi:level] … DROVERnnnn: text`.
//!
//! Responsible for: passing text as data, never as a format. Must never: decide what to log. Called by: `src/httpd/`, and
//! `handler` through [`super::request::Request`].
use super::ffi;
use crate::messages::Code;
pub use crate::messages::Level;
use std::ffi::c_int;

fn line(code: Code, text: &str) -> String {
    format!("{code}: {text}")
}

fn c_len(text: &[u8]) -> c_int {
    c_int::try_from(text.len()).unwrap_or(c_int::MAX)
}

/// Logs a message for a server (virtual host).
pub fn server(s: *mut ffi::server_rec, level: Level, code: Code, text: &str) {
    let line = line(code, text);
    // SAFETY: `s` is a server_rec of the live configuration, or null, which ap_log_error takes as the main server (http_log.h);
    // the text is passed with its length.
    unsafe { ffi::drover_log_server(s, level as c_int, line.as_ptr().cast(), c_len(line.as_bytes())) }
}

/// Logs a message before any server is configured, to the terminal as well.
pub fn startup(level: Level, code: Code, text: &str) {
    let line = line(code, text);
    // SAFETY: ap_log_error with a null server writes to the terminal or the default log (http_log.h: APLOG_STARTUP).
    unsafe { ffi::drover_log_startup(level as c_int, line.as_ptr().cast(), c_len(line.as_bytes())) }
}

/// Logs `text` unchanged for a request.
pub fn request_raw(r: *mut ffi::request_rec, level: c_int, text: &[u8]) {
    // SAFETY: `r` is the live request of the calling thread; the text is passed with its length.
    unsafe { ffi::drover_log_request(r, level, text.as_ptr().cast(), c_len(text)) }
}

/// Logs a message for a request.
pub fn request(r: *mut ffi::request_rec, level: Level, code: Code, text: &str) {
    request_raw(r, level as c_int, line(code, text).as_bytes());
}
