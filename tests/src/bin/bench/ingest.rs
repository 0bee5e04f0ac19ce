//! The aggregator's intake: events a second that are priced and durable, and what that takes.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tollmesh_tests::aggregator::Aggregator;
use tollmesh_tests::envoy_config::Ingest;
use tollmesh_tests::http;

use crate::median;

/// As many events as a filter's worker sends in one batch under load.
const EVENTS_PER_BATCH: u64 = 500;

/// Filters that send at a time.
const N_SENDERS: usize = 8;

/// Measures and prints.
pub fn measure(tollmesh: &Path, n_rounds: u32, span: Duration) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let dir = tempfile::tempdir()?;
    let mut aggregator = Aggregator::start(tollmesh, dir.path(), false, "", runtime.handle())?;
    let Ingest::Tcp(ingest) = aggregator.ingest().clone() else {
        anyhow::bail!("the aggregator does not listen on TCP")
    };
    let (mut per_second, mut per_cpu_second) = (Vec::new(), Vec::new());
    let next_id = Arc::new(AtomicU64::new(0));
    for _ in 0..n_rounds {
        let cpu = cpu_time(&aggregator)?;
        let started = Instant::now();
        let n = runtime.block_on(send_for(ingest, span, &next_id))? as f64;
        per_second.push(n / started.elapsed().as_secs_f64());
        per_cpu_second.push(n / (cpu_time(&aggregator)? - cpu).as_secs_f64());
    }
    let n_rows = aggregator.metrics()?.sum("tollmesh_ledger_rows", &[]);
    let n_accepted = aggregator
        .metrics()?
        .sum("tollmesh_events_accepted_total", &[]);
    let sent = next_id.load(Ordering::Relaxed) as f64;
    ensure!(
        n_accepted == sent,
        "{sent} events were sent, {n_accepted} accepted"
    );
    println!("\naggregator, batches of {EVENTS_PER_BATCH} events, {N_SENDERS} senders");
    println!("{:>12.0} events/s, priced and durable", median(per_second));
    println!(
        "{:>12.0} events a CPU second of the aggregator",
        median(per_cpu_second)
    );
    let resident = aggregator.process().context("it runs")?.resident_bytes()?;
    println!("{:>12} MB resident", resident >> 20);
    println!(
        "{:>12.1} ms for a scrape",
        scrape_ms(&runtime, aggregator.operator())?
    );
    let started = start_ms(&runtime, &mut aggregator)?;
    println!("{started:>12.1} ms from start to ready with {n_rows} rows");
    Ok(())
}

fn cpu_time(aggregator: &Aggregator) -> anyhow::Result<Duration> {
    aggregator
        .process()
        .context("the aggregator runs")?
        .cpu_time()
}

async fn send_for(
    ingest: SocketAddr,
    span: Duration,
    next_id: &Arc<AtomicU64>,
) -> anyhow::Result<u64> {
    let is_over = Arc::new(AtomicBool::new(false));
    let mut senders = JoinSet::new();
    for _ in 0..N_SENDERS {
        senders.spawn(send(ingest, Arc::clone(next_id), Arc::clone(&is_over)));
    }
    tokio::time::sleep(span).await;
    is_over.store(true, Ordering::Relaxed);
    let mut n_events = 0;
    while let Some(sender) = senders.join_next().await {
        n_events += sender??;
    }
    Ok(n_events)
}

async fn send(
    ingest: SocketAddr,
    next_id: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
) -> anyhow::Result<u64> {
    let stream = TcpStream::connect(ingest).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut n_events = 0;
    while !is_over.load(Ordering::Relaxed) {
        let first = next_id.fetch_add(EVENTS_PER_BATCH, Ordering::Relaxed);
        let body = batch(first);
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
            break;
        }
        n_events += EVENTS_PER_BATCH;
    }
    Ok(n_events)
}

/// Events as the filter writes them; teams, features and models as varied as a busy gateway's.
fn batch(first: u64) -> Bytes {
    const MODELS: [&str; 3] = ["gpt-4o", "gpt-4o-mini", "gpt-5-mini"];
    let mut text = String::with_capacity(EVENTS_PER_BATCH as usize * 700);
    text += "{\"v\":1,\"node\":{\"id\":\"bench\",\"cluster\":\"bench\",\"vm\":\"b\"},\"events\":[";
    for n in first..first + EVENTS_PER_BATCH {
        if n > first {
            text.push(',');
        }
        let model = MODELS[(n % 3) as usize];
        text += &format!(
            "{{\"event_id\":\"bench-{n:016x}\",\"request_id\":\"{n:032x}\",\
             \"time\":\"2026-11-01T10:{:02}:{:02}.{:03}Z\",\"duration_ms\":812,\"ttft_ms\":240,\
             \"provider\":\"openai\",\"api\":\"openai.chat\",\"host\":\"api.openai.com\",\
             \"model_requested\":\"{model}\",\"model\":\"{model}\",\"response_id\":\"c-{n}\",\
             \"stream\":true,\"usage\":{{\"input\":{},\"cache_read\":512,\"output\":96}},\
             \"usage_source\":\"reported\",\"billable\":true,\"finish_reason\":\"stop\",\
             \"tool_calls\":0,\"status\":200,\"outcome\":\"success\",\"attempts\":1,\
             \"tags\":{{\"team\":\"t{}\",\"feature\":\"f{}\",\"environment\":\"prod\"}},\
             \"source\":{{\"namespace\":\"shop\",\"workload\":\"w{}\"}}}}",
            n / 60_000 % 60,
            n / 1_000 % 60,
            n % 1_000,
            300 + n % 1_000,
            n % 20,
            n % 7,
            n % 11
        );
    }
    text += "]}";
    Bytes::from(text)
}

fn scrape_ms(runtime: &tokio::runtime::Runtime, operator: SocketAddr) -> anyhow::Result<f64> {
    let mut figures = Vec::new();
    for _ in 0..9 {
        let started = Instant::now();
        runtime.block_on(http::get(operator, "/metrics"))?;
        figures.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(figures))
}

/// From a start to the first `/readyz` that says 200, asked every half millisecond.
fn start_ms(runtime: &tokio::runtime::Runtime, aggregator: &mut Aggregator) -> anyhow::Result<f64> {
    let mut figures = Vec::new();
    for _ in 0..5 {
        aggregator.stop()?;
        let started = Instant::now();
        aggregator.launch()?;
        loop {
            let reply = runtime.block_on(http::get(aggregator.operator(), "/readyz"));
            if reply.is_ok_and(|reply| reply.status == 200) {
                break;
            }
            ensure!(
                started.elapsed() < Duration::from_secs(20),
                "not ready after 20 s"
            );
            std::thread::sleep(Duration::from_micros(500));
        }
        figures.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(figures))
}
