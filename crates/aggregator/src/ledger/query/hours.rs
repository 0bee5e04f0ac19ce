//! The hours that a question is looked into, in which order, and in which parts.

use std::time::{Duration, Instant};

use rusqlite::{Connection, params_from_iter};
use tollmesh_wire::Timestamp;

use crate::ledger::query::filter::Span;
use crate::ledger::query::looked::{LookedAt, Patience};
use crate::ledger::query::scope::{Dialect, Scope, Table};
use crate::ledger::rollup::HOUR_MS;

/// The hours of a span that have rows, the latest first.
pub struct Hours {
    span: Span,
    left: std::vec::IntoIter<i64>,
    /// The hour in work, with the earlier part of it that is left.
    hour: Option<(i64, Span)>,
    slices: Slices,
    n_all: u64,
    n_looked: u64,
    /// The begin of what was looked at.
    from: Option<Timestamp>,
    is_cut: bool,
}

/// Cuts hours into parts that are looked at at once: whole ones, unless they have so many rows that
/// nobody's patience would be noticed in between.
#[derive(Debug)]
pub struct Slices {
    length_ms: i64,
    /// When the last was cut off.
    cut: Option<Instant>,
}

/// The time that a slice should take to be looked at.
const SLICE_TIME: Duration = Duration::from_millis(40);

/// Rows of an hour from which on it is cut: they take some ten milliseconds.
const SLICE_ROWS: i64 = 20_000;

/// What the length of slices is changed by at once, at most.
const SLICE_CHANGE_MAX: i64 = 16;

/// The shortest slice, in milliseconds.
const SLICE_MS_MIN: i64 = 250;

// === impl Hours ===

impl Hours {
    /// All of them.
    pub fn of(connection: &Connection, span: Span) -> rusqlite::Result<Hours> {
        let all: Vec<i64> = connection
            .prepare_cached(
                "SELECT hour FROM peaks WHERE hour BETWEEN ?1 AND ?2 ORDER BY hour DESC",
            )?
            .query_map(first_and_last(span), |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Hours {
            span,
            n_all: all.len() as u64,
            left: all.into_iter(),
            hour: None,
            slices: Slices::whole(),
            n_looked: 0,
            from: None,
            is_cut: false,
        })
    }

    /// The next hour with the part of it that is to be looked at, which is in the span; `None` after
    /// the last, and where patience is over. One part is looked at in any case.
    pub fn next(
        &mut self,
        connection: &Connection,
        patience: Patience,
    ) -> rusqlite::Result<Option<(i64, Span)>> {
        let is_last = self.hour.is_none() && self.left.len() == 0;
        if self.from.is_some() && !is_last && patience.is_over() {
            self.is_cut = true;
            return Ok(None);
        }
        let (hour, span) = match self.hour.take() {
            Some(begun) => begun,
            None => {
                let Some(hour) = self.left.next() else {
                    return Ok(None);
                };
                let span = within(self.span, hour);
                if self.n_looked == 0 && patience != Patience::ENDLESS {
                    self.slices = Slices::of(connection, span)?;
                }
                self.n_looked += 1;
                (hour, span)
            }
        };
        let (slice, left) = match patience {
            Patience::ENDLESS => (span, None),
            _ => self.slices.cut(span),
        };
        self.hour = left.map(|left| (hour, left));
        self.from = slice.from;
        Ok(Some((hour, slice)))
    }

    /// What was looked at, where it is not all.
    pub fn looked_at(&self) -> Option<LookedAt> {
        self.is_cut.then_some(LookedAt {
            hours: self.n_looked,
            of_hours: self.n_all,
            from: self.from,
        })
    }

    /// The span of what was looked at.
    pub fn looked_span(&self) -> Span {
        match self.looked_at() {
            Some(at) => Span {
                from: at.from,
                ..self.span
            },
            None => self.span,
        }
    }
}

// === impl Slices ===

impl Slices {
    /// That are hours, as long as they take no time.
    pub fn whole() -> Slices {
        Slices {
            length_ms: HOUR_MS,
            cut: None,
        }
    }

    /// For an hour of which the first slice is to be cut.
    pub fn of(connection: &Connection, hour: Span) -> rusqlite::Result<Slices> {
        let scope = Scope::new(Dialect::Sqlite, Table::Events, hour, &[]);
        let sql = format!(
            "SELECT count(*) FROM (SELECT t.time_ms {} LIMIT {SLICE_ROWS})",
            scope.sql()
        );
        let n_rows: i64 = connection
            .prepare_cached(&sql)?
            .query_row(params_from_iter(scope.into_values()), |row| row.get(0))?;
        let mut slices = Slices::whole();
        if n_rows == SLICE_ROWS {
            slices.length_ms /= SLICE_CHANGE_MAX;
        }
        Ok(slices)
    }

