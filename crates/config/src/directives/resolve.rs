//! The settings of one request: those of its directory, else of its server, else the defaults.
//!
//! Responsible for: the default of every per-directory setting. Must never: need the request
//! itself, or allocate, as it runs for every request. Called by: `handler`.

use super::expr::Expr;
use super::proxy::{Network, ProxyHeader};
use super::value::{DirConfig, MapHead};

/// The settings of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings<'a> {
    /// `None`: see `expr::process_group`.
    pub process_group: Option<&'a Expr>,
    /// `None`: see `expr::application_group`.
    pub application_group: Option<&'a Expr>,
    /// `None`: see `expr::callable_object`.
    pub callable_object: Option<&'a Expr>,
    /// `None`: all process groups are allowed.
    pub restrict_process: Option<&'a [Vec<u8>]>,
    pub pass_authorization: bool,
    pub script_reloading: bool,
    pub error_override: bool,
    pub chunked_request: bool,
    pub map_head_to_get: MapHead,
    pub ignore_activity: bool,
    pub trusted_proxy_headers: &'a [&'static ProxyHeader],
    /// `None`: every client is trusted. An empty list trusts none.
    pub trusted_proxies: Option<&'a [Network]>,
    /// A request that changes nothing is retried once if its worker dies before it responds.
    pub retry: bool,
}

impl<'a> Settings<'a> {
    pub fn resolve(server: &'a DirConfig, dir: &'a DirConfig) -> Self {
        Self {
            process_group: dir.process_group.as_ref().or(server.process_group.as_ref()),
            application_group: dir.application_group.as_ref().or(server.application_group.as_ref()),
            callable_object: dir.callable_object.as_ref().or(server.callable_object.as_ref()),
            restrict_process: dir.restrict_process.as_deref().or(server.restrict_process.as_deref()),
            pass_authorization: dir.pass_authorization.or(server.pass_authorization).unwrap_or(false),
            script_reloading: dir.script_reloading.or(server.script_reloading).unwrap_or(true),
            error_override: dir.error_override.or(server.error_override).unwrap_or(false),
            chunked_request: dir.chunked_request.or(server.chunked_request).unwrap_or(false),
            map_head_to_get: dir.map_head_to_get.or(server.map_head_to_get).unwrap_or(MapHead::Auto),
            ignore_activity: dir.ignore_activity.or(server.ignore_activity).unwrap_or(false),
            trusted_proxy_headers: dir.trusted_proxy_headers.as_deref().or(server.trusted_proxy_headers.as_deref()).unwrap_or(&[]),
            trusted_proxies: dir.trusted_proxies.as_deref().or(server.trusted_proxies.as_deref()),
            retry: dir.retry.or(server.retry).unwrap_or(true),
        }
    }

    /// WSGIRestrictProcess: whether a process group is allowed here. The empty name is the implicit
    /// group.
    pub fn allows_process_group(&self, name: &[u8]) -> bool {
        self.restrict_process.is_none_or(|names| names.iter().any(|allowed| allowed == name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_wins_and_defaults_are_those_of_mod_wsgi() {
        let empty = DirConfig::default();
        let settings = Settings::resolve(&empty, &empty);
        assert!(
            settings.retry
                && settings.script_reloading
                && !settings.pass_authorization
                && !settings.chunked_request
                && !settings.error_override
        );
        assert_eq!(settings.map_head_to_get, MapHead::Auto);
        assert!(settings.allows_process_group(b"any"));
        let server = DirConfig { pass_authorization: Some(true), script_reloading: Some(false), ..DirConfig::default() };
        let dir = DirConfig { pass_authorization: Some(false), restrict_process: Some(vec![b"a".to_vec()]), ..DirConfig::default() };
        let settings = Settings::resolve(&server, &dir);
        assert!(!settings.pass_authorization && !settings.script_reloading);
        assert!(settings.allows_process_group(b"a") && !settings.allows_process_group(b""));
    }
}
