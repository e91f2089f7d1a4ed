//! httpd's error log on the terminal.
//!
//! Responsible for: a FIFO that httpd opens as its ErrorLog, and a thread that copies its lines to
//! standard error and detects the line with which httpd reports that it serves. A path like
//! /dev/stderr cannot be opened if standard error is a socket or another user's terminal, and a
//! piped logger is killed before it has written the last lines. Must never: block httpd. Called by:
//! `serve.rs`.
use crate::error::Error;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::thread::JoinHandle;

/// What httpd writes when it accepts connections.
const READY: &[u8] = b"resuming normal operations";

/// A line that this process writes to the FIFO itself, to end the thread.
const LAST: &[u8] = b"\0drover: end of log\n";

/// The running copy.
pub struct Relay {
    writer: File,
    thread: JoinHandle<()>,
}

impl Relay {
    /// Creates the FIFO and starts copying; calls `ready` each time httpd reports that it serves.
    pub fn start(path: &Path, ready: impl Fn() + Send + 'static) -> Result<Relay, Error> {
        let fail = |e: rustix::io::Errno| Error::io(path.display(), e.into());
        rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from(0o600), 0).map_err(fail)?;
        // Opened for reading and writing: this open does not wait, and no end of file occurs while
        // httpd restarts.
        let reader = File::from(rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(fail)?);
        let writer = reader.try_clone().map_err(|e| Error::io(path.display(), e))?;
        let thread = std::thread::spawn(move || copy(reader, io::stderr(), ready));
        Ok(Relay { writer, thread })
    }

    /// Copies the rest. Called when no other process writes any more.
    pub fn finish(mut self) {
        if self.writer.write_all(LAST).is_ok() {
            let _ = self.thread.join();
        }
    }
}

fn copy(mut from: impl Read, mut to: impl Write, ready: impl Fn()) {
    let mut line = Vec::new();
    let mut buffer = [0u8; 16 * 1024];
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        for piece in buffer.get(..n).unwrap_or_default().split_inclusive(|b| *b == b'\n') {
            line.extend_from_slice(piece);
            if !line.ends_with(b"\n") {
                continue;
            }
            if line.ends_with(LAST) {
                return;
            }
            if line.windows(READY.len()).any(|w| w == READY) {
                ready();
            }
            // A closed terminal must not stop the copy: httpd would block on a full FIFO.
            let _ = to.write_all(&line);
            line.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn lines_are_copied_up_to_the_last() {
        let input = [b"[x] one\n[x] AH00489: Apache configured -- resuming normal operations\ntwo\n".as_slice(), LAST, b"three\n"].concat();
        let (mut out, count) = (Vec::new(), Cell::new(0));
        copy(input.as_slice(), &mut out, || count.set(count.get() + 1));
        assert!(out.starts_with(b"[x] one\n") && out.ends_with(b"two\n"));
        assert_eq!(count.get(), 1);
    }
}
