//! Bodies of requests, collected within bounds of time and of memory for all together.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::{Body, Bytes};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::busy;
use crate::problem::Problem;

/// Bytes of bodies that are held at once, whole or on their way: eight of the largest batches.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// A filter sends what it has at once, over a local socket: whoever sends nothing for so long is cut.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long a body may take in all, room for it included. A filter's own patience ends there, too.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);

/// The room for bodies.
pub struct Bodies {
    room: Arc<Semaphore>,
    pause_max: Duration,
}

/// A body with the room that it takes.
#[derive(Debug)]
pub struct Held {
    /// The body.
    pub bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl Default for Bodies {
    fn default() -> Bodies {
        Bodies {
            room: Arc::new(Semaphore::new(BYTES_MAX)),
            pause_max: PAUSE_MAX,
        }
    }
}

impl Bodies {
    /// The whole body: 413 where it is too large, 408 where it does not come in time, 503 where there
    /// is no room for it.
    pub async fn collect<B>(&self, body: B, bytes_max: usize) -> Result<Held, Problem>
    where
        B: Body<Data = Bytes>,
    {
        if body.size_hint().lower() > bytes_max as u64 {
            return Err(too_large(bytes_max));
        }
        match timeout(BODY_TIME_MAX, self.frames(body, bytes_max)).await {
            Ok(held) => held,
            Err(_) => Err(late()),
        }
    }

    /// Room is taken for what has come, not for what is announced: announcing costs nothing.
    async fn frames<B>(&self, body: B, bytes_max: usize) -> Result<Held, Problem>
    where
        B: Body<Data = Bytes>,
    {
        let mut body = pin!(body);
        let mut bytes = Vec::new();
        let mut room: Option<OwnedSemaphorePermit> = None;
        loop {
            let frame = match timeout(self.pause_max, body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(_))) => return Err(broken_off()),
                Ok(None) => break,
                Err(_) => return Err(late()),
            };
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if bytes.len() + data.len() > bytes_max {
                return Err(too_large(bytes_max));
            }
            let more = self.room_for(data.len(), room.is_none()).await?;
            match &mut room {
                Some(room) => room.merge(more),
                None => room = Some(more),
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Held {
            bytes: bytes.into(),
            _room: room,
        })
    }

    /// Room for that many bytes more. Only who holds none waits for it: of those who hold a part
    /// each might wait for the others.
    async fn room_for(&self, n: usize, waits: bool) -> Result<OwnedSemaphorePermit, Problem> {
        let none = |_| busy("too many batches are on their way");
        let n = u32::try_from(n).map_err(|_| busy("too much at once"))?;
        let room = Arc::clone(&self.room);
        match waits {
            true => {
                let waited = timeout(self.pause_max, room.acquire_many_owned(n)).await;
                let room = waited.map_err(|_| busy("too many batches are on their way"))?;
                room.map_err(|_| busy("the aggregator is stopping"))
            }
            false => room.try_acquire_many_owned(n).map_err(none),
        }
    }
}

fn too_large(bytes_max: usize) -> Problem {
    let detail = format!("the body is larger than {bytes_max} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
}

fn broken_off() -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "the body ended before its end")
}

fn late() -> Problem {
    Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")
}

#[cfg(test)]
mod tests {
    use futures_util::stream::{self, Stream, StreamExt};
    use http_body_util::StreamBody;
    use hyper::body::Frame;

    use super::*;

    type Frames = Result<Frame<Bytes>, std::io::Error>;

    fn frames(texts: &[&'static str]) -> Vec<Frames> {
        let frame = |text: &&'static str| Ok(Frame::data(Bytes::from_static(text.as_bytes())));
        texts.iter().map(frame).collect()
    }

    fn body(texts: &[&'static str]) -> StreamBody<impl Stream<Item = Frames> + Unpin + use<>> {
        StreamBody::new(stream::iter(frames(texts)))
    }

    fn bodies(room: usize) -> Bodies {
        Bodies {
            room: Arc::new(Semaphore::new(room)),
            pause_max: Duration::from_millis(1),
        }
    }

    #[tokio::test]
    async fn a_body_takes_room_until_it_is_dropped() {
        let bodies = bodies(6);
        let held = bodies.collect(body(&["ab", "cd"]), 4).await.unwrap();
        assert_eq!(held.bytes, "abcd");
        assert_eq!(bodies.room.available_permits(), 2);
        // Who holds nothing waits a moment, who holds a part does not.
        for texts in [&["efg"][..], &["e", "fg"][..]] {
            assert_eq!(
                bodies.collect(body(texts), 4).await.unwrap_err().status,
                503
            );
            assert_eq!(bodies.room.available_permits(), 2);
        }
        drop(held);
        assert_eq!(bodies.room.available_permits(), 6);
        let problem = bodies.collect(body(&["ab", "cde"]), 4).await.unwrap_err();
        assert_eq!((problem.status, bodies.room.available_permits()), (413, 6));
    }

    #[tokio::test]
    async fn who_stops_sending_is_cut_and_holds_nothing() {
        let bodies = bodies(6);
        let endless = stream::iter(frames(&["a"])).chain(stream::pending());
        let problem = bodies
            .collect(StreamBody::new(endless), 4)
            .await
            .unwrap_err();
        assert_eq!(problem.status, 408);
        assert_eq!(bodies.room.available_permits(), 6);
    }
}
