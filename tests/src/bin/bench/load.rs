//! The loads, and the client that sends them: raw HTTP/1 on a few connections that stay open.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use crate::upstream::find;

/// Connections that send at a time, where answers come as fast as they can.
const CONNECTIONS: usize = 16;

/// Streams at a time where answers are paced. Timers here have milliseconds, so that of more streams
/// than a pace has of these some would have their events at one time, and wait for each other.
const PACED_CONNECTIONS: usize = 4;

/// The time between two events of a paced stream.
pub const PACE: Duration = Duration::from_millis(5);

/// One kind of call.
#[derive(Debug)]
pub struct Load {
    /// Its name in the table.
    pub name: &'static str,
    shape: Shape,
    /// What the filter may add to the empty one, in µs of CPU a request; `None` where no goal was
    /// set.
    pub goal_us: Option<f64>,
}

#[derive(Debug)]
enum Shape {
    /// A JSON answer of about so many bytes.
    Json(usize),
    /// A stream of so many events in one burst.
    Sse {
        n_events: usize,
        /// Whether the app asks for usage itself; if not, the filter asks and cuts.
        app_asks: bool,
    },
    /// A stream of so many events, one every [`PACE`], and a new one on the beat after the last; the
    /// filter asks for usage and cuts.
    Paced { n_events: usize },
}

/// Every load, in the order of the table.
pub const LOADS: [Load; 5] = [
    Load {
        name: "1 KB JSON",
        shape: Shape::Json(1 << 10),
        goal_us: Some(10.0),
    },
    Load {
        name: "64 KB JSON",
        shape: Shape::Json(64 << 10),
        goal_us: Some(30.0),
    },
    Load {
        name: "500 events",
        shape: Shape::Sse {
            n_events: 500,
            app_asks: true,
        },
        goal_us: Some(70.0),
    },
    Load {
        name: "500 events, cut",
        shape: Shape::Sse {
            n_events: 500,
            app_asks: false,
        },
        goal_us: Some(70.0),
    },
    Load {
        name: "20 events, paced",
        shape: Shape::Paced { n_events: 20 },
        goal_us: None,
    },
];

const USAGE: &str = "{\"prompt_tokens\":812,\"completion_tokens\":498,\"total_tokens\":1310,\
                     \"prompt_tokens_details\":{\"cached_tokens\":512},\
                     \"completion_tokens_details\":{\"reasoning_tokens\":0}}";

impl Load {
    /// The request, `index` being the load's place in [`LOADS`].
    pub fn request(&self, index: usize) -> Vec<u8> {
        let more = match self.shape {
            Shape::Json(_) => "",
            Shape::Paced { .. }
            | Shape::Sse {
                app_asks: false, ..
            } => ",\"stream\":true",
            Shape::Sse { app_asks: true, .. } => {
                ",\"stream\":true,\"stream_options\":{\"include_usage\":true}"
            }
        };
        let body = format!(
            "{{\"model\":\"gpt-4o\",\"messages\":[{{\"role\":\"user\",\"content\":\"{}\"}}]{more}}}",
            "Where is my order? ".repeat(20)
        );
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: api.openai.com\r\nx-load: {index}\r\n\
             content-type: application/json\r\naccept-encoding: gzip\r\n\
             authorization: Bearer sk-none\r\nx-llm-tag-team: red\r\nx-llm-tag-feature: bench\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }

    /// The whole answer, head and body; in the pieces between which it pauses for [`PACE`].
    pub fn answer(&self) -> Vec<Vec<u8>> {
        match self.shape {
            Shape::Json(n_bytes) => vec![json_answer(n_bytes)],
            Shape::Sse { n_events, .. } => vec![sse_answer(n_events).concat()],
            Shape::Paced { n_events } => sse_answer(n_events),
        }
    }

    /// Whether answers pause between their events.
    pub fn is_paced(&self) -> bool {
        matches!(self.shape, Shape::Paced { .. })
    }

    /// The time from one call to the next on a connection whose answers are paced: the answer's, and a
    /// beat.
    fn period(&self) -> Option<Duration> {
        match self.shape {
            Shape::Paced { n_events } => Some(PACE * (1 + u32::try_from(n_events).unwrap_or(0))),
            Shape::Json(_) | Shape::Sse { .. } => None,
        }
    }

    /// Whether all events come at once.
    pub fn is_burst(&self) -> bool {
        matches!(self.shape, Shape::Sse { .. })
    }

    /// Connections that send at a time.
    pub fn n_connections(&self) -> usize {
        match self.is_paced() {
            true => PACED_CONNECTIONS,
            false => CONNECTIONS,
        }
    }
}

fn json_answer(n_bytes: usize) -> Vec<u8> {
    let fixed = format!(
        "{{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1760000000,\
         \"model\":\"gpt-4o\",\"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\
         \"content\":\"TEXT\"}},\"finish_reason\":\"stop\"}}],\"usage\":{USAGE}}}"
    );
    let text = "lorem ipsum dolor sit amet \\n ".repeat(n_bytes / 30 + 1);
    let body = fixed.replace("TEXT", &text[..n_bytes.saturating_sub(fixed.len())]);
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    (head + &body).into_bytes()
}

