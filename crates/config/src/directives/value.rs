//! The settings of one server and of one directory, and how an inner one overrides an outer one.
//!
//! Responsible for: the two structs that httpd keeps for us per `server_rec` and per directory.
//! Each setting can be unset, so merging loses nothing. Merging changes neither side, because httpd
//! continues to use both. Must never: apply a default; `resolve` does. Called by:
//! `httpd::commands`, which creates, merges and owns them.

use super::alias::{ImportScript, ScriptAlias};
use super::expr::Expr;
use super::group::DaemonGroup;
use super::proxy::{Network, ProxyHeader};
use super::session::SessionOptions;
use std::time::Duration;

/// WSGIMapHEADToGET.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapHead {
    On,
    Off,
    /// Map if an output filter needs the body.
    Auto,
}

/// WSGIPythonHashSeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashSeed {
    Random,
    Fixed(u32),
}

/// DroverControlSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlSocket {
    Off,
    /// A relative path is below the runtime directory.
    Path(Vec<u8>),
}

/// DroverMaxWaiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxWaiting {
    Off,
    Requests(u32),
}

/// Everything written at server level or inside one `<VirtualHost>`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerConfig {
    /// The first match wins. Those of a virtual host come before those of the main server.
    pub aliases: Vec<ScriptAlias>,
    /// Groups that this server defines; not inherited.
    pub groups: Vec<DaemonGroup>,
    /// Scripts that this server loads at start; not inherited.
    pub imports: Vec<ImportScript>,
    /// WSGIPythonHome.
    pub python_home: Option<Vec<u8>>,
    pub python_eggs: Option<Vec<u8>>,
    pub optimize: Option<u8>,
    pub warnings: Vec<Vec<u8>>,
    pub hash_seed: Option<HashSeed>,
    pub dont_write_bytecode: Option<bool>,
    pub case_sensitivity: Option<bool>,
    pub control_socket: Option<ControlSocket>,
    pub max_waiting: Option<MaxWaiting>,
    pub session: SessionOptions,
    /// The settings that `<WSGIInterpreterOptions>` can limit, outside all such blocks.
    pub interpreter: InterpreterOptions,
    /// The blocks, in the order of the configuration.
    pub scopes: Vec<ScopedOptions>,
    /// The per-directory settings at server level.
    pub dir: DirConfig,
}

/// The settings that are allowed inside `<WSGIInterpreterOptions>`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InterpreterOptions {
    /// WSGIPythonPath. Outside a block it applies only to the implicit group, which replaces
    /// mod_wsgi's embedded mode.
    pub python_path: Option<Vec<Vec<u8>>>,
    pub switch_interval: Option<Duration>,
    pub restrict_stdin: Option<bool>,
    pub restrict_stdout: Option<bool>,
    pub restrict_signal: Option<bool>,
}

/// The interpreters of a block. `None` is any; the empty name is the implicit process group or the
/// global application group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InterpreterScope {
    pub process_group: Option<Vec<u8>>,
    pub application_group: Option<Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScopedOptions {
    pub scope: InterpreterScope,
    pub options: InterpreterOptions,
}

/// The settings of a directory, location or .htaccess file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DirConfig {
    pub process_group: Option<Expr>,
    pub application_group: Option<Expr>,
    pub callable_object: Option<Expr>,
    /// Process groups that may be selected; the empty name is `%{GLOBAL}`.
    pub restrict_process: Option<Vec<Vec<u8>>>,
    pub pass_authorization: Option<bool>,
    pub script_reloading: Option<bool>,
    pub error_override: Option<bool>,
    pub chunked_request: Option<bool>,
    pub map_head_to_get: Option<MapHead>,
    pub ignore_activity: Option<bool>,
    pub trusted_proxy_headers: Option<Vec<&'static ProxyHeader>>,
    pub trusted_proxies: Option<Vec<Network>>,
    /// DroverRetry idempotent.
    pub retry: Option<bool>,
}

/// The inner value if set, else the outer.
fn over<T: Clone>(base: &Option<T>, inner: &Option<T>) -> Option<T> {
    inner.as_ref().or(base.as_ref()).cloned()
}

