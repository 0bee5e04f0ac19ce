//! What recurs in every row, by integer id: tag sets, sources, models, price rows.
//!
//! Ids are found in memory first. The caches speak of one transaction's view of the file: after a
//! rollback they are worthless, and dropped with the store that owns them.

use std::collections::{BTreeMap, HashMap, HashSet};

use rusqlite::{Connection, OptionalExtension, params, params_from_iter};
use serde::Serialize;
use tollmesh_wire::{Event, Source};

use crate::ledger::entry::{CostRecord, Entry};

/// Keys that each generation of a cache holds. Twice that many keys of some 300 bytes in each of
/// four caches stay below 5 MiB; what recurs less often is looked up in the file.
const GENERATION_KEYS_MAX: usize = 2_048;

/// The ids that a row refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    pub tag_set: i64,
    pub source: i64,
    pub model: i64,
    pub price: i64,
}

/// All dictionaries.
#[derive(Default)]
pub struct Dictionaries {
    tag_sets: Cache,
    sources: Cache,
    models: Cache,
    prices: Cache,
    /// The key being looked up; kept for its capacity.
    key: Vec<u8>,
}

/// A bounded map: keys that were not asked for during a whole generation are forgotten.
#[derive(Default)]
struct Cache {
    young: HashMap<Box<[u8]>, i64>,
    old: HashMap<Box<[u8]>, i64>,
    /// What was handed out since a sweep began, while one is under way.
    handed: Option<HashSet<i64>>,
}

/// A dictionary whose entries are deleted when nothing refers to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dictionary {
    TagSets,
    Sources,
    Models,
}

impl Dictionaries {
    /// The ids of what this entry refers to; what is new is written.
    pub fn ids(&mut self, connection: &Connection, entry: &Entry) -> rusqlite::Result<Ids> {
        let (event, cost) = (&entry.event, &entry.cost);
        Ok(Ids {
            tag_set: self.tag_set(connection, &event.tags)?,
            source: self.source(connection, &event.source)?,
            model: self.model(connection, event)?,
            price: self.price(connection, cost)?,
        })
    }

    /// The id of these tags.
    pub fn tag_set(
        &mut self,
        connection: &Connection,
        tags: &BTreeMap<String, String>,
    ) -> rusqlite::Result<i64> {
        let pairs = tags.iter();
        write_key(
            &mut self.key,
            pairs.flat_map(|(tag, value)| [Some(&**tag), Some(&**value)]),
        );
        self.tag_sets.id(&self.key, || tag_set(connection, tags))
    }

    /// The id of this source.
    pub fn source(&mut self, connection: &Connection, of: &Source) -> rusqlite::Result<i64> {
        // One that is new refers to its owner, which a sweep may have found without referrers.
        if let (Some(owner), true) = (without_pod(of), self.sources.handed.is_some()) {
            self.source(connection, &owner)?;
        }
        write_key(&mut self.key, source_facts(of));
        self.sources.id(&self.key, || source(connection, of))
    }

    /// The id of the event's model.
    pub fn model(&mut self, connection: &Connection, event: &Event) -> rusqlite::Result<i64> {
        write_key(&mut self.key, model_facts(event));
        self.models.id(&self.key, || model(connection, event))
    }

    /// Notes from here on what is handed out, so that a sweep spares it.
    pub fn begin_sweep(&mut self) {
        for cache in [&mut self.tag_sets, &mut self.sources, &mut self.models] {
            cache.handed = Some(HashSet::new());
        }
    }

    /// Ends a sweep, whether or not one is under way.
    pub fn end_sweep(&mut self) {
        for cache in [&mut self.tag_sets, &mut self.sources, &mut self.models] {
            cache.handed = None;
        }
    }

    /// Of these ids, to which nothing referred when the sweep had begun, those that may be deleted
    /// now; they are not handed out again. None where no sweep is under way.
    pub fn give_up(&mut self, dictionary: Dictionary, ids: &[i64]) -> Vec<i64> {
        let cache = match dictionary {
            Dictionary::TagSets => &mut self.tag_sets,
            Dictionary::Sources => &mut self.sources,
            Dictionary::Models => &mut self.models,
        };
        let Some(handed) = &cache.handed else {
            return Vec::new();
        };
        let is_free = |id: &&i64| !handed.contains(id);
        let free: HashSet<i64> = ids.iter().filter(is_free).copied().collect();
        cache.young.retain(|_, id| !free.contains(id));
        cache.old.retain(|_, id| !free.contains(id));
        free.into_iter().collect()
    }

