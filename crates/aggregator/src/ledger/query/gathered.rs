//! Traces and sessions gathered from their rows, in two passes: the first orders all of them by the
//! little that the order needs, the second reads everything about the few that are on the page.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};
use tollmesh_usage::Bucket;
use tollmesh_wire::Timestamp;

use crate::ledger::codes;
use crate::ledger::query::filter::Span;
use crate::ledger::query::hours::Hours;
use crate::ledger::query::lines::Lines;
use crate::ledger::query::looked::{Looked, Patience};
use crate::ledger::query::owners::Owners;
use crate::ledger::query::rolled::{Unit, UnitRow, UnitSort, UnitsQuery};
use crate::ledger::query::scope::{Scope, Table};
use crate::ledger::query::terms::Terms;
use crate::ledger::rollup::HOUR_MS;
use crate::money::PicoSum;

/// What a unit is ordered by, and its id; no two are equal.
pub type Place = (i128, String);

/// A unit with its place.
pub type Placed = (Place, UnitRow);

/// The units after that place, at most `n_max`, in their order.
pub fn units(
    connection: &Connection,
    query: &UnitsQuery,
    after: Option<&Place>,
    n_max: usize,
    patience: Patience,
) -> rusqlite::Result<Looked<Vec<Placed>>> {
    if !has_any(connection, &query.unit)? {
        return Ok(Looked::wholly(Vec::new()));
    }
    let terms = Terms::of_parts(connection, &query.filters)?;
    let lines = Lines::of(connection, &query.filters, "1")?;
    let mut hours = Hours::of(connection, query.span)?;
    let mut order = Order::new(query);
    let mut looked = Vec::new();
    let mut asked = None;
    // The second pass may have to read the same rows again.
    let patience = patience.half();
    while let Some((hour, span)) = hours.next(connection, patience)? {
        let is_empty = match (&lines, asked) {
            (_, Some((known, is_empty))) if known == hour => is_empty,
            (Some(lines), _) => lines.most(connection, hour)?.is_none(),
            (None, _) => false,
        };
        asked = Some((hour, is_empty));
        if !is_empty {
            order.look(connection, scope_of(query, span, &terms))?;
            looked.push((hour, span));
        }
    }
    let chosen = order.highest(after, n_max);
    let mut page = Chosen::new(&chosen, &order.owners);
    for (hour, span) in looked {
        if chosen.iter().any(|unit| unit.has_part_in(hour)) {
            page.look(connection, query, scope_of(query, span, &terms))?;
        }
    }
    let places = chosen.into_iter().map(|unit| (unit.key, unit.id));
    Ok(Looked {
        answer: places.zip(page.rows).collect(),
        at: hours.looked_at(),
    })
}

/// Whether any call can be of such a unit.
fn has_any(connection: &Connection, unit: &Unit) -> rusqlite::Result<bool> {
    let Unit::Tags(tags) = unit else {
        return Ok(true);
    };
    let mut find = connection.prepare_cached("SELECT 1 FROM tags WHERE tag = ?1 LIMIT 1")?;
    for tag in tags {
        if find.exists([tag])? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The scope of a span's rows that may be of units.
fn scope_of(query: &UnitsQuery, span: Span, terms: &Terms<'_>) -> Scope {
    let mut scope = Scope::of_terms(Table::Events, span, terms).without_relayed(&query.filters);
    if query.unit == Unit::Trace {
        scope.add_condition("t.trace_id <> ''", []);
    }
    scope
}

/// The column that tells a row's unit.
fn column_of(unit: &Unit) -> &'static str {
    match unit {
        Unit::Trace => "t.trace_id",
        Unit::Tags(_) => "t.tag_set",
    }
}

/// What is known of a unit after the first pass.
#[derive(Clone, Copy, Debug)]
struct Known {
    sum: i128,
    first_ms: i64,
    last_ms: i64,
}

/// A unit on the page.
struct Ranked {
    key: i128,
    id: String,
    known: Known,
}

impl Ranked {
    fn has_part_in(&self, hour: i64) -> bool {
        let hour_of = |ms: i64| ms.div_euclid(HOUR_MS);
        (hour_of(self.known.first_ms)..=hour_of(self.known.last_ms)).contains(&hour)
    }
}

/// The first pass.
struct Order<'q> {
    query: &'q UnitsQuery,
    owners: Owners,
    by_id: HashMap<Box<str>, usize>,
    known: Vec<Known>,
    seen: Fingerprints,
}