impl ServerConfig {
    /// The settings of a virtual host: its own, else those of the main server.
    pub fn merge(base: &Self, vhost: &Self) -> Self {
        Self {
            aliases: [vhost.aliases.as_slice(), &base.aliases].concat(),
            groups: vhost.groups.clone(),
            imports: vhost.imports.clone(),
            python_home: over(&base.python_home, &vhost.python_home),
            python_eggs: over(&base.python_eggs, &vhost.python_eggs),
            optimize: over(&base.optimize, &vhost.optimize),
            warnings: [base.warnings.as_slice(), &vhost.warnings].concat(),
            hash_seed: over(&base.hash_seed, &vhost.hash_seed),
            dont_write_bytecode: over(&base.dont_write_bytecode, &vhost.dont_write_bytecode),
            case_sensitivity: over(&base.case_sensitivity, &vhost.case_sensitivity),
            interpreter: InterpreterOptions::merge(&base.interpreter, &vhost.interpreter),
            scopes: [base.scopes.as_slice(), &vhost.scopes].concat(),
            dir: DirConfig::merge(&base.dir, &vhost.dir),
            control_socket: over(&base.control_socket, &vhost.control_socket),
            max_waiting: over(&base.max_waiting, &vhost.max_waiting),
            session: SessionOptions::merge(&base.session, &vhost.session),
        }
    }

    /// The settings of one interpreter. Of the blocks that match it, the more exact one overrides,
    /// then the later one.
    ///
    /// Search paths are combined instead: `base_path` first (`python-path` of a group, or
    /// WSGIPythonPath for the implicit group), then those of each matching block. They are added at
    /// the front of `sys.path` in this order, so the last comes first.
    pub fn interpreter_options(
        &self,
        process_group: &[u8],
        application_group: &[u8],
        base_path: &[Vec<u8>],
    ) -> (InterpreterOptions, Vec<Vec<Vec<u8>>>) {
        let mut matching: Vec<&ScopedOptions> =
            self.scopes.iter().filter(|block| block.scope.matches(process_group, application_group)).collect();
        matching.sort_by_key(|block| block.scope.exactness());
        let mut options = self.interpreter.clone();
        let mut layers = Vec::new();
        if !base_path.is_empty() {
            layers.push(base_path.to_vec());
        }
        for block in matching {
            options = InterpreterOptions::merge(&options, &block.options);
            layers.extend(block.options.python_path.clone());
        }
        options.python_path = None;
        (options, layers)
    }
}

impl InterpreterScope {
    fn matches(&self, process_group: &[u8], application_group: &[u8]) -> bool {
        let agrees = |wanted: &Option<Vec<u8>>, name: &[u8]| wanted.as_deref().is_none_or(|wanted| wanted == name);
        agrees(&self.process_group, process_group) && agrees(&self.application_group, application_group)
    }

    fn exactness(&self) -> usize {
        usize::from(self.process_group.is_some()) + usize::from(self.application_group.is_some())
    }
}

impl InterpreterOptions {
    pub fn merge(base: &Self, inner: &Self) -> Self {
        Self {
            python_path: over(&base.python_path, &inner.python_path),
            switch_interval: over(&base.switch_interval, &inner.switch_interval),
            restrict_stdin: over(&base.restrict_stdin, &inner.restrict_stdin),
            restrict_stdout: over(&base.restrict_stdout, &inner.restrict_stdout),
            restrict_signal: over(&base.restrict_signal, &inner.restrict_signal),
        }
    }
}

impl DirConfig {
    /// The settings of an inner directory, else those of the outer one.
    pub fn merge(base: &Self, inner: &Self) -> Self {
        Self {
            process_group: over(&base.process_group, &inner.process_group),
            application_group: over(&base.application_group, &inner.application_group),
            callable_object: over(&base.callable_object, &inner.callable_object),
            restrict_process: over(&base.restrict_process, &inner.restrict_process),
            pass_authorization: over(&base.pass_authorization, &inner.pass_authorization),
            script_reloading: over(&base.script_reloading, &inner.script_reloading),
            error_override: over(&base.error_override, &inner.error_override),
            chunked_request: over(&base.chunked_request, &inner.chunked_request),
            map_head_to_get: over(&base.map_head_to_get, &inner.map_head_to_get),
            ignore_activity: over(&base.ignore_activity, &inner.ignore_activity),
            trusted_proxy_headers: over(&base.trusted_proxy_headers, &inner.trusted_proxy_headers),
            trusted_proxies: over(&base.trusted_proxies, &inner.trusted_proxies),
            retry: over(&base.retry, &inner.retry),
        }
    }
}
