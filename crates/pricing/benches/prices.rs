//! How long the shipped tables take to load, and how many calls a second they price on one core.
//!
//! `cargo bench -p tollmesh-pricing`; figures are printed, goals are held to. What counts is the
//! time that this thread spent on a core, so that a busy machine does not disturb the figures.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use tollmesh_pricing::{Book, Call};
use tollmesh_usage::{Bucket, Usage};

/// Runs of each measurement; the median counts.
const RUNS: usize = 9;

/// Loading all shipped tables may take this long.
const LOAD_MAX: Duration = Duration::from_millis(50);

/// Calls that must be priced in a second.
const CALLS_PER_SECOND_MIN: u64 = 1_000_000;

const CALLS_PER_RUN: u64 = 500_000;

/// 2026-11-15T12:00:00Z.
const NOW_MS: i64 = 1_794_744_000_000;

/// Provider, name as calls carry it, tier: plain names, snapshots, prefixes, tiers, long inputs.
const CALLS: &[(&str, &str, Option<&str>, u64)] = &[
    ("openai", "gpt-4o-mini-2024-07-18", Some("default"), 1_200),
    ("openai", "gpt-6.1-sol", Some("priority"), 300_000),
    ("openai", "ft:gpt-4o-2024-08-06:acme::abc123", None, 900),
    (
        "anthropic",
        "claude-sonnet-4-5-20250929",
        Some("standard"),
        48_000,
    ),
    ("anthropic", "claude-opus-5", Some("batch"), 12_000),
    ("aws-bedrock", "eu.anthropic.claude-sonnet-4-6", None, 9_000),
    ("google", "models/gemini-2.5-pro", None, 250_000),
    ("vertex", "claude-haiku-4-5@20251001", None, 2_000),
    ("azure", "gpt-4.1-2025-04-14", None, 3_000),
    ("deepseek", "deepseek-v4-pro", None, 7_000),
    ("openrouter", "anthropic/claude-sonnet-4.6", None, 2_500),
    ("groq", "llama-3.3-70b-versatile", None, 800),
];

fn main() {
    let load = median(|| {
        let start = on_core();
        black_box(Book::load(black_box(Book::shipped())).is_ok());
        on_core() - start
    });
    println!(
        "load of {} tables: {load:.1?}, at most {LOAD_MAX:?}",
        Book::shipped().len()
    );
    let Ok(book) = Book::load(Book::shipped()) else {
        panic!("the shipped tables have mistakes: see `cargo test -p tollmesh-pricing`");
    };
    let context = BTreeMap::new();
    let usages: Vec<Usage> = CALLS.iter().map(|(.., input)| usage(*input)).collect();
    let run = median(|| {
        let start = on_core();
        let calls = CALLS.iter().zip(&usages).cycle();
        for ((provider, model, tier, _), usage) in calls.take(CALLS_PER_RUN as usize) {
            let priced = book.price(&Call {
                provider,
                model: Some(model),
                model_requested: None,
                unix_ms: NOW_MS,
                service_tier: *tier,
                usage,
                inputs: None,
                context: &context,
            });
            assert!(priced.usd.is_some(), "{provider} {model} is unpriced");
            black_box(priced);
        }
        on_core() - start
    });
    let per_second = CALLS_PER_RUN * 1_000_000_000 / run.as_nanos().max(1) as u64;
    let nanos = run.as_nanos() as u64 / CALLS_PER_RUN;
    println!(
        "{per_second} calls priced a second, {nanos} ns each; at least {CALLS_PER_SECOND_MIN}"
    );
    for (call, usage) in CALLS.iter().zip(&usages) {
        println!(
            "  {:>5} ns  {} {}",
            alone(&book, call, usage),
            call.0,
            call.1
        );
    }
    if load > LOAD_MAX || per_second < CALLS_PER_SECOND_MIN {
        println!("a goal is missed");
        std::process::exit(1);
    }
}

fn usage(input: u64) -> Usage {
    Usage::new()
        .with(Bucket::Input, input - input / 4)
        .with(Bucket::CacheRead, input / 4)
        .with(Bucket::Output, 500)
        .with(Bucket::Reasoning, 120)
}

/// Nanoseconds of one kind of call.
fn alone(book: &Book, call: &(&str, &str, Option<&str>, u64), usage: &Usage) -> u64 {
    const TIMES: u64 = 100_000;
    let context = BTreeMap::new();
    let start = on_core();
    for _ in 0..TIMES {
        black_box(book.price(&Call {
            provider: call.0,
            model: Some(call.1),
            model_requested: None,
            unix_ms: NOW_MS,
            service_tier: call.2,
            usage,
            inputs: None,
            context: &context,
        }));
    }
    (on_core() - start).as_nanos() as u64 / TIMES
}

fn median(mut run: impl FnMut() -> Duration) -> Duration {
    let mut runs: Vec<Duration> = (0..RUNS).map(|_| run()).collect();
    runs.sort_unstable();
    runs[RUNS / 2]
}

/// How long this thread has been on a core: the first field of Linux's `schedstat`.
fn on_core() -> Duration {
    let read = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = read.split(' ').next().and_then(|field| field.parse().ok());
    Duration::from_nanos(nanos.expect("/proc/thread-self/schedstat tells the time on a core"))
}
