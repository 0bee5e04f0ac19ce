//! The rows of one model together: at each instant and input exactly one.

use jiff::tz::TimeZone;

use crate::fields::{Fields, Report};
use crate::row::{Row, midnight_ms};

/// A span of time in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    from_ms: i64,
    until_ms: i64,
}

impl Span {
    /// Reads `from` (inclusive) and `until` (exclusive), days in UTC.
    pub(crate) fn read(fields: &mut Fields, report: &mut Report<'_>) -> Span {
        let ms = |date| midnight_ms(date, &TimeZone::UTC);
        let span = Span {
            from_ms: fields.date("from", report).map_or(i64::MIN, ms),
            until_ms: fields.date("until", report).map_or(i64::MAX, ms),
        };
        if span.from_ms >= span.until_ms {
            report.add(fields.place(), "`until` is not after `from`");
        }
        span
    }

    pub(crate) fn holds(self, unix_ms: i64) -> bool {
        self.from_ms <= unix_ms && unix_ms < self.until_ms
    }

    /// Whether both hold at some instant.
    pub(crate) fn meets(self, other: Span) -> bool {
        self.from_ms < other.until_ms && other.from_ms < self.until_ms
    }
}

/// What a row must fit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// In our words.
    pub(crate) tier: &'a str,
    pub(crate) unix_ms: i64,
    /// Caches included.
    pub(crate) input_total: u64,
    /// The provider's region, lower case, where it is known.
    pub(crate) region: Option<&'a str>,
}

/// The row that prices a call: of those that hold the most particular, where one for a region
/// comes before one for certain hours, and this before one for all calls.
pub(crate) fn find<'a>(rows: &'a [Row], wanted: Wanted<'_>) -> Option<&'a Row> {
    let in_hours = |row: &Row| row.at.as_ref().is_none_or(|(_, c)| c.holds(wanted.unix_ms));
    let holds = |row: &&Row| {
        row.tier == wanted.tier
            && row.holds(wanted.unix_ms, wanted.input_total)
            && row.holds_in(wanted.region)
            && in_hours(row)
    };
    rows.iter().filter(holds).max_by_key(|row| rank(row))
}

/// Whether the region has prices of its own, of which none is for the call's tier: the row for all
/// regions then stands in.
pub(crate) fn stands_in(rows: &[Row], wanted: Wanted<'_>, found: &Row) -> bool {
    let is_of_region = |row: &&Row| row.is_regional() && row.holds_in(wanted.region);
    let is_in_force = |row: &Row| row.from_ms <= wanted.unix_ms && wanted.unix_ms < row.until_ms;
    !found.is_regional() && rows.iter().filter(is_of_region).any(is_in_force)
}

fn rank(row: &Row) -> (bool, bool) {
    (row.is_regional(), row.at.is_some())
}

/// Refuses rows that overlap, and holes between them.
pub(crate) fn check(rows: &[Row], place: &str, report: &mut Report<'_>) {
    for (n, row) in (1..).zip(rows) {
        for (m, other) in (1..).zip(rows).skip(n) {
            if rank(row) == rank(other) && meet(row, other) {
                let what = format!(
                    "rows {n} and {m} overlap: both price the same calls; end one (`until`) where \
                     the other begins, or part them by `tier`, `ctx`, `at` or `region`"
                );
                report.add(place, what);
            }
        }
    }
    let mut tiers: Vec<&str> = rows.iter().map(|r| r.tier.as_str()).collect();
    tiers.sort_unstable();
    tiers.dedup();
    for tier in tiers {
        check_gaps(rows, tier, place, report);
    }
}

/// Whether some call fits both rows, whatever the hour.
pub(crate) fn meet(a: &Row, b: &Row) -> bool {
    let both_in = || {
        let mut pairs = a
            .regions_fit
            .iter()
            .flat_map(|g| b.regions_fit.iter().map(move |h| (g, h)));
        !a.is_regional() || !b.is_regional() || pairs.any(|(g, h)| g.meets(h))
    };
    a.tier == b.tier
        && a.from_ms < b.until_ms
        && b.from_ms < a.until_ms
        && a.input_min <= b.input_max
        && b.input_min <= a.input_max
        && both_in()
}

fn check_gaps(rows: &[Row], tier: &str, place: &str, report: &mut Report<'_>) {
    let plain: Vec<&Row> = rows
        .iter()
        .filter(|r| r.tier == tier && r.at.is_none() && !r.is_regional())
        .collect();
    if plain.is_empty() {
        let what =
            format!("tier {tier} has rows with `at` or `region` only; add one for all other calls");
        report.add(place, what);
    }
    let mut edges: Vec<i64> = plain.iter().flat_map(|r| [r.from_ms, r.until_ms]).collect();
    edges.sort_unstable();
    edges.dedup();
    for pair in edges.windows(2) {
        let [start, _] = pair else { continue };
        let holding = plain
            .iter()
            .filter(|r| r.from_ms <= *start && *start < r.until_ms);
        let inputs = holding.map(|r| (r.input_min, r.input_max));
        if let Some(hole) = first_hole(inputs.collect()) {
            let since = jiff::Timestamp::from_millisecond(*start)
                .map_or_else(|_| "the beginning".to_owned(), |t| t.to_string());
            let what = format!(
                "tier {tier}: nothing prices an input of {hole} tokens from {since}; close the gap"
            );
            report.add(place, what);
        }
    }
}

/// The least total input that no span covers.
fn first_hole(mut inputs: Vec<(u64, u64)>) -> Option<u64> {
    inputs.sort_unstable();
    let mut next = 0u64;
    for (low, high) in inputs {
        if low > next {
            return Some(next);
        }
        next = next.max(high.checked_add(1)?);
    }
    Some(next)
}
