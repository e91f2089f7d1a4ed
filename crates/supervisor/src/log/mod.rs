//! Writes lines to httpd's error logs.
//!
//! Responsible for: lines in the format of httpd's default ErrorLogFormat, one write(2) for each,
//! and for no log blocking the loop. Must never: split a line over two writes. Called by:
//! everything in droverd that logs.
pub mod messages;
pub mod setup_failures;

use crate::log::messages::{Code, Level};
use crate::workers::lines::printable;
use drover_sys::wait::{PollFd, PollFlags, poll_until};
use drover_sys::{clock, localtime};
use drover_wire::text::begin;
use std::cell::Cell;
use std::fmt::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How long to wait for a log that does not accept writes.
const PATIENCE_NS: u64 = 20_000_000;
/// How long to skip such a log afterwards.
const PAUSE_NS: u64 = 1_000_000_000;

/// Maximum length of the text, escapes included. With a prefix below 150 bytes the line stays below
/// PIPE_BUF.
const ROOM: usize = 3900;

/// One error log.
#[derive(Debug)]
pub struct Sink {
    /// `None`: standard error, which is the main server's log.
    file: Option<OwnedFd>,
    level: u8,
    paused_until: Cell<u64>,
    lost: Cell<u64>,
}

impl Sink {
    /// httpd's main error log, as inherited by droverd.
    pub const fn standard_error(level: u8) -> Self {
        Self { file: None, level, paused_until: Cell::new(0), lost: Cell::new(0) }
    }

    pub const fn new(file: OwnedFd, level: u8) -> Self {
        Self { file: Some(file), level, paused_until: Cell::new(0), lost: Cell::new(0) }
    }

    /// Logs one of droverd's messages. A text of several lines, such as a traceback, becomes
    /// several log lines.
    pub fn message(&self, code: Code, group: Option<&[u8]>, pid: Option<u32>, args: &[String]) {
        let level = code.level();
        if code.threshold() as u8 > self.level {
            return;
        }
        let mut name = String::new();
        if let Some(group) = group {
            name.push_str("(group '");
            printable(group, &mut name);
            name.push_str("'): ");
        }
        let text = code.fill(pid, args);
        let own = std::process::id();
        for (at, line) in text.trim_end().lines().enumerate() {
            // The code comes first, as in httpd's own messages.
            let line = match (at, line.split_once(": ")) {
                (0, Some((code, rest))) => format!("{code}: {name}{rest}"),
                _ => format!("{name}{line}"),
            };
            self.line(level, own, line.as_bytes());
        }
    }

    /// Logs a line that a worker wrote to standard output or error, at level error like mod_wsgi.
    pub fn output(&self, group: &[u8], pid: u32, text: &[u8]) {
        if Level::Error as u8 > self.level {
            return;
        }
        let (code, text) = text.split_at(code_of(text));
        let line = [code, b"(group '", group, b"'): ", text].concat();
        self.line(Level::Error, pid, &line);
    }

    /// Writes text without a line end, in as many lines as it needs.
    fn line(&self, level: Level, pid: u32, text: &[u8]) {
        let mut script_and_mtime = String::new();
        printable(text, &mut script_and_mtime);
        let mut rest = script_and_mtime.as_str();
        loop {
            let (piece, behind) = rest.split_at(begin(rest, ROOM).len());
            self.piece(level, pid, piece);
            rest = behind;
            if rest.is_empty() {
                return;
            }
        }
    }

    fn piece(&self, level: Level, pid: u32, text: &str) {
        let now = clock::monotonic_ns();
        if now < self.paused_until.get() {
            self.lost.set(self.lost.get() + 1);
            return;
        }
        if self.lost.get() > 0 {
            let args = [self.lost.get().to_string()];
            let told = Code::LogFull.fill(None, &args);
            if self.write(&format(Code::LogFull.level(), std::process::id(), &told)) {
                self.lost.set(0);
            }
        }
        if !self.write(&format(level, pid, text)) {
            self.lost.set(self.lost.get() + 1);
            self.paused_until.set(now.saturating_add(PAUSE_NS));
        }
    }

    fn write(&self, line: &[u8]) -> bool {
        let fd: BorrowedFd<'_> = self.file.as_ref().map_or_else(|| rustix::stdio::stderr(), AsFd::as_fd);
        // A pipe that reports POLLOUT accepts PIPE_BUF bytes without blocking (pipe(7)), and a line
        // is shorter.
        let mut fds = [PollFd::new(&fd, PollFlags::OUT)];
        let ready = poll_until(&mut fds, Some(clock::monotonic_ns().saturating_add(PATIENCE_NS)));
        matches!(ready, Ok(n) if n > 0) && rustix::io::retry_on_intr(|| rustix::io::write(fd, line)).is_ok()
    }
}

