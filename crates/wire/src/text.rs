//! Text that is shortened to fit into a message or a log.
//!
//! Responsible for: keeping what the reader needs, and marking the text as shortened. Must never:
//! return more than the limit. Called by: the worker, droverd, the module's log.
use std::borrow::Cow;

/// Bytes for the note that the beginning was left out.
const NOTE: usize = 64;
/// Marks a shortened line.
const CUT: &str = " [cut]";

/// The end of `text`, at most `most` bytes: a traceback ends with the exception. If the beginning
/// is left out, the first line states how much.
#[must_use]
pub fn end(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return Cow::Borrowed(text);
    }
    let room = most.saturating_sub(NOTE);
    let mut from = text.len() - room;
    while !text.is_char_boundary(from) {
        from += 1;
    }
    // From the start of a line, unless that loses much.
    let kept = text.get(from..).unwrap_or_default();
    if let Some(line) = kept.find('\n').filter(|at| *at < room / 4) {
        from += line + 1;
    }
    let kept = text.get(from..).unwrap_or_default();
    if most < NOTE { Cow::Borrowed(kept) } else { Cow::Owned(format!("[the first {from} bytes are cut]\n{kept}")) }
}

/// The beginning of `text`: whole characters, at most `most` bytes. For text whose rest follows
/// elsewhere.
#[must_use]
pub fn begin(text: &str, most: usize) -> &str {
    let mut at = most.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    text.get(..at).unwrap_or_default()
}

/// Text as one line of at most `most` characters.
#[must_use]
pub fn one_line(text: &str, most: usize) -> String {
    let text = text.trim_end();
    let all = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    if text.chars().nth(most).is_none() {
        return all.collect();
    }
    let mut line: String = all.take(most.saturating_sub(CUT.len())).collect();
    line.truncate(line.trim_end().len());
    line.extend(CUT.chars().take(most));
    line
}

/// Splits `text` into pieces that fit into a log line: each at most `most` characters wide with
/// everything but printable ASCII written as `\xNN`. Characters of UTF-8 are not split.
pub fn pieces(text: &[u8], most: usize) -> impl Iterator<Item = &[u8]> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut wide = 0;
        let fits = rest.iter().position(|&byte| {
            wide += if matches!(byte, b' '..=b'~') && byte != b'\\' && byte != b'"' { 1 } else { 4 };
            wide > most
        });
        let fits = fits.unwrap_or(rest.len());
        let is_begun = |at: usize| rest.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
        let whole = (fits.saturating_sub(3)..=fits).rev().find(|&at| !is_begun(at)).filter(|&at| at > 0);
        let (piece, behind) = rest.split_at_checked(whole.unwrap_or(fits).max(1))?;
        rest = behind;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_end_of_a_traceback_is_kept() {
        let frames: String = (0..1000).map(|i| format!("  File \"a.py\", line {i}, in f\n")).collect();
        let text = format!("Traceback (most recent call last):\n{frames}ValueError: the reason\n");
        let cut = end(&text, 500);
        assert!(cut.len() <= 500 && cut.ends_with("line 999, in f\nValueError: the reason\n"), "{cut}");
        let (note, rest) = cut.split_once('\n').unwrap();
        assert_eq!(note, format!("[the first {} bytes are cut]", text.len() - rest.len()));
        assert!(rest.starts_with("  File"), "{rest}");
        assert_eq!(end(&text, text.len()), text);
        assert!(end(&"x".repeat(1000), 100).ends_with("]\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"), "one long line");
        assert_eq!(end("abcdef", 0), "");
    }

    #[test]
    fn a_line_says_that_it_is_cut() {
        assert_eq!(one_line("two\nlines\n", 9), "two lines");
        assert_eq!(one_line("two\nlines", 8), "tw [cut]");
        assert_eq!(one_line("a word and more", 13), "a word [cut]");
    }

    proptest! {
        #[test]
        fn nothing_is_longer_than_asked(text in "(?s).{0,300}", most in 0usize..400) {
            let cut = end(&text, most);
            prop_assert!(cut.len() <= most);
            prop_assert!(most < NOTE || text.ends_with(cut.rsplit('\n').next().unwrap_or_default()));
            prop_assert!(one_line(&text, most).chars().count() <= most);
        }

        #[test]
        fn pieces_are_the_whole(text in proptest::collection::vec(any::<u8>(), 0..300), most in 1usize..50) {
            let all: Vec<_> = pieces(&text, most).collect();
            prop_assert_eq!(all.concat(), &text[..]);
            let plain = |byte: u8| byte == b' ' || (byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
            let wide = |piece: &&[u8]| piece.iter().map(|byte| if plain(*byte) { 1 } else { 4 }).sum::<usize>() <= most.max(4);
            prop_assert!(all.iter().all(|piece| !piece.is_empty() && wide(piece)));
        }

        #[test]
        fn characters_are_not_split(text in "(?s).{0,100}", most in 16usize..50) {
            prop_assert!(pieces(text.as_bytes(), most).all(|piece| std::str::from_utf8(piece).is_ok()));
        }
    }
}
