//! The log of one request: httpd writes its lines with the client and the request they belong to.
//!
//! Responsible for: whole lines, and none lost. A line that cannot go to httpd goes to the group's
//! log. Must never: send on a request that is over. Called by: `log::stream`, `failure`, and every
//! file that logs about a request.
use crate::cpython;
use crate::log::level::{ERROR, WARNING};
use crate::log::stderr;
use crate::request::reply_socket::ReplySocket;
use parking_lot::Mutex;
use pyo3::Python;

/// A line without an end is cut here, bytes.
const MAX_LINE: usize = 16 * 1024;

/// The state of one request's log.
#[derive(Debug)]
pub struct RequestLog {
    /// httpd's log level for this request.
    level: u16,
    /// The beginning of a line that has no end yet.
    partial: Mutex<Vec<u8>>,
}

impl RequestLog {
    /// For a request with this log level.
    pub const fn new(level: u8) -> Self {
        Self { level: level as u16, partial: Mutex::new(Vec::new()) }
    }

    /// Sends text to the request's log, or to the group's if that fails.
    pub fn send(&self, py: Python<'_>, reply: &ReplySocket, level: u16, text: &[u8]) {
        if self.level < level {
            return;
        }
        if reply.log(py, level, text).is_err() && level <= WARNING {
            let mut line = text.to_vec();
            line.push(b'\n');
            py.detach(|| stderr::write(&line));
        }
    }

    /// Takes bytes that the application writes, and sends the whole lines.
    pub fn write(&self, py: Python<'_>, reply: &ReplySocket, bytes: &[u8]) {
        let whole = gather(&mut cpython::lock(py, &self.partial), bytes);
        if !whole.is_empty() {
            self.send(py, reply, ERROR, &whole);
        }
    }

    /// Sends the line that was begun and not ended.
    pub fn finish_line(&self, py: Python<'_>, reply: &ReplySocket) {
        let line = std::mem::take(&mut *cpython::lock(py, &self.partial));
        if !line.is_empty() {
            self.send(py, reply, ERROR, &line);
        }
    }
}

/// Adds bytes to the line begun, and takes out what is whole.
fn gather(partial: &mut Vec<u8>, bytes: &[u8]) -> Vec<u8> {
    partial.extend_from_slice(bytes);
    let cut = match bytes.iter().rposition(|&b| b == b'\n') {
        Some(at) => partial.len() - bytes.len() + at + 1,
        None if partial.len() > MAX_LINE => partial.len(),
        None => return Vec::new(),
    };
    let rest = partial.split_off(cut);
    std::mem::replace(partial, rest)
}
