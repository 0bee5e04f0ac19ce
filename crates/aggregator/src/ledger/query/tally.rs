//! Sums of sums: the lines of a table of hours, days or months added up by any dimensions.
//!
//! They are added up here, since SQLite would sort all lines to group them, with all their columns.
//! What a line's ids stand for is looked up once for each combination of them.

use std::collections::HashMap;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};
use tollmesh_usage::Bucket;
use tollmesh_wire::Timestamp;

use crate::ledger::codes;
use crate::ledger::error::QueryError;
use crate::ledger::query::parts::Part;
use crate::ledger::query::scope::{Lookup, Scope, Table, word};
use crate::ledger::query::spend::{GROUPS_MAX, SpendQuery, SpendRow};
use crate::ledger::wide::Wide;
use crate::money::PicoSum;

/// Combinations of ids whose group is remembered. At some 80 bytes each they take 5 MB; where there
/// are more, they are looked up again.
const REMEMBERED_MAX: usize = 65_536;

/// The columns that lines are told apart by, of which a question needs some.
const KEY_COLUMNS: [&str; 6] = [
    "tag_set",
    "source_id",
    "model_id",
    "outcome",
    "usage_source",
    "cost_status",
];

/// The columns after the interval's begin and the key's, before the tokens.
const SUM_COLUMNS: [&str; 8] = [
    "requests",
    "ttft_count",
    "stated_requests",
    "provider_cost_pico",
    "compared_cost_pico",
    "cost_pico",
    "duration_ms",
    "ttft_ms",
];

/// The begin of a line's interval, and those of its ids that the question needs; others are 0.
type Ids = [i64; 1 + KEY_COLUMNS.len()];

/// The groups so far.
struct Tally<'q> {
    query: &'q SpendQuery,
    lookups: Vec<Lookup>,
    is_needed: [bool; KEY_COLUMNS.len()],
    rows: Vec<SpendRow>,
    by_key: HashMap<(Option<i64>, Vec<Option<String>>), usize>,
    by_ids: HashMap<Ids, usize>,
}

/// The groups of a part, in no order.
pub fn sums(
    connection: &Connection,
    query: &SpendQuery,
    part: &Part,
) -> Result<Vec<SpendRow>, QueryError> {
    let scope = Scope::of(part, &query.filters).without_relayed(&query.filters);
    let start = match query.interval_ms {
        Some(interval_ms) => scope.interval_start(interval_ms),
        None => "0".to_owned(),
    };
    let columns: Vec<String> = KEY_COLUMNS
        .into_iter()
        .chain(SUM_COLUMNS)
        .chain(Bucket::ALL.map(Bucket::name))
        .map(|name| match (part.table, name) {
            (Table::DailySources, "tag_set") => "0".to_owned(),
            (_, name) => format!("t.{name}"),
        })
        .collect();
    let sql = format!("SELECT {start}, {} {}", columns.join(", "), scope.sql());
    let mut statement = connection.prepare_cached(&sql)?;
    let mut lines = statement.query(params_from_iter(scope.into_values()))?;
    let mut tally = Tally::new(query);
    while let Some(line) = lines.next()? {
        let at = tally.group(connection, line)?;
        if let Some(row) = tally.rows.get_mut(at) {
            add(row, line)?;
        }
    }
    Ok(tally.rows)
}

// === impl Tally ===

impl<'q> Tally<'q> {
    fn new(query: &'q SpendQuery) -> Tally<'q> {
        let lookups: Vec<Lookup> = query.by.iter().map(Lookup::of).collect();
        Tally {
            is_needed: KEY_COLUMNS.map(|name| lookups.iter().any(|l| l.column == name)),
            query,
            lookups,
            rows: Vec::new(),
            by_key: HashMap::new(),
            by_ids: HashMap::new(),
        }
    }

    /// The place of a line's group.
    fn group(&mut self, connection: &Connection, line: &Row<'_>) -> Result<usize, QueryError> {
        let mut ids: Ids = [0; 1 + KEY_COLUMNS.len()];
        ids[0] = line.get(0)?;
        for (i, is_needed) in (1..).zip(self.is_needed) {
            if is_needed {
                ids[i] = line.get(i)?;
            }
        }
        if let Some(at) = self.by_ids.get(&ids) {
            return Ok(*at);
        }
        let start = self.query.interval_ms.map(|_| ids[0]);
        let key = (start, self.key(connection, &ids)?);
        let at = match self.by_key.get(&key) {
            Some(at) => *at,
            None if self.rows.len() == GROUPS_MAX => {
                return Err(QueryError::TooManyGroups { max: GROUPS_MAX });
            }
            None => {
                self.rows.push(SpendRow {
                    start: start.map(Timestamp::from_unix_ms),
                    key: key.1.clone(),
                    ..SpendRow::default()
                });
                self.by_key.insert(key, self.rows.len() - 1);
                self.rows.len() - 1
            }
        };
        if self.by_ids.len() >= REMEMBERED_MAX {
            self.by_ids.clear();
        }
        self.by_ids.insert(ids, at);
        Ok(at)
    }

    /// What ids stand for in the question's dimensions.
    fn key(&self, connection: &Connection, ids: &Ids) -> rusqlite::Result<Vec<Option<String>>> {
        let dimensions = self.query.by.iter().zip(&self.lookups);
        dimensions
            .map(|(dimension, lookup)| {
                let names = KEY_COLUMNS.iter().zip(&ids[1..]);
                let id = names.into_iter().find(|(name, _)| **name == lookup.column);
                let id = id.map_or(0, |(_, id)| *id);
                let value = match &lookup.sql {
                    None => Some(Value::Integer(id)),
                    Some(sql) => connection
                        .prepare_cached(sql)?
                        .query_row(lookup.values(id), |row| row.get(0))
                        .optional()?,
                };
                Ok(value.and_then(|value| word(dimension, value)))
            })
            .collect()
    }
}

/// Adds a line to its group.
fn add(row: &mut SpendRow, line: &Row<'_>) -> rusqlite::Result<()> {
    let at = 1 + KEY_COLUMNS.len();
    let count = |i: usize| line.get::<_, i64>(at + i).map(i64::unsigned_abs);
    let wide = |i: usize| line.get(at + i).map(|sum: Wide| sum.0);
    let requests = count(0)?;
    let (usage_source, cost_status): (i64, i64) = (line.get(5)?, line.get(6)?);
    let is_priced = cost_status != codes::UNPRICED;
    row.requests += requests;
    row.unpriced += if is_priced { 0 } else { requests };
    row.estimated += if usage_source == codes::ESTIMATED {
        requests
    } else {
        0
    };
    row.ttft_count += count(1)?;
    let stated = count(2)?;
    if stated > 0 {
        let (provider, ours) = (wide(3)?, wide(4)?);
        row.stated += stated;
        row.provider_cost += PicoSum::from_pico(provider);
        row.drift += PicoSum::from_pico(if is_priced { provider - ours } else { -ours });
    }
    row.cost += PicoSum::from_pico(wide(5)?);
    row.duration_ms += wide(6)?.unsigned_abs();
    row.ttft_ms += wide(7)?.unsigned_abs();
    for (i, sum) in (8..).zip(&mut row.tokens) {
        *sum += wide(i)?.unsigned_abs();
    }
    Ok(())
}
