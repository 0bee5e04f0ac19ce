//! The columns of a row, and how an event with its cost is written into them.

use rusqlite::Statement;
use rusqlite::types::ToSql;
use serde::Serialize;
use tollmesh_usage::{Bucket, Usage};

use crate::ledger::checked::Checked;
use crate::ledger::codes::Coded;
use crate::ledger::dictionary::Ids;
use crate::ledger::lines;
use crate::money::PicoUsd;

/// The columns of `events` before the buckets, in the order in which [`bind`] gives them.
const BEFORE_BUCKETS: [&str; 13] = [
    "id",
    "event_id",
    "time_ms",
    "duration_ms",
    "ttft_ms",
    "model_id",
    "tag_set",
    "source_id",
    "outcome",
    "status",
    "stream",
    "usage_source",
    "billable",
];

/// The columns after them.
const AFTER_BUCKETS: [&str; 24] = [
    "units",
    "billed_usage",
    "extra_usage",
    "pricing_context",
    "cost_pico",
    "list_cost_pico",
    "provider_cost_pico",
    "cost_status",
    "unpriced_because",
    "price_id",
    "cost_lines",
    "response_id",
    "finish_reason",
    "tool_calls",
    "request_id",
    "trace_id",
    "span_id",
    "response_flags",
    "attempts",
    "reservation_id",
    "trouble",
    "fingerprint",
    "estimate_basis",
    "missing_tags",
];

/// What [`read`](crate::ledger::stored::read) needs beside the columns of `events e`, from the
/// dictionaries joined to it.
const JOINED: &str = "m.provider, m.api, m.host, m.model, m.model_requested, m.service_tier,
    m.body ->> 6, g.body, s.body, p.price_row, p.pricing_version,
    e.original_price_id, e.original_cost_pico, o.price_row, o.pricing_version";

/// The joins that [`select`]'s columns speak of.
pub const JOINS: &str = "JOIN models m ON m.id = e.model_id JOIN tag_sets g ON g.id = e.tag_set
    JOIN sources s ON s.id = e.source_id JOIN prices p ON p.id = e.price_id
    LEFT JOIN prices o ON o.id = e.original_price_id";

/// All of them, in the order in which [`bind`] gives them.
pub fn columns() -> impl Iterator<Item = &'static str> {
    let buckets = Bucket::ALL.into_iter().map(Bucket::name);
    BEFORE_BUCKETS
        .into_iter()
        .chain(buckets)
        .chain(AFTER_BUCKETS)
}

/// Adds a row unless its event is there; takes what [`bind`] gives.
pub fn insert_sql() -> String {
    let names: Vec<&str> = columns().collect();
    let places = vec!["?"; names.len()].join(", ");
    let names = names.join(", ");
    format!("INSERT INTO events ({names}) VALUES ({places}) ON CONFLICT (event_id) DO NOTHING")
}

/// Replaces every column of the row; takes what [`bind`] gives.
pub fn update_sql() -> String {
    let sets: Vec<String> = (1..)
        .zip(columns())
        .skip(1)
        .map(|(i, name)| format!("{name} = ?{i}"))
        .collect();
    format!("UPDATE events SET {} WHERE id = ?1", sets.join(", "))
}

/// The columns that [`read`](crate::ledger::stored::read) reads, of `events e` with [`JOINS`].
pub fn select() -> String {
    select_as(|name| format!("e.{name}"))
}

/// The same with each column of `events e` as the expression that is answered for it.
pub fn select_as(expression: impl Fn(&str) -> String) -> String {
    let own: Vec<String> = columns().map(expression).collect();
    format!("{}, {JOINED}", own.join(", "))
}

/// How many columns [`select`] names.
pub fn n_selected() -> usize {
    columns().count() + JOINED.split(',').count()
}

/// Gives a statement its values, from the first on.
struct Put<'s, 'c> {
    statement: &'s mut Statement<'c>,
    at: usize,
}

impl Put<'_, '_> {
    fn put(&mut self, value: impl ToSql) -> rusqlite::Result<()> {
        self.at += 1;
        self.statement.raw_bind_parameter(self.at, value)
    }

    /// JSON, or `NULL` for what holds nothing.
    fn put_json(&mut self, is_empty: bool, value: &impl Serialize) -> rusqlite::Result<()> {
        if is_empty {
            return self.put(None::<&str>);
        }
        let text = serde_json::to_string(value)
            .map_err(|source| rusqlite::Error::ToSqlConversionFailure(Box::new(source)))?;
        self.put(text)
    }
}

/// Gives [`insert_sql`] or [`update_sql`] its values.
pub fn bind(
    statement: &mut Statement<'_>,
    row: i64,
    checked: &Checked<'_>,
    ids: Ids,
) -> rusqlite::Result<()> {
    let event = checked.event();
    let put = &mut Put { statement, at: 0 };
    put.put(row)?;
    put.put(&event.event_id)?;
    put.put(event.time.as_unix_ms())?;
    put.put(at_most_i64(event.duration_ms))?;
    put.put(event.ttft_ms.map(at_most_i64))?;
    put.put(ids.model)?;
    put.put(ids.tag_set)?;
    put.put(ids.source)?;
    put.put(event.outcome.code())?;
    put.put(event.status)?;
    put.put(event.stream)?;
    put.put(checked.usage_source.code())?;
    put.put(event.billable)?;
    for bucket in Bucket::ALL {
        put.put(event.usage.get(bucket).map(at_most_i64))?;
    }
    put.put_json(
        event.usage.units().next().is_none(),
        &units_of(&event.usage),
    )?;
    put.put_json(event.billed_usage.is_none(), &event.billed_usage)?;
    put.put_json(event.extra_usage.is_empty(), &event.extra_usage)?;
    put.put_json(event.pricing_context.is_empty(), &event.pricing_context)?;
    bind_cost(put, checked, ids.price)?;
    put.put(&event.response_id)?;
    put.put(&event.finish_reason)?;
    put.put(event.tool_calls)?;
    put.put(&event.request_id)?;
    put.put(&event.trace_id)?;
    put.put(&event.span_id)?;
    put.put(event.response_flags.cast_signed())?;
    put.put(event.attempts)?;
    put.put(&event.reservation_id)?;
    put.put(checked.trouble)?;
    put.put(&event.fingerprint)?;
    put.put(&event.estimate_basis)?;
    put.put_json(event.missing_tags.is_empty(), &event.missing_tags)
}

fn bind_cost(put: &mut Put<'_, '_>, checked: &Checked<'_>, price: i64) -> rusqlite::Result<()> {
    let cost = &checked.entry.cost;
    put.put(cost.total.map(PicoUsd::as_pico))?;
    put.put(cost.list.map(PicoUsd::as_pico))?;
    put.put(checked.provider_cost.map(PicoUsd::as_pico))?;
    put.put(cost.status.code())?;
    put.put(cost.unpriced_because.as_deref())?;
    put.put(price)?;
    put.put(lines::write(&cost.lines))
}

/// Durations beyond 292 million years are kept as that.
fn at_most_i64(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The units of a usage without its tokens, which have columns of their own.
fn units_of(usage: &Usage) -> Usage {
    let mut units = Usage::new();
    for (unit, amount) in usage.units() {
        units.set_unit(unit, amount);
    }
    units
}
