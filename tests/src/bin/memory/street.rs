//! One Envoy with the filter on one worker, an aggregator, and apps that keep their calls open.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tollmesh_tests::aggregator::Aggregator;
use tollmesh_tests::artifacts::Artifacts;
use tollmesh_tests::envoy::{Envoy, Launch};
use tollmesh_tests::envoy_config::{self, Places};
use tollmesh_tests::mesh::shipped_envoy_config;
use tollmesh_tests::{fact, vm_memory};

use crate::answer::{Answer, INPUT, OUTPUT};
use crate::upstream::{self, Go};

/// How long all streams of a case may take to open, and their events to the ledger.
const PATIENCE: Duration = Duration::from_secs(120);

/// Bytes that an app reads at a time while its stream is one of many.
const READ_BYTES: usize = 4 << 10;

/// Everything that runs; all of it goes when this is dropped.
pub struct Street {
    envoy: Envoy,
    aggregator: Aggregator,
    answer: Arc<Answer>,
    go: Go,
    runtime: Runtime,
    _dir: TempDir,
}

/// What memory a proxy has, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Of its VMs.
    pub linear: u64,
    /// Resident, VMs included.
    pub resident: u64,
}

/// Streams that are open, in the middle of their answers.
pub struct Open {
    apps: JoinSet<anyhow::Result<()>>,
    n_apps: usize,
}

/// What the ledger says of the calls.
#[derive(Debug, PartialEq, Eq)]
pub struct Metered {
    /// Calls whose usage was read, to the token.
    pub n_reported: u64,
    /// Calls whose usage is an estimate.
    pub n_estimated: u64,
}

impl Street {
    /// Starts everything, for calls that get that answer.
    pub fn start(artifacts: &Artifacts, answer: Answer) -> anyhow::Result<Street> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let dir = tempfile::Builder::new().prefix("tollmesh-").tempdir()?;
        let answer = Arc::new(answer);
        let (upstream, go) = runtime.block_on(upstream::start(Arc::clone(&answer)))?;
        let handle = runtime.handle();
        let aggregator = Aggregator::start(&artifacts.tollmesh, dir.path(), false, "", handle)?;
        let mut config = shipped_envoy_config()?;
        let places = Places {
            wasm: &artifacts.wasm,
            ingest: aggregator.ingest(),
            provider: Some(upstream),
            provider_ca: None,
            is_upstream_http2: false,
            routes_every_host: true,
            plugin: &Value::Null,
        };
        envoy_config::fill_in(&mut config, &places)?;
        envoy_config::without_access_logs(&mut config);
        let clusters = config.pointer_mut("/static_resources/clusters");
        let clusters = clusters.and_then(Value::as_array_mut).into_iter().flatten();
        clusters.for_each(lift_limits);
        let envoy = Envoy::start(Launch::new(&artifacts.envoy, config, 1, dir.path()), handle)?;
        Ok(Street {
            envoy,
            aggregator,
            answer,
            go,
            runtime,
            _dir: dir,
        })
    }

    /// Envoy's memory now.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        let process = self.envoy.process();
        let linear = vm_memory::linear_bytes(process.id())?;
        ensure!(linear > 0, "no VM found in the map of Envoy's memory");
        Ok(Memory {
            linear,
            resident: process.resident_bytes()?,
        })
    }

    /// Opens so many streams, and waits until each app has all that comes before the rest.
    pub fn open(&self, n: usize) -> anyhow::Result<Open> {
        let n_opened = Arc::new(AtomicUsize::new(0));
        let mut apps = JoinSet::new();
        for _ in 0..n {
            let app = call(
                self.envoy.listener(),
                Arc::clone(&self.answer),
                Arc::clone(&n_opened),
            );
            apps.spawn_on(app, self.runtime.handle());
        }
        let opened = fact::until(PATIENCE, || {
            if let Some(ended) = apps.try_join_next() {
                return Ok(Err(anyhow::anyhow!(
                    "an app is through too early: {ended:?}"
                )));
            }
            match n_opened.load(Ordering::Relaxed) {
                opened if opened == n => Ok(Ok(())),
                opened => Err(format!("{opened} of {n} streams are open")),
            }
        });
        opened.map_err(anyhow::Error::msg)??;
        Ok(Open { apps, n_apps: n })
    }

    /// Lets all streams go on to their ends, now and from now on; what the ledger says of all calls
    /// since the start, once there are so many.
    pub fn finish(&self, mut open: Open, n_calls: u64) -> anyhow::Result<Metered> {
        self.go.send_replace(true);
        let mut n_through = 0;
        self.runtime.block_on(async {
            while let Some(app) = open.apps.join_next().await {
                app.context("an app panicked")??;
                n_through += 1;
            }
            anyhow::Ok(())
        })?;
        ensure!(n_through == open.n_apps, "{n_through} apps are through");
        let metered = fact::until(PATIENCE, || self.metered(n_calls));
        metered.map_err(anyhow::Error::msg)
    }

    /// What the filter has counted as troubles of that kind.
    pub fn n_troubles(&self, kind: &str) -> u64 {
        let stats = self.envoy.stats_with("tollmesh_filter_trouble");
        let of_kind = stats.into_iter().filter(|(name, _)| name.contains(kind));
        of_kind.map(|(_, n)| n).sum()
    }

    fn metered(&self, n_calls: u64) -> Result<Metered, String> {
        let metrics = self.aggregator.metrics().map_err(|e| format!("{e:#}"))?;
        let requests = |source: &str| {
            let label = format!("usage_source=\"{source}\"");
            metrics.sum("tollmesh_requests_total", &[&label]) as u64
        };
        let (n_reported, n_estimated) = (requests("reported"), requests("estimated"));
        if n_reported + n_estimated != n_calls {
            return Err(format!(
                "{n_reported} + {n_estimated} of {n_calls} calls metered"
            ));
        }
        // Estimates add to the same counters, so that tokens tell something where there are none.
        for (bucket, each) in [("input", INPUT), ("output", OUTPUT)] {
            let label = format!("bucket=\"{bucket}\"");
            let tokens = metrics.sum("tollmesh_tokens_total", &[&label]) as u64;
            if n_estimated == 0 && tokens != each * n_reported {
                return Err(format!("{tokens} tokens of {bucket}"));
            }
        }
        Ok(Metered {
            n_reported,
            n_estimated,
        })
    }
}

