//! The configuration language: from the bytes of a directive to typed, merged settings.
//!
//! Responsible for: everything that an administrator can write in httpd.conf for this module: its
//! syntax, contexts, defaults and documentation. Must never: do I/O, look up a user, a file or a
//! clock, or name a type of httpd. Called by: `httpd::commands` (the directives), `resolved` (the
//! groups) and `handler` (the settings of one request).
//!
//! In reading order:
//! * `arguments` splits a line, `scalar` reads one value, `expr` the names that depend on the
//!   request;
//! * `alias`, `group`, `proxy`, `session` and `value` are the results, `target` says where a
//!   directive writes, `effect` what it did;
//! * `set` reads each directive, `take` each kind of option;
//! * `table` (rows of `directive`) and `options` are the two tables;
//! * `resolve` gives the settings of one request, `docs` prints the tables, `error` and `suggest`
//!   report mistakes.

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
pub use group::{DaemonGroup, GroupOptions, GroupRef, IMPLICIT_GROUP, MAX_APPLICATION_GROUPS, UserRef};
pub use options::{DAEMON_OPTIONS, DaemonOption};
pub use proxy::{Network, PROXY_HEADERS, ProxyCategory, ProxyHeader, ProxyMeaning};
pub use resolve::Settings;
pub use session::{CookieOptions, SessionOptions};
pub use table::{DIRECTIVES, directive};
pub use target::{Context, Target};
pub use value::{
    ControlSocket, DirConfig, HashSeed, InterpreterOptions, InterpreterScope, MapHead, MaxWaiting, ScopedOptions, ServerConfig,
};
