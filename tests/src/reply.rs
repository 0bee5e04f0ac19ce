//! The body of a scripted reply: one write a piece, then the ending that the script asks for.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Sleep;

use crate::exchange::{Cut, Ending, Payload, Pieces, Reply};

/// How long a reply that breaks off lets what it sent go its way. A reset over HTTP/2 takes back
/// what waits in the connection, headers included, and then there was no reply to break off.
const BEFORE_RESET: Duration = Duration::from_millis(50);

/// How far a reply got.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes handed to the connection.
    n_bytes: AtomicU64,
    is_over: AtomicBool,
}

impl Progress {
    /// Bytes of the body handed to the connection.
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes.load(Ordering::Relaxed)
    }

    /// Whether nothing more will be sent: the script has ended, or the other side has gone.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }
}

/// A reply on its way.
#[derive(Debug)]
pub struct ScriptedBody {
    pieces: Pieces,
    next: Option<Bytes>,
    /// Known length, where the reply states one.
    n_left: Option<u64>,
    trailers: Option<HeaderMap>,
    ending: Ending,
    /// Whether the piece before was given away in the last poll; then this poll lets it be flushed.
    flushes: bool,
    /// The pause before a reset.
    pause: Option<Pin<Box<Sleep>>>,
    progress: Arc<Progress>,
}

impl ScriptedBody {
    /// The body that `reply` sends, with usage in it where the request asked for that.
    pub fn new(reply: &Reply, asks_for_usage: bool, progress: Arc<Progress>) -> ScriptedBody {
        let payload = match &reply.body_with_usage {
            Some(with_usage) if asks_for_usage => with_usage,
            _ => &reply.body,
        };
        let mut pieces = payload.clone().pieces(&reply.cut);
        ScriptedBody {
            next: pieces.next(),
            pieces,
            n_left: stated_length(reply, payload),
            trailers: trailers(reply),
            ending: reply.ending,
            flushes: false,
            pause: None,
            progress,
        }
    }

    fn end(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        match self.ending {
            Ending::Proper => Poll::Ready(None),
            Ending::Reset => {
                let pause = || Box::pin(tokio::time::sleep(BEFORE_RESET));
                let pause = self.pause.get_or_insert_with(pause);
                pause.as_mut().poll(context).map(|()| Some(Err(BrokenOff)))
            }
            // No waker is kept: the connection's end drops the body.
            Ending::Silence => Poll::Pending,
        }
    }
}

impl Body for ScriptedBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let this = self.get_mut();
        if std::mem::take(&mut this.flushes) {
            // The connection flushes what it has when the body has nothing for it.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Some(piece) = this.next.take() else {
            return this.end(context);
        };
        this.next = this.pieces.next();
        this.flushes = this.next.is_some() || this.ending != Ending::Proper;
        let n_bytes = piece.len() as u64;
        this.n_left = this.n_left.map(|left| left.saturating_sub(n_bytes));
        this.progress.n_bytes.fetch_add(n_bytes, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_none() && self.trailers.is_none() && self.ending == Ending::Proper
    }

    fn size_hint(&self) -> SizeHint {
        self.n_left.map(SizeHint::with_exact).unwrap_or_default()
    }
}

impl Drop for ScriptedBody {
    fn drop(&mut self) {
        self.progress.is_over.store(true, Ordering::Release);
    }
}

/// The script broke the reply off.
#[derive(Debug)]
pub struct BrokenOff;

impl std::fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the script breaks the reply off here")
    }
}

impl std::error::Error for BrokenOff {}

/// A length is stated for a reply in one piece that ends properly and has no trailers.
fn stated_length(reply: &Reply, payload: &Payload) -> Option<u64> {
    let is_plain =
        reply.cut == Cut::Whole && reply.ending == Ending::Proper && reply.trailers.is_empty();
    is_plain.then(|| payload.n_bytes())
}

fn trailers(reply: &Reply) -> Option<HeaderMap> {
    if reply.trailers.is_empty() {
        return None;
    }
    let mut map = HeaderMap::new();
    for (name, value) in &reply.trailers {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            map.append(name, value);
        }
    }
    Some(map)
}
