//! Applies the header fields of trusted proxies to the environment (WSGITrustedProxyHeaders, WSGITrustedProxies).
//!
//! Responsible for: removing untrusted synonyms of a trusted field. Must never: resolve a name. Called by: `environ`.
use crate::config::proxy::{PROXY_HEADERS, ProxyCategory, ProxyHeader, ProxyMeaning, forwarded_for, trusted};
use crate::config::{Network, Settings};
use crate::handler::request::{RequestView, c_string};
use std::net::IpAddr;

/// Applies the trusted fields. Returns whether one of them determined the scheme.
pub fn apply<'r>(r: &mut impl RequestView<'r>, settings: &Settings<'_>) -> bool {
    if settings.trusted_proxy_headers.is_empty() {
        return false;
    }
    let peer_is_trusted =
        settings.trusted_proxies.is_none_or(|networks| address(r.env(c"REMOTE_ADDR")).is_some_and(|a| trusted(networks, a)));
    let mut kept: Vec<&'static ProxyHeader> = Vec::new();
    for header in settings.trusted_proxy_headers {
        let value = r.env(&c_string(header.env.as_bytes())).map(<[u8]>::to_vec);
        if let Some(value) = value.filter(|_| peer_is_trusted) {
            apply_one(r, header, &value, settings.trusted_proxies);
            kept.retain(|k| k.category != header.category);
            kept.push(header);
        }
    }
    for header in PROXY_HEADERS {
        let declared = settings.trusted_proxy_headers.iter().any(|h| h.category == header.category);
        if declared && !kept.contains(&header) {
            r.unset_env(&c_string(header.env.as_bytes()));
        }
    }
    kept.iter().any(|h| h.category == ProxyCategory::Scheme)
}

fn address(text: Option<&[u8]>) -> Option<IpAddr> {
    str::from_utf8(text?).ok()?.trim().parse().ok()
}

fn apply_one<'r>(r: &mut impl RequestView<'r>, header: &ProxyHeader, value: &[u8], proxies: Option<&[Network]>) {
    match header.meaning {
        ProxyMeaning::ForwardedFor => {
            let (client, rest) = forwarded_for(value, proxies);
            if let Some(client) = client {
                r.set_env(c"REMOTE_ADDR", &client);
            }
            if let Some(rest) = rest {
                r.set_env(c"HTTP_X_FORWARDED_FOR", &rest);
            }
        }
        ProxyMeaning::RemoteAddr => r.set_env(c"REMOTE_ADDR", value),
        ProxyMeaning::HttpHost => r.set_env(c"HTTP_HOST", value),
        ProxyMeaning::ServerName => r.set_env(c"SERVER_NAME", value),
        ProxyMeaning::ServerPort => r.set_env(c"SERVER_PORT", value),
        ProxyMeaning::ScriptName => {
            r.set_env(c"mod_wsgi.mount_point", value);
            r.set_env(c"SCRIPT_NAME", value);
        }
        ProxyMeaning::SchemeWord => scheme(r, value, &["https"], &["http"]),
        ProxyMeaning::SchemeFlag => scheme(r, value, &["on", "true", "1"], &["off", "false", "0"]),
    }
}

fn scheme<'r>(r: &mut impl RequestView<'r>, value: &[u8], yes: &[&str], no: &[&str]) {
    let is = |words: &[&str]| words.iter().any(|w| value.eq_ignore_ascii_case(w.as_bytes()));
    if is(yes) {
        r.set_env(c"HTTPS", b"1");
    } else if is(no) {
        r.unset_env(c"HTTPS");
    }
}