    /// The id of what gave this cost.
    pub fn price(&mut self, connection: &Connection, cost: &CostRecord) -> rusqlite::Result<i64> {
        let facts = [cost.row.as_deref(), Some(&*cost.pricing_version)];
        write_key(&mut self.key, facts);
        self.prices.id(&self.key, || price(connection, cost))
    }
}

impl Cache {
    fn id(
        &mut self,
        key: &[u8],
        find_or_add: impl FnOnce() -> rusqlite::Result<i64>,
    ) -> rusqlite::Result<i64> {
        if let Some(id) = self.young.get(key) {
            if let Some(handed) = &mut self.handed {
                handed.insert(*id);
            }
            return Ok(*id);
        }
        let id = match self.old.get(key) {
            Some(id) => *id,
            None => find_or_add()?,
        };
        if self.young.len() >= GENERATION_KEYS_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key.into(), id);
        if let Some(handed) = &mut self.handed {
            handed.insert(id);
        }
        Ok(id)
    }
}

/// The key of some facts in memory: bytes that no UTF-8 contains part them and stand for absence.
fn write_key<'f>(key: &mut Vec<u8>, facts: impl IntoIterator<Item = Option<&'f str>>) {
    const ABSENT: u8 = 0xfe;
    const END: u8 = 0xff;
    key.clear();
    for fact in facts {
        match fact {
            Some(text) => key.extend_from_slice(text.as_bytes()),
            None => key.push(ABSENT),
        }
        key.push(END);
    }
}

/// The key of some facts in the file.
fn body(facts: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(facts)
        .map_err(|source| rusqlite::Error::ToSqlConversionFailure(Box::new(source)))
}

fn source_facts(source: &Source) -> [Option<&str>; 7] {
    [
        source.namespace.as_deref(),
        source.workload.as_deref(),
        source.service_account.as_deref(),
        source.principal.as_deref(),
        source.pod.as_deref(),
        source.node.as_deref(),
        source.cluster.as_deref(),
    ]
}

/// What a model's row is made of. The last fact is written where there is one only: rows of calls whose
/// model nobody put are those that they always were.
fn model_facts(event: &Event) -> [Option<&str>; 7] {
    [
        Some(&event.provider),
        Some(&event.api),
        Some(&event.host),
        event.model.as_deref(),
        event.model_requested.as_deref(),
        event.service_tier.as_deref(),
        event.model_put.as_deref(),
    ]
}

fn tag_set(connection: &Connection, tags: &BTreeMap<String, String>) -> rusqlite::Result<i64> {
    let body = body(tags)?;
    if let Some(id) = find(connection, "SELECT id FROM tag_sets WHERE body = ?1", &body)? {
        return Ok(id);
    }
    connection
        .prepare_cached("INSERT INTO tag_sets (body) VALUES (?1)")?
        .execute([body])?;
    let id = connection.last_insert_rowid();
    let mut add =
        connection.prepare_cached("INSERT INTO tags (tag_set, tag, value) VALUES (?1, ?2, ?3)")?;
    for (tag, value) in tags {
        add.execute(params![id, tag, value])?;
    }
    Ok(id)
}

fn source(connection: &Connection, source: &Source) -> rusqlite::Result<i64> {
    let body = body(source)?;
    if let Some(id) = find(connection, "SELECT id FROM sources WHERE body = ?1", &body)? {
        return Ok(id);
    }
    let owner = owner_of(connection, source)?;
    let values = std::iter::once(Some(&*body)).chain(source_facts(source));
    connection
        .prepare_cached(
            "INSERT INTO sources (body, namespace, workload, service_account, principal, pod, node,
                                  cluster) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params_from_iter(values))?;
    let id = connection.last_insert_rowid();
    if let Some(owner) = owner {
        connection
            .prepare_cached("UPDATE sources SET owner_id = ?2 WHERE id = ?1")?
            .execute([id, owner])?;
    }
    Ok(id)
}