/// A piece an event, the head with the first one.
fn sse_answer(n_events: usize) -> Vec<Vec<u8>> {
    let mut pieces = Vec::with_capacity(n_events);
    let mut piece =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            .to_string();
    let mut chunk = |choices: &str, usage: &str| {
        let event = format!(
            "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\
             \"created\":1760000000,\"model\":\"gpt-4o\",\"choices\":[{choices}],\
             \"usage\":{usage}}}\n\n"
        );
        piece += &format!("{:x}\r\n{event}\r\n", event.len());
        pieces.push(std::mem::take(&mut piece).into_bytes());
    };
    for n in 1..n_events {
        let delta = format!(
            "{{\"index\":0,\"delta\":{{\"content\":\" word{n}\"}},\"logprobs\":null,\
             \"finish_reason\":null}}"
        );
        chunk(&delta, "null");
    }
    chunk("", USAGE);
    if let Some(last) = pieces.last_mut() {
        last.extend_from_slice(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
    }
    pieces
}

/// What all connections of a load have seen.
#[derive(Debug, Default)]
struct Seen {
    n_answers: AtomicU64,
    is_over: AtomicBool,
    /// From a request to the first byte of its answer's body, in µs.
    first_bytes_us: Mutex<Vec<f64>>,
}

/// What a load sends while it runs.
#[derive(Debug)]
pub struct Sending {
    seen: Arc<Seen>,
    connections: JoinSet<anyhow::Result<()>>,
}

impl Sending {
    /// Begins to send `LOADS[index]` to `envoy` on every connection.
    pub fn start(envoy: SocketAddr, index: usize) -> Sending {
        let seen = Arc::new(Seen::default());
        let mut connections = JoinSet::new();
        let load = &LOADS[index];
        let n_connections = u32::try_from(load.n_connections()).unwrap_or(1);
        for n in 0..n_connections {
            // Paced streams begin evenly within a beat, each time: on one beat they would wait for
            // each other.
            let first = tokio::time::Instant::now() + PACE * n / n_connections;
            let beat = load.period().map(|period| on_beat(first, period));
            let (request, seen) = (load.request(index), Arc::clone(&seen));
            connections.spawn(send(envoy, request, beat, seen));
        }
        Sending { seen, connections }
    }

    /// Answers that have come so far.
    pub fn n_answers(&self) -> u64 {
        self.seen.n_answers.load(Ordering::Relaxed)
    }

    /// How long each first byte of a body took since this was last asked, in µs.
    pub fn first_bytes_us(&self) -> Vec<f64> {
        let first_bytes = self.seen.first_bytes_us.lock();
        std::mem::take(&mut *first_bytes.unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends every connection after its answer; fails where one went wrong.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.seen.is_over.store(true, Ordering::Relaxed);
        while let Some(connection) = self.connections.join_next().await {
            connection??;
        }
        Ok(())
    }
}

/// A call that took longer than a period has the next one begin on a later beat.
fn on_beat(first: tokio::time::Instant, period: Duration) -> Interval {
    let mut beat = interval_at(first, period);
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    beat
}

async fn send(
    envoy: SocketAddr,
    request: Vec<u8>,
    mut beat: Option<Interval>,
    seen: Arc<Seen>,
) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(envoy).await.context("Envoy is gone")?;
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(256 * 1024);
    while !seen.is_over.load(Ordering::Relaxed) {
        if let Some(beat) = &mut beat {
            beat.tick().await;
        }
        let asked = Instant::now();
        let first_byte = exchange(&mut stream, &request, &mut buffer).await? - asked;
        seen.n_answers.fetch_add(1, Ordering::Relaxed);
        let first_bytes = seen.first_bytes_us.lock();
        let mut first_bytes = first_bytes.unwrap_or_else(PoisonError::into_inner);
        first_bytes.push(first_byte.as_secs_f64() * 1e6);
    }
    Ok(())
}

/// Sends a request and reads its answer; when the first byte of its body came.
pub async fn exchange(
    stream: &mut TcpStream,
    request: &[u8],
    buffer: &mut Vec<u8>,
) -> anyhow::Result<Instant> {
    stream.write_all(request).await?;
    buffer.clear();
    read_answer(stream, buffer).await
}

/// Reads one answer; when the first byte of its body came.
async fn read_answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<Instant> {
    let head = loop {
        if let Some(end) = find(buffer, b"\r\n\r\n").filter(|end| buffer.len() > end + 4) {
            break end + 4;
        }
        if stream.read_buf(buffer).await? == 0 {
            bail!("Envoy hung up before an answer");
        }
    };
    let first_byte = Instant::now();
    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    if !text.starts_with("http/1.1 200") {
        bail!("an answer that is none: {text}");
    }
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length = length
        .map(|length| length.trim().parse::<usize>())
        .transpose()?;
    let is_whole = |buffer: &[u8]| match length {
        Some(length) => buffer.len() >= head + length,
        None => buffer.ends_with(b"\r\n0\r\n\r\n"),
    };
    while !is_whole(buffer) {
        if stream.read_buf(buffer).await? == 0 {
            bail!("Envoy hung up in an answer");
        }
    }
    Ok(first_byte)
}
