//! Rows that have ended stay as they are: they price the calls of the past.

use std::collections::BTreeSet;

use tollmesh_pricing::{Book, Row};

/// The rows of the shipped tables that had ended by [`DAY_MS`], by id; the hash in an id covers
/// all that decides a cost.
const PAST: &str = include_str!("past_rows.txt");

/// 2026-11-22T00:00:00Z.
const DAY_MS: i64 = 1_795_305_600_000;

#[test]
fn ended_rows_are_still_there() {
    let book = Book::load(Book::shipped()).unwrap();
    let rows: Vec<&Row> = book.models().flat_map(|(_, model)| &model.rows).collect();
    let ended = rows.iter().filter(|row| row.until_ms <= DAY_MS);
    let ended: BTreeSet<&str> = ended.map(|row| row.id.as_str()).collect();
    let noted: BTreeSet<&str> = PAST.lines().collect();
    let model = |id: &str| id.rsplit_once(':').map(|(model, _)| model.to_owned());
    let fixed: BTreeSet<_> = rows
        .iter()
        .filter(|r| r.fix.is_some())
        .map(|r| model(&r.id))
        .collect();
    let gone: Vec<&&str> = noted
        .difference(&ended)
        .filter(|id| !fixed.contains(&model(id)))
        .collect();
    assert!(
        gone.is_empty(),
        "rows of the past were edited or removed: restore them, or give the rows in their place a \
         `fix = \"why\"`: {gone:#?}"
    );
    let new: Vec<&&str> = ended.difference(&noted).collect();
    assert!(
        new.is_empty(),
        "add these to past_rows.txt, sorted: {new:#?}"
    );
}
