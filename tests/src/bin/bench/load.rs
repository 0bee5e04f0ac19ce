//! The loads, and the client that sends them: raw HTTP/1 on a few connections that stay open.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::upstream::find;

/// Connections that send at a time.
pub const N_CONNECTIONS: usize = 16;

/// One kind of call.
#[derive(Debug)]
pub struct Load {
    /// Its name in the table.
    pub name: &'static str,
    shape: Shape,
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
}

/// Every load, in the order of the table.
pub const LOADS: [Load; 4] = [
    Load {
        name: "1 KB JSON",
        shape: Shape::Json(1 << 10),
    },
    Load {
        name: "64 KB JSON",
        shape: Shape::Json(64 << 10),
    },
    Load {
        name: "500 events",
        shape: Shape::Sse {
            n_events: 500,
            app_asks: true,
        },
    },
    Load {
        name: "500 events, cut",
        shape: Shape::Sse {
            n_events: 500,
            app_asks: false,
        },
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
            Shape::Sse {
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

    /// The whole answer, head and body.
    pub fn answer(&self) -> Vec<u8> {
        match self.shape {
            Shape::Json(n_bytes) => json_answer(n_bytes),
            Shape::Sse { n_events, .. } => sse_answer(n_events),
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

fn sse_answer(n_events: usize) -> Vec<u8> {
    let mut answer =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            .to_string();
    let mut chunk = |choices: &str, usage: &str| {
        let event = format!(
            "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\
             \"created\":1760000000,\"model\":\"gpt-4o\",\"choices\":[{choices}],\
             \"usage\":{usage}}}\n\n"
        );
        answer += &format!("{:x}\r\n{event}\r\n", event.len());
    };
    for n in 1..n_events {
        let delta = format!(
            "{{\"index\":0,\"delta\":{{\"content\":\" word{n}\"}},\"logprobs\":null,\
             \"finish_reason\":null}}"
        );
        chunk(&delta, "null");
    }
    chunk("", USAGE);
    answer += "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";
    answer.into_bytes()
}

/// What a load sends while it runs.
#[derive(Debug)]
pub struct Sending {
    n_answers: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    connections: JoinSet<anyhow::Result<()>>,
}

impl Sending {
    /// Begins to send `LOADS[index]` to `envoy` on every connection.
    pub fn start(envoy: SocketAddr, index: usize) -> Sending {
        let n_answers = Arc::new(AtomicU64::new(0));
        let is_over = Arc::new(AtomicBool::new(false));
        let mut connections = JoinSet::new();
        for _ in 0..N_CONNECTIONS {
            let request = LOADS[index].request(index);
            let (n_answers, is_over) = (Arc::clone(&n_answers), Arc::clone(&is_over));
            connections.spawn(send(envoy, request, n_answers, is_over));
        }
        Sending {
            n_answers,
            is_over,
            connections,
        }
    }

    /// Answers that have come so far.
    pub fn n_answers(&self) -> u64 {
        self.n_answers.load(Ordering::Relaxed)
    }

    /// Ends every connection after its answer; fails where one went wrong.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.is_over.store(true, Ordering::Relaxed);
        while let Some(connection) = self.connections.join_next().await {
            connection??;
        }
        Ok(())
    }
}

async fn send(
    envoy: SocketAddr,
    request: Vec<u8>,
    n_answers: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(envoy).await.context("Envoy is gone")?;
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(256 * 1024);
    while !is_over.load(Ordering::Relaxed) {
        stream.write_all(&request).await?;
        buffer.clear();
        read_answer(&mut stream, &mut buffer).await?;
        n_answers.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

async fn read_answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<()> {
    let head = loop {
        if let Some(end) = find(buffer, b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(buffer).await? == 0 {
            bail!("Envoy hung up before an answer");
        }
    };
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
    Ok(())
}
