//! Trusted proxies and their header fields.
//!
//! Responsible for: the table of the fifteen header fields that WSGITrustedProxyHeaders accepts,
//! the networks of WSGITrustedProxies, and the client in X-Forwarded-For. Must never: resolve a
//! name. Called by: `set`, and `handler::proxy` for each request with such header fields.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};

use super::scalar::Parsed;

/// Header fields of one category are synonyms. The last trusted field of a request is used; the
/// others are removed from the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyCategory {
    Client,
    Host,
    Server,
    Port,
    ScriptName,
    Scheme,
}

/// What a trusted header field changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyMeaning {
    /// A list of addresses that contains REMOTE_ADDR.
    ForwardedFor,
    /// REMOTE_ADDR itself.
    RemoteAddr,
    /// HTTP_HOST.
    HttpHost,
    /// SERVER_NAME.
    ServerName,
    /// SERVER_PORT.
    ServerPort,
    /// SCRIPT_NAME and mod_wsgi.mount_point.
    ScriptName,
    /// The scheme: http or https.
    SchemeWord,
    /// Whether the scheme is https: On, true, 1, or Off, false, 0.
    SchemeFlag,
}

/// A header field that a proxy may set.
#[derive(Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    pub name: &'static str,
    /// Its name in the environment.
    pub env: &'static str,
    pub category: ProxyCategory,
    pub meaning: ProxyMeaning,
}

const fn header(name: &'static str, env: &'static str, category: ProxyCategory, meaning: ProxyMeaning) -> ProxyHeader {
    ProxyHeader { name, env, category, meaning }
}

pub static PROXY_HEADERS: &[ProxyHeader] = &[
    header("X-Forwarded-For", "HTTP_X_FORWARDED_FOR", ProxyCategory::Client, ProxyMeaning::ForwardedFor),
    header("X-Client-IP", "HTTP_X_CLIENT_IP", ProxyCategory::Client, ProxyMeaning::RemoteAddr),
    header("X-Real-IP", "HTTP_X_REAL_IP", ProxyCategory::Client, ProxyMeaning::RemoteAddr),
    header("X-Forwarded-Host", "HTTP_X_FORWARDED_HOST", ProxyCategory::Host, ProxyMeaning::HttpHost),
    header("X-Host", "HTTP_X_HOST", ProxyCategory::Host, ProxyMeaning::HttpHost),
    header("X-Forwarded-Server", "HTTP_X_FORWARDED_SERVER", ProxyCategory::Server, ProxyMeaning::ServerName),
    header("X-Forwarded-Port", "HTTP_X_FORWARDED_PORT", ProxyCategory::Port, ProxyMeaning::ServerPort),
    header("X-Script-Name", "HTTP_X_SCRIPT_NAME", ProxyCategory::ScriptName, ProxyMeaning::ScriptName),
    header("X-Forwarded-Script-Name", "HTTP_X_FORWARDED_SCRIPT_NAME", ProxyCategory::ScriptName, ProxyMeaning::ScriptName),
    header("X-Forwarded-Proto", "HTTP_X_FORWARDED_PROTO", ProxyCategory::Scheme, ProxyMeaning::SchemeWord),
    header("X-Forwarded-Scheme", "HTTP_X_FORWARDED_SCHEME", ProxyCategory::Scheme, ProxyMeaning::SchemeWord),
    header("X-Scheme", "HTTP_X_SCHEME", ProxyCategory::Scheme, ProxyMeaning::SchemeWord),
    header("X-Forwarded-HTTPS", "HTTP_X_FORWARDED_HTTPS", ProxyCategory::Scheme, ProxyMeaning::SchemeFlag),
    header("X-Forwarded-SSL", "HTTP_X_FORWARDED_SSL", ProxyCategory::Scheme, ProxyMeaning::SchemeFlag),
    header("X-HTTPS", "HTTP_X_HTTPS", ProxyCategory::Scheme, ProxyMeaning::SchemeFlag),
];

/// The known header field of that name. Case is ignored, and `_` or any other sign may replace `-`,
/// as in the environment.
pub fn proxy_header(name: &[u8]) -> Option<&'static ProxyHeader> {
    let fold = |byte: &u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_uppercase() } else { b'_' };
    PROXY_HEADERS.iter().find(|known| known.name.as_bytes().iter().map(fold).eq(name.iter().map(fold)))
}

/// An address or a network. The bits of the base outside the mask are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    V4 { base: u32, mask: u32 },
    V6 { base: u128, mask: u128 },
}

impl Network {
    /// `10.1.2.3`, `10.0.0.0/8`, `10.0.0.0/255.0.0.0`, `10.1.` (the first bytes of an address),
    /// `fd00::1`, `fd00::/8`.
    pub fn parse(text: &[u8]) -> Parsed<Self> {
        const EXPECTED: &str = "an IP address or a network such as 10.0.0.0/8 or fd00::/8";
        str::from_utf8(text).ok().and_then(Self::from_text).ok_or(Cow::Borrowed(EXPECTED))
    }

