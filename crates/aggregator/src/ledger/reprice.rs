//! Pricing rows anew: what they cost under other tables, and how rows and sums take that over.
//!
//! It goes in steps, each one transaction over at most [`REPRICE_ROWS_MAX`] rows in the order of
//! their time, so that the writer does its other work in between. A step that is lost is asked for
//! again; a row that has its price already is not touched.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::types::Value;
use rusqlite::{Connection, params, params_from_iter};
use tollmesh_wire::Event;

use crate::ledger::checked::Checked;
use crate::ledger::codes::Coded;
use crate::ledger::dictionary::Dictionaries;
use crate::ledger::entry::{CostRecord, Entry};
use crate::ledger::lines;
use crate::ledger::query::scope::{Scope, Table};
use crate::ledger::query::terms::Terms;
use crate::ledger::query::{Filter, Span};
use crate::ledger::rollup::Rollup;
use crate::ledger::row;
use crate::ledger::stored::{self, Stored};
use crate::ledger::totals::{Increments, Meter, Occasion};
use crate::money::{PicoSum, PicoUsd};

/// Rows that one step looks at: some ten milliseconds of work.
const REPRICE_ROWS_MAX: i64 = 500;

/// Says what an event costs now.
pub type Pricer = Arc<dyn Fn(&Event) -> CostRecord + Send + Sync>;

/// Which rows are priced anew, and how.
#[derive(Clone)]
pub struct Repricing {
    /// The time looked at.
    pub span: Span,
    /// Conditions, all of which must hold. Where none speaks of the outcome, relayed calls are left
    /// out: they cost nothing here.
    pub filters: Vec<Filter>,
    /// The number of the last row looked at. Later ones have today's prices.
    pub last_row: i64,
    /// The prices.
    pub pricer: Pricer,
}

/// How far a repricing has come: time and number of the last row that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    time_ms: i64,
    row: i64,
}

/// What one step found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Where the next step begins; `None` after the last.
    pub next: Option<Place>,
    /// What it changed, or would.
    pub changes: Changes,
}

/// What repricing changes, by provider and model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The model is the one that served, or else the one asked for.
    pub by_model: BTreeMap<(String, Option<String>), Change>,
}

/// What repricing changes for one model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Calls looked at.
    pub requests: u64,
    /// Those of them whose cost is another now, or whose being priced.
    pub changed: u64,
    /// Calls that were unpriced and have a price now.
    pub newly_priced: u64,
    /// Calls that had a price and are unpriced now.
    pub now_unpriced: u64,
    /// The cost of all that were priced before.
    pub before: PicoSum,
    /// The cost of all that are priced now.
    pub after: PicoSum,
}

/// What repricing writes to.
pub(super) struct Sinks<'a> {
    pub dictionaries: &'a mut Dictionaries,
    pub meter: &'a mut dyn Meter,
    pub increments: &'a mut Increments,
}

/// Prices the rows after that place anew without writing.
pub(super) fn look(
    connection: &Connection,
    repricing: &Repricing,
    after: Option<Place>,
) -> rusqlite::Result<Step> {
    let Some(until) = last_of_step(connection, repricing, after)? else {
        return Ok(Step::default());
    };
    let mut step = Step {
        next: Some(until),
        changes: Changes::default(),
    };
    for stored in rows(connection, repricing, after, until)? {
        let cost = (repricing.pricer)(&stored.entry.event);
        step.changes.count(&stored.entry, &cost);
    }
    Ok(step)
}

/// Prices the rows after that place anew: rows, hourly sums, and the counters of what has its first
/// price now. Within a transaction.
pub(super) fn write(
    connection: &Connection,
    repricing: &Repricing,
    after: Option<Place>,
    sinks: &mut Sinks<'_>,
) -> rusqlite::Result<Step> {
    let Some(until) = last_of_step(connection, repricing, after)? else {
        return Ok(Step::default());
    };
    let mut step = Step {
        next: Some(until),
        changes: Changes::default(),
    };
    let mut rollup = Rollup::default();
    for stored in rows(connection, repricing, after, until)? {
        let cost = (repricing.pricer)(&stored.entry.event);
        if stored.entry.cost != cost && !reprice(connection, &stored, &cost, &mut rollup, sinks)? {
            continue;
        }
        step.changes.count(&stored.entry, &cost);
    }
    rollup.write(connection)?;
    Ok(step)
}

