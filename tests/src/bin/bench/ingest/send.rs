//! The load of the intake: senders with batches of events, as fast as they are taken or paced.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::ensure;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tollmesh_tests::week;

/// Filters that send at a time.
pub const N_SENDERS: u64 = 8;

/// As many events as a filter's worker sends in one batch under load.
pub const EVENTS_PER_BATCH: u64 = 500;

/// Where events go, and what they differ in.
#[derive(Clone, Debug)]
pub struct Load {
    pub ingest: SocketAddr,
    /// The number of the next event; none is sent twice.
    pub next_id: Arc<AtomicU64>,
    /// Combinations of labels that events have.
    pub n_label_sets: u64,
    /// The hour that they are of, as `2026-11-01T10`.
    pub hour: String,
}

/// The present hour, as events of a mesh are of it: hours that have passed are summed up otherwise.
pub fn present_hour() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now_ms = now.map_or(0, |now| now.as_millis() as i64);
    week::instant(now_ms)
        .chars()
        .take("2026-11-01T10".len())
        .collect()
}

impl Load {
    /// Sends for that long, each sender as fast as it is answered; says how many were taken.
    pub async fn send_for(&self, span: Duration) -> anyhow::Result<u64> {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut senders = JoinSet::new();
        for _ in 0..N_SENDERS {
            senders.spawn(self.clone().send_until(Arc::clone(&is_over)));
        }
        tokio::time::sleep(span).await;
        is_over.store(true, Ordering::Relaxed);
        let mut n_events = 0;
        while let Some(sender) = senders.join_next().await {
            n_events += sender??;
        }
        Ok(n_events)
    }

    /// Sends so many events a second, in batches of that size; says how long each answer took, in
    /// milliseconds from when its batch was due.
    pub async fn send_paced(
        &self,
        events_per_second: u64,
        events_per_batch: u64,
        span: Duration,
    ) -> anyhow::Result<Vec<f64>> {
        let every = Duration::from_secs(N_SENDERS * events_per_batch) / events_per_second as u32;
        let begin = Instant::now();
        let mut senders = JoinSet::new();
        for n in 0..N_SENDERS as u32 {
            let first = begin + every * n / N_SENDERS as u32;
            let load = self.clone();
            senders.spawn(load.send_every(every, first, begin + span, events_per_batch));
        }
        let mut waits = Vec::new();
        while let Some(sender) = senders.join_next().await {
            waits.extend(sender??);
        }
        Ok(waits)
    }

    async fn send_until(self, is_over: Arc<AtomicBool>) -> anyhow::Result<u64> {
        let mut connection = connect(self.ingest).await?;
        let mut n_events = 0;
        while !is_over.load(Ordering::Relaxed) {
            send(&mut connection, self.batch(EVENTS_PER_BATCH)).await?;
            n_events += EVENTS_PER_BATCH;
        }
        Ok(n_events)
    }

    async fn send_every(
        self,
        every: Duration,
        first: Instant,
        end: Instant,
        events_per_batch: u64,
    ) -> anyhow::Result<Vec<f64>> {
        let mut connection = connect(self.ingest).await?;
        let mut waits = Vec::new();
        let mut due = first;
        while due < end {
            let body = self.batch(events_per_batch);
            tokio::time::sleep_until(due.into()).await;
            send(&mut connection, body).await?;
            waits.push(due.elapsed().as_secs_f64() * 1e3);
            due += every;
        }
        Ok(waits)
    }

    /// Events as the filter writes them.
    fn batch(&self, n_events: u64) -> Bytes {
        const MODELS: [&str; 3] = ["gpt-4o", "gpt-4o-mini", "gpt-5-mini"];
        let first = self.next_id.fetch_add(n_events, Ordering::Relaxed);
        let mut text = String::with_capacity(n_events as usize * 700);
        text +=
            "{\"v\":1,\"node\":{\"id\":\"bench\",\"cluster\":\"bench\",\"vm\":\"b\"},\"events\":[";
        for n in first..first + n_events {
            if n > first {
                text.push(',');
            }
            let set = n % self.n_label_sets;
            let model = MODELS[(set % 3) as usize];
            text += &format!(
                "{{\"event_id\":\"bench-{n:016x}\",\"request_id\":\"{n:032x}\",\
                 \"time\":\"{}:{:02}:{:02}.{:03}Z\",\"duration_ms\":812,\
                 \"ttft_ms\":240,\"provider\":\"openai\",\"api\":\"openai.chat\",\
                 \"host\":\"api.openai.com\",\"model_requested\":\"{model}\",\
                 \"model\":\"{model}\",\"response_id\":\"c-{n}\",\"stream\":true,\
                 \"usage\":{{\"input\":{},\"cache_read\":512,\"output\":96}},\
                 \"usage_source\":\"reported\",\"billable\":true,\"finish_reason\":\"stop\",\
                 \"tool_calls\":0,\"status\":200,\"outcome\":\"success\",\"attempts\":1,\
                 \"tags\":{{\"team\":\"t{}\",\"feature\":\"f{}\",\"environment\":\"prod\"}},\
                 \"source\":{{\"namespace\":\"shop\",\"workload\":\"w{}\"}}}}",
                self.hour,
                n / 60_000 % 60,
                n / 1_000 % 60,
                n % 1_000,
                300 + n % 1_000,
                set % 20,
                set / 20 % 10,
                set / 200
            );
        }
        text += "]}";
        Bytes::from(text)
    }
}

async fn connect(ingest: SocketAddr) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(ingest).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Sends a batch until it is taken.
async fn send(sender: &mut SendRequest<Full<Bytes>>, body: Bytes) -> anyhow::Result<()> {
    loop {
        let request = Request::post("/v1/events")
            .header("host", "tollmesh")
            .header("content-type", "application/json")
            .body(Full::new(body.clone()))?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let words = response.into_body().collect().await?.to_bytes();
        // Told to come back: the batch goes again, under the same ids.
        if status == 503 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        ensure!(
            status == 200,
            "{status}: {}",
            String::from_utf8_lossy(&words)
        );
        return Ok(());
    }
}
