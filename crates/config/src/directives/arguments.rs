//! The arguments of a directive, split exactly as httpd splits them.
//!
//! Responsible for: `ap_getword_conf` (server/util.c) and the `name=value` options of mod_wsgi's
//! directives. Every directive arrives as one raw string, so nothing else in the module splits
//! text. Must never: fail on any bytes; a missing closing quote means what it means to httpd.
//! Called by: `set`, `httpd`.

/// An argument that is not of the form `name=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAnOption(pub Vec<u8>);

/// The name and the value of an option.
pub type NameValue = (Vec<u8>, Vec<u8>);

/// The arguments in one raw string.
#[derive(Debug, Clone)]
pub struct Arguments<'a> {
    rest: &'a [u8],
}

impl<'a> Arguments<'a> {
    pub fn new(raw: &'a [u8]) -> Self {
        Self { rest: skip_space(raw) }
    }

    /// Whether only white space is left.
    pub fn at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `name=value`, or `None` at the end of the line.
    ///
    /// The name ends at the first `=` and may not be quoted or empty. The value may be quoted
    /// (`home='/a b'`) and, as in mod_wsgi, separated from the `=` by white space.
    pub fn option(&mut self) -> Option<Result<NameValue, NotAnOption>> {
        if self.at_end() {
            return None;
        }
        let end = self.rest.iter().position(|&b| b == b'=' || is_space(b));
        let (name, tail) = match end.and_then(|at| self.rest.split_at_checked(at)) {
            Some((name, [b'=', tail @ ..])) if !name.is_empty() => (name, tail),
            _ => {
                let (argument, rest) = getword_conf(self.rest);
                self.rest = rest;
                return Some(Err(NotAnOption(argument)));
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

/// Whether a closing quote is missing. httpd then reads the rest of the line as one argument.
pub fn ends_in_quote(raw: &[u8]) -> bool {
    let mut rest = skip_space(raw);
    while !rest.is_empty() {
        // The value of an option begins after the `=`.
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

/// One argument and what follows it, without the white space around it; empty at the end of the
/// line.
///
/// An argument that starts with `"` or `'` ends at the same quote; inside, a backslash escapes that
/// quote and itself. Any other argument ends at white space, and a doubled backslash in it is one
/// backslash.
pub fn getword_conf(line: &[u8]) -> (Vec<u8>, &[u8]) {
    let (argument, rest, _) = cut(line);
    (argument, rest)
}

/// The same, and whether the closing quote is missing.
fn cut(line: &[u8]) -> (Vec<u8>, &[u8], bool) {
    let mut rest = skip_space(line);
    let mut argument = Vec::new();
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
                argument.push(*escaped);
                rest = tail;
            }
            [byte, tail @ ..] if Some(*byte) == quote => {
                rest = tail;
                break;
            }
            [byte, ..] if quote.is_none() && is_space(*byte) => break,
            [byte, tail @ ..] => {
                argument.push(*byte);
                rest = tail;
            }
        }
    }
    (argument, skip_space(rest), is_open)
}

/// `apr_isspace` in the C locale. Unlike `is_ascii_whitespace`, it includes the vertical tab.
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

    fn arguments(line: &str) -> Vec<String> {
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
    fn arguments_are_split_as_httpd_splits_them() {
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
            assert_eq!(arguments(line), *want, "{line}");
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
    fn arguments_without_a_name_are_not_options() {
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

    fn quoted(argument: &[u8], quote: u8) -> Vec<u8> {
        let mut out = vec![quote];
        for &byte in argument {
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
