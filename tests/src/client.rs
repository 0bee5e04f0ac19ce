//! The app: sends an exchange's request through Envoy and reads the answer to its last byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::exchange::{Ask, Cut, Exchange, Payload, Pieces, hex};
use crate::provider::{Provider, REQUEST_ID};

/// How an answer over HTTP/2 ended that was reset without an error. A client may take that for the
/// answer's end (RFC 9113, 8.1), and hyper does; but the last frame did not say that it was the last.
const QUIET_RESET: &str = "stream reset: NO_ERROR";

/// What an HTTP/2 connection may have sent and we not read. Half of it is the budget out of which h2
/// takes 255 bytes for each waiting frame of one: enough for an answer of 100 KiB in such frames
/// while this machine is busy with other things. With hyper's own 5 MiB that is 10 KiB, and then h2
/// calls it excessive load and ends the connection.
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;

/// What is kept of an answer's body; the hash and the length cover all of it.
const BODY_KEPT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How long an answer may take before the test is called stuck.
const ANSWER_PATIENCE: Duration = Duration::from_secs(120);

/// An app behind the mesh.
#[derive(Clone, Debug)]
pub struct Client {
    runtime: Handle,
    envoy: SocketAddr,
    provider: Arc<Provider>,
    headers: Vec<(String, Vec<u8>)>,
    is_http2: bool,
    hangs_up_after: Option<u64>,
    hides_length: bool,
    patience: Option<Duration>,
}

/// What the app saw.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The id under which the call went out, and under which the ledger knows it.
    pub request_id: String,
    /// The status; `None` where no response head came.
    pub status: Option<u16>,
    /// Response headers.
    pub headers: HeaderMap,
    /// The body, up to 8 MiB of it.
    pub body: Bytes,
    /// The body's length.
    pub n_body_bytes: u64,
    /// SHA-256 of the whole body.
    pub sha256: String,
    /// Trailers, where there were any.
    pub trailers: Option<HeaderMap>,
    /// From the request's first byte to the body's first.
    pub first_byte: Option<Duration>,
    /// How it ended.
    pub ended: Ended,
}

/// How an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With its proper end.
    Whole,
    /// It was cut; what the connection said.
    Cut(String),
    /// We hung up on it.
    HungUp,
}

impl Client {
    /// An app that calls through the Envoy at `envoy`.
    pub fn new(runtime: Handle, envoy: SocketAddr, provider: Arc<Provider>) -> Client {
        Client {
            runtime,
            envoy,
            provider,
            headers: Vec::new(),
            is_http2: false,
            hangs_up_after: None,
            hides_length: false,
            patience: None,
        }
    }

    /// Sends that tag with every call, in the header of the default prefix.
    pub fn tag(self, tag: &str, value: &str) -> Client {
        self.header(&format!("x-llm-tag-{tag}"), value)
    }

    /// Sends that header with every call; the value may be any bytes that HTTP allows.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Client {
        self.headers
            .push((name.to_string(), value.as_ref().to_vec()));
        self
    }

    /// Speaks HTTP/2.
    pub fn http2(mut self) -> Client {
        self.is_http2 = true;
        self
    }

    /// Sends bodies without saying their length beforehand.
    pub fn hides_length(mut self) -> Client {
        self.hides_length = true;
        self
    }

    /// Hangs up where no answer has begun by then.
    pub fn waits_at_most(mut self, patience: Duration) -> Client {
        self.patience = Some(patience);
        self
    }

    /// Hangs up once so many bytes of the answer's body have come.
    pub fn hangs_up_after(mut self, n_bytes: u64) -> Client {
        self.hangs_up_after = Some(n_bytes);
        self
    }

    /// Sends the exchange's request and reads the answer. For tests: the wait blocks the thread.
    ///
    /// # Panics
    /// Where Envoy cannot be reached, or the answer has not ended after two minutes.
    #[track_caller]
    pub fn call(&self, exchange: &Exchange) -> Answer {
        match self.runtime.block_on(self.send(exchange)) {
            Ok(answer) => answer,
            Err(error) => panic!("{error:#}"),
        }
    }

    /// Sends the exchange's request, on a connection of its own, and reads the answer.
    pub async fn send(&self, exchange: &Exchange) -> anyhow::Result<Answer> {
        let request_id = new_request_id();
        self.provider
            .script(&request_id, Arc::new(exchange.clone()));
        let mut answer = Answer::unanswered(&request_id);
        let call = self.converse(exchange, &mut answer);
        match tokio::time::timeout(ANSWER_PATIENCE, call).await {
            Ok(outcome) => outcome.map(|()| answer),
            Err(_) => anyhow::bail!(
                "{} {}: no end after {} s",
                exchange.ask.method,
                exchange.ask.path,
                ANSWER_PATIENCE.as_secs()
            ),
        }
    }

    /// Has the provider forget a call that is over.
    pub fn forget(&self, answer: &Answer) {
        self.provider.forget(&answer.request_id);
    }

    async fn converse(&self, exchange: &Exchange, answer: &mut Answer) -> anyhow::Result<()> {
        let request = self.request(&exchange.ask, &answer.request_id)?;
        let stream = TcpStream::connect(self.envoy).await;
        let stream = stream.with_context(|| format!("Envoy is not at {}", self.envoy))?;
        stream.set_nodelay(true)?;
        let started = Instant::now();
        let conversation = async {
            match self.is_http2 {
                true => over_http2(stream, request).await,
                false => over_http1(stream, request).await,
            }
        };
        let patience = self.patience.unwrap_or(ANSWER_PATIENCE);
        let Ok(conversation) = tokio::time::timeout(patience, conversation).await else {
            answer.ended = Ended::HungUp;
            return Ok(());
        };
        let (response, connection) = conversation?;
        match response {
            Ok(response) => self.read(response, started, answer).await,
            Err(error) => answer.ended = Ended::Cut(with_causes(&error)),
        }
        // Before the connection goes: a hang-up is the connection's end.
        drop(connection);
        Ok(())
    }

    async fn read(&self, response: Response<Incoming>, started: Instant, answer: &mut Answer) {
        let (parts, mut body) = response.into_parts();
        answer.status = Some(parts.status.as_u16());
        answer.headers = parts.headers;
        let mut hash = Sha256::new();
        let mut kept = Vec::new();
        answer.ended = loop {
            if self
                .hangs_up_after
                .is_some_and(|n| answer.n_body_bytes >= n)
            {
                break Ended::HungUp;
            }
            let frame = match body.frame().await {
                None if self.is_http2 && !body.is_end_stream() => {
                    break Ended::Cut(QUIET_RESET.to_string());
                }
                None => break Ended::Whole,
                Some(Err(error)) => break Ended::Cut(with_causes(&error)),
                Some(Ok(frame)) => frame,
            };
            match frame.into_data() {
                Ok(data) => {
                    answer.first_byte.get_or_insert_with(|| started.elapsed());
                    hash.update(&data);
                    answer.n_body_bytes += data.len() as u64;
                    let room = BODY_KEPT_BYTES_MAX.saturating_sub(kept.len());
                    kept.extend_from_slice(&data[..data.len().min(room)]);
                }
                Err(frame) => answer.trailers = frame.into_trailers().ok(),
            }
        };
        answer.body = kept.into();
        answer.sha256 = hex(&hash.finalize());
    }

    fn request(&self, ask: &Ask, request_id: &str) -> anyhow::Result<Request<AskedBody>> {
        let uri = if self.is_http2 {
            format!("http://{}{}", ask.host, ask.path)
        } else {
            ask.path.clone()
        };
        let mut request = Request::builder().method(ask.method.as_str()).uri(&uri);
        if !self.is_http2 {
            request = request.header("host", &ask.host);
        }
        request = request.header(REQUEST_ID, request_id);
        for (name, value) in ask.headers.iter().chain(&self.headers) {
            let name = HeaderName::from_bytes(name.as_bytes())?;
            request = request.header(name, HeaderValue::from_bytes(value)?);
        }
        let mut body = AskedBody::new(&ask.body);
        body.hides_length = self.hides_length;
        request
            .body(body)
            .with_context(|| format!("not a request: {} {uri}", ask.method))
    }
}

