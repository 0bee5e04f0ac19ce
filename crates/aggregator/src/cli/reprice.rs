//! `tollmesh reprice`

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rust_decimal::Decimal;
use serde_json::{Map, Value};
use tokio::runtime::Runtime;

use super::output::{self, Format};
use super::progress::Progress;
use super::say::say;
use super::{Files, Outcome};
use crate::config::Config;
use crate::ledger::query::Reader;
use crate::ledger::{Changes, Ledger, LedgerError};
use crate::metrics::Metrics;
use crate::prices::Prices;
use crate::question::Parts;
use crate::rows::{self, Rows};
use crate::{client, clock, reprice, serve};

/// How long a running aggregator may take: millions of calls, at some ten thousand a second.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(3600);

/// Price calls of the past anew, under the tables of today.
///
/// Each call is priced at its own time by what the tables now say of that time. Rows, hourly sums
/// and reports follow; what a call first cost stays beside it as original_cost_usd. Prometheus'
/// counters never fall: they keep what they counted, and receive the cost of calls that had no
/// price until now. Doing it again changes nothing.
///
/// While `tollmesh serve` writes the ledger, that process does it, asked by operator.listen with
/// the token of operator.token_file. Otherwise the ledger in state_dir is written directly.
/// --dry-run only reads, and needs neither.
///
/// Example: tollmesh reprice --from 2026-11-01 --where provider:openai --dry-run
#[derive(Debug, Args)]
pub struct Arguments {
    /// From when on: 2026-11-22T04:00:00Z, 2026-11-22, or an age such as 24h.
    #[arg(long, value_name = "TIME")]
    from: String,
    /// Before when; until now, where not given.
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Only calls with that tag or column; may be given several times.
    #[arg(long = "where", value_name = "NAME:VALUE")]
    filters: Vec<String>,
    /// Only tell what would change.
    #[arg(long)]
    dry_run: bool,
    /// How rows are written.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Does it, and tells what changed by model.
pub fn run(files: &Files, arguments: Arguments) -> anyhow::Result<Outcome> {
    let parts = Parts {
        from: Some(arguments.from),
        to: arguments.to,
        filters: arguments.filters,
        ..Parts::default()
    };
    // Before anything is opened: a wrong question is told as such.
    parts.repricing(clock::now())?;
    let config = files.load()?;
    let mut rows = match arguments.dry_run {
        true => look(&config, &parts)?,
        false => write(&config, &parts)?,
    };
    if arguments.format == Format::Table && rows.items.len() > 1 {
        let total = total(&rows);
        rows.items.push(total);
    }
    output::write(&rows, arguments.format, &[])?;
    if arguments.dry_run {
        say("nothing was written (--dry-run)");
    }
    Ok(Outcome::Done)
}

/// The sums of all rows.
fn total(rows: &Rows) -> Map<String, Value> {
    let sums = rows.columns.iter().skip_while(|name| *name != "requests");
    let mut item: Map<String, Value> = sums
        .map(|name| {
            let cells = rows.items.iter().filter_map(|item| item.get(name));
            let numbers = cells.filter_map(|cell| match cell {
                Value::String(amount) => amount.parse::<Decimal>().ok(),
                count => count.as_u64().map(Decimal::from),
            });
            let sum: Decimal = numbers.sum();
            (name.clone(), sum.normalize().to_string().into())
        })
        .collect();
    item.insert("provider".to_owned(), "total".into());
    item
}

/// What would change, by the configured tables.
fn look(config: &Config, parts: &Parts) -> anyhow::Result<Rows> {
    let reader = Reader::open(&config.state_dir)?;
    let prices = Prices::load(&config.pricing, config.overrides.as_deref())?;
    let repricing = reprice::prepare(parts, clock::now(), &reader, &prices)?;
    let mut progress = Progress::new();
    let changes = reader.reprice(&repricing, &mut |changes| tell(&mut progress, changes));
    progress.clear();
    Ok(rows::repriced(&changes?))
}

/// In the ledger, or through the process that writes it.
fn write(config: &Config, parts: &Parts) -> anyhow::Result<Rows> {
    // Opening for writing would make a ledger where there is none. One of an earlier version it
    // brings up to date.
    if let Err(error @ (LedgerError::Missing { .. } | LedgerError::Unreachable { .. })) =
        Reader::open(&config.state_dir)
    {
        return Err(error.into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let metrics = Arc::new(Metrics::new().context("cannot declare metrics")?);
    match runtime.block_on(serve::open_ledger(config, &metrics, None)) {
        Ok((ledger, _)) => {
            let rows = write_here(config, parts, &ledger, &runtime);
            runtime.block_on(Ledger::close(ledger));
            rows
        }
        Err(error) => match error.downcast_ref() {
            Some(locked @ LedgerError::Locked { .. }) => {
                let asked = runtime.block_on(ask_holder(config, parts));
                asked.with_context(|| holder(locked))
            }
            _ => Err(error),
        },
    }
}

fn write_here(
    config: &Config,
    parts: &Parts,
    ledger: &Ledger,
    runtime: &Runtime,
) -> anyhow::Result<Rows> {
    let prices = Prices::load(&config.pricing, config.overrides.as_deref())?;
    let repricing = reprice::prepare(parts, clock::now(), ledger.reader(), &prices)?;
    let mut progress = Progress::new();
    let mut told = |changes: &Changes| tell(&mut progress, changes);
    let changes = runtime.block_on(ledger.reprice(&repricing, &mut told));
    progress.clear();
    let changes = changes.context("done in part, the earliest calls first; do it again")?;
    Ok(rows::repriced(&changes))
}

fn tell(progress: &mut Progress, changes: &Changes) {
    progress.tell(|| {
        let total = changes.total();
        let (requests, changed) = (total.requests, total.changed);
        format!("{requests} calls looked at, {changed} changed")
    });
}

/// Asks the process that writes the ledger.
async fn ask_holder(config: &Config, parts: &Parts) -> anyhow::Result<Rows> {
    let Some(token_file) = &config.operator.token_file else {
        bail!(
            "it prices calls anew only for who has its token: set operator.token_file for both, \
             or stop it and try again"
        );
    };
    let token = serve::read_token(token_file)?;
    let request = Request::post(format!("/api/v1/reprice?{}", query(parts)))
        .header(header::HOST, "localhost")
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::ACCEPT, "application/json")
        .body(Full::<Bytes>::default())?;
    let address = &config.operator.listen;
    let (status, body) = client::ask(address, request, ANSWER_TIME_MAX)
        .await
        .with_context(|| {
            format!(
                "it does not answer at operator.listen, {address}; give its own configuration \
                 with --config, or stop it and try again"
            )
        })?;
    let mut answer: Map<String, Value> = serde_json::from_slice(&body)
        .with_context(|| format!("what is at {address} is no aggregator: answered {status}"))?;
    if status != StatusCode::OK {
        let detail = answer.get("detail").and_then(Value::as_str);
        return Err(anyhow!("{}", detail.unwrap_or("no reason given")))
            .with_context(|| format!("it answered {status} at {address}"));
    }
    let items = answer.remove("items").unwrap_or_default();
    Ok(Rows {
        columns: rows::REPRICED_COLUMNS.map(str::to_owned).to_vec(),
        items: serde_json::from_value(items).context("not an aggregator's answer")?,
        next_cursor: None,
    })
}

fn query(parts: &Parts) -> String {
    let pairs = [("from", &parts.from), ("to", &parts.to)];
    let times = pairs.into_iter().filter_map(|(name, value)| {
        let value = value.as_deref()?;
        Some((name, value))
    });
    let filters = parts.filters.iter().map(|filter| ("where", &**filter));
    let pairs = times.chain(filters);
    let written = pairs.map(|(name, value)| {
        let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
        format!("{name}={value}")
    });
    written.collect::<Vec<_>>().join("&")
}

/// Which process writes the ledger.
fn holder(locked: &LedgerError) -> String {
    match locked {
        LedgerError::Locked { path, holder } => {
            let path = path.display();
            let holder = holder.map(|pid| format!(" (process {pid})"));
            let holder = holder.unwrap_or_default();
            format!("{path}: another tollmesh{holder} writes this ledger")
        }
        other => other.to_string(),
    }
}
