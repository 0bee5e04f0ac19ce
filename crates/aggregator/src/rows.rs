//! Answers as rows with named columns, the same for the API and the command line.

mod explained;
mod grouped;
mod overridden;
mod replayed;
mod written;

use std::cmp::Reverse;

use serde_json::{Map, Value, json};
use tollmesh_usage::{Bucket, Usage, inclusive};

use crate::ledger::query::{Coverage, Dimension, RequestRow, SpendRow};
use crate::ledger::reprice::Change;
use crate::ledger::{Changes, CostLine, CostRecord, Original};
use crate::money::PicoSum;
use crate::shown::shown;

pub use explained::{EXPLAINED_COLUMNS, explained};
pub use grouped::{COMPARED_COLUMNS, OUTCOME_COLUMNS, compared, outcomes, units};
pub use overridden::{OVERRIDDEN_COLUMNS, overridden};
pub use replayed::{REPLAYED_COLUMNS, replayed};

/// Rows, and the columns in which they are shown.
///
/// The rows may be made one by one while they are written: all at once they take many times the
/// memory of their text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows<I = Vec<Map<String, Value>>> {
    /// The columns, in their order.
    pub columns: Vec<String>,
    /// The rows; each may have more than the columns.
    pub items: I,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

/// The sums of a spend row, after its dimensions.
pub const SPEND_COLUMNS: &[&str] = &[
    "start",
    "requests",
    "cost_usd",
    "unpriced_requests",
    "estimated_requests",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "mean_duration_ms",
    "mean_ttft_ms",
    "stated_requests",
    "provider_cost_usd",
    "drift_usd",
    "buckets",
];

/// The columns of a call in CSV and tables; in JSON it has all that is known.
pub const REQUEST_COLUMNS: &[&str] = &[
    "time",
    "event_id",
    "request_id",
    "trace_id",
    "provider",
    "api",
    "host",
    "model",
    "model_requested",
    "model_put",
    "response_id",
    "status",
    "outcome",
    "stream",
    "usage_source",
    "estimate_basis",
    "billable",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
    "reasoning_tokens",
    "audio_input_tokens",
    "audio_output_tokens",
    "cost_usd",
    "cost_status",
    "original_cost_usd",
    "provider_cost_usd",
    "price_row",
    "pricing_version",
    "service_tier",
    "finish_reason",
    "tool_calls",
    "duration_ms",
    "ttft_ms",
    "attempts",
    "trouble",
    "fingerprint",
    "outcome_label",
    "tags",
    "source",
];

/// What repricing changed for a model.
pub const REPRICED_COLUMNS: [&str; 9] = [
    "provider",
    "model",
    "requests",
    "changed_requests",
    "newly_priced_requests",
    "now_unpriced_requests",
    "cost_before_usd",
    "cost_after_usd",
    "difference_usd",
];

/// The rows of a question for sums by these dimensions.
pub fn spend(by: &[Dimension], has_interval: bool, rows: &[SpendRow]) -> Rows {
    Rows {
        columns: spend_columns(by, has_interval),
        items: rows.iter().map(|row| spend_row(by, row)).collect(),
        next_cursor: None,
    }
}

/// The same, each made when it is asked for.
pub fn spend_lines(
    by: &[Dimension],
    has_interval: bool,
    rows: Vec<SpendRow>,
) -> Rows<impl Iterator<Item = Map<String, Value>>> {
    Rows {
        columns: spend_columns(by, has_interval),
        items: rows.into_iter().map(|row| spend_row(by, &row)),
        next_cursor: None,
    }
}

fn spend_columns(by: &[Dimension], has_interval: bool) -> Vec<String> {
    let start = has_interval.then_some("start").into_iter();
    let sums = SPEND_COLUMNS
        .iter()
        .copied()
        .filter(|column| !["start", "buckets"].contains(column));
    let columns = start.chain(by.iter().map(Dimension::name)).chain(sums);
    columns.map(str::to_owned).collect()
}

fn spend_row(by: &[Dimension], row: &SpendRow) -> Map<String, Value> {
    let usage = usage_of(&row.tokens);
    let mut item = Map::new();
    if let Some(start) = row.start {
        item.insert("start".into(), json!(start));
    }
    for (dimension, value) in by.iter().zip(&row.key) {
        item.insert(dimension.name().into(), json!(value));
    }
    item.insert("requests".into(), json!(row.requests));
    item.insert("cost_usd".into(), json!(row.cost.to_string()));
    item.insert("unpriced_requests".into(), json!(row.unpriced));
    item.insert("estimated_requests".into(), json!(row.estimated));
    put_inclusive(&mut item, &usage, || json!(0));
    let mean = |sum: u128, n: u64| match u128::from(n) {
        0 => Value::Null,
        n => json!(u64::try_from((sum + n / 2) / n).unwrap_or(u64::MAX)),
    };
    let mean_duration = mean(row.duration_ms, row.requests);
    item.insert("mean_duration_ms".into(), mean_duration);
    item.insert("mean_ttft_ms".into(), mean(row.ttft_ms, row.ttft_count));
    let stated = |sum: PicoSum| (row.stated > 0).then(|| sum.to_string());
    item.insert("stated_requests".into(), json!(row.stated));
    item.insert("provider_cost_usd".into(), json!(stated(row.provider_cost)));
    item.insert("drift_usd".into(), json!(stated(row.drift)));
    item.insert("buckets".into(), json!(usage));
    item
}