    fn from_text(text: &str) -> Option<Self> {
        let (address, mask) = match text.split_once('/') {
            Some((address, mask)) => (address, Some(mask)),
            None => (text, None),
        };
        match (address.parse().ok(), mask) {
            (Some(IpAddr::V4(address)), mask) => {
                let mask = match mask {
                    None => u32::MAX,
                    Some(mask) => match prefix_length(mask, 32) {
                        Some(bits) => u32::MAX.checked_shl(32 - bits).unwrap_or(0),
                        None => mask.parse::<Ipv4Addr>().ok()?.to_bits(),
                    },
                };
                Some(Self::V4 { base: address.to_bits() & mask, mask })
            }
            (Some(IpAddr::V6(address)), mask) => {
                let mask = match mask {
                    None => u128::MAX,
                    Some(mask) => u128::MAX.checked_shl(128 - prefix_length(mask, 128)?).unwrap_or(0),
                };
                Some(Self::V6 { base: address.to_bits() & mask, mask })
            }
            (None, None) => leading_bytes(address),
            (None, Some(_)) => None,
        }
    }

    /// Whether the network contains the address. An IPv4-mapped IPv6 address is compared with IPv4
    /// networks too; an IPv6 network never contains a plain IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self, address, address.to_canonical()) {
            (Self::V4 { base, mask }, _, IpAddr::V4(address)) => address.to_bits() & mask == *base,
            (Self::V6 { base, mask }, IpAddr::V6(address), _) => address.to_bits() & mask == *base,
            _ => false,
        }
    }
}

fn prefix_length(text: &str, max: u32) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|bits| *bits <= max)
}

/// The old notation of a network: one to three bytes of an IPv4 address, with an optional trailing
/// dot.
fn leading_bytes(text: &str) -> Option<Network> {
    let (mut base, mut mask) = (0u32, 0u32);
    let mut shift = 32u32;
    for part in text.strip_suffix('.').unwrap_or(text).split('.') {
        shift = shift.checked_sub(8)?;
        base |= prefix_length(part, 255)? << shift;
        mask |= 0xff << shift;
    }
    Some(Network::V4 { base, mask })
}

/// Whether any of the networks contains the address.
pub fn trusted(networks: &[Network], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(address))
}

/// The client's address in X-Forwarded-For, and the rest of the field if it is cut.
///
/// Without a list of proxies: the first entry, the header as it was. With one: walking from the
/// right, the entry before the leftmost trusted one of the unbroken run of trusted proxies; the
/// header keeps what begins there (mod_wsgi's meaning).
pub fn forwarded_for(value: &[u8], proxies: Option<&[Network]>) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let items: Vec<&[u8]> = value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|i| !i.is_empty()).collect();
    let Some(proxies) = proxies else {
        return (items.first().map(|i| i.to_vec()), None);
    };
    let run = items.iter().rev().take_while(|i| address(i).is_some_and(|a| trusted(proxies, a))).count();
    let first = items.len().saturating_sub(run).saturating_sub(1);
    let rest = items.get(first..).unwrap_or_default();
    (rest.first().map(|i| i.to_vec()), (!rest.is_empty()).then(|| rest.join(&b", "[..])))
}

fn address(text: &[u8]) -> Option<IpAddr> {
    str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_fifteen_headers_under_consistent_names() {
        assert_eq!(PROXY_HEADERS.len(), 15);
        for known in PROXY_HEADERS {
            assert_eq!(format!("HTTP_{}", known.name.to_uppercase().replace('-', "_")), known.env);
            assert_eq!(proxy_header(known.name.to_lowercase().as_bytes()), Some(known));
        }
        assert_eq!(proxy_header(b"X_Forwarded_For").unwrap().name, "X-Forwarded-For");
        assert_eq!(proxy_header(b"X-Forwarded"), None);
    }

    #[test]
    fn networks_contain_their_addresses() {
        let table = [
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.9.9.9/8", "10.1.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/255.255.0.0", "10.0.200.1", true),
            ("10.0.0.0/255.255.0.0", "10.1.0.1", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("10.1.", "10.1.2.3", true),
            ("10.1", "10.1.2.3", true),
            ("10.1.", "10.2.2.3", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "fe80::1", false),
            ("::/0", "fe80::1", true),
            ("::/0", "10.2.3.4", false),
            ("::ffff:10.0.0.0/104", "::ffff:10.2.3.4", true),
            ("::1", "::1", true),
            ("FD00::1", "fd00::1", true),
            ("10.0.0.1", "::1", false),
        ];
        for (network, address, want) in table {
            let parsed = Network::parse(network.as_bytes()).unwrap();
            assert_eq!(parsed.contains(address.parse().unwrap()), want, "{network} {address}");
            assert_eq!(trusted(&[parsed], address.parse().unwrap()), want);
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for bad in [
            "",
            "host",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/x",
            "fd00::/129",
            "fd00::/ffff::",
            "256",
            "10..1",
            "10.1./16",
            ".",
            "1.2.3.4.5",
            "10.0.0.1 ",
        ] {
            assert!(Network::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

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