    /// The latest part of a span, and what is left before it.
    pub fn cut(&mut self, span: Span) -> (Span, Option<Span>) {
        let now = Instant::now();
        if let Some(before) = self.cut.replace(now) {
            self.adapt(now.duration_since(before));
        }
        let at = span
            .to
            .map(|to| to.as_unix_ms().saturating_sub(self.length_ms));
        let at = at.map(Timestamp::from_unix_ms);
        match at {
            Some(_) if at > span.from => {
                let slice = Span { from: at, ..span };
                (slice, Some(Span { to: at, ..span }))
            }
            _ => (span, None),
        }
    }

    /// Makes the next slice as long as should take [`SLICE_TIME`], since the last took that.
    fn adapt(&mut self, took: Duration) {
        let took_us = i64::try_from(took.as_micros()).unwrap_or(i64::MAX).max(1);
        let wanted_us = i64::try_from(SLICE_TIME.as_micros()).unwrap_or(i64::MAX);
        let length_ms = self.length_ms.saturating_mul(wanted_us) / took_us;
        self.length_ms = length_ms
            .clamp(
                self.length_ms / SLICE_CHANGE_MAX,
                self.length_ms * SLICE_CHANGE_MAX,
            )
            .clamp(SLICE_MS_MIN, HOUR_MS);
    }
}

/// The first and the last hour that a span has a part of.
pub fn first_and_last(span: Span) -> [i64; 2] {
    let hour_of = |ms: i64| ms.div_euclid(HOUR_MS);
    let from = span
        .from
        .map_or(i64::MIN, |from| hour_of(from.as_unix_ms()));
    let to = span
        .to
        .map_or(i64::MAX, |to| hour_of(to.as_unix_ms().saturating_sub(1)));
    [from, to]
}

/// The part of a span that is in that hour.
pub fn within(span: Span, hour: i64) -> Span {
    let end = end_of(hour);
    Span {
        from: span.from.max(Some(start_of(hour))),
        to: Some(span.to.map_or(end, |to| to.min(end))),
    }
}

/// The first instant after that hour.
pub fn end_of(hour: i64) -> Timestamp {
    start_of(hour.saturating_add(1))
}

fn start_of(hour: i64) -> Timestamp {
    Timestamp::from_unix_ms(hour.saturating_mul(HOUR_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from: i64, to: i64) -> Span {
        Span {
            from: Some(Timestamp::from_unix_ms(from)),
            to: Some(Timestamp::from_unix_ms(to)),
        }
    }

    #[test]
    fn slices_follow_the_time_that_they_take() {
        let mut slices = Slices::whole();
        let hour = span(0, HOUR_MS);
        assert_eq!(slices.cut(hour), (hour, None));
        slices.adapt(SLICE_TIME * 4);
        slices.cut = None;
        let quarter = HOUR_MS / 4;
        let (slice, left) = slices.cut(hour);
        assert_eq!(slice, span(3 * quarter, HOUR_MS));
        assert_eq!(left, Some(span(0, 3 * quarter)));
        for (took, length_ms) in [
            (SLICE_TIME, quarter),
            (SLICE_TIME / 2, 2 * quarter),
            (Duration::ZERO, HOUR_MS),
            (SLICE_TIME * 1_000, HOUR_MS / SLICE_CHANGE_MAX),
            (
                SLICE_TIME * 1_000,
                HOUR_MS / SLICE_CHANGE_MAX / SLICE_CHANGE_MAX,
            ),
            (SLICE_TIME * 1_000_000, 878),
            (SLICE_TIME * 1_000_000, SLICE_MS_MIN),
        ] {
            slices.adapt(took);
            assert_eq!(slices.length_ms, length_ms, "after {took:?}");
        }
    }

    #[test]
    fn hours_of_a_span_are_those_that_it_has_a_part_of() {
        for (from, to, hours) in [
            (0, HOUR_MS, [0, 0]),
            (HOUR_MS - 1, HOUR_MS + 1, [0, 1]),
            (2 * HOUR_MS, 4 * HOUR_MS + 1, [2, 4]),
        ] {
            assert_eq!(first_and_last(span(from, to)), hours, "{from} {to}");
        }
        assert_eq!(within(span(5, 7), 0), span(5, 7));
        assert_eq!(within(Span::default(), 1), span(HOUR_MS, 2 * HOUR_MS));
    }
}
