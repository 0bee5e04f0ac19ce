//! Sums of cost, tokens and requests over a span, by any dimensions.

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use tollmesh_usage::Bucket;
use tollmesh_wire::Timestamp;

use crate::ledger::codes;
use crate::ledger::error::QueryError;
use crate::ledger::query::filter::{Dimension, Filter, Span};
use crate::ledger::query::hours::Hours;
use crate::ledger::query::looked::{Looked, Patience};
use crate::ledger::query::parts;
use crate::ledger::query::postgres::Cells;
use crate::ledger::query::reader::Reader;
use crate::ledger::query::scope::{Dialect, Scope, Table, word};
use crate::ledger::query::tally;
use crate::ledger::query::terms::Terms;
use crate::ledger::stored::take;
use crate::ledger::wide::Wide;
use crate::money::PicoSum;

/// Groups in one answer. Answers are held in memory, and nobody reads more.
pub const GROUPS_MAX: usize = 100_000;

/// Which sums.
#[derive(Clone, Debug, Default)]
pub struct SpendQuery {
    /// One row for each combination of these.
    pub by: Vec<Dimension>,
    /// One row for each interval of that many milliseconds, counted from 1970; `None` for one over
    /// the whole span. Divisors and multiples of an hour read best.
    pub interval_ms: Option<i64>,
    /// The time looked at.
    pub span: Span,
    /// Conditions, all of which must hold. Where none speaks of the outcome, relayed calls are left
    /// out, since a filter nearer to the provider counts them.
    pub filters: Vec<Filter>,
}

/// One group's sums.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpendRow {
    /// The interval's begin, where intervals were asked for.
    pub start: Option<Timestamp>,
    /// The values of [`SpendQuery::by`], in its order; `None` where calls do not have it.
    pub key: Vec<Option<String>>,
    /// Calls.
    pub requests: u64,
    /// The cost of all that are priced.
    pub cost: PicoSum,
    /// Calls without a price, whose cost is not in `cost`.
    pub unpriced: u64,
    /// Calls whose counts are estimated.
    pub estimated: u64,
    /// Tokens by bucket, in [`Bucket::ALL`]'s order.
    pub tokens: [u128; Bucket::ALL.len()],
    /// The calls' durations together, in milliseconds.
    pub duration_ms: u128,
    /// The times to first token together, in milliseconds.
    pub ttft_ms: u128,
    /// Calls with a time to first token.
    pub ttft_count: u64,
    /// Charged calls of which the provider states the cost.
    pub stated: u64,
    /// What providers state for them.
    pub provider_cost: PicoSum,
    /// Their statement less our cost, over those calls that are priced.
    pub drift: PicoSum,
}

impl Reader {
    /// The sums, ordered by interval and then by cost, the highest first.
    ///
    /// Sums of months, days and hours answer for whole ones, rows for what sticks out at the ends of
    /// the span, for shorter intervals, and for dimensions that only rows know.
    pub fn spend(&self, query: &SpendQuery) -> Result<Vec<SpendRow>, QueryError> {
        Ok(self.spend_within(query, Patience::ENDLESS)?.answer)
    }

    /// The same; where only rows can answer, of those hours that could be looked at in time.
    pub fn spend_within(
        &self,
        query: &SpendQuery,
        patience: Patience,
    ) -> Result<Looked<Vec<SpendRow>>, QueryError> {
        if let Some(interval_ms) = query.interval_ms.filter(|ms| *ms <= 0) {
            return Err(QueryError::Interval(interval_ms));
        }
        self.ask(|connection| answer(connection, query, patience))
    }
}

/// The sums in their order.
pub(super) fn answer(
    connection: &Connection,
    query: &SpendQuery,
    patience: Patience,
) -> Result<Looked<Vec<SpendRow>>, QueryError> {
    let filtered = query.filters.iter().map(|filter| &filter.dimension);
    let dimensions = query.by.iter().chain(filtered);
    let parts = parts::parts(connection, query.span, query.interval_ms, dimensions)?;
    let is_of_rows = matches!(parts.as_slice(), [part] if part.table == Table::Events);
    if is_of_rows && patience != Patience::ENDLESS {
        return of_hours(connection, query, patience);
    }
    let mut rows = Vec::new();
    for part in parts {
        rows.extend(match part.table {
            Table::Events => sums(connection, query, Scope::of(&part, &query.filters))?,
            _ => tally::sums(connection, query, &part)?,
        });
    }
    Ok(Looked::wholly(in_order(rows)))
}