/// Sums of tokens by bucket as a usage.
fn usage_of(tokens: &[u128; Bucket::ALL.len()]) -> Usage {
    let mut usage = Usage::new();
    for (bucket, n_tokens) in Bucket::ALL.into_iter().zip(tokens) {
        if *n_tokens > 0 {
            usage.set(bucket, u64::try_from(*n_tokens).unwrap_or(u64::MAX));
        }
    }
    usage
}

/// One page of calls.
pub fn requests(rows: &[RequestRow], next_cursor: Option<String>) -> Rows {
    Rows {
        columns: REQUEST_COLUMNS.iter().map(|c| c.to_string()).collect(),
        items: rows.iter().map(request_row).collect(),
        next_cursor,
    }
}

/// The event's fields flat, its counts under the names that people know, and its cost.
fn request_row(row: &RequestRow) -> Map<String, Value> {
    let event = &row.event;
    let mut item = match serde_json::to_value(event) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    item.remove("usage");
    for column in REQUEST_COLUMNS {
        item.entry(*column).or_insert(Value::Null);
    }
    for list in ["tags", "source", "pricing_context"] {
        if !item.get(list).is_some_and(Value::is_object) {
            item.insert(list.into(), json!({}));
        }
    }
    put_inclusive(&mut item, &event.usage, || Value::Null);
    item.insert("buckets".into(), json!(event.usage));
    put_cost(&mut item, &row.cost);
    let provider_cost = row.provider_cost.map(|cost| cost.to_string());
    item.insert("provider_cost_usd".into(), json!(provider_cost));
    put_original(&mut item, row.original.as_ref());
    item.insert("outcome_label".into(), json!(row.outcome_label));
    item
}

fn put_inclusive(item: &mut Map<String, Value>, usage: &Usage, absent: impl Fn() -> Value) {
    for (name, count) in inclusive::totals(usage) {
        let value = count.map_or_else(&absent, |n| json!(n));
        item.insert(name.to_owned(), value);
    }
}

fn put_cost(item: &mut Map<String, Value>, cost: &CostRecord) {
    let usd = cost.total.map(|total| total.to_string());
    item.insert("cost_usd".into(), json!(usd));
    let list = cost.list.map(|list| list.to_string());
    item.insert("list_cost_usd".into(), json!(list));
    item.insert("cost_status".into(), json!(cost.status.name()));
    item.insert("cost_lines".into(), cost_lines(&cost.lines));
    item.insert("price_row".into(), json!(cost.row.as_deref()));
    item.insert(
        "pricing_version".into(),
        json!(non_empty(&cost.pricing_version)),
    );
    if let Some(because) = &cost.unpriced_because {
        item.insert("unpriced_because".into(), json!(because));
    }
}

/// The first price, of calls that were priced anew: its row shows that there was one, also where
/// the call was unpriced and its cost is `null`.
fn put_original(item: &mut Map<String, Value>, original: Option<&Original>) {
    let cost = original.and_then(|original| original.total);
    item.insert(
        "original_cost_usd".into(),
        json!(cost.map(|cost| cost.to_string())),
    );
    let Some(original) = original else { return };
    item.insert("original_price_row".into(), json!(original.row.as_deref()));
    item.insert(
        "original_pricing_version".into(),
        json!(non_empty(&original.pricing_version)),
    );
}

fn non_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// The lines of a cost, amounts as exact decimal strings.
pub fn cost_lines(lines: &[CostLine]) -> Value {
    lines.iter().map(cost_line).collect()
}

fn cost_line(line: &CostLine) -> Value {
    let mut item = json!({
        "what": line.what,
        "amount": line.amount.normalize().to_string(),
        "rate": line.rate.normalize().to_string(),
        "times": line.times.normalize().to_string(),
        "usd": line.usd.normalize().to_string(),
    });
    if let Some(fields) = item.as_object_mut() {
        if line.assumed {
            fields.insert("assumed".into(), json!(true));
        }
        if let Some(extra) = line.extra {
            fields.insert("extra_usage".into(), json!(extra));
        }
        if let Some(row) = &line.row {
            fields.insert("row".into(), json!(&**row));
        }
    }
    item
}

