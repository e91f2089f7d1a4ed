//! The environment of a request, as mod_wsgi and PEP 3333 define it.
//!
//! Responsible for: the set of variables. Must never: let a client set a variable that httpd sets. Called by: `handler`.
use super::proxy;
use crate::config::Settings;
use crate::config::expr::{self, fold_slashes};
use crate::config::value::MapHead;
use crate::handler::request::RequestView;
use crate::handler::task::Selection;
use std::ffi::CString;

/// Prefixes of variables that only httpd and the worker set. SetEnv, SetEnvIf and RewriteRule cannot replace them in any
/// letter case, since httpd's tables ignore case.
const RESERVED: [&[u8]; 3] = [b"wsgi.", b"mod_wsgi.", b"mod_drover."];

fn is_reserved(name: &[u8]) -> bool {
    RESERVED.iter().any(|prefix| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix)))
}

fn remove_reserved<'r>(r: &mut impl RequestView<'r>) {
    let names: Vec<CString> = r.each_env().filter(|(name, _)| is_reserved(name)).filter_map(|(name, _)| CString::new(name).ok()).collect();
    names.iter().for_each(|name| r.unset_env(name));
}

/// Fills the environment. The application gets exactly its variables and those that the worker adds.
pub fn build<'r>(r: &mut impl RequestView<'r>, settings: &Settings<'_>, selection: &Selection) {
    remove_reserved(r);
    r.add_common_vars();
    r.set_env(c"GATEWAY_INTERFACE", b"CGI/1.1");
    r.set_env(c"SERVER_PROTOCOL", r.protocol().unwrap_or_default());
    r.set_env(c"REQUEST_METHOD", method(r, settings));
    r.set_env(c"QUERY_STRING", r.args().unwrap_or_default());
    r.set_env(c"REQUEST_URI", r.request_uri());

    let path_info = fold_slashes(r.path_info().unwrap_or_default());
    let script_name = script_name(r);
    r.set_env(c"SCRIPT_NAME", &script_name);
    r.set_env(c"PATH_INFO", &path_info);
    if !path_info.is_empty() {
        // RFC 3875 §4.1.6: document root and path. Unlike for CGI, httpd makes no sub-request.
        let translated = [r.document_root(), &path_info].concat();
        r.set_env(c"PATH_TRANSLATED", &translated);
    }
    if selection.pass_authorization
        && let Some(value) = r.header(c"Authorization")
    {
        r.set_env(c"HTTP_AUTHORIZATION", value);
    }
    r.set_env(c"mod_wsgi.script_name", &script_name);
    r.set_env(c"mod_wsgi.path_info", &path_info);

    let scheme_settled = proxy::apply(r, settings);
    let https = match r.env(c"HTTPS") {
        _ if !scheme_settled && r.is_https() => true,
        Some(v) => [b"1".as_slice(), b"on", b"true"].iter().any(|yes| v.eq_ignore_ascii_case(yes)),
        None => false,
    };
    r.unset_env(c"HTTPS");
    r.set_env(c"wsgi.url_scheme", if https { b"https" } else { b"http" });

    r.set_env(c"mod_wsgi.callable_object", &selection.callable_object);
    r.set_env(c"mod_wsgi.request_handler", r.handler().unwrap_or_default());
    r.set_env(c"mod_wsgi.handler_script", b"");
    r.set_env(c"mod_wsgi.listener_host", r.local_hostname().unwrap_or_default());
    r.set_env(c"mod_wsgi.listener_port", r.local_port().to_string().as_bytes());
    r.set_env(c"mod_wsgi.server_pid", std::process::id().to_string().as_bytes());
    let (request_id, connection_id) = r.log_ids();
    if let Some(id) = request_id {
        r.set_env(c"mod_wsgi.request_id", id);
    }
    if let Some(id) = connection_id {
        r.set_env(c"mod_wsgi.connection_id", id);
    }
    r.set_env(c"apache.version", r.server_version().as_bytes());
}

/// SCRIPT_NAME: the URL without PATH_INFO, with repeated slashes folded.
pub fn script_name<'r>(r: &impl RequestView<'r>) -> Vec<u8> {
    let uri = r.uri().unwrap_or_default();
    let has_info = r.path_info().is_some_and(|info| !info.is_empty());
    expr::script_name(uri, if has_info { r.path_info_start() } else { uri.len() })
}

/// REQUEST_METHOD: GET for a HEAD request whose output filters need the body, or as WSGIMapHEADToGET says.
fn method<'r>(r: &impl RequestView<'r>, settings: &Settings<'_>) -> &'r [u8] {
    let as_get = match settings.map_head_to_get {
        MapHead::On => r.is_get(),
        MapHead::Auto => r.is_get() && r.is_head() && r.head_needs_body(),
        MapHead::Off => false,
    };
    if as_get { b"GET" } else { r.method().unwrap_or_default() }
}
