//! Names that may depend on the request: `%{GLOBAL}`, `%{RESOURCE}`, `%{SERVER}`, `%{HOST}`,
//! `%{ENV:name}`.
//!
//! Responsible for: the meaning that mod_wsgi gives to the name of a process group, application
//! group or callable (wsgi_config.c). Must never: ask the request for anything it does not need, or
//! keep anything between requests. Called by: `set`, which parses expressions; `handler`, which
//! evaluates them for each request.

use super::error::Shown;
use super::suggest::nearest;

/// A name as configured. It is expanded only if the whole text is one `%{…}`; any other text is
/// literal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    Literal(Vec<u8>),
    Global,
    Resource,
    Server,
    Host,
    Env(Vec<u8>),
}

/// What an expression may ask of the request.
pub trait RequestNames {
    /// ServerName of the virtual host.
    fn server_name(&self) -> &[u8];
    /// The host that the client requested; `None` or empty if it sent none.
    fn host_name(&self) -> Option<&[u8]>;
    /// The port of the server, as `ap_get_server_port` returns it, but never one that the client
    /// chose.
    fn port(&self) -> u16;
    /// SCRIPT_NAME for the name of a group, as [`script_name`] returns it; in lower case with
    /// `WSGICaseSensitivity Off`.
    fn script_name(&self) -> Vec<u8>;
    /// A variable: from the request's notes, else its subprocess environment, else the process
    /// environment.
    fn env(&self, name: &[u8]) -> Option<Vec<u8>>;
}

/// The daemon group of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum GroupChoice {
    /// `%{GLOBAL}` or no group: the implicit group, which needs no definition. In mod_wsgi this is
    /// embedded mode.
    Implicit,
    Named(Vec<u8>),
}

impl GroupChoice {
    pub fn from_name(name: &[u8]) -> Self {
        if name.is_empty() { Self::Implicit } else { Self::Named(name.to_vec()) }
    }
}

/// The default name of a script's callable.
pub const DEFAULT_CALLABLE: &[u8] = b"application";

impl Expr {
    pub fn parse(text: &[u8]) -> Self {
        match text {
            b"%{GLOBAL}" => Self::Global,
            b"%{RESOURCE}" => Self::Resource,
            b"%{SERVER}" => Self::Server,
            b"%{HOST}" => Self::Host,
            _ => match text.strip_prefix(b"%{ENV:").and_then(|rest| rest.strip_suffix(b"}")) {
                Some(name) => Self::Env(name.to_vec()),
                None => Self::Literal(text.to_vec()),
            },
        }
    }

    /// The text it was parsed from.
    pub fn source(&self) -> Vec<u8> {
        match self {
            Self::Literal(text) => text.clone(),
            Self::Global => b"%{GLOBAL}".to_vec(),
            Self::Resource => b"%{RESOURCE}".to_vec(),
            Self::Server => b"%{SERVER}".to_vec(),
            Self::Host => b"%{HOST}".to_vec(),
            Self::Env(name) => [b"%{ENV:", name.as_slice(), b"}"].concat(),
        }
    }

    /// A warning about a literal name that looks like an expression.
    pub fn likely_typo(&self) -> Option<String> {
        const KNOWN: [&str; 4] = ["%{GLOBAL}", "%{RESOURCE}", "%{SERVER}", "%{HOST}"];
        let Self::Literal(text) = self else { return None };
        if !text.windows(2).any(|pair| pair == b"%{") {
            return None;
        }
        let advice = match nearest(text, KNOWN) {
            Some::<&str>(near) => format!("; did you mean {near}?"),
            None => format!("; an expression is {} or %{{ENV:name}}, and is the whole name", KNOWN.join(", ")),
        };
        Some(format!("'{}' is used literally{advice}", Shown(text)))
    }