impl<'q> Order<'q> {
    fn new(query: &'q UnitsQuery) -> Order<'q> {
        Order {
            query,
            owners: Owners::default(),
            by_id: HashMap::new(),
            known: Vec::new(),
            seen: Fingerprints::default(),
        }
    }

    /// Takes in the rows of a scope.
    fn look(&mut self, connection: &Connection, scope: Scope) -> rusqlite::Result<()> {
        let sql = format!(
            "SELECT {}, t.time_ms, {}, {} {}",
            column_of(&self.query.unit),
            term_of(self.query.sort),
            match self.query.sort {
                UnitSort::Retries => "t.fingerprint",
                _ => "NULL",
            },
            scope.sql()
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(scope.into_values()))?;
        while let Some(row) = rows.next()? {
            self.take(connection, row)?;
        }
        Ok(())
    }

    fn take(&mut self, connection: &Connection, row: &Row<'_>) -> rusqlite::Result<()> {
        let id = match &self.query.unit {
            Unit::Trace => Some(row.get_ref(0)?.as_str()?),
            Unit::Tags(tags) => self.owners.of(connection, tags, row.get(0)?)?,
        };
        let Some(id) = id else {
            return Ok(());
        };
        let time_ms: i64 = row.get(1)?;
        let unit = match self.by_id.get(id) {
            Some(unit) => *unit,
            None => {
                self.by_id.insert(id.into(), self.known.len());
                self.known.push(Known {
                    sum: 0,
                    first_ms: time_ms,
                    last_ms: time_ms,
                });
                self.known.len() - 1
            }
        };
        let term: Option<i64> = row.get(2)?;
        let is_repeated = match row.get_ref(3)?.as_str_or_null()? {
            Some(fingerprint) => self.seen.had(unit, fingerprint),
            None => false,
        };
        if let Some(known) = self.known.get_mut(unit) {
            known.sum += i128::from(term.unwrap_or(0)) + i128::from(is_repeated);
            known.first_ms = known.first_ms.min(time_ms);
            known.last_ms = known.last_ms.max(time_ms);
        }
        Ok(())
    }

    /// The highest units after that place.
    fn highest(&self, after: Option<&Place>, n_max: usize) -> Vec<Ranked> {
        let places = self.by_id.iter().filter_map(|(id, unit)| {
            let known = self.known.get(*unit)?;
            Some((key_of(self.query.sort, known), &**id, *known))
        });
        let is_after = |key: i128, id: &str| match after {
            Some((last_key, last_id)) => (key, id) < (*last_key, last_id.as_str()),
            None => true,
        };
        let mut places: Vec<_> = places.filter(|(key, id, _)| is_after(*key, id)).collect();
        let descending =
            |a: &(i128, &str, Known), b: &(i128, &str, Known)| (b.0, b.1).cmp(&(a.0, a.1));
        if places.len() > n_max {
            places.select_nth_unstable_by(n_max, descending);
            places.truncate(n_max);
        }
        places.sort_unstable_by(descending);
        let places = places.into_iter().map(|(key, id, known)| Ranked {
            key,
            id: id.to_owned(),
            known,
        });
        places.collect()
    }
}

/// What a row adds to its unit's order.
fn term_of(sort: UnitSort) -> String {
    match sort {
        UnitSort::Cost => "t.cost_pico".to_owned(),
        UnitSort::Requests => "1".to_owned(),
        UnitSort::Tokens => Bucket::ALL
            .map(|bucket| format!("coalesce(t.{}, 0)", bucket.name()))
            .join(" + "),
        UnitSort::Retries => "max(t.attempts - 1, 0)".to_owned(),
        UnitSort::Span | UnitSort::Time => "0".to_owned(),
    }
}

fn key_of(sort: UnitSort, known: &Known) -> i128 {
    match sort {
        UnitSort::Span => i128::from(known.last_ms) - i128::from(known.first_ms),
        UnitSort::Time => i128::from(known.last_ms),
        UnitSort::Cost | UnitSort::Requests | UnitSort::Tokens | UnitSort::Retries => known.sum,
    }
}

/// Which bodies the calls of each unit had: hashes of their fingerprints, of 128 bits, since there may
/// be millions.
#[derive(Default)]
struct Fingerprints {
    seen: HashSet<(usize, u64, u64)>,
    hashers: [RandomState; 2],
}

impl Fingerprints {
    /// Notes a call's; whether its unit had one with the same.
    fn had(&mut self, unit: usize, fingerprint: &str) -> bool {
        let [one, other] = &self.hashers;
        let hashes = (unit, one.hash_one(fingerprint), other.hash_one(fingerprint));
        !self.seen.insert(hashes)
    }
}

/// The second pass.
struct Chosen<'o> {
    owners: &'o Owners,
    /// The tag sets of the units, unless they are many.
    tag_sets: Option<Vec<i64>>,
    by_id: HashMap<String, usize>,
    rows: Vec<UnitRow>,
    seen: Fingerprints,
    models: HashSet<(usize, i64)>,
}

