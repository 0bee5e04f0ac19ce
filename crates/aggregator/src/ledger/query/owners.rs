//! Which unit the calls of a tag set are of.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use rusqlite::{Connection, OptionalExtension, params};

use crate::ledger::query::terms::LISTED_MAX;

/// The value of the first of some tags that a tag set has, of those tag sets that were asked for.
#[derive(Default)]
pub struct Owners {
    by_tag_set: HashMap<i64, Option<String>>,
}

impl Owners {
    /// The unit of that tag set.
    pub fn of(
        &mut self,
        connection: &Connection,
        tags: &[String],
        tag_set: i64,
    ) -> rusqlite::Result<Option<&str>> {
        if let Entry::Vacant(place) = self.by_tag_set.entry(tag_set) {
            place.insert(Owners::find(connection, tags, tag_set)?);
        }
        Ok(self.known(tag_set))
    }

    /// The same, of a tag set that was asked for before.
    pub fn known(&self, tag_set: i64) -> Option<&str> {
        self.by_tag_set.get(&tag_set).and_then(Option::as_deref)
    }

    /// The tag sets of these units; `None` where they are too many to be listed.
    pub fn few_of(&self, units: &HashMap<String, usize>) -> Option<Vec<i64>> {
        let is_of_them = |owner: &Option<String>| match owner {
            Some(unit) => units.contains_key(unit),
            None => false,
        };
        let all = self
            .by_tag_set
            .iter()
            .filter(|(_, owner)| is_of_them(owner));
        let n_max = LISTED_MAX as usize;
        let few: Vec<i64> = all.map(|(tag_set, _)| *tag_set).take(n_max + 1).collect();
        (few.len() <= n_max).then_some(few)
    }

    fn find(
        connection: &Connection,
        tags: &[String],
        tag_set: i64,
    ) -> rusqlite::Result<Option<String>> {
        let mut find =
            connection.prepare_cached("SELECT value FROM tags WHERE tag_set = ?1 AND tag = ?2")?;
        for tag in tags {
            let value: Option<String> = find
                .query_row(params![tag_set, tag], |row| row.get(0))
                .optional()?;
            if let Some(value) = value {
                return Ok(Some(value).filter(|value| !value.is_empty()));
            }
        }
        Ok(None)
    }
}
