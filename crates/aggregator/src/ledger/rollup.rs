//! Hourly sums of the rows, gathered over a transaction and written at its end.

use std::collections::HashMap;

use rusqlite::{Connection, params_from_iter};
use tollmesh_usage::Bucket;

use crate::ledger::checked::Checked;
use crate::ledger::codes::Coded;
use crate::ledger::dictionary::Ids;
use crate::ledger::wide::Wide;

/// Milliseconds in an hour.
pub const HOUR_MS: i64 = 3_600_000;

/// What calls must share to be summed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    hour: i64,
    tag_set: i64,
    source: i64,
    model: i64,
    outcome: i64,
    usage_source: i64,
    cost_status: i64,
}

/// The sums. All may be negative within a transaction: a completed row leaves its former group.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
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
}

impl Rollup {
    /// Adds a row to its group.
    pub fn add(&mut self, checked: &Checked<'_>, ids: Ids) {
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

    /// Adds all to the file. Groups that lost their last call go.
    pub fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut upsert = connection.prepare_cached(&upsert_sql())?;
        for (key, sums) in &self.groups {
            let key = key.columns();
            let counts = [sums.requests, sums.ttft_count, sums.stated_requests];
            let wide = [
                sums.cost_pico,
                sums.duration_ms,
                sums.ttft_ms,
                sums.provider_cost_pico,
                sums.compared_cost_pico,
            ];
            let narrow = key.into_iter().chain(counts).map(i128::from);
            let values = narrow.chain(wide).chain(sums.tokens).map(Wide);
            upsert.execute(params_from_iter(values))?;
            if sums.requests <= 0 {
                connection
                    .prepare_cached(
                        "DELETE FROM hourly WHERE hour = ?1 AND tag_set = ?2 AND source_id = ?3
                         AND model_id = ?4 AND outcome = ?5 AND usage_source = ?6
                         AND cost_status = ?7 AND requests = 0",
                    )?
                    .execute(params_from_iter(key))?;
            }
        }
        Ok(())
    }
}

impl Key {
    /// The columns of the primary key, in its order.
    fn columns(&self) -> [i64; 7] {
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

/// The statement that adds one group; its values are the key's, the counts, and the wide sums.
fn upsert_sql() -> String {
    let counts = ["requests", "ttft_count", "stated_requests"];
    let wide = [
        "cost_pico",
        "duration_ms",
        "ttft_ms",
        "provider_cost_pico",
        "compared_cost_pico",
    ];
    let wide: Vec<&str> = wide
        .into_iter()
        .chain(Bucket::ALL.map(Bucket::name))
        .collect();
    let sets: Vec<String> = counts
        .iter()
        .map(|name| format!("{name} = {name} + excluded.{name}"))
        .chain(
            wide.iter()
                .map(|name| format!("{name} = add128({name}, excluded.{name})")),
        )
        .collect();
    let places = vec!["?"; 7 + counts.len() + wide.len()].join(", ");
    format!(
        "INSERT INTO hourly (hour, tag_set, source_id, model_id, outcome, usage_source,
                             cost_status, {}, {})
         VALUES ({places})
         ON CONFLICT DO UPDATE SET {}",
        counts.join(", "),
        wide.join(", "),
        sets.join(", ")
    )
}
