//! Where calls are exported to, and how: `[otlp]`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};

use crate::forward::Tls;
use crate::otlp::error::ExportError;

/// What an endpoint looks like, for messages.
const EXPECTED: &str = "expected one such as \"http://collector:4318\"";

/// Bytes of a file of headers; more is a wrong file.
const HEADERS_BYTES_MAX: u64 = 64 << 10;

/// How exporting is set up.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// `otlp.endpoint`: paths such as `/v1/traces` are added to it.
    pub endpoint: Endpoint,
    /// `otlp.headers`: sent with each request.
    pub headers: BTreeMap<String, String>,
    /// `otlp.headers_file`: more of them, a `name: value` a line, read anew for each visit.
    pub headers_file: Option<PathBuf>,
    /// `otlp.ca_file`: the authorities that are trusted; default those of the system.
    pub ca_file: Option<PathBuf>,
    /// `otlp.signals`: what is sent. Default traces and metrics.
    pub signals: Vec<Signal>,
    /// `otlp.cost_attribute`: what a call's cost is called beside `tollmesh.cost.usd`.
    pub cost_attribute: CostAttribute,
    /// `otlp.interval`: how often is looked for calls to export. Default 10 s.
    pub interval: Duration,
}

/// A kind of telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    /// A span a call.
    Traces,
    /// A log record a call.
    Logs,
    /// Histograms and sums over calls.
    Metrics,
}

/// What a call's cost is called: receivers differ, and the conventions have not settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CostAttribute {
    /// `gen_ai.usage.cost`, a number of US dollars, as Langfuse reads it
    /// (<https://langfuse.com/integrations/native/opentelemetry>, "Property Mapping").
    #[default]
    Plain,
    /// `gen_ai.usage.cost.amount`, `.currency` and `.source`, as proposed for the conventions
    /// (<https://github.com/open-telemetry/semantic-conventions-genai/pull/443>).
    Proposed,
}

/// An `http://` or `https://` URL without query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether to speak TLS.
    pub is_encrypted: bool,
    /// A name or an address; IPv6 without brackets.
    pub host: String,
    /// The port; 80 or 443 where none is named, as in any URL.
    pub port: u16,
    /// As it stands in the `host` header.
    pub authority: String,
    /// What precedes `/v1/traces`; empty or beginning with a slash, never ending with one.
    pub path: String,
}

// === impl Signal ===

impl Signal {
    /// All of them.
    pub const ALL: [Signal; 3] = [Signal::Traces, Signal::Logs, Signal::Metrics];

    /// The name in `otlp.signals`, and at the end of the path that it is posted to.
    pub const fn name(self) -> &'static str {
        match self {
            Signal::Traces => "traces",
            Signal::Logs => "logs",
            Signal::Metrics => "metrics",
        }
    }

    /// The signal of that name, or `None`.
    pub fn parse(name: &str) -> Option<Signal> {
        Signal::ALL.into_iter().find(|signal| signal.name() == name)
    }
}

// === impl CostAttribute ===

impl CostAttribute {
    /// Reads `otlp.cost_attribute`.
    pub fn parse(text: &str) -> Result<CostAttribute, String> {
        match text {
            "gen_ai.usage.cost" => Ok(CostAttribute::Plain),
            "gen_ai.usage.cost.amount" => Ok(CostAttribute::Proposed),
            _ => Err(format!(
                "unknown attribute {text:?}; expected \"gen_ai.usage.cost\" or \
                 \"gen_ai.usage.cost.amount\""
            )),
        }
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// Reads `otlp.endpoint`.
    pub fn parse(text: &str) -> Result<Endpoint, String> {
        let url: hyper::Uri = text
            .parse()
            .map_err(|error| format!("not a URL: {error}; {EXPECTED}"))?;
        let is_encrypted = match url.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(format!("not an http:// or https:// URL; {EXPECTED}")),
        };
        let authority = url.authority().filter(|a| !a.host().is_empty());
        let authority = authority.ok_or_else(|| format!("the URL names no host; {EXPECTED}"))?;
        if authority.as_str().contains('@') {
            return Err("the URL holds a user; name it in headers_file".to_owned());
        }
        if url.query().is_some() {
            return Err(format!("the URL has a query; {EXPECTED}"));
        }
        let path = url.path().trim_end_matches('/');
        if Signal::ALL.iter().any(|s| path.ends_with(&path_of(*s))) {
            let message =
                "the URL ends with a signal's own path, which is added to it; remove that";
            return Err(message.to_owned());
        }
        let host = authority.host().trim_matches(['[', ']']);
        Ok(Endpoint {
            is_encrypted,
            host: host.to_owned(),
            port: url
                .port_u16()
                .unwrap_or(if is_encrypted { 443 } else { 80 }),
            authority: authority.to_string(),
            path: path.to_owned(),
        })
    }

    /// The path that a signal is posted to.
    pub fn path(&self, signal: Signal) -> String {
        format!("{}{}", self.path, path_of(signal))
    }

    /// Whether what is sent may pass a network in clear.
    pub fn may_be_read_on_the_way(&self) -> bool {
        let is_local = self.host == "localhost"
            || self
                .host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        !self.is_encrypted && !is_local
    }
}

