//! An event as the columns of one row, there and back.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::types::{FromSql, ToSql};
use rusqlite::{Row, Statement};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tollmesh_pricing::Status;
use tollmesh_usage::{Bucket, Usage, UsageSource};
use tollmesh_wire::event::Kind;
use tollmesh_wire::{Event, Outcome, Timestamp};

use crate::ledger::checked::Checked;
use crate::ledger::codes::Coded;
use crate::ledger::dictionary::Ids;
use crate::ledger::entry::{CostRecord, Entry};
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
const AFTER_BUCKETS: [&str; 21] = [
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
];

/// What [`read`] needs beside the columns of `events e`, from the dictionaries joined to it.
const JOINED: &str = "m.provider, m.api, m.host, m.model, m.model_requested, m.service_tier,
    g.body, s.body, p.price_row, p.pricing_version";

/// The joins that [`select`]'s columns speak of.
pub const JOINS: &str = "JOIN models m ON m.id = e.model_id JOIN tag_sets g ON g.id = e.tag_set
    JOIN sources s ON s.id = e.source_id JOIN prices p ON p.id = e.price_id";

fn columns() -> impl Iterator<Item = &'static str> {
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

/// The columns that [`read`] reads, of `events e` with [`JOINS`].
pub fn select() -> String {
    let own: Vec<String> = columns().map(|name| format!("e.{name}")).collect();
    format!("{}, {JOINED}", own.join(", "))
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
    put.put(checked.trouble)
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

/// A row as it stands in the ledger.
pub struct Stored {
    pub row: i64,
    pub ids: Ids,
    pub entry: Entry,
    pub provider_cost: Option<PicoUsd>,
}

/// Takes a row's values, from the first on.
struct Take<'r, 's> {
    row: &'r Row<'s>,
    at: usize,
}

impl Take<'_, '_> {
    fn take<T: FromSql>(&mut self) -> rusqlite::Result<T> {
        self.at += 1;
        self.row.get(self.at - 1)
    }

    fn take_code<T: Coded>(&mut self) -> rusqlite::Result<T> {
        let (at, code) = (self.at, self.take()?);
        T::from_code(code).ok_or(rusqlite::Error::IntegralValueOutOfRange(at, code))
    }

    fn take_u64(&mut self) -> rusqlite::Result<Option<u64>> {
        let (at, n): (_, Option<i64>) = (self.at, self.take()?);
        n.map(|n| u64::try_from(n).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(at, n)))
            .transpose()
    }

    fn take_pico(&mut self) -> rusqlite::Result<Option<PicoUsd>> {
        Ok(self.take::<Option<i64>>()?.map(PicoUsd::from_pico))
    }

    fn take_json<T: DeserializeOwned + Default>(&mut self) -> rusqlite::Result<T> {
        let (at, text): (_, Option<String>) = (self.at, self.take()?);
        match text {
            None => Ok(T::default()),
            Some(text) => serde_json::from_str(&text).map_err(|source| damaged(at, source)),
        }
    }
}

fn damaged(at: usize, source: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, Box::new(source))
}

/// A cost line that is none.
#[derive(Debug, thiserror::Error)]
#[error("cost_lines is no list of cost lines")]
struct BadLines;

/// Reads what [`select`] selects.
pub fn read(row: &Row<'_>) -> rusqlite::Result<Stored> {
    let take = &mut Take { row, at: 0 };
    let row = take.take()?;
    let mut event = Event {
        event_id: take.take()?,
        kind: Kind::Call,
        time: Timestamp::from_unix_ms(take.take()?),
        duration_ms: take.take_u64()?.unwrap_or_default(),
        ttft_ms: take.take_u64()?,
        ..Event::default()
    };
    let mut ids = Ids {
        model: take.take()?,
        tag_set: take.take()?,
        source: take.take()?,
        price: 0,
    };
    event.outcome = take.take_code::<Outcome>()?;
    event.status = take.take()?;
    event.stream = take.take()?;
    event.usage_source = take.take_code::<UsageSource>()?.name().to_owned();
    event.billable = take.take()?;
    let mut tokens = Usage::new();
    for bucket in Bucket::ALL {
        tokens.set(bucket, take.take_u64()?);
    }
    // The units come as a usage without tokens.
    event.usage = take.take_json()?;
    tokens
        .tokens()
        .for_each(|(bucket, n)| event.usage.set(bucket, n));
    event.billed_usage = take.take_json()?;
    event.extra_usage = take.take_json()?;
    event.pricing_context = take.take_json()?;
    let (mut cost, provider_cost) = read_cost(take, &mut ids)?;
    event.provider_cost_usd = provider_cost.map(|pico| pico.to_string());
    event.response_id = take.take()?;
    event.finish_reason = take.take()?;
    event.tool_calls = take.take()?;
    event.request_id = take.take()?;
    event.trace_id = take.take()?;
    event.span_id = take.take()?;
    event.response_flags = take.take::<i64>()?.cast_unsigned();
    event.attempts = take.take()?;
    event.reservation_id = take.take()?;
    event.trouble = take.take()?;
    read_joined(take, &mut event, &mut cost)?;
    Ok(Stored {
        row,
        ids,
        entry: Entry { event, cost },
        provider_cost,
    })
}

fn read_cost(
    take: &mut Take<'_, '_>,
    ids: &mut Ids,
) -> rusqlite::Result<(CostRecord, Option<PicoUsd>)> {
    let total = take.take_pico()?;
    let list = take.take_pico()?;
    let provider_cost = take.take_pico()?;
    let status = take.take_code::<Status>()?;
    let unpriced_because = take.take::<Option<String>>()?.map(Cow::Owned);
    ids.price = take.take()?;
    let (at, text): (_, Option<String>) = (take.at, take.take()?);
    let cost = CostRecord {
        status,
        total,
        list,
        lines: lines::read(text.as_deref()).ok_or_else(|| damaged(at, BadLines))?,
        row: None,
        pricing_version: Arc::from(""),
        unpriced_because,
    };
    Ok((cost, provider_cost))
}

fn read_joined(
    take: &mut Take<'_, '_>,
    event: &mut Event,
    cost: &mut CostRecord,
) -> rusqlite::Result<()> {
    event.provider = take.take()?;
    event.api = take.take()?;
    event.host = take.take()?;
    event.model = take.take()?;
    event.model_requested = take.take()?;
    event.service_tier = take.take()?;
    event.tags = take.take_json::<BTreeMap<String, String>>()?;
    event.source = take.take_json()?;
    cost.row = take.take()?;
    cost.pricing_version = take.take()?;
    Ok(())
}
