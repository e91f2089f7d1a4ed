//! Arguments of a configuration line, cut exactly as httpd cuts them.
//!
//! Responsible for `ap_getword_conf` (server/util.c) and for the `name=value` words that mod_wsgi's directives take; every directive reaches
//! us as one raw argument string, so nothing else in the module splits text. Must never fail on any bytes: what is odd to httpd (a quote
//! that is not closed) is taken here as httpd takes it. Called by `set`.

/// A word of the form `name=value` was expected and something else found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAnOption(pub Vec<u8>);

/// The name and the value of an option.
pub type NameValue = (Vec<u8>, Vec<u8>);

/// The words of one raw argument string.
#[derive(Debug, Clone)]
pub struct Arguments<'a> {
    rest: &'a [u8],
}

impl<'a> Arguments<'a> {
    pub fn new(raw: &'a [u8]) -> Self {
        Self { rest: skip_space(raw) }
    }

    /// True when nothing but white space is left.
    pub fn at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `name=value`, or `None` at the end of the line.
    ///
    /// The name reaches to the first `=` and takes no quotes; the value is a word, so it may be quoted (`home='/a b'`) and, as in mod_wsgi, may be
    /// separated from the `=` by white space. The name may not be empty.
    pub fn option(&mut self) -> Option<Result<NameValue, NotAnOption>> {
        if self.at_end() {
            return None;
        }
        let end = self.rest.iter().position(|&b| b == b'=' || is_space(b));
        let (name, tail) = match end.and_then(|at| self.rest.split_at_checked(at)) {
            Some((name, [b'=', tail @ ..])) if !name.is_empty() => (name, tail),
            _ => {
                let (word, rest) = getword_conf(self.rest);
                self.rest = rest;
                return Some(Err(NotAnOption(word)));
            }
        };
        let (value, rest) = getword_conf(tail);
        self.rest = rest;
        Some(Ok((name.to_vec(), value)))
    }
}

impl Iterator for Arguments<'_> {
    type Item = Vec<u8>;

    /// The next argument, or `None` at the end of the line. A pair of quotes is an empty argument.
    fn next(&mut self) -> Option<Vec<u8>> {
        if self.at_end() {
            return None;
        }
        let (argument, rest) = getword_conf(self.rest);
        self.rest = rest;
        Some(argument)
    }
}

/// Whether a quote is open at the end of the arguments: to httpd the rest of the line is one word then.
pub fn ends_in_quote(raw: &[u8]) -> bool {
    let mut rest = skip_space(raw);
    while !rest.is_empty() {
        // The quote of an option's value stands behind the `=`.
        let value = match rest {
            [b'"' | b'\'', ..] => rest,
            _ => match rest.iter().position(|&b| b == b'=' || is_space(b)).and_then(|at| rest.split_at_checked(at)) {
                Some((_, [b'=', value @ ..])) => value,
                _ => rest,
            },
        };
        let (_, behind, is_open) = cut(value);
        if is_open {
            return true;
        }
        rest = behind;
    }
    false
}

/// One word and what follows it, white space skipped on both sides; the empty word at the end of the line.
///
/// A word that starts with `"` or `'` reaches to the same quote; inside, a backslash hides that quote and itself. Any other word reaches to
/// white space, and there a doubled backslash is one.
pub fn getword_conf(line: &[u8]) -> (Vec<u8>, &[u8]) {
    let (word, rest, _) = cut(line);
    (word, rest)
}

/// The same, and whether the word's quote was not closed.
fn cut(line: &[u8]) -> (Vec<u8>, &[u8], bool) {
    let mut rest = skip_space(line);
    let mut word = Vec::new();
    let mut is_open = false;
    let quote = match rest {
        [quote @ (b'"' | b'\''), tail @ ..] => {
            rest = tail;
            Some(*quote)
        }
        _ => None,
    };
    loop {
        match rest {
            [] => {
                is_open = quote.is_some();
                break;
            }
            [b'\\', escaped, tail @ ..] if *escaped == b'\\' || Some(*escaped) == quote => {
                word.push(*escaped);
                rest = tail;
            }
            [byte, tail @ ..] if Some(*byte) == quote => {
                rest = tail;
                break;
            }
            [byte, ..] if quote.is_none() && is_space(*byte) => break,
            [byte, tail @ ..] => {
                word.push(*byte);
                rest = tail;
            }
        }
    }
    (word, skip_space(rest), is_open)
}

