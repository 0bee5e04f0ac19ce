//! Sums of the rows by hour, gathered over a transaction and written at its end; hours that are
//! folded into days and months already change those, too.

use std::collections::HashMap;
use std::sync::LazyLock;

use rusqlite::{CachedStatement, Connection, Row, params_from_iter};
use tollmesh_usage::Bucket;

use crate::ledger::checked::Checked;
use crate::ledger::codes::{self, Coded};
use crate::ledger::dictionary::Ids;
use crate::ledger::fold::{self, Folded};
use crate::ledger::peaks::Peaks;
use crate::ledger::wide::{self, Wide};

/// Milliseconds in an hour.
pub const HOUR_MS: i64 = 3_600_000;

/// What calls must share to be summed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub hour: i64,
    pub tag_set: i64,
    pub source: i64,
    pub model: i64,
    pub outcome: i64,
    pub usage_source: i64,
    pub cost_status: i64,
}

/// The sums. All may be negative within a transaction: a completed row leaves its former group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    requests: i64,
    cost_pico: i128,
    tokens: [i128; Bucket::ALL.len()],
    duration_ms: i128,
    ttft_ms: i128,
    ttft_count: i64,
    stated_requests: i64,
    provider_cost_pico: i128,
    compared_cost_pico: i128,
}

/// What a transaction changes.
#[derive(Debug, Default)]
pub struct Rollup {
    groups: HashMap<Key, Sums>,
    peaks: Peaks,
}

impl Rollup {
    /// Adds the row of that number to its group.
    pub fn add(&mut self, checked: &Checked<'_>, ids: Ids, row: i64) {
        self.peaks.add(checked, row);
        self.count(checked, ids, 1);
    }

    /// Takes a row out of its group.
    pub fn remove(&mut self, checked: &Checked<'_>, ids: Ids) {
        self.count(checked, ids, -1);
    }

    fn count(&mut self, checked: &Checked<'_>, ids: Ids, sign: i64) {
        let event = checked.event();
        let cost = &checked.entry.cost;
        let key = Key {
            hour: event.time.as_unix_ms().div_euclid(HOUR_MS),
            tag_set: ids.tag_set,
            source: ids.source,
            model: ids.model,
            outcome: event.outcome.code(),
            usage_source: checked.usage_source.code(),
            cost_status: cost.status.code(),
        };
        let wide = i128::from(sign);
        let sums = self.groups.entry(key).or_default();
        sums.requests += sign;
        sums.cost_pico += wide * cost.total.map_or(0, |pico| i128::from(pico.as_pico()));
        for (slot, bucket) in sums.tokens.iter_mut().zip(Bucket::ALL) {
            *slot += wide * i128::from(event.usage.get(bucket).unwrap_or(0));
        }
        sums.duration_ms += wide * i128::from(event.duration_ms);
        if let Some(ttft_ms) = event.ttft_ms {
            sums.ttft_ms += wide * i128::from(ttft_ms);
            sums.ttft_count += sign;
        }
        if let Some(stated) = checked.stated() {
            sums.stated_requests += sign;
            sums.provider_cost_pico += wide * i128::from(stated.as_pico());
            let ours = cost.total.map_or(0, |pico| i128::from(pico.as_pico()));
            sums.compared_cost_pico += wide * ours;
        }
    }

    /// Moves the sums of a group into another of the same hour.
    pub fn shift(&mut self, from: Key, to: Key, sums: &Sums) {
        self.groups.entry(from).or_default().add(sums, -1);
        self.groups.entry(to).or_default().add(sums, 1);
    }

    /// Adds all to the file. Groups that lost their last call go.
    pub fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        if self.groups.is_empty() {
            return Ok(());
        }
        self.peaks.write(connection)?;
        let folded = Folded::read(connection)?;
        let [hourly, daily, monthly, daily_sources, daily_pods] = &*TABLES;
        let (mut by_owner, mut by_source) = (HashMap::new(), HashMap::new());
        // One look each for all groups: the statements are long, and are looked for by their text.
        let mut hourly = hourly.adding(connection)?;
        let mut daily = daily.adding(connection)?;
        let mut monthly = monthly.adding(connection)?;
        let mut daily_sources = daily_sources.adding(connection)?;
        let mut daily_pods = daily_pods.adding(connection)?;
        for (key, sums) in &self.groups {
            hourly.add(*key, sums)?;
            if folded.holds(key.hour, key.tag_set) {
                daily_pods.add(*key, sums)?;
                let source = fold::owner(connection, key.source)?;
                let of_owner = Key { source, ..*key };
                add_to(&mut by_owner, of_owner, sums);
                add_to(&mut by_source, Key { tag_set: 0, ..*key }, sums);
            }
        }
        for (key, sums) in by_owner {
            daily.add(key, &sums)?;
            monthly.add(key, &sums)?;
        }
        for (key, sums) in by_source {
            daily_sources.add(key, &sums)?;
        }
        Ok(())
    }
}