/// Sums of rows, hour by hour.
fn of_hours(
    connection: &Connection,
    query: &SpendQuery,
    patience: Patience,
) -> Result<Looked<Vec<SpendRow>>, QueryError> {
    let terms = Terms::of_parts(connection, &query.filters)?;
    let mut hours = Hours::of(connection, query.span)?;
    let mut rows = Vec::new();
    while let Some((_, span)) = hours.next(connection, patience)? {
        let scope = Scope::of_terms(Table::Events, span, &terms);
        rows.extend(sums(connection, query, scope)?);
        if rows.len() > GROUPS_MAX {
            rows = in_order(rows);
        }
        if rows.len() > GROUPS_MAX {
            return Err(QueryError::TooManyGroups { max: GROUPS_MAX });
        }
    }
    Ok(Looked {
        answer: in_order(rows),
        at: hours.looked_at(),
    })
}

/// Parts of the same group become one row; rows are ordered by interval and then by cost.
pub fn in_order(mut rows: Vec<SpendRow>) -> Vec<SpendRow> {
    // In place: a stable sort of so large rows would take half their memory again.
    rows.sort_unstable_by(|a, b| (a.start, &a.key).cmp(&(b.start, &b.key)));
    rows.dedup_by(|next, row| row.takes_in(next));
    rows.sort_unstable_by(|a, b| {
        let by_cost = b.cost.cmp(&a.cost).then(b.requests.cmp(&a.requests));
        a.start
            .cmp(&b.start)
            .then(by_cost)
            .then_with(|| a.key.cmp(&b.key))
    });
    rows
}

impl SpendRow {
    /// Adds another part of the same group; says whether it was one.
    fn takes_in(&mut self, part: &SpendRow) -> bool {
        let is_of_the_group = self.start == part.start && self.key == part.key;
        if is_of_the_group {
            self.add(part);
        }
        is_of_the_group
    }

    /// Adds the sums of another row, whichever group that is.
    pub(super) fn add(&mut self, part: &SpendRow) {
        self.requests += part.requests;
        self.cost += part.cost;
        self.unpriced += part.unpriced;
        self.estimated += part.estimated;
        for (sum, more) in self.tokens.iter_mut().zip(part.tokens) {
            *sum += more;
        }
        self.duration_ms += part.duration_ms;
        self.ttft_ms += part.ttft_ms;
        self.ttft_count += part.ttft_count;
        self.stated += part.stated;
        self.provider_cost += part.provider_cost;
        self.drift += part.drift;
    }
}

/// Sums of rows.
fn sums(
    connection: &Connection,
    query: &SpendQuery,
    scope: Scope,
) -> Result<Vec<SpendRow>, QueryError> {
    let (sql, values) = statement(query, scope);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query(params_from_iter(values))?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        if rows.len() == GROUPS_MAX {
            return Err(QueryError::TooManyGroups { max: GROUPS_MAX });
        }
        rows.push(read_row(&|at| row.get_ref(at), &query.by)?);
    }
    Ok(rows)
}

/// The statement whose rows [`read_row`] reads, of the calls in that scope, with its values.
pub(super) fn statement(query: &SpendQuery, scope: Scope) -> (String, Vec<Value>) {
    let mut scope = scope.without_relayed(&query.filters);
    let groups: Vec<String> = std::iter::once(match query.interval_ms {
        Some(interval_ms) => scope.interval_start(interval_ms),
        None => "CAST(NULL AS bigint)".to_owned(),
    })
    .chain(query.by.iter().map(|dimension| scope.expression(dimension)))
    .collect();
    let sql = format!(
        "SELECT {}, {} {} GROUP BY {} HAVING sum({}) > 0 LIMIT {}",
        groups.join(", "),
        sum_columns(&scope),
        scope.sql(),
        (1..=groups.len())
            .map(|i| i.to_string())
            .collect::<Vec<_>>()
            .join(", "),
        scope.weight(),
        GROUPS_MAX + 1
    );
    (sql, scope.into_values())
}

