//! Answers of many groups made short: the largest stay, all others are summed up in one.

use std::collections::{BTreeMap, HashMap};

use tollmesh_wire::Timestamp;

use super::comparison::Compared;
use super::spend::{SpendRow, in_order};
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

fn others_key(n_dimensions: usize) -> Vec<Option<String>> {
    vec![Some(OTHER.to_owned()); n_dimensions]
}

#[cfg(test)]
mod tests {
    use super::*;

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
