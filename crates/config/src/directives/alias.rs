//! Which script answers which URL, and which scripts are loaded in advance.
//!
//! Responsible for the matching of a URL prefix (the rules of mod_alias, which mod_wsgi shares) and for the file name that follows from it.
//! Must never compile or run a regular expression: patterns are kept as written, httpd's own engine runs them. Called by `httpd::lifecycle`
//! (compiles patterns) and by the translate_name hook.

use super::expr::{Expr, GroupChoice};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AliasPattern {
    /// WSGIScriptAlias.
    Prefix(Vec<u8>),
    /// WSGIScriptAliasMatch, in the syntax of `ap_pregcomp`.
    Regex(Vec<u8>),
}

/// One WSGIScriptAlias or WSGIScriptAliasMatch. Its options win over the directives of the same meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptAlias {
    pub pattern: AliasPattern,
    /// The script, or a directory of scripts when it ends with a slash; may hold `$1` when the pattern is a regular expression.
    pub target: Vec<u8>,
    pub process_group: Option<Expr>,
    pub application_group: Option<Expr>,
    pub callable_object: Option<Expr>,
    pub pass_authorization: Option<bool>,
}

/// A script that a process loads before it takes requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportScript {
    pub script: Vec<u8>,
    pub process_group: GroupChoice,
    /// The empty name is `%{GLOBAL}`.
    pub application_group: Vec<u8>,
    /// Written as an option of WSGIScriptAlias, not as WSGIImportScript.
    pub from_alias: bool,
}

/// How many bytes of the URI an alias matches, or `None`.
///
/// A run of slashes in the alias matches any run in the URI, at least one; all other bytes match themselves; the match ends with a slash or at
/// the end of a segment. The count may be larger than the alias is long, because doubled slashes are part of it. Never `Some(0)`.
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

/// The file name for a URI of which `matched` bytes matched; PATH_INFO is still behind it and httpd's directory walk cuts it off.
///
/// `location` is the alias, or for a regular expression the part of the URI that matched; `target` has its `$1` filled in already. An alias for `/`
/// takes nothing away from the URI.
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
