//! Applies the header fields of trusted proxies to the environment (WSGITrustedProxyHeaders, WSGITrustedProxies).
//!
//! Responsible for: removing untrusted synonyms of a trusted field. Must never: resolve a name. Called by: [`super::environ`].
use crate::config::proxy::{PROXY_HEADERS, ProxyCategory, ProxyHeader, ProxyMeaning, trusted};
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

/// The client's address in X-Forwarded-For, and the new value of the field if it changes.
///
/// Without a list of proxies, the first entry is the client and the field stays. With a list, the client is the entry before
/// the run of trusted proxies at the right end, and the field starts with that entry (as in mod_wsgi).
pub fn forwarded_for(value: &[u8], proxies: Option<&[Network]>) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let items: Vec<&[u8]> = value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|i| !i.is_empty()).collect();
    let Some(proxies) = proxies else {
        return (items.first().map(|i| i.to_vec()), None);
    };
    let run = items.iter().rev().take_while(|i| address(Some(i)).is_some_and(|a| trusted(proxies, a))).count();
    let first = items.len().saturating_sub(run).saturating_sub(1);
    let rest = items.get(first..).unwrap_or_default();
    (rest.first().map(|i| i.to_vec()), (!rest.is_empty()).then(|| rest.join(&b", "[..])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_before_the_trusted_run() {
        let networks = [Network::parse(b"10.0.0.0/8").unwrap()];
        let table = [
            ("1.1.1.1", "1.1.1.1", "1.1.1.1"),
            ("1.1.1.1, 10.0.0.1", "1.1.1.1", "1.1.1.1, 10.0.0.1"),
            ("9.9.9.9, 1.1.1.1,10.0.0.2 , 10.0.0.1", "1.1.1.1", "1.1.1.1, 10.0.0.2, 10.0.0.1"),
            ("10.0.0.3, 10.0.0.1", "10.0.0.3", "10.0.0.3, 10.0.0.1"),
            ("6.6.6.6, 10.0.0.1, 2.2.2.2", "2.2.2.2", "2.2.2.2"),
        ];
        for (value, client, rest) in table {
            let got = forwarded_for(value.as_bytes(), Some(&networks));
            assert_eq!(got, (Some(client.into()), Some(rest.into())), "{value}");
        }
        assert_eq!(forwarded_for(b" , 3.3.3.3, 4.4.4.4", None), (Some(b"3.3.3.3".to_vec()), None));
        assert_eq!(forwarded_for(b", ,", Some(&networks)), (None, None));
    }
}
