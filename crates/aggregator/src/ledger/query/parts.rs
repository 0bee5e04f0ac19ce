//! Which table answers for which part of a span.
//!
//! Whole months and days are read from their sums, as far as hours are folded into them, and whole
//! hours from theirs. What sticks out before and after them, and whatever sums do not know, is read
//! from the rows.

use jiff::tz::TimeZone;
use rusqlite::Connection;
use tollmesh_wire::Timestamp;

use crate::ledger::fold::Folded;
use crate::ledger::query::filter::{Dimension, Span};
use crate::ledger::query::scope::Table;
use crate::ledger::rollup::HOUR_MS;

/// Milliseconds in a day of UTC.
const DAY_MS: i64 = 24 * HOUR_MS;

/// A span of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// What answers.
    pub table: Table,
    /// For which time.
    pub span: Span,
    /// The place before which hourly sums do not count, since days and months hold them.
    pub after: Option<Folded>,
}

/// What a question needs of the tables that answer it.
pub struct Needs {
    hours: bool,
    /// Which sums of days answer, if any do.
    days: Option<Table>,
    months: bool,
}

/// The parts of the span, by what is folded in the ledger now.
pub fn parts<'a>(
    connection: &Connection,
    span: Span,
    interval_ms: Option<i64>,
    dimensions: impl IntoIterator<Item = &'a Dimension>,
) -> rusqlite::Result<Vec<Part>> {
    let needs = Needs::new(interval_ms, dimensions);
    Ok(divide(span, &needs, Folded::read(connection)?))
}

/// The parts of the span where there are sums of hours only.
pub fn of_hours<'a>(
    span: Span,
    interval_ms: Option<i64>,
    dimensions: impl IntoIterator<Item = &'a Dimension>,
) -> Vec<Part> {
    let needs = Needs {
        days: None,
        months: false,
        ..Needs::new(interval_ms, dimensions)
    };
    divide(span, &needs, Folded::NOTHING)
}

impl Needs {
    /// Intervals that divide a table's lines, and dimensions that it does not know, rule it out.
    fn new<'a>(
        interval_ms: Option<i64>,
        dimensions: impl IntoIterator<Item = &'a Dimension>,
    ) -> Needs {
        let (mut of_rows, mut of_pods, mut of_tags) = (false, false, false);
        for dimension in dimensions {
            match dimension {
                Dimension::Tag(_) => of_tags = true,
                Dimension::Column(column) => {
                    of_rows |= column.is_of_rows_only();
                    of_pods |= column.is_of_pods();
                }
            }
        }
        let divides = |unit_ms| interval_ms.is_none_or(|ms| ms % unit_ms == 0);
        let hours = !of_rows && divides(HOUR_MS);
        let days = match (of_pods, of_tags) {
            (false, _) => Table::Daily,
            (true, false) => Table::DailySources,
            (true, true) => Table::DailyPods,
        };
        let days = (hours && divides(DAY_MS)).then_some(days);
        Needs {
            hours,
            days,
            months: days == Some(Table::Daily) && interval_ms.is_none(),
        }
    }
}

/// The parts in which the tables answer together for each instant of the span once.
fn divide(span: Span, needs: &Needs, folded: Folded) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut take = |table, from, to| {
        let part = Part {
            table,
            span: Span { from, to },
            after: None,
        };
        parts.push(part);
    };
    let hours = whole(span, at_or_after_hour, before_or_at_hour);
    let Some(hours) = hours.filter(|_| needs.hours) else {
        take(Table::Events, span.from, span.to);
        return parts;
    };
    edges(span, hours, |span| take(Table::Events, span.from, span.to));
    let days = folded_days(hours, folded);
    let (Some((days, is_to_the_end)), Some(daily)) = (days, needs.days) else {
        take(Table::Hourly, hours.from, hours.to);
        return parts;
    };
    let beside = match is_to_the_end {
        // What is not folded comes below.
        true => Span {
            to: days.to,
            ..hours
        },
        false => hours,
    };
    edges(beside, days, |span| take(Table::Hourly, span.from, span.to));
    let months = whole(days, at_or_after_month, before_or_at_month);
    let folded_at = Timestamp::from_unix_ms(folded.hour.saturating_mul(HOUR_MS));
    let months = months.filter(|months| months.from.is_none_or(|from| from <= folded_at));
    match months.filter(|_| needs.months) {
        None => take(daily, days.from, days.to),
        Some(months) => {
            edges(days, months, |span| take(daily, span.from, span.to));
            take(Table::Monthly, months.from, months.to);
        }
    }
    if is_to_the_end {
        parts.push(Part {
            table: Table::Hourly,
            span: Span {
                from: days.from,
                to: hours.to,
            },
            after: Some(folded),
        });
    }
    parts
}

