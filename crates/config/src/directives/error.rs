//! Errors of configuration lines, for the administrator.
//!
//! Responsible for: the text of every configuration error: what was found, what is accepted, what
//! to do. Must never: lose the offending bytes, or print control characters. httpd adds file and
//! line. Called by: `set`, `options` and `table`, which make the errors; `httpd::commands`, which
//! reports them.

use std::borrow::Cow;
use std::fmt;

/// A refused directive. `Display` is the text for `apachectl -t`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub directive: &'static str,
    /// The syntax of the arguments.
    pub synopsis: &'static str,
    pub kind: ConfigErrorKind,
}

/// What is wrong with a directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigErrorKind {
    /// Too many or too few arguments: "takes one argument".
    Arguments(&'static str),
    /// A value that its option, or the directive itself (`option` empty), does not accept.
    Value { option: &'static str, value: Vec<u8>, expected: Cow<'static, str> },
    /// An argument that should have been `name=value`.
    NotAnOption { argument: Vec<u8>, accepted: Accepted },
    /// An unknown option.
    UnknownOption { option: Vec<u8>, nearest: Option<&'static str>, accepted: Accepted },
    /// A required option is missing.
    MissingOption(&'static str),
    /// Two options that exclude each other.
    Exclusive(&'static str, &'static str),
    /// An option is given twice.
    Repeated(&'static str),
    /// Not allowed in this context: "cannot occur within …", as httpd says, and what to do.
    Misplaced(&'static str),
    /// A daemon group of that name exists.
    DuplicateGroup(Vec<u8>),
    /// A group that must be defined before this line.
    UndefinedGroup { name: Vec<u8>, nearest: Option<Vec<u8>>, defined: Vec<Vec<u8>> },
    /// A directive of mod_wsgi that this version does not support.
    NotAvailable { lacking: &'static str, advice: &'static str },
}

/// The options that a directive accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    pub names: Vec<&'static str>,
    /// There are so many that a message leaves them out when it suggests one of them.
    pub is_long: bool,
}

impl ConfigErrorKind {
    /// An error about the value of the directive itself.
    pub fn value(value: &[u8], expected: impl Into<Cow<'static, str>>) -> Self {
        Self::option("", value, expected)
    }

    /// An error about the value of an option of the directive.
    pub fn option(option: &'static str, value: &[u8], expected: impl Into<Cow<'static, str>>) -> Self {
        Self::Value { option, value: value.to_vec(), expected: expected.into() }
    }
}

/// Bytes of the configuration as text: lossy where they are not UTF-8, control characters escaped.
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in String::from_utf8_lossy(self.0).chars() {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
        }
        Ok(())
    }
}

impl fmt::Display for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "accepted options: {}", self.names.join(", "))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.directive;
        let syntax = self.synopsis;
        match &self.kind {
            ConfigErrorKind::Arguments(count) => write!(f, "{name} {count}; syntax: {name} {syntax}"),
            ConfigErrorKind::Value { option: "", value, expected } => {
                write!(f, "{name}: invalid value '{}': expected {expected}", Shown(value))
            }
            ConfigErrorKind::Value { option, value, expected } => {
                write!(f, "{name}: invalid value {option}='{}': expected {expected}", Shown(value))
            }
            ConfigErrorKind::NotAnOption { argument, accepted } => {
                write!(f, "{name}: '{}': expected an option of the form name=value; {accepted}", Shown(argument))
            }
            ConfigErrorKind::UnknownOption { option, nearest, accepted } => {
                write!(f, "{name}: unknown option '{}'", Shown(option))?;
                if let Some(nearest) = nearest {
                    write!(f, "; did you mean '{nearest}'?")?;
                }
                match (nearest, accepted.is_long) {
                    (Some(_), true) => Ok(()),
                    (Some(_), false) => write!(f, " ({accepted})"),
                    (None, _) => write!(f, "; {accepted}"),
                }
            }
            ConfigErrorKind::MissingOption(option) => write!(f, "{name}: the option {option}= is required; syntax: {name} {syntax}"),
            ConfigErrorKind::Exclusive(one, other) => write!(f, "{name}: only one of {one}= and {other}= may be given"),
            ConfigErrorKind::Repeated(option) => write!(f, "{name}: {option}= is given more than once"),
            ConfigErrorKind::Misplaced(rule) => write!(f, "{name} {rule}"),
            ConfigErrorKind::DuplicateGroup(group) => write!(
                f,
                "{name}: the group '{}' is already defined; names of groups are unique in the whole server, across virtual hosts too",
                Shown(group)
            ),
            ConfigErrorKind::UndefinedGroup { name: group, nearest, defined } => {
                write!(f, "{name}: the group '{}' is not defined above this line", Shown(group))?;
                match nearest {
                    Some(nearest) => write!(f, "; did you mean '{}'?", Shown(nearest))?,
                    None => f.write_str(".")?,
                }
                write!(f, " A script that is loaded at start needs its WSGIDaemonProcess first. Groups defined above: ")?;
                f.write_str(if defined.is_empty() { "none" } else { "" })?;
                defined.iter().enumerate().try_for_each(|(n, group)| write!(f, "{}{}", if n > 0 { ", " } else { "" }, Shown(group)))
            }
            ConfigErrorKind::NotAvailable { lacking, advice } => write!(f, "{name} is not available yet: {lacking}. {advice}"),
        }
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(kind: ConfigErrorKind) -> String {
        ConfigError { directive: "WSGIDaemonProcess", synopsis: "name [option=value ...]", kind }.to_string()
    }

    #[test]
    fn messages_name_what_is_accepted() {
        assert_eq!(
            shown(ConfigErrorKind::option("threads", b"abc", "a whole number from 0 to 65533")),
            "WSGIDaemonProcess: invalid value threads='abc': expected a whole number from 0 to 65533"
        );
        assert_eq!(
            shown(ConfigErrorKind::Arguments("requires a name")),
            "WSGIDaemonProcess requires a name; syntax: WSGIDaemonProcess name [option=value ...]"
        );
        let unknown = |nearest, is_long| {
            let accepted = Accepted { names: vec!["a", "threads"], is_long };
            shown(ConfigErrorKind::UnknownOption { option: b"thread".to_vec(), nearest, accepted })
        };
        let prefix = "WSGIDaemonProcess: unknown option 'thread'";
        assert_eq!(unknown(Some("threads"), true), format!("{prefix}; did you mean 'threads'?"));
        assert_eq!(unknown(Some("threads"), false), format!("{prefix}; did you mean 'threads'? (accepted options: a, threads)"));
        assert_eq!(unknown(None, true), format!("{prefix}; accepted options: a, threads"));
    }

    #[test]
    fn hostile_bytes_are_shown_escaped() {
        assert_eq!(Shown(b"a\x1b[2J\n\xff\xc3\xa9").to_string(), "a\\u{1b}[2J\\n\u{fffd}é");
    }
}
