//! Splits a worker's output into lines for the log.
//!
//! Responsible for: losing no line, bounding each line, and escaping everything that a terminal
//! would interpret. Called by: the code that reads the pipe.
#![forbid(unsafe_code)]

/// A longer line is logged in pieces. With its prefix a piece stays below PIPE_BUF, so that lines
/// in a piped log never mix.
pub const LONGEST: usize = 3600;

#[derive(Debug, Default)]
pub struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// Adds bytes that were read and passes each complete line to `out`.
    pub fn push(&mut self, mut bytes: &[u8], mut out: impl FnMut(&[u8])) {
        while let Some(at) = bytes.iter().position(|b| *b == b'\n') {
            let (line, rest) = bytes.split_at(at);
            self.add(line, &mut out);
            self.flush(&mut out, true);
            bytes = rest.get(1..).unwrap_or_default();
        }
        self.add(bytes, &mut out);
    }

    /// The pipe was closed: text without a line end is a line too.
    pub fn end(&mut self, mut out: impl FnMut(&[u8])) {
        self.flush(&mut out, false);
    }

    fn add(&mut self, mut bytes: &[u8], out: &mut impl FnMut(&[u8])) {
        loop {
            let room = LONGEST.saturating_sub(self.begun.len()).min(bytes.len());
            let (now, later) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            self.begun.extend_from_slice(now);
            if later.is_empty() {
                return;
            }
            self.flush(out, true);
            bytes = later;
        }
    }

    fn flush(&mut self, out: &mut impl FnMut(&[u8]), empty_too: bool) {
        let line = self.begun.strip_suffix(b"\r").unwrap_or(&self.begun);
        if empty_too || !line.is_empty() {
            out(line);
        }
        self.begun.clear();
    }
}

/// Appends `text`, with everything but printable UTF-8 written as `\xNN`.
pub fn printable(text: &[u8], out: &mut String) {
    use std::fmt::Write as _;
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() && c != '\t' {
                let mut bytes = [0; 4];
                for b in c.encode_utf8(&mut bytes).bytes() {
                    let _ = write!(out, "\\x{b:02x}");
                }
            } else {
                out.push(c);
            }
        }
        for b in chunk.invalid() {
            let _ = write!(out, "\\x{b:02x}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for p in pieces {
            lines.push(p, |l| out.push(l.to_vec()));
        }
        lines.end(|l| out.push(l.to_vec()));
        out
    }

    #[test]
    fn lines_and_the_rest() {
        assert_eq!(all(&[b"one\ntw", b"o\r\n\nlast"]), [b"one".to_vec(), b"two".to_vec(), b"".to_vec(), b"last".to_vec()]);
        assert!(all(&[]).is_empty());
    }

    #[test]
    fn control_characters_are_shown() {
        let mut s = String::new();
        printable(b"a\x1b[2J\tb\xff \xc3\xa9 \xc2\x9b", &mut s);
        assert_eq!(s, "a\\x1b[2J\tb\\xff \u{e9} \\xc2\\x9b");
    }

    proptest! {
        #[test]
        fn nothing_is_lost(text in proptest::collection::vec(prop_oneof![9 => any::<u8>(), 1 => Just(b'\n')], 0..9000), cut in 1usize..5000) {
            let pieces: Vec<&[u8]> = text.chunks(cut).collect();
            let lines = all(&pieces);
            prop_assert!(lines.iter().all(|l| l.len() <= LONGEST));
            let strip = |v: &[u8]| v.iter().copied().filter(|b| *b != b'\n' && *b != b'\r').collect::<Vec<_>>();
            prop_assert_eq!(strip(&lines.concat()), strip(&text));
        }
    }
}
