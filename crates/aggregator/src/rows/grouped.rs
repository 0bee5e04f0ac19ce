//! Answers about groups of calls: two periods beside each other, outcomes, traces and sessions.

use serde_json::{Map, Value, json};
use tollmesh_usage::Usage;

use super::{Rows, put_inclusive, usage_of};
use crate::ledger::query::{Compared, Dimension, OutcomeRow, SpendRow, Unit, UnitRow};
use crate::money::PicoSum;

/// What is compared of a group, after its dimensions.
pub const COMPARED_COLUMNS: &[&str] = &[
    "cost_before_usd",
    "cost_after_usd",
    "difference_usd",
    "requests_before",
    "requests_after",
    "requests_difference",
    "input_tokens_before",
    "input_tokens_after",
    "input_tokens_difference",
    "output_tokens_before",
    "output_tokens_after",
    "output_tokens_difference",
    "unpriced_requests_before",
    "unpriced_requests_after",
    "unpriced_requests_difference",
];

/// What is told of an outcome, after its group's dimensions.
pub const OUTCOME_COLUMNS: &[&str] = &[
    "outcome_label",
    "outcomes",
    "requests",
    "cost_usd",
    "cost_per_outcome_usd",
    "spend_usd",
    "spend_per_outcome_usd",
];

/// What is told of a trace or session, after its id.
const UNIT_COLUMNS: &[&str] = &[
    "requests",
    "cost_usd",
    "unpriced_requests",
    "estimated_requests",
    "failed_requests",
    "tool_calls",
    "retries",
    "repeated_requests",
    "models",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "first",
    "last",
    "span_ms",
    "duration_ms",
];

/// Groups in two periods.
pub fn compared(
    by: &[Dimension],
    rows: Vec<Compared>,
) -> Rows<impl Iterator<Item = Map<String, Value>>> {
    let columns = by
        .iter()
        .map(Dimension::name)
        .chain(COMPARED_COLUMNS.iter().copied());
    Rows {
        columns: columns.map(str::to_owned).collect(),
        items: rows.into_iter().map(|row| compared_row(by, &row)),
        next_cursor: None,
    }
}

fn compared_row(by: &[Dimension], row: &Compared) -> Map<String, Value> {
    let mut item = keyed(by, &row.key);
    let (before, after) = (&row.before, &row.after);
    let difference = PicoSum::from_pico(after.cost.as_pico() - before.cost.as_pico());
    for (name, amount) in [
        ("cost_before_usd", before.cost),
        ("cost_after_usd", after.cost),
        ("difference_usd", difference),
    ] {
        item.insert(name.into(), json!(amount.to_string()));
    }
    let (before, after) = (counts(before), counts(after));
    for ((name, before), (_, after)) in before.into_iter().zip(after) {
        item.insert(format!("{name}_before"), json!(before));
        item.insert(format!("{name}_after"), json!(after));
        let difference = i128::from(after) - i128::from(before);
        let difference = i64::try_from(difference).unwrap_or(i64::MAX);
        item.insert(format!("{name}_difference"), json!(difference));
    }
    item
}

/// What is counted of a period.
fn counts(row: &SpendRow) -> Vec<(String, u64)> {
    let mut tokens = Map::new();
    put_inclusive(&mut tokens, &usage_of(&row.tokens), || json!(0));
    let tokens = tokens
        .into_iter()
        .filter_map(|(name, n)| Some((name, n.as_u64()?)));
    [
        ("requests".to_owned(), row.requests),
        ("unpriced_requests".to_owned(), row.unpriced),
    ]
    .into_iter()
    .chain(tokens)
    .collect()
}

/// What became of calls, and what that cost.
pub fn outcomes(
    by: &[Dimension],
    rows: Vec<OutcomeRow>,
) -> Rows<impl Iterator<Item = Map<String, Value>>> {
    let columns = by
        .iter()
        .map(Dimension::name)
        .chain(OUTCOME_COLUMNS.iter().copied());
    Rows {
        columns: columns.map(str::to_owned).collect(),
        items: rows.into_iter().map(|row| outcome_row(by, &row)),
        next_cursor: None,
    }
}

fn outcome_row(by: &[Dimension], row: &OutcomeRow) -> Map<String, Value> {
    let mut item = keyed(by, &row.key);
    // Calls of which nobody told are no outcomes.
    let each = |sum: PicoSum| (row.outcomes > 0).then(|| sum.per(row.outcomes).to_string());
    for (name, value) in [
        ("outcome_label", json!(row.label)),
        ("outcomes", json!(row.outcomes)),
        ("requests", json!(row.requests)),
        ("cost_usd", json!(row.cost.to_string())),
        ("cost_per_outcome_usd", json!(each(row.cost))),
        ("spend_usd", json!(row.spend.to_string())),
        ("spend_per_outcome_usd", json!(each(row.spend))),
    ] {
        item.insert(name.into(), value);
    }
    item
}

/// One page of traces or sessions.
pub fn units(unit: &Unit, rows: &[UnitRow], next_cursor: Option<String>) -> Rows {
    let (id, label) = match unit {
        Unit::Trace => ("trace_id", Some("outcome_label")),
        Unit::Tags(_) => ("session", None),
    };
    let columns = [id]
        .into_iter()
        .chain(UNIT_COLUMNS.iter().copied())
        .chain(label);
    let items = rows.iter().map(|row| {
        let mut item = unit_row(row);
        item.insert(id.into(), json!(row.id));
        if let Some(label) = label {
            item.insert(label.into(), json!(row.outcome_label));
        }
        item
    });
    Rows {
        columns: columns.map(str::to_owned).collect(),
        items: items.collect(),
        next_cursor,
    }
}

fn unit_row(row: &UnitRow) -> Map<String, Value> {
    let usage: Usage = usage_of(&row.tokens);
    let mut item = Map::new();
    put_inclusive(&mut item, &usage, || json!(0));
    let span_ms = row.last.as_unix_ms() - row.first.as_unix_ms();
    for (name, value) in [
        ("requests", json!(row.requests)),
        ("cost_usd", json!(row.cost.to_string())),
        ("unpriced_requests", json!(row.unpriced)),
        ("estimated_requests", json!(row.estimated)),
        ("failed_requests", json!(row.failed)),
        ("tool_calls", json!(row.tool_calls)),
        ("retries", json!(row.retries)),
        ("repeated_requests", json!(row.repeated)),
        ("models", json!(row.models)),
        ("first", json!(row.first)),
        ("last", json!(row.last)),
        ("span_ms", json!(span_ms)),
        (
            "duration_ms",
            json!(u64::try_from(row.duration_ms).unwrap_or(u64::MAX)),
        ),
        ("buckets", json!(usage)),
    ] {
        item.insert(name.into(), value);
    }
    item
}

fn keyed(by: &[Dimension], key: &[Option<String>]) -> Map<String, Value> {
    let values = by.iter().zip(key);
    values
        .map(|(dimension, value)| (dimension.name().to_owned(), json!(value)))
        .collect()
}
