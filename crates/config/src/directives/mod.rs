//! The configuration language: from the bytes of a directive to typed, merged settings.
//!
//! Responsible for everything an administrator can write in httpd.conf for this module: how it is read, where it may stand, what it defaults
//! to, what the documentation says about it. Never does I/O, never looks up a user, a file or a clock, and knows no httpd type: bytes in,
//! values out. Called by `httpd::commands` (the directives), `httpd::lifecycle` (the groups) and `handler` (the settings of one request).
//!
//! In reading order:
//! `words` cuts a line into args, `scalar` reads one value, `expr` the names that depend on the request; `alias`, `group`, `proxy` and
//! `value` are the results; `target` says where a directive writes; `set` writes; `options` (rows made of `take`) and `table` (of `directive`)
//! are the two tables that all of it (parsing, contexts, defaults, documentation) hangs on; `resolve` answers one request; `docs` prints the
//! tables.

pub mod alias;
pub mod arguments;
pub mod directive;
pub mod docs;
mod effect;
pub mod error;
pub mod expr;
pub mod group;
pub mod options;
pub mod proxy;
pub mod resolve;
pub mod scalar;
pub mod session;
mod set;
pub mod suggest;
pub mod table;
pub mod take;
pub mod target;
pub mod value;

#[cfg(test)]
mod tests;

pub use alias::{AliasPattern, ImportScript, ScriptAlias, match_prefix, prefix_filename};
pub use directive::{Contexts, Directive, Theme};
pub use effect::{Added, Effect};
pub use error::{ConfigError, ConfigErrorKind};
pub use expr::{Expr, GroupChoice, RequestNames};
pub use group::{DaemonGroup, GroupOptions, GroupRef, IMPLICIT_GROUP, UserRef};
pub use options::{DAEMON_OPTIONS, DaemonOption};
pub use proxy::{Network, PROXY_HEADERS, ProxyCategory, ProxyHeader, ProxyMeaning};
pub use resolve::Settings;
pub use session::{CookieOptions, SessionOptions};
pub use table::{DIRECTIVES, directive};
pub use target::{Context, Target};
pub use value::{
    ControlSocket, DirConfig, HashSeed, InterpreterOptions, InterpreterScope, MapHead, MaxWaiting, ScopedOptions, ServerConfig,
};
