//! Sums of hours whose calls are deleted lose what tells nearly each call apart, in steps between
//! which the writer does its other work.
//!
//! A line of an hour goes over into another of the same hour, and days and months follow in the same
//! transaction, so that the tables of sums agree at any time. Every hour is regrouped once.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, OptionalExtension, params};
use tollmesh_wire::{Event, Source};

use crate::ledger::dictionary::Dictionaries;
use crate::ledger::fold::{self, Folded};
use crate::ledger::prune::Forgotten;
use crate::ledger::reduce::{Census, OTHER, Reduction, SUM_LINES_MAX, Stays, Tags};
use crate::ledger::rollup::{self, HOUR_MS, Key, Rollup, Sums};

/// Lines of hours that one step looks at: some ten milliseconds of work.
pub const REGROUP_LINES_MAX: i64 = 250;

/// Tag sets that are remembered while a day is counted, at some 200 bytes each.
const REMEMBERED_MAX: usize = 4_096;

/// The key in `meta` of the first hour that is yet to be regrouped.
const REGROUPED_HOUR: &str = "regrouped_hour";

/// The hours of a day, from the first on and before the end, that are to be regrouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The first hour of the day.
    pub day: i64,
    /// The first of them.
    pub from: i64,
    /// The first after them.
    pub end: i64,
}

/// Before which hour all are regrouped.
pub fn regrouped_hour(connection: &Connection) -> rusqlite::Result<i64> {
    value(connection, REGROUPED_HOUR).map(|hour| hour.unwrap_or(i64::MIN))
}

/// Notes that all hours before that one are regrouped.
pub fn note(connection: &Connection, hour: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO meta (key, value) VALUES (?1, ?2)
             ON CONFLICT DO UPDATE SET value = max(value, excluded.value)",
        )?
        .execute(params![REGROUPED_HOUR, hour])?;
    Ok(())
}

/// The next hours that are to be regrouped: folded ones of one day whose calls are all deleted.
pub fn due(connection: &Connection) -> rusqlite::Result<Option<Due>> {
    let Some(forgotten) = Forgotten::read(connection)? else {
        return Ok(None);
    };
    let oldest_ms: Option<i64> = connection
        .prepare_cached("SELECT min(time_ms) FROM events")?
        .query_row([], |row| row.get(0))?;
    let hour_of = |ms: i64| ms.div_euclid(HOUR_MS);
    let end = hour_of(forgotten.before_ms)
        .min(Folded::read(connection)?.hour)
        .min(oldest_ms.map_or(i64::MAX, hour_of));
    let first: Option<i64> = connection
        .prepare_cached("SELECT min(hour) FROM hourly WHERE hour >= ?1")?
        .query_row([regrouped_hour(connection)?], |row| row.get(0))?;
    Ok(first.filter(|first| *first < end).map(|from| {
        let day = from - from.rem_euclid(24);
        Due {
            day,
            from,
            end: end.min(day + 24),
        }
    }))
}

/// What the sums of that day are to do without. Reads all of its hours that are folded.
pub fn reduction(
    connection: &Connection,
    day: i64,
    named: &[String],
) -> rusqlite::Result<Reduction> {
    let reduced_before = regrouped_hour(connection)?;
    let mut census = Census::new(named.iter().cloned());
    each_line(connection, day, |key, tags| {
        census.take_tags(tags, key.hour < reduced_before);
        census.take_ids(key);
        Ok(true)
    })?;
    let mut reduction = census.judge();
    let by_tags = |reduction: &Reduction, key: &Key, tags: &Tags, owner: i64| {
        reduction.print_of(tags, key, owner)
    };
    while has_too_many(connection, day, &reduction, by_tags)? && reduction.go_further() {}
    let by_pod = |reduction: &Reduction, key: &Key, tags: &Tags, owner: i64| {
        reduction.print_by_pod(tags, key, owner)
    };
    if has_too_many(connection, day, &reduction, by_pod)? {
        reduction.drop_pods();
    }
    Ok(reduction)
}