/// The days within whole hours that are folded, and whether these are all from some day on: then
/// they are open, and what is not folded yet is to be added.
fn folded_days(hours: Span, folded: Folded) -> Option<(Span, bool)> {
    let ms = |at: Option<Timestamp>| at.map(Timestamp::as_unix_ms);
    let folded_ms = match folded.hour {
        i64::MIN => return None,
        hour => hour.saturating_mul(HOUR_MS),
    };
    let from = hours.from.map(at_or_after_day);
    if ms(hours.to).is_none_or(|to| to > folded_ms) {
        let days = Span { from, to: None };
        return ms(from)
            .is_none_or(|from| from < folded_ms)
            .then_some((days, true));
    }
    whole(hours, at_or_after_day, before_or_at_day).map(|days| (days, false))
}

/// The part of a span that consists of whole units; `None` where there is none.
fn whole(
    span: Span,
    up: impl Fn(Timestamp) -> Timestamp,
    down: impl Fn(Timestamp) -> Timestamp,
) -> Option<Span> {
    let (from, to) = (span.from.map(up), span.to.map(down));
    match (from, to) {
        (Some(from), Some(to)) if from >= to => None,
        _ => Some(Span { from, to }),
    }
}

/// What sticks out of a span before and after its inner part.
fn edges(outer: Span, inner: Span, mut take: impl FnMut(Span)) {
    if outer.from != inner.from {
        take(Span {
            from: outer.from,
            to: inner.from,
        });
    }
    if outer.to != inner.to {
        take(Span {
            from: inner.to,
            to: outer.to,
        });
    }
}

fn before_or_at(at: Timestamp, unit_ms: i64) -> Timestamp {
    let ms = at.as_unix_ms();
    Timestamp::from_unix_ms(ms.saturating_sub(ms.rem_euclid(unit_ms)))
}

fn at_or_after(at: Timestamp, unit_ms: i64) -> Timestamp {
    let later = at.as_unix_ms().saturating_add(unit_ms - 1);
    before_or_at(Timestamp::from_unix_ms(later), unit_ms)
}

fn before_or_at_hour(at: Timestamp) -> Timestamp {
    before_or_at(at, HOUR_MS)
}

fn at_or_after_hour(at: Timestamp) -> Timestamp {
    at_or_after(at, HOUR_MS)
}

fn before_or_at_day(at: Timestamp) -> Timestamp {
    before_or_at(at, DAY_MS)
}

fn at_or_after_day(at: Timestamp) -> Timestamp {
    at_or_after(at, DAY_MS)
}

/// The begin of the month; the instant itself where calendars end.
fn before_or_at_month(at: Timestamp) -> Timestamp {
    let first = jiff::Timestamp::from_millisecond(at.as_unix_ms())
        .and_then(|at| at.to_zoned(TimeZone::UTC).first_of_month()?.start_of_day());
    first.map_or(at, |first| {
        Timestamp::from_unix_ms(first.timestamp().as_millisecond())
    })
}

