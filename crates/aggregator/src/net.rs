//! Listeners, TCP and unix, and the HTTP/1.1 connections that they accept.

mod failures;
mod patient;
mod socket;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Listen;
use failures::Failures;
use patient::Patient;
use socket::Socket;

/// Envoy and Prometheus send a handful of headers; more is an attack or a mistake.
const HEADERS_MAX: usize = 64;
/// Room for those headers; a longer head is answered with 431.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// A client that takes longer over its head is cut (slow loris).
const HEAD_TIME_MAX: Duration = Duration::from_secs(15);
/// Workers of one Envoy and a few scrapers, with room; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 512;
/// Connections beyond those, of a listener that probes ask at: one request each, and only a probe's is
/// answered with more than 503.
const RESERVED_MAX: usize = 16;
/// What their heads may take: a kubelet sends its own at once, and waits a second by default.
const RESERVED_HEAD_TIME_MAX: Duration = Duration::from_secs(2);
/// How long connections get to end their answers at a stop.
const GRACE: Duration = Duration::from_secs(2);

/// A listener that is bound, so that nobody else can be.
#[derive(Debug)]
pub struct Bound {
    listener: Listener,
    reserved: usize,
    failures: Failures,
}

/// In the extensions of a request that came when all places were taken: only a probe is answered.
#[derive(Clone, Copy, Debug)]
pub struct Crowded;

/// A connection that found a place, or only one of those that are reserved for probes.
struct Place {
    _permit: Option<OwnedSemaphorePermit>,
    is_reserved: bool,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(Socket),
}

/// Why a listener cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else is there.
    #[error("{listen} is taken by another process; stop it or choose another address")]
    Taken {
        /// The address.
        listen: Listen,
    },
    /// Anything else.
    #[error("cannot listen on {listen}{}", remedy(source.kind()))]
    Failed {
        /// The address.
        listen: Listen,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn remedy(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::NotFound => "; make its folder, or mount the volume that is to be there",
        io::ErrorKind::PermissionDenied => "; let this user write its folder, or choose another",
        io::ErrorKind::AddrNotAvailable => "; choose an address of this machine",
        _ => "",
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

// === impl Bound ===

impl Bound {
    /// Binds that address.
    pub async fn bind(listen: &Listen) -> Result<Bound, BindError> {
        let listener = match listen {
            Listen::Tcp(address) => TcpListener::bind(address).await.map(Listener::Tcp),
            Listen::Unix(path) => Socket::bind(path).map(Listener::Unix),
        };
        match listener {
            Ok(listener) => Ok(Bound {
                listener,
                reserved: 0,
                failures: Failures::default(),
            }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(BindError::Taken {
                listen: listen.clone(),
            }),
            Err(source) => Err(BindError::Failed {
                listen: listen.clone(),
                source,
            }),
        }
    }

    /// The same, with places for probes when all others are taken.
    pub fn with_probes(mut self) -> Bound {
        self.reserved = RESERVED_MAX;
        self
    }

    /// The same, which counts there what it cannot accept.
    pub fn counting(mut self, failures: IntCounter) -> Bound {
        self.failures.counter = Some(failures);
        self
    }

    /// Where it is bound: the port that was given where the configuration said 0.
    pub fn address(&self) -> String {
        match &self.listener {
            Listener::Tcp(listener) => match listener.local_addr() {
                Ok(address) => address.to_string(),
                Err(_) => "unknown".to_owned(),
            },
            Listener::Unix(socket) => format!("unix:{}", socket.path().display()),
        }
    }

    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match &self.listener {
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Answers are small; waiting for more to send would only delay them.
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Listener::Unix(socket) => Ok(Box::new(socket.accept().await?)),
        }
    }

    /// The next connection that can be had.
    async fn accept_any(&self) -> Box<dyn Stream> {
        loop {
            match self.accept().await {
                Ok(stream) => return stream,
                Err(error) => {
                    self.failures.note(&error, &self.address());
                    // Out of descriptors: some must be closed before the next can be had.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Serves until `stop` is ready, then lets answers under way end within [`GRACE`].
    pub async fn serve<S, B>(self, service: S, stop: impl Future<Output = ()>)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send,
        B: Body<Error: std::error::Error + Send + Sync, Data: Send> + Send + 'static,
    {
        let graceful = GracefulShutdown::new();
        let room = Room::new(self.reserved);
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = async { (room.place().await, self.accept_any().await) };
            let (place, stream) = tokio::select! {
                () = &mut stop => break,
                accepted = accepted => accepted,
            };
            let served = service.clone();
            let is_crowded = place.is_reserved;
            let service = service_fn(move |mut request: Request<Incoming>| {
                if is_crowded {
                    request.extensions_mut().insert(Crowded);
                }
                served.call(request)
            });
            let stream = TokioIo::new(Patient::new(stream));
            let connection = http1(is_crowded).serve_connection(stream, service);
            let connection = graceful.watch(connection);
            tokio::spawn(async move {
                // A client that hangs up or speaks no HTTP is its own trouble.
                let _ = connection.await;
                drop(place);
            });
        }
        drop(self);
        let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address())
    }
}

/// The places of one listener.
struct Room {
    open: Arc<Semaphore>,
    reserved: Arc<Semaphore>,
}

impl Room {
    fn new(reserved: usize) -> Room {
        Room {
            open: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            reserved: Arc::new(Semaphore::new(reserved)),
        }
    }

    /// A place, as soon as there is one; a reserved one only where all others are taken.
    async fn place(&self) -> Place {
        let open = Arc::clone(&self.open);
        let reserved = Arc::clone(&self.reserved);
        let (permit, is_reserved) = tokio::select! {
            biased;
            permit = open.acquire_owned() => (permit, false),
            permit = reserved.acquire_owned() => (permit, true),
        };
        Place {
            // Neither semaphore is ever closed.
            _permit: permit.ok(),
            is_reserved,
        }
    }
}

fn http1(is_crowded: bool) -> hyper::server::conn::http1::Builder {
    let head_time_max = match is_crowded {
        true => RESERVED_HEAD_TIME_MAX,
        false => HEAD_TIME_MAX,
    };
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(head_time_max)
        .keep_alive(!is_crowded)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .half_close(true);
    builder
}
