//! Late usage: a background call's row receives the usage that a later retrieval showed, once.

use rusqlite::{Connection, OptionalExtension, params};
use tollmesh_usage::UsageSource;
use tollmesh_wire::Event;

use crate::ledger::checked::Checked;
use crate::ledger::codes;
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
/// of the same provider.
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
    if late.usage_source == UsageSource::Absent {
        return Ok(Found::Nothing);
    }
    let sql = format!(
        "SELECT {} FROM events e {} WHERE e.usage_source = {} AND e.response_id = ?1
         AND m.provider = ?2 ORDER BY e.id LIMIT 1",
        row::select(),
        row::JOINS,
        codes::ABSENT
    );
    let stored = connection
        .prepare_cached(&sql)?
        .query_row(params![response_id, event.provider], stored::read)
        .optional()?;
    Ok(stored.map_or(Found::Nothing, |stored| Found::Row(Box::new(stored))))
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
    let mut pricing_context = call.pricing_context;
    pricing_context.extend(seen.pricing_context);
    Entry {
        event: Event {
            model: seen.model.or(call.model),
            service_tier: seen.service_tier.or(call.service_tier),
            usage: seen.usage,
            billed_usage: seen.billed_usage,
            usage_source: seen.usage_source,
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