fn add_to(groups: &mut HashMap<Key, Sums>, key: Key, sums: &Sums) {
    groups.entry(key).or_default().add(sums, 1);
}

impl Sums {
    fn add(&mut self, more: &Sums, sign: i64) {
        let wide = i128::from(sign);
        self.requests += sign * more.requests;
        self.ttft_count += sign * more.ttft_count;
        self.stated_requests += sign * more.stated_requests;
        self.cost_pico += wide * more.cost_pico;
        self.duration_ms += wide * more.duration_ms;
        self.ttft_ms += wide * more.ttft_ms;
        self.provider_cost_pico += wide * more.provider_cost_pico;
        self.compared_cost_pico += wide * more.compared_cost_pico;
        for (slot, tokens) in self.tokens.iter_mut().zip(more.tokens) {
            *slot += wide * tokens;
        }
    }

    /// Reads the columns of [`sum_names`], the first of which has that place.
    pub fn read(row: &Row<'_>, at: usize) -> rusqlite::Result<Sums> {
        let wide = |i: usize| row.get(at + COUNTS.len() + i).map(|wide: Wide| wide.0);
        let mut tokens = [0; Bucket::ALL.len()];
        for (i, slot) in (WIDE.len()..).zip(&mut tokens) {
            *slot = wide(i)?;
        }
        Ok(Sums {
            requests: row.get(at)?,
            ttft_count: row.get(at + 1)?,
            stated_requests: row.get(at + 2)?,
            cost_pico: wide(0)?,
            duration_ms: wide(1)?,
            ttft_ms: wide(2)?,
            provider_cost_pico: wide(3)?,
            compared_cost_pico: wide(4)?,
            tokens,
        })
    }
}

impl Key {
    /// Reads the columns of the primary key, which are the first.
    pub fn read(row: &Row<'_>) -> rusqlite::Result<Key> {
        Ok(Key {
            hour: row.get(0)?,
            tag_set: row.get(1)?,
            source: row.get(2)?,
            model: row.get(3)?,
            outcome: row.get(4)?,
            usage_source: row.get(5)?,
            cost_status: row.get(6)?,
        })
    }

    /// The columns of the primary key, in its order.
    pub fn columns(&self) -> [i64; 7] {
        [
            self.hour,
            self.tag_set,
            self.source,
            self.model,
            self.outcome,
            self.usage_source,
            self.cost_status,
        ]
    }
}

/// The groups that the rows of an hour, `?1`, should have: the key's columns, then those of
/// [`sum_names`].
pub static OF_ROWS: LazyLock<String> = LazyLock::new(|| {
    let is_stated = format!(
        "t.provider_cost_pico IS NOT NULL AND t.billable AND t.outcome NOT IN ({}, {})",
        codes::DENIED,
        codes::RELAYED
    );
    let sums: Vec<String> = sum_names()
        .map(|name| match name {
            "requests" => "count(*)".to_owned(),
            "ttft_count" => "count(t.ttft_ms)".to_owned(),
            "stated_requests" => format!("count(CASE WHEN {is_stated} THEN 1 END)"),
            "provider_cost_pico" => {
                format!("sum128(CASE WHEN {is_stated} THEN t.provider_cost_pico END)")
            }
            "compared_cost_pico" => format!("sum128(CASE WHEN {is_stated} THEN t.cost_pico END)"),
            column => format!("sum128(t.{column})"),
        })
        .collect();
    format!(
        "SELECT ?1, t.tag_set, t.source_id, t.model_id, t.outcome, t.usage_source, t.cost_status,
                {}
         FROM events t
         WHERE t.time_ms >= ?1 * {HOUR_MS} AND t.time_ms < (?1 + 1) * {HOUR_MS}
         GROUP BY 2, 3, 4, 5, 6, 7",
        sums.join(", ")
    )
});