/// The id of the same source without pod and node; `None` where it has neither.
fn owner_of(connection: &Connection, of: &Source) -> rusqlite::Result<Option<i64>> {
    let owner = without_pod(of).map(|owner| source(connection, &owner));
    owner.transpose()
}

/// The same source without pod and node; `None` where it has neither.
fn without_pod(of: &Source) -> Option<Source> {
    (of.pod.is_some() || of.node.is_some()).then(|| Source {
        pod: None,
        node: None,
        ..of.clone()
    })
}

fn model(connection: &Connection, event: &Event) -> rusqlite::Result<i64> {
    let [own @ .., put] = model_facts(event);
    let facts = own.iter().chain(put.is_some().then_some(&put));
    let body = body(&facts.collect::<Vec<_>>())?;
    if let Some(id) = find(connection, "SELECT id FROM models WHERE body = ?1", &body)? {
        return Ok(id);
    }
    let values = std::iter::once(Some(&*body)).chain(own);
    connection
        .prepare_cached(
            "INSERT INTO models (body, provider, api, host, model, model_requested, service_tier)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params_from_iter(values))?;
    Ok(connection.last_insert_rowid())
}

fn price(connection: &Connection, cost: &CostRecord) -> rusqlite::Result<i64> {
    let facts = (cost.row.as_deref(), &*cost.pricing_version);
    let body = body(&facts)?;
    if let Some(id) = find(connection, "SELECT id FROM prices WHERE body = ?1", &body)? {
        return Ok(id);
    }
    connection
        .prepare_cached(
            "INSERT INTO prices (body, price_row, pricing_version) VALUES (?1, ?2, ?3)",
        )?
        .execute(params![body, facts.0, facts.1])?;
    Ok(connection.last_insert_rowid())
}

fn find(connection: &Connection, sql: &str, body: &str) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached(sql)?
        .query_row([body], |row| row.get(0))
        .optional()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_spares_what_is_handed_out_meanwhile_with_its_owner() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(include_str!("schema.sql"))
            .unwrap();
        let of = |pod: Option<&str>| Source {
            namespace: Some("shop".into()),
            pod: pod.map(str::to_owned),
            ..Source::default()
        };
        let mut all = Dictionaries::default();
        let owner = all.source(&connection, &of(None)).unwrap();
        let [free, used] = ["a", "b"].map(|pod| all.source(&connection, &of(Some(pod))).unwrap());
        assert_eq!(
            all.give_up(Dictionary::Sources, &[free]),
            [0; 0],
            "no sweep is under way"
        );
        all.begin_sweep();
        all.source(&connection, &of(Some("b"))).unwrap();
        let given_up = all.give_up(Dictionary::Sources, &[owner, free, used]);
        assert_eq!(given_up, [free]);
        connection
            .execute("DELETE FROM sources WHERE id = ?1", [free])
            .unwrap();
        // It is not remembered where it was.
        let again = all.source(&connection, &of(Some("a"))).unwrap();
        let body = "SELECT body FROM sources WHERE id = ?1";
        let body: String = connection
            .query_row(body, [again], |row| row.get(0))
            .unwrap();
        assert!(body.contains("\"a\""), "{body}");
        all.end_sweep();
        assert_eq!(all.give_up(Dictionary::Sources, &[owner]), [0; 0]);
    }

    #[test]
    fn a_cache_forgets_what_is_not_asked_for() {
        let mut cache = Cache::default();
        let mut looked_up = 0;
        for round in 0..3_i64 {
            for key in 0..GENERATION_KEYS_MAX as i64 * 3 {
                for asked in [key, -1] {
                    let id = cache.id(&asked.to_be_bytes(), || {
                        looked_up += 1;
                        Ok(asked)
                    });
                    assert_eq!(id, Ok(asked), "round {round}");
                }
            }
        }
        assert!(cache.young.len() + cache.old.len() <= 2 * GENERATION_KEYS_MAX);
        assert_eq!(looked_up, 3 * 3 * GENERATION_KEYS_MAX + 1);
    }
}
