//! `tollmesh budgets` alone: how far each budget is spent.

use anyhow::Context;
use clap::Args;
use hyper::Method;
use serde_json::{Map, Value};

use super::output::{self, Format};
use super::say::put_line;
use super::{Files, Outcome, running};
use crate::budgets::COLUMNS;
use crate::rows::Rows;

/// What a screen has room for.
const SHOWN: &[&str] = &[
    "budget",
    "key",
    "limit",
    "spent",
    "used_percent",
    "reserved",
    "unit",
    "tier",
    "action",
    "projected",
    "denied",
    "resets_at",
];

/// How rows are written.
#[derive(Debug, Args)]
#[group(skip)]
pub struct Arguments {
    /// How rows are written.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Asks the running aggregator, and writes what it says.
pub fn run(files: &Files, arguments: &Arguments) -> anyhow::Result<Outcome> {
    let config = files.load()?;
    let mut answer = running::ask(&config, Method::GET, "/api/v1/budgets", None)?;
    let items = answer.remove("items").unwrap_or_default();
    let mut items: Vec<Map<String, Value>> =
        serde_json::from_value(items).context("not an aggregator's answer")?;
    if arguments.format == Format::Table {
        items.iter_mut().for_each(shorten);
    }
    let rows = Rows {
        columns: COLUMNS.iter().map(|&name| name.to_owned()).collect(),
        items,
        next_cursor: None,
    };
    if rows.items.is_empty() && arguments.format == Format::Table {
        put_line("no budget is in force; name their file as `budgets` in the configuration")?;
        return Ok(Outcome::Done);
    }
    output::write(&rows, arguments.format, SHOWN)?;
    Ok(Outcome::Done)
}

/// `{"user":"ann"}` as `user:ann`.
fn shorten(item: &mut Map<String, Value>) {
    let key = item.get("key").and_then(Value::as_object);
    let values = key.into_iter().flatten();
    let values = values.map(|(name, value)| format!("{name}:{}", value.as_str().unwrap_or("")));
    let text = values.collect::<Vec<_>>().join(" ");
    item.insert("key".to_owned(), text.into());
}
