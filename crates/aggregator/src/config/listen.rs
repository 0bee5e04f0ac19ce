//! Where a listener is bound.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// What the path of a unix socket may take: the field of `sockaddr_un` less its closing zero
/// (`unix(7)`).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address and port.
    Tcp(SocketAddr),
    /// A unix socket, written `unix:/path`.
    Unix(PathBuf),
}

impl Listen {
    /// Reads `127.0.0.1:4100`, `[::1]:4100` or `unix:/run/tollmesh/ingest.sock`.
    pub fn parse(text: &str) -> Result<Listen, String> {
        const EXPECTED: &str = r#"expected "ADDRESS:PORT" or "unix:/PATH""#;
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.len() {
                _ if !path.starts_with('/') => {
                    Err(format!("{text:?} has no absolute path; {EXPECTED}"))
                }
                0..=SOCKET_PATH_BYTES_MAX => Ok(Listen::Unix(PathBuf::from(path))),
                n => Err(format!(
                    "the path has {n} bytes; a socket's has at most {SOCKET_PATH_BYTES_MAX}"
                )),
            };
        }
        let address = text.replacen("localhost:", "127.0.0.1:", 1);
        match address.parse() {
            Ok(address) => Ok(Listen::Tcp(address)),
            Err(_) => Err(format!("unknown address {text:?}; {EXPECTED}")),
        }
    }

    /// Whether both cannot be listened on at once.
    pub fn collides_with(&self, other: &Listen) -> bool {
        match (self, other) {
            (Listen::Unix(one), Listen::Unix(other)) => one == other,
            (Listen::Tcp(one), Listen::Tcp(other)) => {
                let is_any = one.ip().is_unspecified() || other.ip().is_unspecified();
                let is_same = one.port() == other.port() && one.port() != 0;
                is_same && (is_any || one.ip() == other.ip())
            }
            _ => false,
        }
    }

    /// Whether only this machine (for TCP: this network namespace) can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Listen::Tcp(address) => is_loopback(address.ip()),
            Listen::Unix(_) => true,
        }
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => {
            ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback())
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => write!(f, "{address}"),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, shown, local) in [
            ("127.0.0.1:4100", "127.0.0.1:4100", true),
            ("localhost:4100", "127.0.0.1:4100", true),
            ("127.9.9.9:1", "127.9.9.9:1", true),
            ("[::1]:4100", "[::1]:4100", true),
            ("[::ffff:127.0.0.1]:1", "[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:4100", "0.0.0.0:4100", false),
            ("[::]:4100", "[::]:4100", false),
            ("unix:/run/t.sock", "unix:/run/t.sock", true),
        ] {
            let listen = Listen::parse(text).unwrap();
            assert_eq!(listen.to_string(), shown);
            assert_eq!(listen.is_local(), local, "{text}");
        }
        for text in [
            "",
            "4100",
            "127.0.0.1",
            "unix:",
            "unix:run.sock",
            "tcp://1:1",
        ] {
            assert!(Listen::parse(text).is_err(), "{text}");
        }
        let socket = |n: usize| Listen::parse(&format!("unix:/{}", "a".repeat(n - 1)));
        assert!(socket(SOCKET_PATH_BYTES_MAX).is_ok());
        let what = "the path has 108 bytes; a socket's has at most 107";
        assert_eq!(socket(SOCKET_PATH_BYTES_MAX + 1), Err(what.to_owned()));
    }

    #[test]
    fn addresses_that_collide() {
        for (one, other, collides) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "0.0.0.0:1", true),
            ("[::]:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("unix:/a", "unix:/a", true),
            ("unix:/a", "unix:/b", false),
            ("unix:/a", "127.0.0.1:1", false),
        ] {
            let [one, other] = [one, other].map(|text| Listen::parse(text).unwrap());
            assert_eq!(one.collides_with(&other), collides, "{one} {other}");
        }
    }
}