/// The sums, in the order in which [`read_row`] reads them.
fn sum_columns(scope: &Scope) -> String {
    let weight = scope.weight();
    let only = |column: &str, code: i64| {
        format!("sum(CASE WHEN t.{column} = {code} THEN {weight} ELSE 0 END)")
    };
    let Stated {
        requests,
        provider,
        ours,
    } = Stated::of(scope.table);
    let is_priced = format!("t.cost_status <> {}", codes::UNPRICED);
    let narrow = [
        format!("sum({weight})"),
        only("cost_status", codes::UNPRICED),
        only("usage_source", codes::ESTIMATED),
        match scope.table {
            Table::Events => "count(t.ttft_ms)".to_owned(),
            _ => "sum(t.ttft_count)".to_owned(),
        },
        format!("sum({requests})"),
    ]
    .map(|sum| format!("CAST({sum} AS bigint)"));
    let sum = |terms: &str| match scope.dialect {
        Dialect::Sqlite => format!("sum128({terms})"),
        Dialect::Postgres => format!("coalesce(sum({terms}), 0)::text"),
    };
    let stated = [
        sum(&provider),
        sum(&format!("CASE WHEN {is_priced} THEN {provider} END")),
        sum(&ours),
    ];
    let wide = ["cost_pico", "duration_ms", "ttft_ms"]
        .into_iter()
        .chain(Bucket::ALL.map(Bucket::name))
        .map(|name| sum(&format!("t.{name}")));
    narrow
        .into_iter()
        .chain(stated)
        .chain(wide)
        .collect::<Vec<_>>()
        .join(", ")
}

/// What providers state, of one line of a table: requests, amount, and our cost of the same calls.
struct Stated {
    requests: String,
    provider: String,
    ours: String,
}

impl Stated {
    fn of(table: Table) -> Stated {
        let is_charged = format!(
            "t.billable <> 0 AND t.outcome NOT IN ({}, {})",
            codes::DENIED,
            codes::RELAYED
        );
        let is_stated = format!("t.provider_cost_pico IS NOT NULL AND {is_charged}");
        match table {
            Table::Events => Stated {
                requests: format!("CASE WHEN {is_stated} THEN 1 ELSE 0 END"),
                provider: format!("CASE WHEN {is_charged} THEN t.provider_cost_pico END"),
                ours: format!("CASE WHEN {is_stated} THEN t.cost_pico END"),
            },
            _ => Stated {
                requests: "t.stated_requests".to_owned(),
                provider: "t.provider_cost_pico".to_owned(),
                ours: "t.compared_cost_pico".to_owned(),
            },
        }
    }
}

pub(super) fn read_row(cells: Cells<'_, '_>, by: &[Dimension]) -> rusqlite::Result<SpendRow> {
    let key = (1..).zip(by).map(|(at, dimension)| {
        let value: Value = take(cells, at)?;
        Ok(word(dimension, value))
    });
    let at = by.len() + 1;
    let count = |i: usize| take(cells, at + i).map(i64::unsigned_abs);
    let wide = |i: usize| take(cells, at + i).map(|sum: Wide| sum.0);
    let mut tokens = [0; Bucket::ALL.len()];
    for (i, slot) in tokens.iter_mut().enumerate() {
        *slot = wide(11 + i)?.unsigned_abs();
    }
    Ok(SpendRow {
        start: take::<Option<i64>>(cells, 0)?.map(Timestamp::from_unix_ms),
        key: key.collect::<rusqlite::Result<_>>()?,
        requests: count(0)?,
        unpriced: count(1)?,
        estimated: count(2)?,
        ttft_count: count(3)?,
        stated: count(4)?,
        provider_cost: PicoSum::from_pico(wide(5)?),
        drift: PicoSum::from_pico(wide(6)? - wide(7)?),
        cost: PicoSum::from_pico(wide(8)?),
        duration_ms: wide(9)?.unsigned_abs(),
        ttft_ms: wide(10)?.unsigned_abs(),
        tokens,
    })
}