impl Answer {
    fn unanswered(request_id: &str) -> Answer {
        Answer {
            request_id: request_id.to_string(),
            status: None,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            n_body_bytes: 0,
            sha256: String::new(),
            trailers: None,
            first_byte: None,
            ended: Ended::Whole,
        }
    }

    /// Asserts that the app got exactly what it would have got without us, to the last byte.
    #[track_caller]
    pub fn is_what_was_sent(&self, exchange: &Exchange) {
        let sent = exchange
            .reply
            .app_sees
            .as_ref()
            .unwrap_or(&exchange.reply.body);
        assert_eq!(
            self.status,
            Some(exchange.reply.status),
            "status; {:?}",
            self.ended
        );
        assert_eq!(
            self.ended,
            Ended::Whole,
            "after {} bytes",
            self.n_body_bytes
        );
        assert_eq!(self.n_body_bytes, sent.n_bytes(), "length of the body");
        assert_eq!(
            self.sha256,
            sent.sha256(),
            "body: {}",
            String::from_utf8_lossy(&self.body)
        );
    }

    /// The first value of a header, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

type Conversation = (hyper::Result<Response<Incoming>>, AbortOnDrop);

async fn over_http1(
    stream: TcpStream,
    request: Request<AskedBody>,
) -> anyhow::Result<Conversation> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = AbortOnDrop(tokio::spawn(connection).abort_handle());
    Ok((sender.send_request(request).await, connection))
}

async fn over_http2(
    stream: TcpStream,
    request: Request<AskedBody>,
) -> anyhow::Result<Conversation> {
    let io = TokioIo::new(stream);
    let mut http2 = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    http2.initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    let (mut sender, connection) = http2.handshake(io).await?;
    let connection = AbortOnDrop(tokio::spawn(connection).abort_handle());
    Ok((sender.send_request(request).await, connection))
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A request's body, in the pieces of its payload.
struct AskedBody {
    pieces: Pieces,
    n_left: u64,
    hides_length: bool,
}

impl AskedBody {
    fn new(payload: &Payload) -> AskedBody {
        AskedBody {
            pieces: payload.clone().pieces(&Cut::Whole),
            n_left: payload.n_bytes(),
            hides_length: false,
        }
    }
}

impl Body for AskedBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let piece = self.pieces.next();
        if let Some(piece) = &piece {
            self.n_left = self.n_left.saturating_sub(piece.len() as u64);
        }
        std::task::Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.n_left == 0 && !self.hides_length
    }

    fn size_hint(&self) -> SizeHint {
        match self.hides_length {
            true => SizeHint::new(),
            false => SizeHint::with_exact(self.n_left),
        }
    }
}

/// What an error says, and what it comes from: hyper's own words are the same for many causes.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let words: Vec<String> = causes.map(ToString::to_string).collect();
    words.join(": ")
}

/// A request id of the shape that Envoy gives; unique in this process and, by its id, beside it.
fn new_request_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let pid = std::process::id();
    format!("{pid:08x}-0000-4000-8000-{n:012x}")
}