    /// The same for the name of a process group or application group, which may also lack `%{` and
    /// `}`.
    pub fn likely_group_typo(&self) -> Option<String> {
        const NAMES: [&str; 4] = ["GLOBAL", "RESOURCE", "SERVER", "HOST"];
        let Self::Literal(text) = self else { return None };
        let bare: Vec<u8> = text.iter().copied().filter(|b| !matches!(b, b'%' | b'$' | b'{' | b'}')).collect();
        match NAMES.iter().find(|name| bare.eq_ignore_ascii_case(name.as_bytes())) {
            Some(name) => Some(format!("'{}' is used literally; did you mean %{{{name}}}?", Shown(text))),
            None => self.likely_typo(),
        }
    }

    /// The value if it is the same for every request. The global group is the empty name.
    pub fn fixed(&self) -> Option<&[u8]> {
        match self {
            Self::Global => Some(b""),
            Self::Literal(text) if !text.windows(2).any(|pair| pair == b"%{") => Some(text),
            _ => None,
        }
    }

    /// The name of a process group or application group for this request. The global group is the
    /// empty name.
    ///
    /// The value of a variable may itself be an expression, but not another variable. An unset
    /// variable gives the text of the expression, which is the name of a group that does not exist.
    pub fn evaluate(&self, names: &dyn RequestNames) -> Vec<u8> {
        match self {
            Self::Literal(text) => text.clone(),
            Self::Global => Vec::new(),
            Self::Resource => [with_port(names.server_name(), names.port()).as_slice(), b"|", &names.script_name()].concat(),
            Self::Server => with_port(names.server_name(), names.port()),
            Self::Host => {
                let host = names.host_name().filter(|host| !host.is_empty()).unwrap_or_else(|| names.server_name());
                with_port(host, names.port())
            }
            Self::Env(name) => match names.env(name) {
                None => self.source(),
                Some(value) => match Self::parse(&value) {
                    Self::Env(_) | Self::Literal(_) => value,
                    inner => inner.evaluate(names),
                },
            },
        }
    }
}

/// The process group of a request; by default the implicit group.
pub fn process_group(expr: Option<&Expr>, names: &dyn RequestNames) -> GroupChoice {
    expr.map_or(GroupChoice::Implicit, |expr| GroupChoice::from_name(&expr.evaluate(names)))
}

/// The application group of a request; by default `%{RESOURCE}`.
pub fn application_group(expr: Option<&Expr>, names: &dyn RequestNames) -> Vec<u8> {
    expr.unwrap_or(&Expr::Resource).evaluate(names)
}

/// The name of the callable. As in mod_wsgi, only `%{ENV:name}` is expanded, and any other text
/// that begins with `%` gives the default.
pub fn callable_object(expr: Option<&Expr>, names: &dyn RequestNames) -> Vec<u8> {
    match expr {
        Some(Expr::Literal(name)) if !name.starts_with(b"%") => name.clone(),
        Some(Expr::Env(variable)) => names.env(variable).unwrap_or_else(|| DEFAULT_CALLABLE.to_vec()),
        _ => DEFAULT_CALLABLE.to_vec(),
    }
}

/// `host` or `host:port`. Both default ports are omitted, so that a site has one name under http
/// and https.
fn with_port(host: &[u8], port: u16) -> Vec<u8> {
    match port {
        80 | 443 => host.to_vec(),
        _ => [host, b":", port.to_string().as_bytes()].concat(),
    }
}

/// SCRIPT_NAME: the first `end` bytes of the URI (those before PATH_INFO), with each run of slashes
/// as one slash.
pub fn script_name(uri: &[u8], end: usize) -> Vec<u8> {
    fold_slashes(uri.get(..end).unwrap_or(uri))
}

