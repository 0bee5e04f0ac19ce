//! `tollmesh explain`

use anyhow::ensure;
use clap::Args;
use serde_json::Value;

use super::output::{self, Format};
use super::say::put_line;
use super::{Files, Outcome};
use crate::ledger::query::Reader;
use crate::rows;

/// Why a call was refused or changed.
///
/// Reads the ledger in state_dir, also while `tollmesh serve` writes it: that of the aggregator beside
/// the Envoy that the call passed. It knows the last 20,000 refusals and changes.
///
/// Example: tollmesh explain 9f1c7b1e-3d39-4a35-a8a6-0a3ae4a6a1d2
#[derive(Debug, Args)]
pub struct Arguments {
    /// The call's x-request-id, or its event's id.
    #[arg(value_name = "ID")]
    id: String,
    /// How it is written.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Tells it.
pub fn run(files: &Files, arguments: &Arguments) -> anyhow::Result<Outcome> {
    let reader = Reader::open(&files.load()?.state_dir)?;
    let rows = rows::explained(&reader.denials(&arguments.id)?);
    ensure!(
        !rows.items.is_empty(),
        "no budget did anything to {:?}; ask the aggregator beside the Envoy that the call passed",
        arguments.id
    );
    if arguments.format != Format::Table {
        output::write(&rows, arguments.format, &[])?;
        return Ok(Outcome::Done);
    }
    for item in &rows.items {
        let text = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or("-");
        put_line(format_args!(
            "{}  {}  event {}",
            text("time"),
            text("request_id"),
            text("event_id")
        ))?;
        put_line(format_args!("  {}", text("summary")))?;
        put_line(format_args!("  {}", text("remedy")))?;
    }
    Ok(Outcome::Done)
}