/// The length of the code (DROVER0400–0499) that starts a message of the worker itself; 0 for
/// application output.
fn code_of(text: &[u8]) -> usize {
    const LEN: usize = "DROVER04nn: ".len();
    match text.get(..LEN) {
        Some([b'D', b'R', b'O', b'V', b'E', b'R', b'0', b'4', b'0'..=b'9', b'0'..=b'9', b':', b' ']) => LEN,
        _ => 0,
    }
}

fn format(level: Level, pid: u32, text: &str) -> Vec<u8> {
    const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let now = clock::realtime_ns();
    let t = localtime::at(i64::try_from(now / 1_000_000_000).unwrap_or(0));
    let (day, month) = (DAYS.get(t.weekday).copied().unwrap_or("?"), MONTHS.get(t.month).copied().unwrap_or("?"));
    let mut line = String::with_capacity(text.len() + 100);
    let _ = write!(
        line,
        "[{day} {month} {:02} {:02}:{:02}:{:02}.{:06} {}] [wsgi:{}] [pid {pid}:tid {pid}] ",
        t.day,
        t.hour,
        t.minute,
        t.second,
        now / 1000 % 1_000_000,
        t.year,
        level.name()
    );
    line.push_str(text);
    line.push('\n');
    line.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_looks_like_httpds() {
        let line = String::from_utf8(format(Level::Notice, 12, "DROVER0001: text")).unwrap();
        let (date, rest) = line.split_once("] ").unwrap();
        assert_eq!(rest, "[wsgi:notice] [pid 12:tid 12] DROVER0001: text\n");
        assert_eq!(date.len(), "[Fri Nov 20 21:36:58.123456 2026".len(), "{date}");
    }

    #[test]
    fn a_line_that_escapes_make_too_long_is_written_in_pieces() {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        let sink = Sink::new(writer, 7);
        let mut text = vec![0x1b; 3000];
        text.extend_from_slice("caf\u{e9} ".repeat(100).as_bytes());
        sink.output(b"shop", 1, &text);
        let mut buffer = vec![0; 1 << 16];
        let n = rustix::io::read(&reader, &mut buffer).unwrap();
        let written = String::from_utf8(buffer[..n].to_vec()).unwrap();
        assert!(written.lines().all(|line| line.len() < 4096), "each fits into a pipe at once");
        let script_and_mtime: String = written.lines().map(|line| line.split("] ").last().unwrap()).collect();
        let escapes = "\\x1b".repeat(3000);
        assert_eq!(script_and_mtime, format!("(group 'shop'): {escapes}{}", "caf\u{e9} ".repeat(100)));
        sink.output(b"shop", 1, b"");
        assert!(rustix::io::read(&reader, &mut buffer).unwrap() > 0, "an empty line is a line");
    }

    #[test]
    fn a_log_that_takes_nothing_is_left_alone_and_told_later() {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        while rustix::io::write(&writer, &[b'x'; 4096]).is_ok() {}
        let sink = Sink::new(writer, 7);
        for _ in 0..1000 {
            sink.output(b"shop", 1, b"hello");
        }
        assert_eq!(sink.lost.get(), 1000, "and it did not take 20 s");
        let mut buffer = vec![0; 1 << 20];
        while rustix::io::read(&reader, &mut buffer).is_ok() {}
        sink.paused_until.set(0);
        sink.output(b"shop", 7, b"DROVER0403: the stacks");
        sink.output(b"shop", 7, b"DROVER0203: a lie");
        sink.message(Code::Crashed, Some(b"shop"), Some(3), &["was killed\nTraceback:\n  line".into()]);
        let n = rustix::io::read(&reader, &mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
        assert!(text.contains("DROVER0250: 1000 lines"), "{text}");
        assert!(
            text.contains("] DROVER0403: (group 'shop'): the stacks\n") && text.contains("] (group 'shop'): DROVER0203: a lie\n"),
            "{text}"
        );
        assert!(text.contains("DROVER0232: (group 'shop'): worker 3 was killed\n"), "{text}");
        assert!(text.contains("] (group 'shop'):   line while serving"), "{text}");
    }
}