/// A path with each run of slashes as one slash.
pub fn fold_slashes(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for &byte in path {
        if byte != b'/' || out.last() != Some(&b'/') {
            out.push(byte);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Names {
        host: Option<&'static [u8]>,
        port: u16,
        env: &'static [(&'static str, &'static str)],
    }

    impl RequestNames for Names {
        fn server_name(&self) -> &[u8] {
            b"srv"
        }
        fn host_name(&self) -> Option<&[u8]> {
            self.host
        }
        fn port(&self) -> u16 {
            self.port
        }
        fn script_name(&self) -> Vec<u8> {
            b"/app".to_vec()
        }
        fn env(&self, name: &[u8]) -> Option<Vec<u8>> {
            self.env.iter().find(|(n, _)| n.as_bytes() == name).map(|(_, v)| v.as_bytes().to_vec())
        }
    }

    const ENV: &[(&str, &str)] =
        &[("g", "plain"), ("res", "%{RESOURCE}"), ("glob", "%{GLOBAL}"), ("env", "%{ENV:g}"), ("odd", "%{X}"), ("empty", "")];

    #[test]
    fn expressions_have_their_mod_wsgi_meaning() {
        let table = [
            ("plain", 80, "plain"),
            ("%{GLOBAL}", 80, ""),
            ("%{RESOURCE}", 80, "srv|/app"),
            ("%{RESOURCE}", 443, "srv|/app"),
            ("%{RESOURCE}", 8000, "srv:8000|/app"),
            ("%{SERVER}", 8000, "srv:8000"),
            ("%{SERVER}", 80, "srv"),
            ("%{HOST}", 80, "example.com"),
            ("%{HOST}", 81, "example.com:81"),
            ("%{ENV:g}", 80, "plain"),
            ("%{ENV:res}", 80, "srv|/app"),
            ("%{ENV:glob}", 80, ""),
            ("%{ENV:env}", 80, "%{ENV:g}"),
            ("%{ENV:odd}", 80, "%{X}"),
            ("%{ENV:empty}", 80, ""),
            ("%{ENV:unset}", 80, "%{ENV:unset}"),
            ("%{ENV:}", 80, "%{ENV:}"),
            ("%{ENV:g", 80, "%{ENV:g"),
            ("%{global}", 80, "%{global}"),
            ("a%{GLOBAL}", 80, "a%{GLOBAL}"),
            ("%", 80, "%"),
        ];
        for (text, port, want) in table {
            let names = Names { host: Some(b"example.com"), port, env: ENV };
            let expr = Expr::parse(text.as_bytes());
            assert_eq!(String::from_utf8(expr.evaluate(&names)).unwrap(), want, "{text}");
            assert_eq!(expr.source(), text.as_bytes());
        }
    }

    #[test]
    fn host_falls_back_to_the_server_name() {
        for host in [None, Some(b"".as_slice())] {
            assert_eq!(Expr::Host.evaluate(&Names { host, port: 80, env: &[] }), b"srv");
        }
    }

    #[test]
    fn only_fixed_names_can_be_preloaded() {
        for (text, want) in
            [("x", Some("x")), ("%{GLOBAL}", Some("")), ("%{HOST}", None), ("%{ENV:x}", None), ("a%{b}", None), ("50%", Some("50%"))]
        {
            assert_eq!(Expr::parse(text.as_bytes()).fixed(), want.map(str::as_bytes), "{text}");
        }
    }

    #[test]
    fn unset_names_have_defaults() {
        let names = Names { host: None, port: 80, env: ENV };
        assert_eq!(process_group(None, &names), GroupChoice::Implicit);
        assert_eq!(process_group(Some(&Expr::Global), &names), GroupChoice::Implicit);
        assert_eq!(process_group(Some(&Expr::parse(b"%{ENV:g}")), &names), GroupChoice::Named(b"plain".to_vec()));
        assert_eq!(application_group(None, &names), b"srv|/app");
        for (text, want) in
            [("app", "app"), ("%{ENV:g}", "plain"), ("%{ENV:env}", "%{ENV:g}"), ("%{ENV:no}", "application"), ("%{HOST}", "application")]
        {
            assert_eq!(callable_object(Some(&Expr::parse(text.as_bytes())), &names), want.as_bytes(), "{text}");
        }
        assert_eq!(callable_object(None, &names), b"application");
    }

    #[test]
    fn script_names_end_where_path_info_begins() {
        let table =
            [("/app", 4, "/app"), ("//app//x//y", 5, "/app"), ("/x/y", 0, ""), ("/a///b", 6, "/a/b"), ("/app", 9, "/app"), ("", 0, "")];
        for (uri, end, want) in table {
            assert_eq!(String::from_utf8(script_name(uri.as_bytes(), end)).unwrap(), want, "{uri} {end}");
        }
    }
}