fn at_or_after_month(at: Timestamp) -> Timestamp {
    let first = before_or_at_month(at);
    if first == at {
        return at;
    }
    // No month is longer than 31 days, and none so short that this leads beyond the next.
    before_or_at_month(Timestamp::from_unix_ms(
        first.as_unix_ms().saturating_add(31 * DAY_MS),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOURS: Needs = Needs {
        hours: true,
        days: None,
        months: false,
    };
    const ALL: Needs = Needs {
        hours: true,
        days: Some(Table::Daily),
        months: true,
    };
    const NOTHING_FOLDED: Folded = Folded {
        hour: i64::MIN,
        tag_set: 0,
    };

    fn at(text: &str) -> Option<Timestamp> {
        (!text.is_empty()).then(|| Timestamp::parse(&format!("2026-{text}Z")).unwrap())
    }

    fn span(from: &str, to: &str) -> Span {
        Span {
            from: at(from),
            to: at(to),
        }
    }

    fn divided(from: &str, to: &str, needs: &Needs, folded: Folded) -> Vec<(Table, Span, bool)> {
        let parts = divide(span(from, to), needs, folded).into_iter();
        let parts = parts.map(|part| (part.table, part.span, part.after.is_some()));
        parts.collect()
    }

    #[test]
    fn whole_hours_are_read_from_their_sums() {
        let (a, b) = ("11-02T01:00:00", "11-02T03:00:00");
        let (in_a, in_b) = ("11-02T00:59:00", "11-02T03:01:00");
        let hourly = |from, to| (Table::Hourly, span(from, to), false);
        let rows = |from, to| (Table::Events, span(from, to), false);
        for (from, to, expected) in [
            ("", "", vec![hourly("", "")]),
            (a, b, vec![hourly(a, b)]),
            (in_a, in_b, vec![rows(in_a, a), rows(b, in_b), hourly(a, b)]),
            (in_a, "", vec![rows(in_a, a), hourly(a, "")]),
            (in_a, a, vec![rows(in_a, a)]),
            (a, a, vec![rows(a, a)]),
        ] {
            for needs in [HOURS, ALL] {
                let parts = divided(from, to, &needs, NOTHING_FOLDED);
                assert_eq!(parts, expected, "{from} {to}");
            }
        }
        let needs = |interval_ms, names: &[&str]| {
            let by: Vec<Dimension> = names.iter().map(|name| Dimension::parse(name)).collect();
            let needs = Needs::new(interval_ms, &by);
            (needs.hours, needs.days, needs.months)
        };
        let (daily, by_source) = (Some(Table::Daily), Some(Table::DailySources));
        assert_eq!(needs(None, &["team", "namespace"]), (true, daily, true));
        assert_eq!(needs(None, &["pod", "model"]), (true, by_source, false));
        assert_eq!(needs(Some(DAY_MS), &["node"]), (true, by_source, false));
        assert_eq!(
            needs(None, &["pod", "team"]),
            (true, Some(Table::DailyPods), false)
        );
        assert_eq!(needs(None, &["status"]), (false, None, false));
        assert_eq!(needs(Some(2 * DAY_MS), &[]), (true, daily, false));
        assert_eq!(needs(Some(5 * HOUR_MS), &[]), (true, None, false));
        assert_eq!(needs(Some(HOUR_MS / 2), &[]), (false, None, false));
    }

    #[test]
    fn whole_months_and_days_are_read_from_theirs_as_far_as_they_are_folded() {
        // 2026-11-03T05:00Z.
        let folded = Folded {
            hour: 498_245,
            tag_set: 7,
        };
        let noon = "09-29T12:00:00";
        let hourly = |from, to| (Table::Hourly, span(from, to), false);
        let rest = |from, to| (Table::Hourly, span(from, to), true);
        let daily = |from, to| (Table::Daily, span(from, to), false);
        let monthly = |from, to| (Table::Monthly, span(from, to), false);
        let (sep_30, oct, nov) = ("09-30T00:00:00", "10-01T00:00:00", "11-01T00:00:00");
        let (nov_2, nov_3) = ("11-02T00:00:00", "11-03T00:00:00");
        let five = "11-03T05:00:00";
        for (from, to, expected) in [
            ("", "", vec![monthly("", ""), rest("", "")]),
            (
                noon,
                "",
                vec![
                    hourly(noon, sep_30),
                    daily(sep_30, oct),
                    monthly(oct, ""),
                    rest(sep_30, ""),
                ],
            ),
            (
                noon,
                five,
                vec![
                    hourly(noon, sep_30),
                    hourly(nov_3, five),
                    daily(sep_30, oct),
                    daily(nov, nov_3),
                    monthly(oct, nov),
                ],
            ),
            (
                nov_2,
                "11-03T06:00:00",
                vec![daily(nov_2, ""), rest(nov_2, "11-03T06:00:00")],
            ),
            ("11-04T00:00:00", "", vec![hourly("11-04T00:00:00", "")]),
            (noon, sep_30, vec![hourly(noon, sep_30)]),
        ] {
            assert_eq!(divided(from, to, &ALL, folded), expected, "{from} {to}");
        }
    }
}
