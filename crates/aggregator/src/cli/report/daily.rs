//! `tollmesh report daily`

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Asks, Files, Outcome};
use crate::clock;
use crate::config::budgets;
use crate::prices::Prices;
use crate::question::Parts;
use crate::report::{Daily, DailyQuery, Day};

/// One day: spend against budget and against the week before, and what changed why.
///
/// Days are UTC's. A change is told against the mean of the seven days before (of today, against as
/// much of those days), and is split into
/// retries, requests, models, input length, output length, cache, kinds of output and price, whose
/// sum is the change.
///
/// Example: tollmesh report daily --format html > yesterday.html
#[derive(Debug, Args)]
pub struct Arguments {
    /// The day: 2026-11-21, yesterday, or today as far as it went.
    #[arg(long, value_name = "DAY", default_value = "yesterday")]
    day: String,
    /// Tags or columns that make groups.
    #[arg(long, value_name = "NAMES", default_value = "team")]
    by: Vec<String>,
    /// Only calls with that tag or column; may be given several times. Budgets look at all calls.
    #[arg(long = "where", value_name = "NAME:VALUE")]
    filters: Vec<String>,
    /// The file of budgets; the one that the configuration names, where not given.
    #[arg(long, value_name = "FILE")]
    budgets: Option<PathBuf>,
    /// How many movers are told with their reasons.
    #[arg(long, value_name = "N", default_value_t = 10)]
    movers: usize,
    /// How it is written.
    #[arg(long, value_enum, default_value_t)]
    format: Written,
    #[command(flatten)]
    asks: Asks,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Written {
    /// For a terminal or a mail.
    #[default]
    #[value(alias = "table")]
    Text,
    /// A header, and a line for the whole, each day, budget and group.
    Csv,
    /// One object.
    Json,
    /// A page that needs nothing else.
    Html,
}

/// Answers from the ledger.
pub fn run(files: &Files, arguments: Arguments) -> anyhow::Result<Outcome> {
    let now = clock::now();
    let Some(day) = Day::parse(&arguments.day, now) else {
        let day = &arguments.day;
        anyhow::bail!("day: unknown day {day:?}; expected such as 2026-11-21, yesterday or today");
    };
    anyhow::ensure!(
        day.start() <= now,
        "day: {day} has not begun; expected a day up to today"
    );
    let parts = Parts {
        by: arguments.by,
        filters: arguments.filters,
        ..Parts::default()
    };
    let asked = parts.spend(now)?;
    let config = files.load()?;
    let budgets = arguments.budgets.or(config.budgets);
    let budgets = budgets.map(|file| budgets::load(&file)).transpose()?;
    let prices = Prices::load(&config.pricing, config.overrides.as_deref())?;
    let ledger = arguments.asks.open(files)?;
    let query = DailyQuery {
        day,
        now,
        by: asked.by,
        filters: asked.filters,
        n_movers: arguments.movers,
        budgets: budgets.unwrap_or_default(),
    };
    let daily = Daily::of(&ledger, &prices.tables().book, &query)?;
    write(&daily, arguments.format)?;
    Ok(Outcome::Done)
}

fn write(daily: &Daily, format: Written) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match format {
        Written::Text => write!(out, "{daily}")?,
        Written::Csv => out.write_all(&daily.rows().csv()?)?,
        Written::Json => {
            serde_json::to_writer_pretty(&mut out, &daily.json())?;
            writeln!(out)?;
        }
        Written::Html => out.write_all(daily.html().as_bytes())?,
    }
    out.flush()?;
    Ok(())
}
