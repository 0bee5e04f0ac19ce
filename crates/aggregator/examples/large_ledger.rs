//! Makes a large ledger, as three months of a busy mesh leave it, for `cargo xtask bench
//! --ledger-rows` to ask.
//!
//! `cargo run --release -p tollmesh-aggregator --example large_ledger CALLS DIRECTORY`
//!
//! Calls are spread over 90 days: 12 teams with 6 features in 2 environments, 1,000 users, 4 models
//! and 120 pods. Hours are folded, as they are within minutes in a ledger that is served.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tollmesh_aggregator::ledger::{CostRecord, Entry, Ledger, LedgerOptions};
use tollmesh_aggregator::money::PicoUsd;
use tollmesh_usage::{Bucket, Usage};
use tollmesh_wire::{Event, Source, Timestamp};

/// Calls in one transaction.
const BATCH_CALLS: u64 = 4_000;

/// 2026-08-24T00:00:00Z, so that the last call is of 2026-11-21.
const START_MS: i64 = 1_787_529_600_000;

/// The time that calls are spread over.
const SPAN_MS: u64 = 90 * 86_400_000;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let n_calls = args.next().context("how many calls?")?.parse()?;
    let dir = args.next().context("in which directory?")?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(make(Path::new(&dir), n_calls))
}

async fn make(dir: &Path, n_calls: u64) -> Result<()> {
    let ledger = Ledger::open(LedgerOptions::new(dir))?;
    ensure!(ledger.health().rows == 0, "{dir:?} holds a ledger already");
    for first in (0..n_calls).step_by(BATCH_CALLS as usize) {
        let last = (first + BATCH_CALLS).min(n_calls);
        let calls = (first..last).map(|n| call(n, n_calls));
        ledger.append(calls.collect(), vec![]).await?;
    }
    ledger.fold(Timestamp::from_unix_ms(i64::MAX)).await?;
    ledger.close().await;
    Ok(())
}

fn call(n: u64, n_calls: u64) -> Entry {
    // A cheap hash, so that tags do not go in step with time.
    let hash = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let user = hash % 1_000;
    let team = user % 12;
    let model =
        ["gpt-5", "gpt-5-mini", "claude-opus-4-6", "gemini-3-pro"][(hash / 1_000 % 4) as usize];
    let tags = [
        ("team", format!("team-{team}")),
        ("feature", format!("feature-{}", user / 12 % 6)),
        (
            "environment",
            ["production", "staging"][(user % 2) as usize].to_owned(),
        ),
        ("user", format!("user-{user}")),
    ];
    let usage = Usage::new()
        .with(Bucket::Input, 1_000 + hash % 700)
        .with(Bucket::CacheRead, 8_000)
        .with(Bucket::Output, 300 + hash % 90);
    Entry {
        event: Event {
            event_id: format!("{:08x}-{n:x}", n % 8),
            request_id: Some(format!("7c4a0f8e-8d1b-4c55-9a5e-{n:012x}")),
            trace_id: Some(format!("{:032x}", n / 5)),
            time: Timestamp::from_unix_ms(START_MS + (n * (SPAN_MS / n_calls.max(1))) as i64),
            duration_ms: 900 + hash % 4_000,
            ttft_ms: Some(350),
            provider: "openai".into(),
            api: "openai.chat".into(),
            host: "api.openai.com".into(),
            model_requested: Some(model.into()),
            model: Some(model.into()),
            response_id: Some(format!("chatcmpl-{n:x}")),
            stream: true,
            usage,
            usage_source: "reported".into(),
            billable: true,
            finish_reason: Some("stop".into()),
            status: Some(200),
            attempts: 1,
            tags: tags.map(|(tag, value)| (tag.to_owned(), value)).into(),
            source: Source {
                namespace: Some(format!("ns-{team}")),
                workload: Some(format!("app-{team}")),
                pod: Some(format!("app-{team}-{}", hash % 40)),
                ..Source::default()
            },
            ..Event::default()
        },
        cost: CostRecord {
            total: Some(PicoUsd::from_pico(
                2_500_000_000 + (hash % 1_000_000) as i64,
            )),
            row: Some(format!("openai.toml:{model}:1").into()),
            ..CostRecord::free(Arc::from("sha256:0123456789abcdef"))
        },
    }
}
