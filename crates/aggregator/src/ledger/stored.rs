//! A row of the ledger read back into the event and cost that it was made of.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::Row;
use rusqlite::types::FromSql;
use serde::de::DeserializeOwned;
use tollmesh_pricing::Status;
use tollmesh_usage::{Bucket, Usage, UsageSource};
use tollmesh_wire::event::Kind;
use tollmesh_wire::{Event, Outcome, Timestamp};

use crate::ledger::codes::Coded;
use crate::ledger::dictionary::Ids;
use crate::ledger::entry::{CostRecord, Entry, Original};
use crate::ledger::lines;
use crate::ledger::query::postgres::Cells;
use crate::money::PicoUsd;

/// A row as it stands in the ledger.
pub struct Stored {
    pub row: i64,
    pub ids: Ids,
    pub entry: Entry,
    pub provider_cost: Option<PicoUsd>,
    pub original: Option<Original>,
}

impl Stored {
    /// The first cost that the row ever had.
    pub fn first_cost(&self) -> Option<PicoUsd> {
        let original = self.original.as_ref().and_then(|first| first.total);
        original.or(self.entry.cost.total)
    }
}

/// Takes a row's values, from the first on.
struct Take<'c, 'v> {
    cells: Cells<'c, 'v>,
    at: usize,
}

impl Take<'_, '_> {
    fn take<T: FromSql>(&mut self) -> rusqlite::Result<T> {
        self.at += 1;
        take(self.cells, self.at - 1)
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

/// What a cell holds.
pub fn take<T: FromSql>(cells: Cells<'_, '_>, at: usize) -> rusqlite::Result<T> {
    let cell = cells(at)?;
    T::column_result(cell).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(at, cell.data_type(), Box::new(error))
    })
}

/// A cost line that is none.
#[derive(Debug, thiserror::Error)]
#[error("cost_lines is no list of cost lines")]
struct BadLines;

/// Reads what [`row::select`](crate::ledger::row::select) selects.
pub fn read(row: &Row<'_>) -> rusqlite::Result<Stored> {
    read_cells(&|at| row.get_ref(at))
}

/// Reads the same from cells, wherever they come from.
pub fn read_cells(cells: Cells<'_, '_>) -> rusqlite::Result<Stored> {
    let take = &mut Take { cells, at: 0 };
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
    event.fingerprint = take.take()?;
    event.estimate_basis = take.take()?;
    event.missing_tags = take.take_json()?;
    read_joined(take, &mut event, &mut cost)?;
    Ok(Stored {
        row,
        ids,
        entry: Entry { event, cost },
        provider_cost,
        original: read_original(take)?,
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
    event.model_put = take.take()?;
    event.tags = take.take_json::<BTreeMap<String, String>>()?;
    event.source = take.take_json()?;
    cost.row = take.take()?;
    cost.pricing_version = take.take()?;
    Ok(())
}

fn read_original(take: &mut Take<'_, '_>) -> rusqlite::Result<Option<Original>> {
    let price: Option<i64> = take.take()?;
    let total = take.take_pico()?;
    let row: Option<Arc<str>> = take.take()?;
    let pricing_version: Option<Arc<str>> = take.take()?;
    Ok(price.map(|_| Original {
        total,
        row,
        pricing_version: pricing_version.unwrap_or_default(),
    }))
}