/// What repricing changed by model, the largest differences first.
pub fn repriced(changes: &Changes) -> Rows {
    let mut by_model: Vec<_> = changes.by_model.iter().collect();
    by_model.sort_by_key(|(_, change)| {
        let difference = change.difference().as_pico().unsigned_abs();
        Reverse((difference, change.changed))
    });
    let items = by_model.into_iter().map(|((provider, model), change)| {
        let mut item = repriced_row(change);
        item.insert("provider".into(), json!(provider));
        item.insert("model".into(), json!(model));
        item
    });
    Rows {
        columns: REPRICED_COLUMNS.map(str::to_owned).to_vec(),
        items: items.collect(),
        next_cursor: None,
    }
}

fn repriced_row(change: &Change) -> Map<String, Value> {
    let fields = [
        ("requests", json!(change.requests)),
        ("changed_requests", json!(change.changed)),
        ("newly_priced_requests", json!(change.newly_priced)),
        ("now_unpriced_requests", json!(change.now_unpriced)),
        ("cost_before_usd", json!(change.before.to_string())),
        ("cost_after_usd", json!(change.after.to_string())),
        ("difference_usd", json!(change.difference().to_string())),
    ];
    let named = fields.map(|(name, value)| (name.to_owned(), value));
    named.into_iter().collect()
}

/// How well the traffic is known, one row.
pub fn coverage(coverage: &Coverage) -> Rows {
    let untagged: Map<String, Value> = coverage
        .untagged
        .iter()
        .map(|(tag, n)| (tag.clone(), json!(n)))
        .collect();
    let fields = [
        ("requests", json!(coverage.requests)),
        ("unpriced_requests", json!(coverage.unpriced)),
        ("assumed_requests", json!(coverage.assumed)),
        ("estimated_requests", json!(coverage.estimated)),
        ("absent_requests", json!(coverage.absent)),
        ("untagged_requests", Value::Object(untagged)),
    ];
    Rows {
        columns: fields.iter().map(|(name, _)| name.to_string()).collect(),
        items: vec![
            fields
                .map(|(name, value)| (name.to_owned(), value))
                .into_iter()
                .collect(),
        ],
        next_cursor: None,
    }
}

// === impl Rows ===

impl Rows {
    /// `{"items":[…],"next_cursor":…}`
    pub fn json(&self) -> Value {
        json!({ "items": self.items, "next_cursor": self.next_cursor })
    }

    /// Whether a column of that name has numbers.
    pub fn is_number(column: &str) -> bool {
        let ends = [
            "requests",
            "_requests",
            "_tokens",
            "_usd",
            "_ms",
            "_percent",
        ];
        ends.iter().any(|end| column.ends_with(end))
    }

    /// The cells of each row as text, in the columns' order.
    pub fn cells(&self) -> impl Iterator<Item = Vec<String>> {
        let columns = &self.columns;
        let text = |item: &Map<String, Value>, column: &String| text_of(item.get(column));
        let items = self.items.iter();
        items.map(move |item| columns.iter().map(|column| text(item, column)).collect())
    }
}

/// Numbers are ours; texts may come from headers.
fn cell(value: Option<&Value>) -> String {
    match value {
        Some(Value::Number(number)) => number.to_string(),
        other => harmless(&text_of(other)),
    }
}

fn text_of(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Object(fields)) if fields.is_empty() => String::new(),
        Some(other) => other.to_string(),
    }
}

/// A text as a cell of CSV that no terminal obeys and no spreadsheet runs. Formulas begin with `=`, `+`,
/// `-` or `@`, in full width too, also after a tab, a carriage return or a line feed
/// (<https://owasp.org/www-community/attacks/CSV_Injection>). A negative number is none.
pub fn harmless(text: &str) -> String {
    let shown = shown(text);
    match text.chars().next() {
        Some('-') if is_number(text) => shown.into_owned(),
        Some('=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '＝' | '＋' | '－' | '＠') => {
            format!("'{shown}")
        }
        _ => shown.into_owned(),
    }
}

/// Whether it is a plain decimal number.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    all_digits(whole) && all_digits(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_never_formulas() {
        for (text, written) in [
            ("plain", "plain"),
            ("-0.0125", "-0.0125"),
            ("+3", "'+3"),
            ("-1.", "'-1."),
            ("-1+cmd|' /C calc'!A0", "'-1+cmd|' /C calc'!A0"),
            ("=1", "'=1"),
            ("@SUM(1)", "'@SUM(1)"),
            ("\t=1", r"'\t=1"),
            ("\r=1", r"'\r=1"),
            ("\n=1", r"'\n=1"),
            ("gpt\u{1b}[2J\r\n=1", r"gpt\u{1b}[2J\r\n=1"),
            ("＝1", "'＝1"),
            ("a=1", "a=1"),
        ] {
            assert_eq!(cell(Some(&json!(text))), written);
        }
        assert_eq!(cell(Some(&json!(-1))), "-1");
    }
}
