//! A parcel's columns as the statement takes them: texts without what the server cannot hold, ids of
//! facts as the store knows them.

use std::borrow::Cow;
use std::collections::HashMap;

use tokio_postgres::types::{ToSql, Type};

use crate::forward::error::ForwardError;
use crate::ledger::outbox::Cells;

/// One column's cells as the statement takes them.
pub enum Array<'p> {
    Integers(Vec<Option<i64>>),
    Texts(Vec<Option<Cow<'p, str>>>),
}

impl<'p> Array<'p> {
    /// Of the cells of those rows that are kept; `ids` are the store's by ours where they are of facts.
    pub fn of(
        cells: &'p Cells,
        kept: &[bool],
        ids: Option<&HashMap<i64, i64>>,
    ) -> Result<Array<'p>, ForwardError> {
        Ok(match cells {
            Cells::Texts(texts) => Array::Texts(
                chosen(texts, kept)
                    .map(|text| text.as_deref().map(plain))
                    .collect(),
            ),
            Cells::Integers(integers) => Array::Integers(match ids {
                None => chosen(integers, kept).copied().collect(),
                Some(ids) => chosen(integers, kept)
                    .map(|id| theirs(*id, ids))
                    .collect::<Result<_, _>>()?,
            }),
        })
    }

    /// The same as a statement's parameter.
    pub fn parameter(&self) -> (&(dyn ToSql + Sync), Type) {
        match self {
            Array::Integers(cells) => (cells, Type::INT8_ARRAY),
            Array::Texts(cells) => (cells, Type::TEXT_ARRAY),
        }
    }
}

fn chosen<'c, 'k, T>(
    cells: &'c [T],
    kept: &'k [bool],
) -> impl Iterator<Item = &'c T> + use<'c, 'k, T> {
    cells
        .iter()
        .zip(kept)
        .filter(|(_, kept)| **kept)
        .map(|(cell, _)| cell)
}

/// The store's id for one of ours.
fn theirs(id: Option<i64>, ids: &HashMap<i64, i64>) -> Result<Option<i64>, ForwardError> {
    match id {
        None => Ok(None),
        Some(id) => match ids.get(&id) {
            Some(id) => Ok(Some(*id)),
            None => Err(ForwardError::Broken),
        },
    }
}

/// PostgreSQL's texts hold no NUL (<https://www.postgresql.org/docs/current/datatype-character.html>);
/// whoever put one into a header or an id gets a replacement character in its place.
pub fn plain(text: &str) -> Cow<'_, str> {
    match text.contains('\0') || text.contains("\\u0000") {
        true => without_nul(text).into(),
        false => text.into(),
    }
}

/// The same for JSON, where a NUL is written as an escape; a backslash before it is itself escaped.
pub fn without_nul(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['\\', '\0']) {
        let (before, from) = rest.split_at(at);
        plain.push_str(before);
        let (put, n_bytes) = match from {
            from if from.starts_with('\0') => ("\u{fffd}", 1),
            from if from.starts_with("\\u0000") => ("\u{fffd}", 6),
            from if from.starts_with("\\\\") => ("\\\\", 2),
            _ => ("\\", 1),
        };
        plain.push_str(put);
        rest = from.get(n_bytes..).unwrap_or_default();
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_nul_goes_out() {
        for (text, sent) in [
            ("plain", "plain"),
            ("a\0b", "a\u{fffd}b"),
            (r#"{"a":"x\u0000y"}"#, "{\"a\":\"x\u{fffd}y\"}"),
            (r#"{"a":"x\\u0000y"}"#, r#"{"a":"x\\u0000y"}"#),
            (r#"{"a":"\n\\\u0000"}"#, "{\"a\":\"\\n\\\\\u{fffd}\"}"),
            ("\\", "\\"),
        ] {
            assert_eq!(plain(text), sent);
        }
    }
}