/// Whether a day would have too many sums that are told apart like this.
fn has_too_many(
    connection: &Connection,
    day: i64,
    reduction: &Reduction,
    print_of: impl Fn(&Reduction, &Key, &Tags, i64) -> u64,
) -> rusqlite::Result<bool> {
    let mut prints = HashSet::new();
    each_line(connection, day, |key, tags| {
        let owner = fold::owner(connection, key.source)?;
        prints.insert(print_of(reduction, key, tags, owner));
        Ok(prints.len() <= SUM_LINES_MAX)
    })?;
    Ok(prints.len() > SUM_LINES_MAX)
}

/// Shows every folded line of the day's hours with its tags, hour by hour, until told to stop.
fn each_line(
    connection: &Connection,
    day: i64,
    mut show: impl FnMut(&Key, &Tags) -> rusqlite::Result<bool>,
) -> rusqlite::Result<()> {
    let folded = Folded::read(connection)?;
    let mut statement = connection.prepare_cached(
        "SELECT hour, tag_set, source_id, model_id, outcome, usage_source, cost_status FROM hourly
         WHERE hour >= ?1 AND hour < ?2
         ORDER BY hour, tag_set, source_id, model_id, outcome, usage_source, cost_status",
    )?;
    let mut lines = statement.query([day, folded.hour.min(day + 24)])?;
    let mut remembered = HashMap::new();
    while let Some(line) = lines.next()? {
        let key = Key::read(line)?;
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        if let Entry::Vacant(slot) = remembered.entry(key.tag_set) {
            slot.insert(tags_of(connection, key.tag_set)?);
        }
        match remembered.get(&key.tag_set) {
            Some(tags) if show(&key, tags)? => {}
            _ => return Ok(()),
        }
    }
    Ok(())
}

/// Regroups some lines of those hours, those after that place; says where the next step begins, or
/// `None` where all are done. Within a transaction.
pub fn regroup_some(
    connection: &Connection,
    dictionaries: &mut Dictionaries,
    reduction: &Reduction,
    due: Due,
    after: Option<Key>,
) -> rusqlite::Result<Option<Key>> {
    let first = Key {
        hour: due.from,
        tag_set: i64::MIN,
        source: 0,
        model: 0,
        outcome: 0,
        usage_source: 0,
        cost_status: 0,
    };
    let after = after.unwrap_or(first);
    let names: Vec<&str> = rollup::sum_names().collect();
    let sql = format!(
        "SELECT hour, tag_set, source_id, model_id, outcome, usage_source, cost_status, {}
         FROM hourly
         WHERE (hour, tag_set, source_id, model_id, outcome, usage_source, cost_status)
             > (?1, ?2, ?3, ?4, ?5, ?6, ?7) AND hour < ?8
         ORDER BY hour, tag_set, source_id, model_id, outcome, usage_source, cost_status LIMIT ?9",
        names.join(", "),
    );
    let mut lines = Vec::new();
    let values = after
        .columns()
        .into_iter()
        .chain([due.end, REGROUP_LINES_MAX]);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query(rusqlite::params_from_iter(values))?;
    while let Some(line) = found.next()? {
        lines.push((Key::read(line)?, Sums::read(line, 7)?));
    }
    let mut rollup = Rollup::default();
    for (key, sums) in &lines {
        let to = reduced(connection, dictionaries, reduction, *key)?;
        if to != *key {
            rollup.shift(*key, to, sums);
        }
    }
    rollup.write(connection)?;
    let is_full = i64::try_from(lines.len()).is_ok_and(|n| n >= REGROUP_LINES_MAX);
    match lines.last() {
        Some((last, _)) if is_full => Ok(Some(*last)),
        _ => {
            note(connection, due.end)?;
            Ok(None)
        }
    }
}

