//! Where a webhook is: scheme, host, port and path.

use std::fmt;

use hyper::Uri;

/// A URL of HTTP. Neither `Debug` nor `Display` show its path, which may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    is_encrypted: bool,
    host: String,
    port: u16,
    path: String,
}

/// Why a text is no such URL. No message repeats the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// Not a URL at all.
    #[error("no URL; expected such as \"https://hooks.example/…\"")]
    NoUrl,
    /// Another scheme.
    #[error("the URL is neither https nor http")]
    Scheme,
    /// Secrets have their own files.
    #[error("the URL holds a name or password; put the token into a file of its own")]
    Credentials,
}

impl Target {
    /// Reads a URL.
    pub fn parse(text: &str) -> Result<Target, BadTarget> {
        let uri: Uri = text.parse().map_err(|_| BadTarget::NoUrl)?;
        let authority = uri.authority().ok_or(BadTarget::NoUrl)?;
        let is_encrypted = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(BadTarget::Scheme),
        };
        if authority.as_str().contains('@') {
            return Err(BadTarget::Credentials);
        }
        let host = authority.host();
        let host = host.strip_prefix('[').unwrap_or(host);
        let host = host.strip_suffix(']').unwrap_or(host);
        if host.is_empty() {
            return Err(BadTarget::NoUrl);
        }
        let default = if is_encrypted { 443 } else { 80 };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Target {
            is_encrypted,
            host: host.to_ascii_lowercase(),
            port: authority.port_u16().unwrap_or(default),
            path: path.to_owned(),
        })
    }

    /// Whether it is reached by TLS.
    pub fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    /// A name, or an address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Path and query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// A path below this one.
    pub fn below(mut self, path: &str) -> Target {
        self.path = format!("{}{path}", self.path.trim_end_matches('/'));
        self
    }

    /// What stands in a `host` header.
    pub fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match (self.is_encrypted, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_encrypted { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (text, shown, path) in [
            (
                "https://hooks.slack.com/services/T0/B0/s3cret",
                "https://hooks.slack.com",
                "/services/T0/B0/s3cret",
            ),
            ("http://127.0.0.1:9093", "http://127.0.0.1:9093", "/"),
            (
                "https://[2001:db8::1]:8443/x?y=z",
                "https://[2001:db8::1]:8443",
                "/x?y=z",
            ),
            ("HTTPS://Hooks.Example:443/x", "https://hooks.example", "/x"),
        ] {
            let target = Target::parse(text).unwrap();
            assert_eq!(target.to_string(), shown);
            assert_eq!(format!("{target:?}"), format!("Target({shown})"));
            assert_eq!(target.path(), path);
        }
    }

    #[test]
    fn what_is_none_is_not_repeated() {
        for (text, why) in [
            ("", BadTarget::NoUrl),
            ("s3cret", BadTarget::Scheme),
            ("/services/s3cret", BadTarget::NoUrl),
            ("https://me:s3cret@hooks.example/", BadTarget::Credentials),
            ("ftp://hooks.example/s3cret", BadTarget::Scheme),
            ("https:///s3cret", BadTarget::NoUrl),
        ] {
            let bad = Target::parse(text).unwrap_err();
            assert_eq!(bad, why, "{text}");
            assert!(!bad.to_string().contains("s3cret"));
        }
    }
}
