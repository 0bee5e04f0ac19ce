//! Late usage: a call's row receives the usage that a later retrieval showed, once.
//!
//! Background calls wait for it. The row of a stream that was cut has an estimate, and what the
//! provider reports beats that. The row and its sums then say what was reported, be it less; the
//! counters, which never fall, keep what they counted and grow by what is more.

use rusqlite::{Connection, OptionalExtension, params};
use tollmesh_usage::UsageSource;
use tollmesh_wire::Event;

use crate::ledger::checked::Checked;
use crate::ledger::codes::{self, Coded as _};
use crate::ledger::entry::Entry;
use crate::ledger::row;
use crate::ledger::stored::{self, Stored};

/// What late usage finds.
pub enum Found {
    /// The row that waits for it.
    Row(Box<Stored>),
    /// The row that it completed already.
    Already,
    /// No row.
    Nothing,
}

/// Looks for the row that waits for this usage: the oldest without usage that has its response id,
/// of the same provider; otherwise the oldest with an estimate.
pub fn find(connection: &Connection, late: &Checked<'_>) -> rusqlite::Result<Found> {
    let event = late.event();
    let known = connection
        .prepare_cached("SELECT 1 FROM late_usage WHERE event_id = ?1")?
        .exists([&event.event_id])?;
    if known {
        return Ok(Found::Already);
    }
    let Some(response_id) = &event.response_id else {
        return Ok(Found::Nothing);
    };
    let may_replace: &[i64] = match told(event, late.usage_source) {
        UsageSource::Reported => &[codes::ABSENT, codes::ESTIMATED],
        UsageSource::Estimated => &[codes::ABSENT],
        UsageSource::Absent => &[],
    };
    for usage_source in may_replace {
        if let Some(stored) = oldest(connection, *usage_source, response_id, &event.provider)? {
            return Ok(Found::Row(Box::new(stored)));
        }
    }
    Ok(Found::Nothing)
}

/// Where the late usage comes from. The results of a batch have none of their own: each of their
/// models' is told apart.
fn told(late: &Event, own: UsageSource) -> UsageSource {
    match own {
        UsageSource::Absent if !late.extra_usage.is_empty() => UsageSource::Reported,
        own => own,
    }
}

/// The oldest row of that response whose usage comes from there. The source stands in the statement
/// itself, so that the index of such rows alone is used.
fn oldest(
    connection: &Connection,
    usage_source: i64,
    response_id: &str,
    provider: &str,
) -> rusqlite::Result<Option<Stored>> {
    let sql = format!(
        "SELECT {} FROM events e {} WHERE e.usage_source = {usage_source} AND e.response_id = ?1
         AND m.provider = ?2 ORDER BY e.id LIMIT 1",
        row::select(),
        row::JOINS,
    );
    connection
        .prepare_cached(&sql)?
        .query_row(params![response_id, provider], stored::read)
        .optional()
}

/// Notes that this late usage completed that row.
pub fn note(connection: &Connection, late: &Event, row: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO late_usage (event_id, row) VALUES (?1, ?2)")?
        .execute(params![late.event_id, row])?;
    Ok(())
}

/// The row's entry with the late usage and its cost in it; who called, when and how it ended stays.
pub fn merge(waiting: &Entry, late: &Entry) -> Entry {
    let (call, seen) = (waiting.event.clone(), late.event.clone());
    let usage_source = match UsageSource::from_name(&seen.usage_source) {
        Some(own) => told(&seen, own).name().to_owned(),
        None => seen.usage_source,
    };
    let mut pricing_context = call.pricing_context;
    pricing_context.extend(seen.pricing_context);
    Entry {
        event: Event {
            model: seen.model.or(call.model),
            service_tier: seen.service_tier.or(call.service_tier),
            usage: seen.usage,
            billed_usage: seen.billed_usage,
            usage_source,
            estimate_basis: seen.estimate_basis,
            billable: true,
            extra_usage: seen.extra_usage,
            provider_cost_usd: seen.provider_cost_usd.or(call.provider_cost_usd),
            pricing_context,
            finish_reason: seen.finish_reason.or(call.finish_reason),
            tool_calls: seen.tool_calls.or(call.tool_calls),
            trouble: seen.trouble,
            ..call
        },
        cost: late.cost.clone(),
    }
}
