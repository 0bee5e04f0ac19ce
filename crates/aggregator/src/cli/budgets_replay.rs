//! `tollmesh budgets replay`

use std::path::PathBuf;

use clap::Args;
use jiff::ToSpan;
use tollmesh_wire::Timestamp;

use super::output::{self, Format};
use super::progress::Progress;
use super::say::say;
use super::{Files, Outcome};
use crate::budgets::replay::{Replay, Replayed, Tally};
use crate::clock;
use crate::config::budgets;
use crate::ledger::query::{Reader, Span};
use crate::prices::Prices;
use crate::rows;

/// Keys of one budget that a table shows; JSON and CSV have all.
const KEYS_SHOWN_MAX: usize = 10;

/// What the budgets of a file would have done to the calls of the past.
///
/// Every call in the ledger passes again, in the order in which they began, with what it cost: which
/// would have been refused, changed or put off, and what that would have saved, by budget and key,
/// window by window. Budgets with enforce = "observe" are told as if they were cached. Nothing is
/// written, and nothing enforced.
///
/// Two things nobody knows: whether a refused app would have asked again, and how much more than a
/// call turns out to cost a strict budget reserves for it.
///
/// Example: tollmesh budgets replay budgets-new.toml --days 30
#[derive(Debug, Args)]
pub struct Arguments {
    /// The budgets, as they would stand in budgets.toml.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How far back; each budget's first window is looked at from its begin.
    #[arg(long, value_name = "N", default_value_t = 30,
          value_parser = clap::value_parser!(u32).range(1..=3660))]
    days: u32,
    /// How rows are written.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Lets the past pass, and tells what would have become of it.
pub fn run(files: &Files, arguments: &Arguments) -> anyhow::Result<Outcome> {
    let policies = budgets::load(&arguments.file)?;
    anyhow::ensure!(
        !policies.is_empty(),
        "{}: no budgets; write at least one [[budget]]",
        arguments.file.display()
    );
    let config = files.load()?;
    let reader = Reader::open(&config.state_dir)?;
    let prices = Prices::load(&config.pricing, config.overrides.as_deref())?;
    let now = clock::now();
    let from = jiff::Timestamp::from_millisecond(now.as_unix_ms())?
        .checked_sub((i64::from(arguments.days) * 24).hours())?;
    let mut replay = Replay::new(policies, from, &prices);
    let begins = replay.begins().unwrap_or(from);
    let span = Span {
        from: Some(Timestamp::from_unix_ms(begins.as_millisecond())),
        to: Some(now),
    };
    let mut progress = Progress::new();
    let (mut n_calls, mut first) = (0_u64, None);
    let seen = reader.each_call(span, &mut |call| {
        n_calls += 1;
        first.get_or_insert(call.event.time);
        progress.tell(|| format!("{n_calls} calls, {}", call.event.time));
        replay.pass(&call.event, call.cost.total);
    });
    progress.clear();
    seen?;
    let replayed = replay.finish();
    let shown = match arguments.format {
        Format::Table => shown(&replayed),
        Format::Json | Format::Csv => replayed,
    };
    output::write(&rows::replayed(&shown), arguments.format, COLUMNS)?;
    tell_bounds(n_calls, first, begins);
    Ok(Outcome::Done)
}

/// What a screen has room for.
const COLUMNS: &[&str] = &[
    "budget",
    "key",
    "requests",
    "denied_requests",
    "throttled_requests",
    "downgraded_requests",
    "capped_requests",
    "limit",
    "peak_percent",
    "windows",
    "windows_denied",
    "cost_usd",
    "saved_usd",
];

/// What there was to look at, where that is less than was asked for.
fn tell_bounds(n_calls: u64, first: Option<Timestamp>, begins: jiff::Timestamp) {
    const DAY_MS: i64 = 24 * 3_600_000;
    match first {
        None => say(format_args!("the ledger has no calls since {begins}")),
        Some(first) if first.as_unix_ms() > begins.as_millisecond() + DAY_MS => say(format_args!(
            "{n_calls} calls; the ledger has none before {first}, although {begins} was asked for"
        )),
        Some(first) => say(format_args!("{n_calls} calls since {first}")),
    }
}

/// For eyes: the keys of each budget for which most would have been saved, and the sum of all.
fn shown(replayed: &[Replayed]) -> Vec<Replayed> {
    let mut shown: Vec<Replayed> = Vec::new();
    for of_one in replayed.chunk_by(|a, b| a.budget == b.budget) {
        if let [first, _, ..] = of_one {
            let mut total = Replayed {
                key: [("all".to_owned(), of_one.len().to_string())].into(),
                tally: Tally::default(),
                ..first.clone()
            };
            of_one.iter().for_each(|one| total.tally.add(&one.tally));
            shown.push(total);
        }
        shown.extend(of_one.iter().take(KEYS_SHOWN_MAX).cloned());
    }
    shown
}
