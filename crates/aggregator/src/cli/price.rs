//! `tollmesh price`: usage to exact cost, through the pricing that the aggregator runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tollmesh_pricing::Case;
use tollmesh_usage::Usage;
use tollmesh_wire::event::ExtraUsage;

use super::{Files, Outcome, lines};
use crate::charge::{Bill, sums_batches};
use crate::clock;
use crate::config::Config;
use crate::ledger::CostRecord;
use crate::prices::{Prices, Tables};
use crate::rows;

/// Price usage.
///
/// Standard input: what `tollmesh extract` writes, or one call a line as JSON with `id`,
/// `provider`, `model`, `timestamp`, `usage` (inclusive totals: `input_tokens`, `cache_read`,
/// `cache_write_5m`, `cache_write_1h`, `output_tokens`, `reasoning`, `audio_in`, `audio_out`,
/// `web_searches`, …), `service_tier` and `context`. A call without a timestamp is priced at the
/// rates of now. A line whose usage contradicts itself is unpriced, with the reason in `error`. Standard
/// output: `status` (exact, assumed or unpriced), `cost_usd` as a decimal
/// string, and the lines that it is made of.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Price files or folders of them, over the tables that ship and those of the configuration; may
    /// be given several times.
    #[arg(long, value_name = "DIR")]
    pricing: Vec<PathBuf>,
    /// The operator's own terms over those tables, in place of the configuration's.
    #[arg(long, value_name = "FILE")]
    overrides: Option<PathBuf>,
}

/// What a line says beside its counts.
#[derive(Debug, Deserialize)]
struct Beside {
    /// Absent in notes of people, who note down what they are charged for.
    #[serde(default = "yes")]
    billable: bool,
    #[serde(default)]
    billed_buckets: Option<Usage>,
    #[serde(default)]
    extra_usage: Vec<Nested>,
    #[serde(default)]
    api: Option<String>,
}

/// Usage charged apart, as `extract` writes it.
#[derive(Debug, Deserialize)]
struct Nested {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    model: Option<String>,
    #[serde(flatten)]
    counts: Counts,
}

/// Disjoint counts where the writer has them, else inclusive totals.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Counts {
    buckets: Option<Usage>,
    usage: Option<tollmesh_pricing::case::Inclusive>,
}

const fn yes() -> bool {
    true
}

/// Prices each line.
pub fn run(files: &Files, arguments: &Arguments) -> anyhow::Result<Outcome> {
    // The configuration is read for its prices; no state directory need be writable.
    let state_dir = files.state_dir.as_deref().unwrap_or(Path::new("."));
    let config = Config::load(files.config.as_deref(), Some(state_dir))?;
    let mut pricing = config.pricing;
    pricing.extend(arguments.pricing.iter().cloned());
    let overrides = arguments.overrides.as_deref();
    let prices = Prices::load(&pricing, overrides.or(config.overrides.as_deref()))?;
    let tables = prices.tables();
    let now_ms = clock::now().as_unix_ms();
    let version = &*tables.version;
    lines::for_each(
        |line| price(line, &tables, now_ms),
        |line, error| unpriced(line, error, version),
    )
}

/// What stands for the answer to a line of usage that contradicts itself, so that each call has one.
fn unpriced(line: &[u8], error: &anyhow::Error, version: &str) -> Option<Value> {
    let mut fields: Map<String, Value> = serde_json::from_slice(line).ok()?;
    Some(json!({
        "id": fields.remove("id").unwrap_or_default(),
        "status": "unpriced",
        "cost_usd": null,
        "lines": [],
        "row": null,
        "pricing_version": version,
        "unpriced_because": "bad_usage",
        "error": format!("{error:#}"),
    }))
}

fn price(line: &[u8], tables: &Tables, now_ms: i64) -> anyhow::Result<Value> {
    let mut fields: Map<String, Value> =
        serde_json::from_slice(line).context("not a line of usage")?;
    // Whatever the writer calls the line, a number as well as a text.
    let id = fields.remove("id").unwrap_or_default();
    let fields = Value::Object(fields);
    let beside = Beside::deserialize(&fields).context("not a line of usage")?;
    let case = Case::deserialize(&fields).context("not a line of usage")?;
    let usage = match &beside.billed_buckets {
        Some(billed) => billed.clone(),
        None => case.disjoint()?,
    };
    let extra = beside.extra_usage.into_iter().map(Nested::read);
    let extra = extra.collect::<anyhow::Result<Vec<_>>>()?;
    let call = case.call(&usage, now_ms);
    let bill = Bill {
        provider: call.provider,
        model: call.model,
        model_requested: call.model_requested,
        unix_ms: call.unix_ms,
        service_tier: call.service_tier,
        usage: &usage,
        extra_usage: &extra,
        context: call.context,
        is_billable: beside.billable,
        is_batch: beside.api.as_deref().is_some_and(sums_batches),
    };
    let cost = bill.price(&tables.book, Arc::clone(&tables.version));
    Ok(answer(&id, &cost))
}

/// Exact, where the ledger rounds to a pico-dollar: the sum of the lines as they are. Lines are by
/// the public list; what own terms make of their sum is as the ledger has it.
fn answer(id: &Value, cost: &CostRecord) -> Value {
    let usd: Option<Decimal> = cost.total.map(|total| match cost.list {
        Some(_) => total.to_usd(),
        None => cost.lines.iter().map(|line| line.usd).sum(),
    });
    let mut answer = json!({
        "id": id,
        "status": cost.status.name(),
        "cost_usd": usd.map(|usd| usd.normalize().to_string()),
        "lines": rows::cost_lines(&cost.lines),
        "row": cost.row.as_deref(),
        "pricing_version": &*cost.pricing_version,
    });
    if let (Some(because), Some(fields)) = (&cost.unpriced_because, answer.as_object_mut()) {
        fields.insert("unpriced_because".into(), json!(because));
    }
    answer
}

impl Nested {
    fn read(self) -> anyhow::Result<ExtraUsage> {
        let usage = match (self.counts.buckets, self.counts.usage) {
            (Some(buckets), _) => buckets,
            (None, Some(inclusive)) => inclusive.disjoint()?,
            (None, None) => Usage::new(),
        };
        Ok(ExtraUsage {
            kind: self.kind,
            model: self.model,
            usage,
        })
    }
}
