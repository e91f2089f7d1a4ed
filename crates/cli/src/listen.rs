//! The addresses on which httpd will listen.
//!
//! Responsible for: resolving --host and --port to addresses of this machine, with a clear message
//! if one cannot be used. Must never: keep a socket open. Called by: `serve.rs`.
use crate::error::Error;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs};

/// The addresses of a host name or an IP address, without those that this machine does not have:
/// `localhost` often resolves to ::1 on a machine without IPv6.
pub fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let unknown = |why: String| Error::Host(host.to_owned(), why);
    let mut all: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(|e| unknown(e.to_string()))?.collect();
    all.sort();
    all.dedup();
    let mut last = None;
    all.retain(|address| match TcpListener::bind((address.ip(), 0)) {
        Ok(_) => true,
        Err(e) => {
            last = Some(e);
            false
        }
    });
    match last {
        Some(e) if all.is_empty() => Err(unknown(e.to_string())),
        _ if all.is_empty() => Err(unknown("the name has no address".into())),
        _ => Ok(all),
    }
}

/// Refuses an address that httpd could not listen on.
pub fn must_be_free(address: SocketAddr) -> Result<(), Error> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == ErrorKind::AddrInUse => Err(Error::PortInUse(address.to_string())),
        Err(e) if e.kind() == ErrorKind::PermissionDenied => Err(Error::PortDenied(address.port())),
        Err(e) => Err(Error::Host(address.ip().to_string(), e.to_string())),
    }
}

/// A host as it is written in a URL.
pub fn in_url(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses() {
        assert_eq!(addresses("127.0.0.1", 80).ok(), Some(vec!["127.0.0.1:80".parse().unwrap()]));
        assert!(addresses("localhost", 80).is_ok_and(|all| !all.is_empty() && all.iter().all(|a| a.ip().is_loopback())));
        let said = addresses("no such name", 80).unwrap_err().to_string();
        assert!(said.starts_with("--host no such name:") && said.contains("127.0.0.1"), "{said}");
        assert_eq!((in_url("::1").as_str(), in_url("localhost").as_str()), ("[::1]", "localhost"));
    }

    #[test]
    fn a_port_in_use_is_reported() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let said = must_be_free(taken.local_addr().unwrap()).unwrap_err().to_string();
        assert!(said.contains("is in use by another program"), "{said}");
    }
}
