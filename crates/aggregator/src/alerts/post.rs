//! One request to a receiver: resolved, looked at, connected, sent, answered.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::alerts::address::is_public;
use crate::alerts::target::Target;
use crate::trust::{self, TrustError};

/// What connecting to one address may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);
/// What the whole request may take. Nobody waits for it but other alerts to the same receiver.
const POST_TIME_MAX: Duration = Duration::from_secs(15);
/// What is read of an answer, which is a word or a short object.
const ANSWER_BYTES_MAX: usize = 4_096;
/// Characters of an answer that are logged.
const SHOWN_CHARS_MAX: usize = 200;

/// How far a receiver may be looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Whether it may be at an address of this machine or network, and reached without encryption.
    pub allow_private: bool,
    /// The certificate authorities that sign for it; the system's where absent.
    pub ca_file: Option<PathBuf>,
}

/// What a receiver answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status. A redirect is an answer like any other: it is not followed.
    pub status: StatusCode,
    /// `retry-after`, in seconds.
    pub retry_after_seconds: Option<u64>,
    /// The begin of the body, in printable characters.
    pub shown: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// Plain HTTP is for private networks.
    #[error("http is not encrypted; use https, or set allow_private = true")]
    Unencrypted,
    /// No address for the name.
    #[error("{host} cannot be resolved")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// The name has no address.
    #[error("{host} has no address")]
    NoAddress {
        /// The name.
        host: String,
    },
    /// The name leads to this machine or network.
    #[error("{host} is at {address}, which is no public address; set allow_private = true")]
    Private {
        /// The name.
        host: String,
        /// The address that is not public.
        address: IpAddr,
    },
    /// Nobody takes a connection.
    #[error("cannot connect to {address}")]
    Connect {
        /// The last address tried.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Whom to trust is not known.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The host is none that a certificate can name.
    #[error("{host} is no name that a certificate can have")]
    Name {
        /// The host.
        host: String,
    },
    /// The server's certificate or protocol is wrong.
    #[error("no TLS with {host}")]
    Handshake {
        /// The host.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// The exchange broke off.
    #[error("the request failed")]
    Exchange(#[from] hyper::Error),
    /// The request cannot be written: a token holds what a header cannot.
    #[error("the request cannot be written")]
    Request(#[from] hyper::http::Error),
    /// A step did not come to its end.
    #[error("no answer within {} s", POST_TIME_MAX.as_secs())]
    Silent,
    /// The process is stopping.
    #[error("the certificates were not read to the end")]
    Broken,
}

/// Posts JSON there.
///
/// The name is resolved once; every address that it has must be allowed, and the connection goes to
/// one of those that were looked at, so that a name cannot lead elsewhere in between.
pub async fn post(
    target: &Target,
    reach: &Reach,
    bearer: &str,
    body: Vec<u8>,
) -> Result<Answer, PostError> {
    let exchange = async {
        if !target.is_encrypted() && !reach.allow_private {
            return Err(PostError::Unencrypted);
        }
        let request = request(target, bearer, body)?;
        let stream = connect(target, reach).await?;
        if !target.is_encrypted() {
            return exchange(stream, request).await;
        }
        let ca_file = reach.ca_file.clone();
        let config = tokio::task::spawn_blocking(move || trust::client_config(ca_file.as_deref()));
        let config = config.await.map_err(|_| PostError::Broken)??;
        let host = || target.host().to_owned();
        let name = ServerName::try_from(host()).map_err(|_| PostError::Name { host: host() })?;
        let stream = TlsConnector::from(config).connect(name, stream).await;
        let stream = stream.map_err(|source| PostError::Handshake {
            host: host(),
            source,
        })?;
        exchange(stream, request).await
    };
    timeout(POST_TIME_MAX, exchange)
        .await
        .unwrap_or(Err(PostError::Silent))
}

fn request(
    target: &Target,
    bearer: &str,
    body: Vec<u8>,
) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let mut request = Request::post(target.path())
        .header(header::HOST, target.authority())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json, text/plain")
        .header(
            header::USER_AGENT,
            concat!("tollmesh/", env!("CARGO_PKG_VERSION")),
        );
    if !bearer.is_empty() {
        request = request.header(header::AUTHORIZATION, format!("Bearer {bearer}"));
    }
    request.body(Full::from(body))
}

/// Every address that a name has, if all of them are allowed.
async fn addresses(target: &Target, reach: &Reach) -> Result<Vec<SocketAddr>, PostError> {
    let host = || target.host().to_owned();
    let found = lookup_host((target.host(), target.port())).await;
    let found = found.map_err(|source| PostError::Resolve {
        host: host(),
        source,
    })?;
    let addresses: Vec<SocketAddr> = found.collect();
    if addresses.is_empty() {
        return Err(PostError::NoAddress { host: host() });
    }
    let mut ips = addresses.iter().map(SocketAddr::ip);
    match ips.find(|ip| !reach.allow_private && !is_public(*ip)) {
        Some(address) => Err(PostError::Private {
            host: host(),
            address,
        }),
        None => Ok(addresses),
    }
}

async fn connect(target: &Target, reach: &Reach) -> Result<TcpStream, PostError> {
    let mut failed = PostError::NoAddress {
        host: target.host().to_owned(),
    };
    for address in addresses(target, reach).await? {
        let connected = timeout(CONNECT_TIME_MAX, TcpStream::connect(address)).await;
        let silent = || io::Error::from(io::ErrorKind::TimedOut);
        match connected.unwrap_or_else(|_| Err(silent())) {
            Ok(stream) => return Ok(stream),
            Err(source) => failed = PostError::Connect { address, source },
        }
    }
    Err(failed)
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, PostError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Its error, if any, is that of the answer.
    tokio::spawn(connection);
    let answer = sender.send_request(request).await?;
    let (status, retry_after_seconds) = (answer.status(), retry_after(&answer));
    // A body that is too long or breaks off takes nothing from the status.
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
    let body = body.collect().await.map(|body| body.to_bytes());
    Ok(Answer {
        status,
        retry_after_seconds,
        shown: shown(&body.unwrap_or_default()),
    })
}

fn retry_after<T>(answer: &Response<T>) -> Option<u64> {
    let value = answer.headers().get(header::RETRY_AFTER)?;
    value.to_str().ok()?.trim().parse().ok()
}

/// What of an answer can stand in a log line.
fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let shown = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    shown.take(SHOWN_CHARS_MAX).collect()
}

impl PostError {
    /// The error with its causes, on one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}

impl Reach {
    /// Whether the files can be used that a request takes.
    pub fn check(&self) -> Result<(), TrustError> {
        let config: Option<&Path> = self.ca_file.as_deref();
        config.map_or(Ok(()), |file| {
            trust::client_config(Some(file)).map(|_: Arc<_>| ())
        })
    }
}