/// The columns that the second pass reads, before the buckets.
const COLUMNS: [&str; 10] = [
    "time_ms",
    "cost_pico",
    "cost_status",
    "usage_source",
    "outcome",
    "tool_calls",
    "attempts",
    "fingerprint",
    "model_id",
    "duration_ms",
];

impl<'o> Chosen<'o> {
    fn new(chosen: &[Ranked], owners: &'o Owners) -> Chosen<'o> {
        let row = |unit: &Ranked| UnitRow {
            id: unit.id.clone(),
            first: Timestamp::from_unix_ms(unit.known.first_ms),
            last: Timestamp::from_unix_ms(unit.known.last_ms),
            ..UnitRow::default()
        };
        let by_id: HashMap<String, usize> = (0..)
            .zip(chosen)
            .map(|(at, unit)| (unit.id.clone(), at))
            .collect();
        Chosen {
            tag_sets: owners.few_of(&by_id),
            owners,
            by_id,
            rows: chosen.iter().map(row).collect(),
            seen: Fingerprints::default(),
            models: HashSet::new(),
        }
    }

    /// Takes in the rows of a scope that are of the chosen units.
    fn look(
        &mut self,
        connection: &Connection,
        query: &UnitsQuery,
        mut scope: Scope,
    ) -> rusqlite::Result<()> {
        let listed = |column: &str, n: usize| format!("{column} IN ({})", vec!["?"; n].join(", "));
        match (&query.unit, &self.tag_sets) {
            (Unit::Trace, _) => {
                let ids = self.rows.iter().map(|row| Value::Text(row.id.clone()));
                scope.add_condition(listed("t.trace_id", self.rows.len()), ids);
            }
            (Unit::Tags(_), Some(few)) => {
                let ids = few.iter().copied().map(Value::Integer);
                scope.add_condition(listed("t.tag_set", few.len()), ids);
            }
            // Whose a row is, is known here.
            (Unit::Tags(_), None) => {}
        }
        let columns = COLUMNS.into_iter().chain(Bucket::ALL.map(Bucket::name));
        let columns: Vec<String> = columns.map(|name| format!("t.{name}")).collect();
        let unit = column_of(&query.unit);
        let sql = format!("SELECT {unit}, {} {}", columns.join(", "), scope.sql());
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(scope.into_values()))?;
        while let Some(row) = rows.next()? {
            let id = match query.unit {
                Unit::Trace => Some(row.get_ref(0)?.as_str()?),
                Unit::Tags(_) => self.owners.known(row.get(0)?),
            };
            if let Some(at) = id.and_then(|id| self.by_id.get(id)).copied() {
                self.add(at, row)?;
            }
        }
        Ok(())
    }

    /// Adds a row to its unit.
    fn add(&mut self, at: usize, row: &Row<'_>) -> rusqlite::Result<()> {
        let Some(unit) = self.rows.get_mut(at) else {
            return Ok(());
        };
        let code = |column: usize| row.get::<_, i64>(column);
        let count = |column: usize| -> rusqlite::Result<u64> {
            let n: Option<i64> = row.get(column)?;
            Ok(n.unwrap_or(0).max(0).unsigned_abs())
        };
        unit.requests += 1;
        unit.cost += PicoSum::from_pico(row.get::<_, Option<i64>>(2)?.unwrap_or(0).into());
        unit.unpriced += u64::from(code(3)? == codes::UNPRICED);
        unit.estimated += u64::from(code(4)? == codes::ESTIMATED);
        unit.failed += u64::from([codes::ERROR, codes::ABORTED].contains(&code(5)?));
        unit.tool_calls += count(6)?;
        unit.retries += count(7)?.saturating_sub(1);
        if let Some(fingerprint) = row.get_ref(8)?.as_str_or_null()? {
            unit.repeated += u64::from(self.seen.had(at, fingerprint));
        }
        unit.models += u64::from(self.models.insert((at, code(9)?)));
        unit.duration_ms += u128::from(count(10)?);
        for (column, tokens) in (11..).zip(&mut unit.tokens) {
            *tokens += u128::from(count(column)?);
        }
        Ok(())
    }
}
