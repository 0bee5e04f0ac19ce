//! The replaying provider: answers each request by its script, remembers it byte for byte.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::exchange::{Exchange, hex};
use crate::reply::{Progress, ScriptedBody};

/// The header by which a request finds its script.
pub const REQUEST_ID: &str = "x-request-id";

/// What is kept of a request's body; the hash and the length cover all of it.
const BODY_KEPT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Headers that belong to a body's framing: the server writes its own.
const FRAMING: [&str; 4] = [
    "connection",
    "content-length",
    "keep-alive",
    "transfer-encoding",
];

/// A provider on a loopback port; it speaks HTTP/1 and HTTP/2, with TLS where it was given one.
#[derive(Debug)]
pub struct Provider {
    address: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The protocol.
    pub version: Version,
    /// The authority.
    pub host: String,
    /// Every header in order, lower-case names, values as bytes.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body, up to 8 MiB of it.
    pub body: Bytes,
    /// The body's length.
    pub n_body_bytes: u64,
    /// SHA-256 of the whole body.
    pub body_sha256: String,
    /// Whether the request came to its end.
    pub is_whole: bool,
    /// How far the reply got.
    pub reply: Arc<Progress>,
}

#[derive(Debug, Default)]
struct State {
    scripts: Mutex<HashMap<String, Arc<Exchange>>>,
    received: Mutex<HashMap<String, Vec<Received>>>,
    n_requests: AtomicU64,
}

// === impl Provider ===

impl Provider {
    /// Starts to listen.
    pub async fn start() -> anyhow::Result<Provider> {
        Provider::start_with(None).await
    }

    /// Starts to listen, with TLS where an acceptor is given.
    pub async fn start_with(tls: Option<TlsAcceptor>) -> anyhow::Result<Provider> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.context("the provider cannot listen on loopback")?;
        let address = listener.local_addr()?;
        let state = Arc::new(State::default());
        let accepting = tokio::spawn(accept(listener, tls, Arc::clone(&state)));
        Ok(Provider {
            address,
            state,
            accepting,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers the request of that id by this script.
    pub fn script(&self, request_id: &str, exchange: Arc<Exchange>) {
        lock(&self.state.scripts).insert(request_id.to_string(), exchange);
    }

    /// Forgets a script, and all that was received under its id.
    pub fn forget(&self, request_id: &str) {
        lock(&self.state.scripts).remove(request_id);
        lock(&self.state.received).remove(request_id);
    }

    /// Every request that carried that id, in order of arrival.
    pub fn received(&self, request_id: &str) -> Vec<Received> {
        lock(&self.state.received)
            .get(request_id)
            .cloned()
            .unwrap_or_default()
    }

    /// How many requests came in all.
    pub fn n_requests(&self) -> u64 {
        self.state.n_requests.load(Ordering::Relaxed)
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Received {
    /// The first value of a header, as text.
    pub fn header(&self, name: &str) -> Option<String> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<State>) {
    loop {
        // A failed accept concerns that connection only.
        if let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let (tls, state) = (tls.clone(), Arc::clone(&state));
            tokio::spawn(async move {
                match tls {
                    None => serve(stream, state).await,
                    // A handshake that fails is the other side's word on our certificate.
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            serve(stream, state).await;
                        }
                    }
                }
            });
        }
    }
}

async fn serve<S>(stream: S, state: Arc<State>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(answer(request, &state).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().writev(false);
    // An error here is a script that broke off, or a client that hung up: both are in the record.
    let _ = builder
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(request: Request<Incoming>, state: &State) -> Response<ScriptedBody> {
    state.n_requests.fetch_add(1, Ordering::Relaxed);
    let id = request
        .headers()
        .get(REQUEST_ID)
        .and_then(|id| id.to_str().ok());
    let id = id.unwrap_or_default().to_string();
    let script = lock(&state.scripts).get(&id).cloned();
    let progress = Arc::new(Progress::default());
    let received = receive(request, Arc::clone(&progress)).await;
    let asks_for_usage = asks_for_usage(&received.body);
    lock(&state.received).entry(id).or_default().push(received);
    let script = script.unwrap_or_else(|| Arc::new(unscripted()));
    respond(&script, asks_for_usage, progress)
}

async fn receive(request: Request<Incoming>, reply: Arc<Progress>) -> Received {
    let (parts, mut body) = request.into_parts();
    let mut kept = Vec::new();
    let mut hash = Sha256::new();
    let mut n_body_bytes = 0;
    let mut is_whole = true;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            is_whole = false;
            break;
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        hash.update(&data);
        n_body_bytes += data.len() as u64;
        let room = BODY_KEPT_BYTES_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(&data[..data.len().min(room)]);
    }
    let headers: Vec<(String, Vec<u8>)> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
        .collect();
    let named = parts
        .headers
        .get("host")
        .and_then(|host| host.to_str().ok());
    let host = parts
        .uri
        .authority()
        .map(|host| host.as_str())
        .or(named)
        .unwrap_or_default();
    Received {
        method: parts.method.to_string(),
        path: parts
            .uri
            .path_and_query()
            .map(ToString::to_string)
            .unwrap_or_default(),
        version: parts.version,
        host: host.to_string(),
        headers,
        body: kept.into(),
        n_body_bytes,
        body_sha256: hex(&hash.finalize()),
        is_whole,
        reply,
    }
}

/// As OpenAI's reference has it: only a stream that asks gets the extra usage chunk.
/// <https://platform.openai.com/docs/api-reference/chat/create#chat-create-stream_options>
fn asks_for_usage(body: &[u8]) -> bool {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    body["stream_options"]["include_usage"]
        .as_bool()
        .unwrap_or(false)
}

fn respond(
    exchange: &Exchange,
    asks_for_usage: bool,
    progress: Arc<Progress>,
) -> Response<ScriptedBody> {
    let reply = &exchange.reply;
    let mut response = Response::new(ScriptedBody::new(reply, asks_for_usage, progress));
    *response.status_mut() = reply.status.try_into().unwrap_or_default();
    for (name, value) in &reply.headers {
        if FRAMING.contains(&name.to_ascii_lowercase().as_str()) {
            continue;
        }
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
            response.headers_mut().append(name, value);
        }
    }
    if !reply.trailers.is_empty() && !reply.hides_trailers {
        let names: Vec<&str> = reply
            .trailers
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        if let Ok(names) = HeaderValue::from_str(&names.join(", ")) {
            response.headers_mut().insert("trailer", names);
        }
    }
    response
}

fn unscripted() -> Exchange {
    Exchange::default()
        .status(599)
        .answered("text/plain", "no script has this request's id\n")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that panicked while it held the lock left a whole map behind.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