/// The statements that change a group of one table of sums. Their values are the key's, then those
/// of [`sum_names`].
struct SumTable {
    upsert: String,
    delete_empty: String,
}

/// Hours, days, months, days by source, days by tags and source.
static TABLES: LazyLock<[SumTable; 5]> = LazyLock::new(|| {
    let day = fold::day_of("?1");
    [
        SumTable::new("hourly", "?1", &KEYS),
        SumTable::new("daily", &day, &KEYS),
        SumTable::new("monthly", &fold::month_of("?1"), &KEYS),
        SumTable::new("daily_sources", &day, &KEYS[1..]),
        SumTable::new("daily_pods", &day, &KEYS),
    ]
});

/// The columns of a key after its hour, with their places.
pub const KEYS: [(&str, &str); 6] = [
    ("tag_set", "?2"),
    ("source_id", "?3"),
    ("model_id", "?4"),
    ("outcome", "?5"),
    ("usage_source", "?6"),
    ("cost_status", "?7"),
];

impl SumTable {
    /// The table's hour is that expression of the key's; it has those of the key's columns.
    fn new(table: &str, hour: &str, keys: &[(&str, &str)]) -> SumTable {
        let own = keys
            .iter()
            .map(|(name, place)| (*name, (*place).to_owned()));
        let sums = (8..)
            .zip(sum_names())
            .map(|(i, name)| (name, format!("?{i}")));
        let (names, places): (Vec<&str>, Vec<String>) = own.chain(sums).unzip();
        let equals: Vec<String> = keys
            .iter()
            .map(|(name, place)| format!("{name} = {place}"))
            .collect();
        SumTable {
            upsert: format!(
                "INSERT INTO {table} (hour, {}) VALUES ({hour}, {}) ON CONFLICT DO UPDATE SET {}",
                names.join(", "),
                places.join(", "),
                adding_up()
            ),
            delete_empty: format!(
                "DELETE FROM {table} WHERE hour = {hour} AND {} AND requests = 0",
                equals.join(" AND ")
            ),
        }
    }

    /// The table, about to be added to.
    fn adding<'c>(&'c self, connection: &'c Connection) -> rusqlite::Result<Adding<'c>> {
        Ok(Adding {
            connection,
            upsert: connection.prepare_cached(&self.upsert)?,
            delete_empty: &self.delete_empty,
        })
    }
}

/// A table that is being added to.
struct Adding<'c> {
    connection: &'c Connection,
    upsert: CachedStatement<'c>,
    delete_empty: &'c str,
}

impl Adding<'_> {
    /// Adds these sums to their group, which goes when it lost its last call.
    fn add(&mut self, key: Key, sums: &Sums) -> rusqlite::Result<()> {
        if *sums == Sums::default() {
            return Ok(());
        }
        let counts = [sums.requests, sums.ttft_count, sums.stated_requests];
        let wide = [
            sums.cost_pico,
            sums.duration_ms,
            sums.ttft_ms,
            sums.provider_cost_pico,
            sums.compared_cost_pico,
        ];
        let narrow = key.columns().into_iter().chain(counts).map(i128::from);
        let values = narrow.chain(wide).chain(sums.tokens).map(Wide);
        self.upsert.execute(params_from_iter(values))?;
        if sums.requests <= 0 {
            self.connection
                .prepare_cached(self.delete_empty)?
                .execute(params_from_iter(key.columns()))?;
        }
        Ok(())
    }
}

/// The counts of a group, which fit an integer.
pub const COUNTS: [&str; 3] = ["requests", "ttft_count", "stated_requests"];

/// The sums of a group beside its tokens, which may outgrow one.
pub const WIDE: [&str; 5] = [
    "cost_pico",
    "duration_ms",
    "ttft_ms",
    "provider_cost_pico",
    "compared_cost_pico",
];

/// The columns of a group after those of its key: counts, then wide sums, then tokens.
pub fn sum_names() -> impl Iterator<Item = &'static str> {
    let tokens = Bucket::ALL.into_iter().map(Bucket::name);
    COUNTS.into_iter().chain(WIDE).chain(tokens)
}

/// What adds up a group that is there already.
pub fn adding_up() -> String {
    let sets = sum_names().map(|name| match COUNTS.contains(&name) {
        true => format!("{name} = {name} + excluded.{name}"),
        false => format!(
            "{name} = {}",
            wide::sum_of(name, &format!("excluded.{name}"))
        ),
    });
    sets.collect::<Vec<_>>().join(", ")
}
