//! Answers of many groups made short: the largest stay, all others are summed up in one.

use std::collections::{BTreeMap, HashMap};

use tollmesh_wire::Timestamp;

use super::comparison::Compared;
use super::spend::{SpendRow, in_order};
use super::told::OutcomeRow;
use crate::ledger::reduce::OTHER;
use crate::money::PicoSum;

type Key = [Option<String>];

/// At most that many rows, in the order of sums; what is beyond is one row an interval in addition,
/// every dimension of which is `__other__`. No call is lost or counted twice.
///
/// A group is kept in all its intervals or in none, by its cost over all of them, and the first one is
/// kept however many intervals it has.
pub fn folded(rows: Vec<SpendRow>, rows_max: usize) -> Vec<SpendRow> {
    if rows.len() <= rows_max {
        return rows;
    }
    let is_kept = kept(&rows, rows_max);
    let mut others: BTreeMap<Option<Timestamp>, SpendRow> = BTreeMap::new();
    let mut short = Vec::with_capacity(rows_max + 1);
    for (row, is_kept) in rows.into_iter().zip(is_kept) {
        if is_kept {
            short.push(row);
            continue;
        }
        let other = others.entry(row.start).or_insert_with(|| SpendRow {
            start: row.start,
            key: others_key(row.key.len()),
            ..SpendRow::default()
        });
        other.add(&row);
    }
    short.extend(others.into_values());
    in_order(short)
}

/// Which rows are of groups that stay.
fn kept(rows: &[SpendRow], rows_max: usize) -> Vec<bool> {
    let mut groups: HashMap<&Key, (PicoSum, u64, usize)> = HashMap::new();
    for row in rows {
        let (cost, requests, n_rows) = groups.entry(&row.key).or_default();
        *cost += row.cost;
        *requests += row.requests;
        *n_rows += 1;
    }
    let mut ranked: Vec<_> = groups.iter().map(|(key, sums)| (*sums, *key)).collect();
    ranked.sort_unstable_by(
        |((a_cost, a_requests, _), a), ((b_cost, b_requests, _), b)| {
            (b_cost, b_requests)
                .cmp(&(a_cost, a_requests))
                .then(a.cmp(b))
        },
    );
    let mut n_rows = 0;
    let mut n_kept = 0;
    for ((_, _, more), _) in &ranked {
        n_rows += more;
        if n_rows > rows_max && n_kept > 0 {
            break;
        }
        n_kept += 1;
    }
    for (_, key) in ranked.drain(n_kept..) {
        groups.remove(key);
    }
    rows.iter()
        .map(|row| groups.contains_key(&*row.key))
        .collect()
}

/// The same of groups in two periods: those that come first stay, and the sum of all others is last.
pub fn folded_pairs(mut rows: Vec<Compared>, rows_max: usize) -> Vec<Compared> {
    if rows.len() <= rows_max {
        return rows;
    }
    let n_dimensions = rows.first().map_or(0, |row| row.key.len());
    let mut other = Compared {
        key: others_key(n_dimensions),
        ..Compared::default()
    };
    for row in rows.drain(rows_max..) {
        other.before.add(&row.before);
        other.after.add(&row.after);
    }
    // Days of the past may have such a group of their own.
    if let Some(at) = rows.iter().position(|row| row.key == other.key) {
        let own = rows.remove(at);
        other.before.add(&own.before);
        other.after.add(&own.after);
    }
    rows.push(other);
    rows.shrink_to_fit();
    rows
}

/// The same of what became of calls: groups with all their labels in the order of their spend, as far as
/// they are that many rows together, and at least one; all others have one row a label, which come last.
/// A subject of several of these is counted in each.
pub fn folded_outcomes(mut rows: Vec<OutcomeRow>, rows_max: usize) -> Vec<OutcomeRow> {
    if rows.len() <= rows_max {
        return rows;
    }
    let other_key = others_key(rows.first().map_or(0, |row| row.key.len()));
    let mut n_kept = 0;
    for group in rows.chunk_by(|a, b| a.key == b.key) {
        if n_kept > 0 && n_kept + group.len() > rows_max {
            break;
        }
        n_kept += group.len();
    }
    let mut others: BTreeMap<_, OutcomeRow> = BTreeMap::new();
    // Days of the past may have such a group of their own.
    let own = rows.extract_if(..n_kept, |row| row.key == other_key);
    let own: Vec<OutcomeRow> = own.collect();
    let folded = rows.split_off(n_kept - own.len());
    for row in folded.into_iter().chain(own) {
        let place = (row.label.is_none(), row.label.clone());
        let other = others.entry(place).or_insert_with(|| OutcomeRow {
            key: other_key.clone(),
            label: row.label.clone(),
            outcomes: 0,
            requests: 0,
            cost: PicoSum::ZERO,
            spend: PicoSum::ZERO,
        });
        other.outcomes += row.outcomes;
        other.requests += row.requests;
        other.cost += row.cost;
    }
    let spend = others.values().map(|other| other.cost.as_pico()).sum();
    rows.extend(others.into_values().map(|other| OutcomeRow {
        spend: PicoSum::from_pico(spend),
        ..other
    }));
    rows.shrink_to_fit();
    rows
}

