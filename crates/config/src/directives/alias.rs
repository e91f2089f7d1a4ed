//! Aliases: which script serves which URL, and which scripts are loaded at start.
//!
//! Responsible for: matching a URL prefix by the rules of mod_alias, which mod_wsgi shares, and the
//! file name that follows. Must never: compile or run a regular expression; httpd's own engine
//! does. Called by: `httpd::lifecycle`, which compiles the patterns, and the translate_name hook.

use super::expr::{Expr, GroupChoice};

/// The URLs of an alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AliasPattern {
    /// WSGIScriptAlias.
    Prefix(Vec<u8>),
    /// WSGIScriptAliasMatch, in the syntax of `ap_pregcomp`.
    Regex(Vec<u8>),
}

/// One WSGIScriptAlias or WSGIScriptAliasMatch. Its options override the directives of the same
/// meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptAlias {
    pub pattern: AliasPattern,
    /// The script, or a directory of scripts if it ends with a slash. With a regular expression it
    /// may contain `$1`.
    pub target: Vec<u8>,
    pub process_group: Option<Expr>,
    pub application_group: Option<Expr>,
    pub callable_object: Option<Expr>,
    pub pass_authorization: Option<bool>,
}

/// A script that a worker loads before it takes requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportScript {
    pub script: Vec<u8>,
    pub process_group: GroupChoice,
    /// The empty name is `%{GLOBAL}`.
    pub application_group: Vec<u8>,
    /// Written as an option of WSGIScriptAlias, not as WSGIImportScript.
    pub from_alias: bool,
}

/// The number of bytes of the URI that an alias matches, or `None`.
///
/// A run of slashes in the alias matches any run of at least one slash in the URI. Every other byte
/// matches itself. The match ends with a slash or at the end of a segment. It may be longer than
/// the alias, as it includes doubled slashes. Never `Some(0)`.
pub fn match_prefix(uri: &[u8], alias: &[u8]) -> Option<usize> {
    let mut left = uri;
    let mut want = alias;
    while let [byte, rest @ ..] = want {
        let tail = left.strip_prefix(&[*byte])?;
        if *byte == b'/' {
            left = skip_slashes(tail);
            want = skip_slashes(rest);
        } else {
            left = tail;
            want = rest;
        }
    }
    let whole_segment = alias.ends_with(b"/") || matches!(left, [] | [b'/', ..]);
    (whole_segment && !alias.is_empty()).then_some(uri.len() - left.len())
}

fn skip_slashes(mut path: &[u8]) -> &[u8] {
    while let [b'/', rest @ ..] = path {
        path = rest;
    }
    path
}

/// The file name for a URI of which `matched` bytes matched. It still ends with PATH_INFO, which
/// httpd's directory walk removes.
///
/// `location` is the alias, or the part of the URI that a regular expression matched. `$1` in
/// `target` is already replaced. An alias for `/` removes nothing from the URI.
pub fn prefix_filename(target: &[u8], location: &[u8], uri: &[u8], matched: usize) -> Vec<u8> {
    let behind = if location == b"/" { uri } else { uri.get(matched..).unwrap_or_default() };
    [target, behind].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prefixes_match_as_mod_alias_does() {
        let table = [
            ("/", "/", Some(1)),
            ("/a/b", "/", Some(1)),
            ("//a", "/", Some(2)),
            ("", "/", None),
            ("/app", "/app", Some(4)),
            ("/app/x", "/app", Some(4)),
            ("/apple", "/app", None),
            ("/ap", "/app", None),
            ("/app", "/app/", None),
            ("/app/", "/app/", Some(5)),
            ("/app/x", "/app/", Some(5)),
            ("/app//x", "/app/", Some(6)),
            ("//app//sub/x", "/app/sub", Some(10)),
            ("/app/sub", "//app///sub", Some(8)),
            ("/App", "/app", None),
            ("app", "app", Some(3)),
            ("/x", "", None),
        ];
        for (uri, alias, want) in table {
            assert_eq!(match_prefix(uri.as_bytes(), alias.as_bytes()), want, "{uri} {alias}");
        }
    }

    #[test]
    fn file_names_follow() {
        let table = [
            ("/srv/app.wsgi", "/", "/x/y", "/srv/app.wsgi/x/y"),
            ("/srv/app.wsgi", "/app", "/app/x", "/srv/app.wsgi/x"),
            ("/srv/app.wsgi", "/app", "/app", "/srv/app.wsgi"),
            ("/srv/scripts/", "/s/", "/s/one.wsgi/x", "/srv/scripts/one.wsgi/x"),
            ("/srv/scripts/", "/s/", "/s//one.wsgi", "/srv/scripts/one.wsgi"),
        ];
        for (target, alias, uri, want) in table {
            let matched = match_prefix(uri.as_bytes(), alias.as_bytes()).unwrap();
            let name = prefix_filename(target.as_bytes(), alias.as_bytes(), uri.as_bytes(), matched);
            assert_eq!(String::from_utf8(name).unwrap(), want);
        }
    }

    proptest! {
        #[test]
        fn a_match_is_never_empty_nor_too_long(uri in "[/ab]{0,12}", alias in "[/ab]{0,8}") {
            if let Some(n) = match_prefix(uri.as_bytes(), alias.as_bytes()) {
                prop_assert!(n > 0 && n <= uri.len());
            }
        }
    }
}
