//! Where a listener is bound.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

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
            return if path.starts_with('/') {
                Ok(Listen::Unix(PathBuf::from(path)))
            } else {
                Err(format!("{text:?} has no absolute path; {EXPECTED}"))
            };
        }
        let address = text.replacen("localhost:", "127.0.0.1:", 1);
        match address.parse() {
            Ok(address) => Ok(Listen::Tcp(address)),
            Err(_) => Err(format!("unknown address {text:?}; {EXPECTED}")),
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
    }
}