/// The last row that a step looks at, whether or not it meets the conditions; `None` if none is
/// left.
fn last_of_step(
    connection: &Connection,
    repricing: &Repricing,
    after: Option<Place>,
) -> rusqlite::Result<Option<Place>> {
    let scope = scope(connection, repricing, after, &[])?;
    let sql = format!(
        "SELECT time_ms, id FROM (SELECT t.time_ms, t.id {} ORDER BY t.time_ms, t.id LIMIT \
         {REPRICE_ROWS_MAX}) ORDER BY time_ms DESC, id DESC LIMIT 1",
        scope.sql()
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query_map(params_from_iter(scope.into_values()), |row| {
        Ok(Place {
            time_ms: row.get(0)?,
            row: row.get(1)?,
        })
    })?;
    found.next().transpose()
}

/// The rows of a step.
fn rows(
    connection: &Connection,
    repricing: &Repricing,
    after: Option<Place>,
    until: Place,
) -> rusqlite::Result<Vec<Stored>> {
    let filters = &repricing.filters;
    let mut scope = scope(connection, repricing, after, filters)?.without_relayed(filters);
    scope.add_condition("(t.time_ms, t.id) <= (?, ?)", until.values());
    let sql = format!(
        "WITH step AS (SELECT t.id AS id {})
         SELECT {} FROM step JOIN events e ON e.id = step.id {}",
        scope.sql(),
        row::select(),
        row::JOINS,
    );
    connection
        .prepare_cached(&sql)?
        .query_map(params_from_iter(scope.into_values()), stored::read)?
        .collect()
}

fn scope(
    connection: &Connection,
    repricing: &Repricing,
    after: Option<Place>,
    filters: &[Filter],
) -> rusqlite::Result<Scope> {
    let terms = Terms::of_parts(connection, filters)?;
    let mut scope = Scope::of_terms(Table::Events, repricing.span, &terms);
    scope.add_condition("t.id <= ?", [repricing.last_row.into()]);
    if let Some(place) = after {
        scope.add_condition("(t.time_ms, t.id) > (?, ?)", place.values());
    }
    Ok(scope)
}

/// Gives a row its new price; says whether it could.
fn reprice(
    connection: &Connection,
    stored: &Stored,
    cost: &CostRecord,
    rollup: &mut Rollup,
    sinks: &mut Sinks<'_>,
) -> rusqlite::Result<bool> {
    let entry = Entry {
        event: stored.entry.event.clone(),
        cost: cost.clone(),
    };
    let (Ok(before), Ok(after)) = (Checked::new(&stored.entry), Checked::new(&entry)) else {
        // It was checked when it came; a row that fails now was altered by hand.
        return Ok(false);
    };
    let price = sinks.dictionaries.price(connection, cost)?;
    update(connection, stored.row, cost, price)?;
    rollup.remove(&before, stored.ids);
    rollup.add(&after, stored.ids, stored.row);
    if stored.first_cost().is_none() && cost.total.is_some() {
        let occasion = Occasion::NewlyPriced;
        sinks.meter.measure(&entry, occasion, sinks.increments);
    }
    Ok(true)
}

/// Writes the price of a row. What it replaces is kept as the original, unless there is one: the
/// first that gave a cost, for ever.
fn update(
    connection: &Connection,
    row: i64,
    cost: &CostRecord,
    price: i64,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE events SET
                 original_price_id = CASE
                     WHEN original_price_id IS NULL THEN price_id
                     WHEN original_cost_pico IS NULL AND cost_pico IS NOT NULL THEN price_id
                     ELSE original_price_id END,
                 original_cost_pico = coalesce(original_cost_pico, cost_pico),
                 cost_pico = ?2, list_cost_pico = ?3, cost_status = ?4, unpriced_because = ?5,
                 price_id = ?6, cost_lines = ?7
             WHERE id = ?1",
        )?
        .execute(params![
            row,
            cost.total.map(PicoUsd::as_pico),
            cost.list.map(PicoUsd::as_pico),
            cost.status.code(),
            cost.unpriced_because.as_deref(),
            price,
            lines::write(&cost.lines),
        ])?;
    Ok(())
}

// === impl Place ===

impl Place {
    fn values(self) -> [Value; 2] {
        [self.time_ms.into(), self.row.into()]
    }
}

// === impl Changes ===

impl Changes {
    fn count(&mut self, entry: &Entry, cost: &CostRecord) {
        let event = &entry.event;
        let model = event.model.as_ref().or(event.model_requested.as_ref());
        let key = (event.provider.clone(), model.cloned());
        let (before, after) = (entry.cost.total, cost.total);
        let change = self.by_model.entry(key).or_default();
        change.requests += 1;
        change.changed += u64::from(before != after || entry.cost.status != cost.status);
        change.newly_priced += u64::from(before.is_none() && after.is_some());
        change.now_unpriced += u64::from(before.is_some() && after.is_none());
        change.before.add(before.unwrap_or_default());
        change.after.add(after.unwrap_or_default());
    }

    /// Takes in what another step changed.
    pub fn merge(&mut self, more: Changes) {
        for (model, change) in more.by_model {
            self.by_model.entry(model).or_default().merge(&change);
        }
    }

    /// What changed for all models together.
    pub fn total(&self) -> Change {
        let mut total = Change::default();
        self.by_model.values().for_each(|more| total.merge(more));
        total
    }
}

// === impl Change ===

impl Change {
    fn merge(&mut self, more: &Change) {
        self.requests += more.requests;
        self.changed += more.changed;
        self.newly_priced += more.newly_priced;
        self.now_unpriced += more.now_unpriced;
        self.before += more.before;
        self.after += more.after;
    }

    /// What is more now than before.
    pub fn difference(&self) -> PicoSum {
        PicoSum::from_pico(self.after.as_pico() - self.before.as_pico())
    }
}
