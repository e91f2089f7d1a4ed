//! A directive: the row of the table, the contexts that allow it, and how it is applied.
//!
//! Responsible for: refusing a directive in a wrong context, with the right one; the notice of a
//! directive without effect. Must never: know a single directive. Called by: `httpd::commands`;
//! `table` has the rows, `docs` prints them.

use super::arguments::ends_in_quote;
use super::effect::Effect;
use super::error::{ConfigError, ConfigErrorKind};
use super::set::Outcome;
use super::target::{Context, Target};
use std::borrow::Cow;
use std::ffi::CStr;

/// One row of the table of directives.
pub struct Directive {
    /// As httpd registers it: the name of a container begins with `<`.
    pub name: &'static CStr,
    pub theme: Theme,
    pub contexts: Contexts,
    /// `<Name …>` with directives inside.
    pub container: bool,
    /// Allowed inside `<WSGIInterpreterOptions>`.
    pub scopable: bool,
    /// The syntax of the arguments.
    pub synopsis: &'static str,
    pub default: &'static str,
    /// One line, for `httpd -L` and the commented configuration file.
    pub summary: &'static CStr,
    /// For the administrator, in Markdown.
    pub doc: &'static str,
    /// How it differs from mod_wsgi; empty if it does not.
    pub difference: &'static str,
    /// For a directive that is accepted for compatibility only: why it has no effect.
    pub notice: Option<&'static str>,
    /// The unit test that covers it.
    pub test: &'static str,
    pub(super) set: fn(&mut Target<'_>, &[u8]) -> Outcome,
}

/// The sections of the documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theme {
    Scripts,
    Groups,
    Python,
    Requests,
    Proxies,
    Operation,
    Sessions,
    Later,
    Inert,
}

impl Theme {
    pub const ALL: [Self; 9] = [
        Self::Scripts,
        Self::Groups,
        Self::Python,
        Self::Requests,
        Self::Proxies,
        Self::Operation,
        Self::Sessions,
        Self::Later,
        Self::Inert,
    ];

    pub fn title(self) -> &'static str {
        match self {
            Self::Scripts => "Scripts and their URLs",
            Self::Groups => "Process and application groups",
            Self::Python => "Python",
            Self::Requests => "Requests and responses",
            Self::Sessions => "Sessions",
            Self::Proxies => "Behind a proxy",
            Self::Operation => "Operation",
            Self::Later => "Not available yet",
            Self::Inert => "Accepted without effect",
        }
    }
}

/// The contexts that allow a directive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contexts {
    /// Outside all sections. httpd's RSRC_CONF, and an error inside `<VirtualHost>`.
    GlobalOnly,
    /// Server and virtual host. httpd's RSRC_CONF.
    Server,
    /// Those of `Server`, and directories. httpd's RSRC_CONF | ACCESS_CONF.
    Directory,
    /// Those of `Directory`, and .htaccess files with AllowOverride FileInfo. httpd's OR_FILEINFO.
    FileInfo,
    /// Directories, and .htaccess files with AllowOverride AuthConfig. httpd's OR_AUTHCFG.
    AuthConfig,
}

impl Contexts {
    pub fn allow(self, context: Context) -> bool {
        match context {
            Context::Server => self != Self::AuthConfig,
            Context::VirtualHost => matches!(self, Self::Server | Self::Directory | Self::FileInfo),
            Context::Directory => matches!(self, Self::Directory | Self::FileInfo | Self::AuthConfig),
            Context::Htaccess => matches!(self, Self::FileInfo | Self::AuthConfig),
        }
    }

    pub fn describe(self) -> &'static str {
        match self {
            Self::GlobalOnly => "server config",
            Self::Server => "server config, virtual host",
            Self::Directory => "server config, virtual host, directory",
            Self::FileInfo => "server config, virtual host, directory, .htaccess (AllowOverride FileInfo)",
            Self::AuthConfig => "directory, .htaccess (AllowOverride AuthConfig)",
        }
    }
}

impl Directive {
    /// The name as the administrator writes it, without the bracket of a container.
    pub fn title(&self) -> &'static str {
        let name = self.name.to_str().unwrap_or_default();
        name.strip_prefix('<').unwrap_or(name)
    }

    /// Reads the directive into the target. An error leaves the target as it was.
    pub fn apply(&self, target: &mut Target<'_>, raw: &[u8]) -> Result<Effect, ConfigError> {
        let title = self.title();
        let effect = self.check_place(target).and_then(|()| (self.set)(target, raw));
        let effect = effect.map_err(|kind| ConfigError { directive: title, synopsis: self.synopsis, kind })?;
        let effect = if ends_in_quote(raw) { effect.and(OPEN_QUOTE.into()) } else { effect };
        let notice = match (&effect.notice, self.notice) {
            (Some(text), _) => Some(format!("{title}: {text}")),
            (None, Some(why)) => Some(format!("{title} has no effect: {why}")),
            (None, None) => None,
        };
        Ok(Effect { notice: notice.map(Cow::Owned), ..effect })
    }

    fn check_place(&self, target: &Target<'_>) -> Result<(), ConfigErrorKind> {
        if target.scope.is_some() && !self.scopable {
            return Err(ConfigErrorKind::Misplaced(
                "cannot occur within <WSGIInterpreterOptions> section; move it outside, as it cannot be limited to some interpreters",
            ));
        }
        if self.contexts.allow(target.context) {
            return Ok(());
        }
        Err(ConfigErrorKind::Misplaced(match (self.contexts, target.context) {
            (Contexts::AuthConfig, _) => "must occur within <Directory>, <Location> or <Files> section or a .htaccess file",
            (Contexts::GlobalOnly, Context::VirtualHost) => {
                "cannot occur within <VirtualHost> section; move it outside, as it applies to the whole server"
            }
            (_, Context::Htaccess) => "cannot occur within a .htaccess file; move it to the server configuration",
            _ => "cannot occur within <Directory/Location/Files> section; move it to the server or virtual host",
        }))
    }
}

const OPEN_QUOTE: &str = "the closing quote is missing, so the rest of the line is one argument";