/// As shipped, Envoy opens at most 1,024 connections to one cluster.
fn lift_limits(cluster: &mut Value) {
    const NO_LIMIT: u32 = 1_000_000;
    cluster["circuit_breakers"] = json!({ "thresholds": [{
        "max_connections": NO_LIMIT, "max_pending_requests": NO_LIMIT, "max_requests": NO_LIMIT
    }] });
}

async fn call(
    envoy: SocketAddr,
    answer: Arc<Answer>,
    n_opened: Arc<AtomicUsize>,
) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(envoy).await.context("Envoy is gone")?;
    stream.set_nodelay(true)?;
    let request = format!(
        "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
         authorization: Bearer sk-none\r\nx-llm-tag-team: red\r\nx-llm-tag-feature: memory\r\n\
         content-length: {}\r\n\r\n{}",
        answer.path,
        answer.host,
        answer.ask.len(),
        answer.ask
    );
    stream.write_all(request.as_bytes()).await?;
    let mut buffer = Vec::with_capacity(READ_BYTES);
    let n_wanted = answer.n_bytes_relayed();
    let (mut n_body, mut is_open) = (0, false);
    let mut tail = Vec::new();
    loop {
        buffer.clear();
        if stream.read_buf(&mut buffer).await? == 0 {
            bail!("Envoy hung up after {n_body} bytes");
        }
        n_body += match n_body {
            0 => begun(&buffer)?,
            _ => buffer.len(),
        };
        if !is_open && n_body >= n_wanted {
            n_opened.fetch_add(1, Ordering::Relaxed);
            is_open = true;
        }
        tail.extend_from_slice(&buffer[buffer.len().saturating_sub(LAST_CHUNK.len())..]);
        tail.drain(..tail.len().saturating_sub(LAST_CHUNK.len()));
        if tail == LAST_CHUNK {
            return Ok(());
        }
    }
}

/// How a body of unknown length ends.
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// Bytes of the body, framing included, in the first bytes of an answer.
fn begun(bytes: &[u8]) -> anyhow::Result<usize> {
    let text = String::from_utf8_lossy(bytes);
    ensure!(
        text.starts_with("HTTP/1.1 200"),
        "an answer that is none: {text}"
    );
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.with_context(|| format!("a head in pieces: {text}"))?;
    // At least one, so that the next bytes are not taken for a head.
    Ok((bytes.len() - end - 4).max(1))
}