fn reduced(
    connection: &Connection,
    dictionaries: &mut Dictionaries,
    reduction: &Reduction,
    key: Key,
) -> rusqlite::Result<Key> {
    let before = tags_of(connection, key.tag_set)?;
    let after = reduction.tags(&before);
    let tag_set = match after == before {
        true => key.tag_set,
        false => dictionaries.tag_set(connection, &after)?,
    };
    let model = match reduction.model(key.model) {
        Stays::Whole => key.model,
        Stays::InPart => other_model(connection, dictionaries, key.model)?,
    };
    let source = match reduction.source(key.source) {
        Stays::Whole => key.source,
        Stays::InPart => lesser_source(connection, dictionaries, reduction, key.source)?,
    };
    Ok(Key {
        tag_set,
        model,
        source,
        ..key
    })
}

/// The model that stands for all others of the same provider and API.
fn other_model(
    connection: &Connection,
    dictionaries: &mut Dictionaries,
    model: i64,
) -> rusqlite::Result<i64> {
    let of: Option<(String, String)> = connection
        .prepare_cached("SELECT provider, api FROM models WHERE id = ?1")?
        .query_row([model], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((provider, api)) = of else {
        return Ok(model);
    };
    let event = Event {
        provider,
        api,
        host: OTHER.to_owned(),
        model: Some(OTHER.to_owned()),
        model_requested: Some(OTHER.to_owned()),
        ..Event::default()
    };
    dictionaries.model(connection, &event)
}

/// The source without its pod and node; where owners are too many, its namespace alone.
fn lesser_source(
    connection: &Connection,
    dictionaries: &mut Dictionaries,
    reduction: &Reduction,
    source: i64,
) -> rusqlite::Result<i64> {
    if !reduction.drops_owners() {
        return fold::owner(connection, source);
    }
    let of: Option<(Option<String>, Option<String>)> = connection
        .prepare_cached("SELECT namespace, cluster FROM sources WHERE id = ?1")?
        .query_row([source], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((namespace, cluster)) = of else {
        return Ok(source);
    };
    let lesser = Source {
        namespace,
        cluster,
        ..Source::default()
    };
    dictionaries.source(connection, &lesser)
}

fn tags_of(connection: &Connection, tag_set: i64) -> rusqlite::Result<Tags> {
    let body: Option<String> = connection
        .prepare_cached("SELECT body FROM tag_sets WHERE id = ?1")?
        .query_row([tag_set], |row| row.get(0))
        .optional()?;
    Ok(body
        .and_then(|body| serde_json::from_str(&body).ok())
        .unwrap_or_default())
}

fn value(connection: &Connection, key: &str) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use tollmesh_wire::{Outcome, Timestamp};

    use super::*;
    use crate::ledger::budgets::{Charges, NoCharger};
    use crate::ledger::entry::{CostRecord, Entry};
    use crate::ledger::mark::Marked;
    use crate::ledger::prune::Pruning;
    use crate::ledger::query::{Dimension, Reader, SpendQuery};
    use crate::ledger::queue::Batch;
    use crate::ledger::recording::Measuring;
    use crate::ledger::store::Store;
    use crate::ledger::totals::{Increments, NoMeter};
    use crate::money::PicoUsd;

    /// 2026-11-30T22:00Z.
    const START_HOUR: i64 = 498_910;

    fn any_entries() -> impl Strategy<Value = Vec<Entry>> {
        let entry = (
            0..4_i64,
            0..3_usize,
            0..40_u32,
            0..3_u32,
            0..5_u32,
            any::<i64>(),
        );
        let entries = prop::collection::vec(entry, 1..120);
        entries.prop_map(|entries| {
            let entries = entries.into_iter().enumerate();
            let entries = entries.map(|(n, (hour, outcome, session, team, pod, pico))| Entry {
                event: Event {
                    event_id: n.to_string(),
                    time: Timestamp::from_unix_ms((START_HOUR + hour) * HOUR_MS + n as i64),
                    provider: "openai".into(),
                    model: Some(format!("m{pod}")),
                    usage_source: "reported".into(),
                    outcome: [Outcome::Success, Outcome::Error, Outcome::Relayed][outcome],
                    duration_ms: u64::from(session),
                    ttft_ms: (session % 2 == 0).then_some(u64::from(team)),
                    tags: [
                        ("team".to_owned(), team.to_string()),
                        ("of-0".to_owned(), session.to_string()),
                        ("of-1".to_owned(), (session % 7).to_string()),
                        ("of-2".to_owned(), "x".to_owned()),
                    ]
                    .into(),
                    source: Source {
                        namespace: Some(team.to_string()),
                        workload: (pod > 1).then(|| "w".to_owned()),
                        pod: Some(pod.to_string()),
                        ..Source::default()
                    },
                    ..Event::default()
                },
                cost: CostRecord {
                    total: Some(PicoUsd::from_pico(pico)),
                    ..CostRecord::free(Arc::from("digest"))
                },
            });
            entries.collect()
        })
    }

    /// All sums by those dimensions, and by days.
    fn sums(reader: &Reader, names: &[&str]) -> Vec<String> {
        let by: Vec<Dimension> = names.iter().map(|name| Dimension::parse(name)).collect();
        let sums = [None, Some(HOUR_MS), Some(24 * HOUR_MS)].map(|interval_ms| {
            let query = SpendQuery {
                by: by.clone(),
                interval_ms,
                ..SpendQuery::default()
            };
            let rows = reader.spend(&query).unwrap().into_iter();
            let mut rows: Vec<String> = rows.map(|row| format!("{row:?}")).collect();
            rows.sort();
            rows
        });
        sums.concat()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Whatever is left out, what is left adds up to what it did, to the pico-dollar, in hours,
        /// days and months; and every table of sums agrees with the others.
        #[test]
        fn sums_stay_what_they_were(entries in any_entries(), n_steps in 0..9_usize) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("ledger.db");
            let mut store = Store::open(&path, &Marked::default()).unwrap();
            let batch = Batch { entries, quarantine: vec![] };
            let measuring = Measuring {
                meter: &mut NoMeter,
                increments: &mut Increments::default(),
                charger: &mut NoCharger,
                charges: &mut Charges::default(),
                pricer: None,
            };
            store.transact(&[batch], measuring).unwrap();
            while store.fold(START_HOUR + 9, 50).unwrap() {}
            let before = Timestamp::from_unix_ms((START_HOUR + 9) * HOUR_MS);
            store.prune(Pruning { before, spares_pending: false }).unwrap();
            let reader = Reader::new(path, Arc::default());
            // In the order in which they are left out.
            let kept: &[&str] = match n_steps {
                0 => &["of-0", "of-1", "of-2", "team", "model", "namespace", "outcome"],
                1..=3 => &["team", "model", "namespace", "outcome"],
                4..=5 => &["model", "namespace", "outcome"],
                6 => &["namespace", "outcome"],
                _ => &["namespace", "outcome", "cost_status"],
            };
            let expected = sums(&reader, kept);
            while let Some(due) = reader.ask(|c| Ok(due(c)?)).unwrap() {
                let named = ["team".to_owned()];
                let mut reduction = reader.ask(|c| Ok(reduction(c, due.day, &named)?)).unwrap();
                (0..n_steps).for_each(|_| _ = reduction.go_further());
                let mut after = None;
                loop {
                    after = store.regroup(&reduction, due, after).unwrap();
                    if after.is_none() {
                        break;
                    }
                }
            }
            prop_assert_eq!(sums(&reader, kept), expected);
            let audit = reader.audit(&mut |_| {}).unwrap();
            prop_assert_eq!(audit.findings, vec![]);
        }
    }
}