fn others_key(n_dimensions: usize) -> Vec<Option<String>> {
    vec![Some(OTHER.to_owned()); n_dimensions]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_beyond_the_largest_groups_are_summed_by_label() {
        let row = |key: &str, label: Option<&str>, n: u64, spend: i128| OutcomeRow {
            key: vec![Some(key.to_owned())],
            label: label.map(str::to_owned),
            outcomes: if label.is_some() { n } else { 0 },
            requests: n,
            cost: PicoSum::from_pico(i128::from(n)),
            spend: PicoSum::from_pico(spend),
        };
        let rows = vec![
            row("a", Some("accepted"), 5, 9),
            row("a", None, 4, 9),
            row(OTHER, Some("accepted"), 7, 7),
            row("b", Some("accepted"), 3, 5),
            row("b", Some("edited"), 2, 5),
            row("c", None, 1, 1),
        ];
        assert_eq!(folded_outcomes(rows.clone(), 6), rows);
        let expected = vec![
            row("a", Some("accepted"), 5, 9),
            row("a", None, 4, 9),
            row(OTHER, Some("accepted"), 10, 13),
            row(OTHER, Some("edited"), 2, 13),
            row(OTHER, None, 1, 13),
        ];
        for rows_max in [1, 2, 3, 4] {
            assert_eq!(
                folded_outcomes(rows.clone(), rows_max),
                expected,
                "{rows_max}"
            );
        }
        assert_eq!(folded_outcomes(rows, 5).len(), 6);
    }

    fn row(start: Option<i64>, name: &str, pico: i128) -> SpendRow {
        SpendRow {
            start: start.map(Timestamp::from_unix_ms),
            key: vec![Some(name.to_owned()), None],
            requests: 1,
            cost: PicoSum::from_pico(pico),
            ..SpendRow::default()
        }
    }

    fn told(rows: &[SpendRow]) -> Vec<(Option<i64>, String, i128, u64)> {
        let told = rows.iter().map(|row| {
            let start = row.start.map(Timestamp::as_unix_ms);
            let name = row.key[0].clone().unwrap();
            (start, name, row.cost.as_pico(), row.requests)
        });
        told.collect()
    }

    fn named(
        start: Option<i64>,
        name: &str,
        pico: i128,
        n: u64,
    ) -> (Option<i64>, String, i128, u64) {
        (start, name.to_owned(), pico, n)
    }

    #[test]
    fn the_largest_stay_and_the_others_are_summed() {
        let rows = vec![
            row(None, "a", 9),
            row(None, "b", 8),
            row(None, "c", 3),
            row(None, "d", 2),
        ];
        assert_eq!(folded(rows.clone(), 4), rows);
        let short = folded(rows, 2);
        assert_eq!(
            told(&short),
            [
                named(None, "a", 9, 1),
                named(None, "b", 8, 1),
                named(None, "__other__", 5, 2)
            ]
        );
        assert_eq!(short[2].key, others_key(2));
    }

    #[test]
    fn a_group_stays_in_all_intervals_or_in_none() {
        let rows = vec![
            row(Some(0), "a", 5),
            row(Some(0), "b", 4),
            row(Some(0), "c", 3),
            row(Some(1), "b", 4),
            row(Some(1), "c", 1),
            row(Some(1), "a", 1),
        ];
        assert_eq!(
            told(&folded(rows, 3)),
            [
                named(Some(0), "__other__", 8, 2),
                named(Some(0), "b", 4, 1),
                named(Some(1), "b", 4, 1),
                named(Some(1), "__other__", 2, 2),
            ]
        );
    }

    #[test]
    fn others_of_past_days_are_of_the_same_group() {
        let mut others = row(None, "__other__", 90);
        others.key = others_key(2);
        let rows = vec![others.clone(), row(None, "a", 9), row(None, "b", 8)];
        assert_eq!(told(&folded(rows, 1)), [named(None, "__other__", 107, 3)]);
        let pair = |row: SpendRow| Compared {
            key: row.key.clone(),
            after: row,
            ..Compared::default()
        };
        let pairs = vec![
            pair(others),
            pair(row(None, "a", 9)),
            pair(row(None, "b", 8)),
        ];
        let short = folded_pairs(pairs, 2);
        assert_eq!(short.len(), 2);
        assert_eq!(short[0].after.cost.as_pico(), 9);
        assert_eq!(short[1].key, others_key(2));
        assert_eq!(short[1].after.cost.as_pico(), 98);
    }
}
