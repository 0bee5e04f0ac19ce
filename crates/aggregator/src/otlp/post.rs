//! OTLP over HTTP: protobuf in the request, one connection a visit.
//!
//! <https://opentelemetry.io/docs/specs/otlp/#otlphttp>: bodies are compressed by gzip, which every
//! receiver must take. A redirect is an answer like any other that is no success, and not followed.

use std::io::{self, Write};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time;

use crate::otlp::error::ExportError;
use crate::otlp::place::{Endpoint, Settings, Signal};

/// Connecting with its handshakes, or a request with its answer, may take so long.
const STEP_TIME_MAX: Duration = Duration::from_secs(30);

/// Of an answer that is longer nothing is read: none that says something is.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What is shown of an answer's text.
const DETAIL_CHARS_MAX: usize = 200;

const PROTOBUF: &str = "application/x-protobuf";

/// A connection to a receiver.
pub struct Connection {
    endpoint: Endpoint,
    headers: Vec<(HeaderName, HeaderValue)>,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    /// Connects, over TLS where the endpoint says so.
    pub async fn open(settings: &Settings) -> Result<Connection, ExportError> {
        let endpoint = settings.endpoint.clone();
        let headers = settings.all_headers()?;
        let connected = connect(&endpoint, settings);
        let sender = match time::timeout(STEP_TIME_MAX, connected).await {
            Ok(sender) => sender?,
            Err(_) => return Err(silent(&endpoint)),
        };
        Ok(Connection {
            endpoint,
            headers,
            sender,
        })
    }

    /// Posts one request; the answer's body where the receiver took it.
    pub async fn post(
        &mut self,
        signal: Signal,
        message: &impl Message,
    ) -> Result<Bytes, ExportError> {
        let url = format!("{}/v1/{}", self.endpoint, signal.name());
        let request = self.request(signal, message, &url)?;
        let exchange = async {
            // A connection that the receiver has closed meanwhile is told here.
            self.sender.ready().await?;
            let answer = self.sender.send_request(request).await?;
            Ok::<_, hyper::Error>(whole(answer).await)
        };
        match time::timeout(STEP_TIME_MAX, exchange).await {
            Ok(Ok((status, _, body))) if status.is_success() => Ok(body),
            Ok(Ok((status, headers, body))) => Err(ExportError::Refused {
                url,
                status: status.as_u16(),
                detail: detail(&headers, &body),
                retry_after_seconds: retry_after(&headers),
            }),
            Ok(Err(source)) => Err(ExportError::Broken {
                server: self.endpoint.authority.clone(),
                source,
            }),
            Err(_) => Err(silent(&self.endpoint)),
        }
    }

    fn request(
        &self,
        signal: Signal,
        message: &impl Message,
        url: &str,
    ) -> Result<Request<Full<Bytes>>, ExportError> {
        let version = env!("CARGO_PKG_VERSION");
        let mut request = Request::post(self.endpoint.path(signal))
            .header(header::HOST, &self.endpoint.authority)
            .header(header::USER_AGENT, format!("tollmesh/{version}"))
            .header(header::CONTENT_TYPE, PROTOBUF)
            .header(header::CONTENT_ENCODING, "gzip");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let body = Full::new(compressed(&message.encode_to_vec()).into());
        request.body(body).map_err(|source| ExportError::Request {
            url: url.to_owned(),
            source,
        })
    }
}

async fn connect(
    endpoint: &Endpoint,
    settings: &Settings,
) -> Result<SendRequest<Full<Bytes>>, ExportError> {
    let failed = |source| ExportError::Connect {
        server: endpoint.authority.clone(),
        source,
    };
    let address = (endpoint.host.as_str(), endpoint.port);
    let stream = TcpStream::connect(address).await.map_err(failed)?;
    if !endpoint.is_encrypted {
        return spoken(stream, endpoint).await;
    }
    let tls = settings.tls()?;
    let stream = tls.encrypt(&endpoint.host, stream).await.map_err(failed)?;
    spoken(stream, endpoint).await
}

/// HTTP/1.1 over a stream, which is driven until the sender is dropped.
async fn spoken<S>(stream: S, endpoint: &Endpoint) -> Result<SendRequest<Full<Bytes>>, ExportError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(|source| ExportError::Broken {
        server: endpoint.authority.clone(),
        source,
    })?;
    // Its error, if any, is that of the answer.
    tokio::spawn(connection);
    Ok(sender)
}

/// An answer with its body; without, where that is too long or breaks off.
async fn whole(answer: Response<Incoming>) -> (StatusCode, HeaderMap, Bytes) {
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    (head.status, head.headers, body)
}

/// What the receiver says in words. Errors are `google.rpc.Status` messages: a code, then the text.
fn detail(headers: &HeaderMap, body: &[u8]) -> String {
    #[derive(Clone, PartialEq, Message)]
    struct Status {
        #[prost(string, tag = "2")]
        message: String,
    }
    let is_protobuf = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(PROTOBUF.as_bytes()));
    let text = match Status::decode(body) {
        Ok(status) if is_protobuf => status.message,
        _ => String::from_utf8_lossy(body).into_owned(),
    };
    let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let is_shown = |letter: &char| !letter.is_control();
    match text
        .chars()
        .filter(is_shown)
        .take(DETAIL_CHARS_MAX)
        .collect::<String>()
    {
        text if text.is_empty() => String::new(),
        text => format!(": {text}"),
    }
}

/// Only seconds are understood; a date is left to the usual pause.
fn retry_after(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

fn silent(endpoint: &Endpoint) -> ExportError {
    ExportError::Silent {
        server: endpoint.authority.clone(),
        seconds: STEP_TIME_MAX.as_secs(),
    }
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    let write = || -> io::Result<Vec<u8>> {
        let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
        encoder.write_all(bytes)?;
        encoder.finish()
    };
    // Writing into memory cannot fail.
    write().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_receiver_says_is_shown_on_one_short_line() {
        let plain = HeaderMap::new();
        assert_eq!(
            detail(&plain, b" no\n such\x07 dataset "),
            ": no such dataset"
        );
        assert_eq!(detail(&plain, b""), "");
        assert_eq!(
            detail(&plain, "é".repeat(1_000).as_bytes()).chars().count(),
            202
        );
        let mut protobuf = HeaderMap::new();
        protobuf.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
        let status = b"\x08\x03\x12\x08too long";
        assert_eq!(detail(&protobuf, status), ": too long");
    }

    #[test]
    fn pauses_are_read_where_they_are_seconds() {
        let mut headers = HeaderMap::new();
        assert_eq!(retry_after(&headers), None);
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("7"));
        assert_eq!(retry_after(&headers), Some(7));
        let date = HeaderValue::from_static("Wed, 21 Oct 2026 07:28:00 GMT");
        headers.insert(header::RETRY_AFTER, date);
        assert_eq!(retry_after(&headers), None);
    }
}