/// <https://opentelemetry.io/docs/specs/otlp/#otlphttp-request>
fn path_of(signal: Signal) -> String {
    format!("/v1/{}", signal.name())
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_encrypted { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

// === impl Settings ===

impl Settings {
    /// All headers, those of the file last.
    pub fn all_headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, ExportError> {
        let mut headers = Vec::new();
        for (name, value) in &self.headers {
            // They were looked at when they were configured.
            headers.extend(header(name, value).ok());
        }
        let Some(path) = &self.headers_file else {
            return Ok(headers);
        };
        let refused = |what: String| ExportError::Headers {
            path: path.clone(),
            what,
        };
        let size = std::fs::metadata(path).map_err(|error| refused(error.to_string()))?;
        if size.len() > HEADERS_BYTES_MAX {
            return Err(refused(format!("larger than {HEADERS_BYTES_MAX} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
        for (n, line) in (1..).zip(text.lines()) {
            if line.trim().is_empty() || line.trim_start().starts_with('#') {
                continue;
            }
            // The line itself may be a secret, so it is not shown.
            let pair = line
                .split_once(':')
                .map(|(name, value)| header(name, value));
            match pair {
                Some(Ok(pair)) => headers.push(pair),
                _ => return Err(refused(format!("line {n} is no `name: value`"))),
            }
        }
        Ok(headers)
    }

    /// Whether the files can be used that a visit takes.
    pub fn check_files(&self) -> Result<(), ExportError> {
        self.all_headers()?;
        if self.endpoint.is_encrypted {
            self.tls()?;
        }
        Ok(())
    }

    /// Whom an encrypted receiver is to be vouched for by.
    pub fn tls(&self) -> Result<Tls, ExportError> {
        Tls::new(self.ca_file.as_deref()).map_err(|error| ExportError::Certificates {
            what: error.chain(),
        })
    }

    /// Whether that signal is sent.
    pub fn sends(&self, signal: Signal) -> bool {
        self.signals.contains(&signal)
    }
}

/// A header that may be sent; the error says why it may not.
pub fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let parsed: HeaderName = name
        .trim()
        .parse()
        .map_err(|_| format!("{name:?} is no name of a header"))?;
    if ["host", "content-length", "content-type", "content-encoding"].contains(&parsed.as_str()) {
        return Err(format!("{name:?} is set by the exporter itself"));
    }
    let mut value: HeaderValue = value
        .trim()
        .parse()
        .map_err(|_| format!("the value of {name:?} cannot be sent in a header"))?;
    value.set_sensitive(true);
    Ok((parsed, value))
}

/// Headers are secrets more often than not.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&String> = self.headers.keys().collect();
        f.debug_struct("Settings")
            .field("endpoint", &self.endpoint.to_string())
            .field("headers", &headers)
            .field("headers_file", &self.headers_file)
            .field("ca_file", &self.ca_file)
            .field("signals", &self.signals)
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        let endpoint = Endpoint::parse("https://cloud.example/api/public/otel/").unwrap();
        assert_eq!(
            (endpoint.host.as_str(), endpoint.port),
            ("cloud.example", 443)
        );
        assert_eq!(endpoint.path(Signal::Traces), "/api/public/otel/v1/traces");
        assert!(!endpoint.may_be_read_on_the_way());
        let endpoint = Endpoint::parse("http://[::1]:4318").unwrap();
        assert_eq!((endpoint.host.as_str(), endpoint.port), ("::1", 4318));
        assert_eq!(endpoint.path(Signal::Logs), "/v1/logs");
        assert!(!endpoint.may_be_read_on_the_way());
        assert!(
            Endpoint::parse("http://collector:4318")
                .unwrap()
                .may_be_read_on_the_way()
        );
        for (bad, because) in [
            ("collector:4318", "not an http:// or https:// URL"),
            ("grpc://collector:4317", "not an http:// or https:// URL"),
            ("/v1/traces", "not an http:// or https:// URL"),
            ("http://me:s3cret@collector", "the URL holds a user"),
            ("http://collector?x=s3cret", "the URL has a query"),
            (
                "http://collector/v1/metrics",
                "the URL ends with a signal's own path",
            ),
        ] {
            let message = Endpoint::parse(bad).unwrap_err();
            assert!(message.starts_with(because), "{bad}: {message}");
            assert!(!message.contains("s3cret"), "{message}");
        }
    }

    #[test]
    fn headers_are_read_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("headers");
        let mut settings = Settings {
            endpoint: Endpoint::parse("http://c:4318").unwrap(),
            headers: [("x-dataset".to_owned(), "s3cret-1".to_owned())].into(),
            headers_file: Some(file.clone()),
            ca_file: None,
            signals: vec![Signal::Traces],
            cost_attribute: CostAttribute::Plain,
            interval: Duration::from_secs(1),
        };
        std::fs::write(&file, "# for Langfuse\n\nAuthorization: Basic s3cret-2\n").unwrap();
        let headers = settings.all_headers().unwrap();
        assert_eq!(headers.len(), 2);
        assert_eq!(headers[1].0, "authorization");
        assert_eq!(headers[1].1, "Basic s3cret-2");
        assert!(!format!("{settings:?} {headers:?}").contains("s3cret"));
        std::fs::write(&file, "fine: yes\nBasic s3cret-3\n").unwrap();
        let error = settings.all_headers().unwrap_err().to_string();
        assert!(error.ends_with("line 2 is no `name: value`"), "{error}");
        settings.headers_file = Some(dir.path().join("none"));
        assert!(settings.all_headers().is_err());
    }

    #[test]
    fn some_headers_are_not_for_configuring() {
        assert!(header("X-Honeycomb-Team", "k").is_ok());
        assert!(header("content-type", "text/plain").is_err());
        assert!(header("a b", "c").is_err());
        assert!(header("a", "c\nd").is_err());
    }
}