/// `apr_isspace` in the C locale; unlike Rust's `is_ascii_whitespace` it knows the vertical tab.
fn is_space(byte: u8) -> bool {
    byte == b'\x0b' || byte.is_ascii_whitespace()
}

fn skip_space(mut line: &[u8]) -> &[u8] {
    while let [byte, tail @ ..] = line {
        if !is_space(*byte) {
            break;
        }
        line = tail;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(line: &str) -> Vec<String> {
        let mut args = Arguments::new(line.as_bytes());
        args.by_ref().map(|w| String::from_utf8(w).unwrap()).collect()
    }

    #[test]
    fn open_quotes_are_seen() {
        for (line, open) in [
            ("", false),
            ("a 'b c' d", false),
            ("a 'b c", true),
            ("x=1 home='/a b", true),
            ("x=1 home= '/a b", true),
            ("home='/a b' y=2", false),
            (r"'it\'s", true),
            ("\"a='b\" c", false),
            ("it's", false),
            ("'", true),
        ] {
            assert_eq!(ends_in_quote(line.as_bytes()), open, "{line}");
        }
    }

    #[test]
    fn words_are_cut_as_httpd_cuts_them() {
        let table: &[(&str, &[&str])] = &[
            ("", &[]),
            ("  \t ", &[]),
            ("a b", &["a", "b"]),
            ("  a\t\x0bb  ", &["a", "b"]),
            (r#""a b" c"#, &["a b", "c"]),
            (r#"'a "b' c"#, &["a \"b", "c"]),
            (r#""a \"b\"" c"#, &["a \"b\"", "c"]),
            (r"'it\'s'", &["it's"]),
            (r#""a\\b" x"#, &[r"a\b", "x"]),
            (r#""a\b""#, &[r"a\b"]),
            (r#""a\'b""#, &[r"a\'b"]),
            (r"a\\b", &[r"a\b"]),
            (r#"a\"b"#, &[r#"a\"b"#]),
            (r#"a"b c"d"#, &["a\"b", "c\"d"]),
            (r#""" x"#, &["", "x"]),
            (r#""a"b"#, &["a", "b"]),
            (r#""open"#, &["open"]),
            ("\"open\\", &["open\\"]),
            ("'", &[""]),
        ];
        for (line, want) in table {
            assert_eq!(words(line), *want, "{line}");
        }
    }

    #[test]
    fn options_take_quoted_values() {
        let line = br#" display-name='%{GROUP}' python-path="/a b:/c" threads= 5 home="" x=a=b empty="#;
        let mut args = Arguments::new(line);
        let mut found = Vec::new();
        while let Some(option) = args.option() {
            let (name, value) = option.unwrap();
            found.push(format!("{}→{}", String::from_utf8(name).unwrap(), String::from_utf8(value).unwrap()));
        }
        assert_eq!(found, ["display-name→%{GROUP}", "python-path→/a b:/c", "threads→5", "home→", "x→a=b", "empty→"]);
    }

    #[test]
    fn words_without_a_name_are_not_options() {
        for line in ["threads", "=5", "threads =5", "'threads=5'=", "\"a b\""] {
            let mut args = Arguments::new(line.as_bytes());
            let first = args.option().unwrap();
            if line.starts_with("'threads") {
                assert_eq!(first.unwrap().0, b"'threads", "quotes have no meaning in a name");
            } else {
                assert!(first.is_err(), "{line}");
            }
        }
    }

    fn quoted(word: &[u8], quote: u8) -> Vec<u8> {
        let mut out = vec![quote];
        for &byte in word {
            if byte == quote || byte == b'\\' {
                out.push(b'\\');
            }
            out.push(byte);
        }
        out.push(quote);
        out
    }

    proptest! {
        #[test]
        fn never_panics_and_always_ends(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut args = Arguments::new(&line);
            let mut count = 0;
            while args.next().is_some() { count += 1; prop_assert!(count <= line.len()); }
            let mut args = Arguments::new(&line);
            let mut count = 0;
            while args.option().is_some() { count += 1; prop_assert!(count <= line.len()); }
        }

        #[test]
        fn quoting_is_undone(list in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..6), single in any::<bool>()) {
            let quote = if single { b'\'' } else { b'"' };
            let line = list.iter().map(|w| quoted(w, quote)).collect::<Vec<_>>().join(&b' ');
            let mut args = Arguments::new(&line);
            let back: Vec<_> = args.by_ref().collect();
            prop_assert_eq!(back, list);
        }
    }
}
