//! `tollmesh prices`

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use tollmesh_pricing::{Book, Call, Model, Row};
use tollmesh_usage::{Bucket, Usage};
use tollmesh_wire::Timestamp;

use super::output::{self, Format};
use super::say::say;
use super::{Files, Outcome, prices_import};
use crate::pricelist::{self, Wanted};
use crate::prices::{self, Prices, PricesError};
use crate::{clock, question};

/// Tokens of each class in the example.
const EXAMPLE_TOKENS: u64 = 1_000;

/// What the price tables say.
///
/// The tables are those that ship, those that the configuration names over them, and the
/// operator's own terms over all.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The rows that price a model, the arithmetic, and where they were read.
    Show(Show),
    /// What differs between two tables; ends with 1 where something does.
    Diff(Diff),
    /// Propose rows out of a list that another project publishes, as a diff to review.
    Import(prices_import::Arguments),
}

#[derive(Debug, Args)]
struct Diff {
    /// A price file, a folder of them, or `shipped` for the tables of this build.
    a: PathBuf,
    /// The same, as it is compared with the first.
    b: PathBuf,
    /// How rows are written.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
struct Show {
    /// A provider's name for the model.
    model: String,
    /// The provider; all that have such a model, where none is named.
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// When: 2026-11-22T04:00:00Z, 2026-11-22, or an age such as 24h. Now, where not given.
    #[arg(long, value_name = "DATE")]
    at: Option<String>,
    /// How rows are written.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What a screen has room for.
const COLUMNS: &[&str] = &[
    "provider",
    "model",
    "tier",
    "from",
    "until",
    "input_min",
    "input_max",
    "calendar",
    "region",
    "rates",
    "units",
    "source",
    "checked",
];

/// Answers from the tables in force.
pub fn run(files: &Files, arguments: &Arguments) -> anyhow::Result<Outcome> {
    match &arguments.command {
        Command::Show(show) => run_show(files, show),
        Command::Diff(diff) => run_diff(diff),
        Command::Import(arguments) => prices_import::run(arguments),
    }
}

fn run_show(files: &Files, show: &Show) -> anyhow::Result<Outcome> {
    let now = clock::now();
    let at = show.at.as_deref();
    let wanted = Wanted {
        model: show.model.clone(),
        provider: show.provider.clone(),
        at: at.map_or(Ok(now), |at| question::instant("--at", at, now))?,
    };
    let config = files.load()?;
    let prices = Prices::load(&config.pricing, config.overrides.as_deref())?;
    let book = &prices.tables().book;
    let rows = pricelist::rows(book, &wanted);
    if rows.items.is_empty() {
        let model = &show.model;
        say(format_args!("no row prices {model:?} at {}", wanted.at));
    }
    if !rows.items.is_empty() || show.format != Format::Table {
        output::write(&rows, show.format, COLUMNS)?;
    }
    if rows.items.is_empty() {
        return Ok(Outcome::Findings);
    }
    if show.format == Format::Table {
        let mut out = std::io::stdout().lock();
        for (provider, model) in pricelist::models(book, &wanted) {
            write!(out, "{}", example(book, provider, model, wanted.at))?;
        }
    }
    Ok(Outcome::Done)
}

fn run_diff(diff: &Diff) -> anyhow::Result<Outcome> {
    let rows = pricelist::diff(&tables(&diff.a)?, &tables(&diff.b)?);
    if rows.items.is_empty() && diff.format == Format::Table {
        return Ok(Outcome::Done);
    }
    output::write(&rows, diff.format, &[])?;
    Ok(match rows.items.is_empty() {
        true => Outcome::Done,
        false => Outcome::Findings,
    })
}

fn tables(path: &Path) -> Result<Book, PricesError> {
    if path == Path::new("shipped") {
        return Book::load(Book::shipped()).map_err(PricesError::Invalid);
    }
    prices::read_alone(path)
}

/// What a call of the standard tier with some tokens of each class costs, line by line; empty
/// where no row holds for it.
fn example(book: &Book, provider: &str, model: &Model, at: Timestamp) -> String {
    let at_ms = at.as_unix_ms();
    let holds = |row: &&Row| {
        row.tier == "standard" && row.from_ms <= at_ms && at_ms < row.until_ms && row.at.is_none()
    };
    let Some(row) = model
        .rows
        .iter()
        .filter(holds)
        .min_by_key(|row| row.input_min)
    else {
        return String::new();
    };
    let mut usage = Usage::new();
    for bucket in Bucket::ALL {
        usage.set(bucket, row.rate(bucket).map(|_| EXAMPLE_TOKENS));
    }
    let priced = book.price(&Call {
        provider,
        model: Some(&model.id),
        model_requested: None,
        unix_ms: at_ms,
        service_tier: None,
        usage: &usage,
        inputs: None,
        context: &BTreeMap::new(),
    });
    let (Some(list), Some(net)) = (priced.usd, priced.net) else {
        return String::new();
    };
    let mut text = format!("\n{provider} {}, a call of the standard tier:\n", model.id);
    for line in &priced.lines {
        let (what, amount, rate) = (line.what, line.amount.normalize(), line.rate.normalize());
        let times = match line.times.normalize() {
            times if times == 1.into() => String::new(),
            times => format!(" × {times}"),
        };
        let scale = match Bucket::parse(what) {
            Some(_) => " ÷ 1000000",
            None => "",
        };
        let usd = line.usd.normalize();
        text.push_str(&format!(
            "  {what}: {amount} × {rate}{scale}{times} = {usd}\n"
        ));
    }
    text.push_str(&format!("  list cost: {} USD\n", list.normalize()));
    if let Some(terms) = &priced.net_by {
        text.push_str(&format!("  cost by {terms}: {} USD\n", net.normalize()));
    }
    text
}
