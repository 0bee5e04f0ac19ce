//! The report of one day: spend against budget and against the days before, and what changed.

mod text;
mod values;
mod web;

use tollmesh_budget::Policy;
use tollmesh_pricing::Book;
use tollmesh_wire::Timestamp;

use super::budgets::{self, BudgetState};
use super::day::{DAY_MS, Day};
use super::movers::{Comparison, Moved, Mover};
use super::{Store, share};
use crate::budgets::model_names;
use crate::ledger::query::{Dimension, Filter, Span, SpendQuery};

/// Days that a day is compared with: a week, so that each weekday is in it once.
pub const DAYS_BEFORE: u32 = 7;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct DailyQuery {
    /// The day.
    pub day: Day,
    /// The present: a day that is not over yet is told as far as it went.
    pub now: Timestamp,
    /// What makes groups.
    pub by: Vec<Dimension>,
    /// Conditions on calls.
    pub filters: Vec<Filter>,
    /// Movers told with their reasons.
    pub n_movers: usize,
    /// Budgets to compare with.
    pub budgets: Vec<Policy>,
}

/// One day of the series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DaySum {
    /// The day.
    pub day: Day,
    /// Calls.
    pub requests: u64,
    /// Their cost in pico-dollars.
    pub cost: i128,
    /// The mean cost of the seven days before, or of as many as the ledger has; `None` for its
    /// first.
    pub average: Option<i128>,
}

impl DaySum {
    /// The day against the mean before it, in tenths of a percent.
    pub fn change_per_mille(&self) -> Option<i128> {
        let average = self.average?;
        share::per_mille(self.cost - average, average)
    }
}

/// The report.
#[derive(Clone, Debug)]
pub struct Daily {
    /// The day.
    pub day: Day,
    /// Up to when calls are in it.
    pub until: Timestamp,
    /// The names of what makes groups.
    pub by: Vec<String>,
    /// The conditions on calls, as `name:value`.
    pub filters: Vec<String>,
    /// The days before and the day, in time's order.
    pub days: Vec<DaySum>,
    /// All calls, and the groups of them, the dearest first.
    pub moved: Moved,
    /// Groups told with their reasons, as indices of `moved.groups`, the largest change first.
    pub movers: Vec<usize>,
    /// Budgets, those that are used most first within each.
    pub budgets: Vec<BudgetState>,
}

impl Daily {
    /// Asks for all that the report tells.
    pub fn of<S: Store>(store: &S, book: &Book, query: &DailyQuery) -> Result<Daily, S::Error> {
        let day = query.day;
        let mut sums = days(store, query)?;
        let is_before = |sum: &&DaySum| sum.day < day && day.earlier(DAYS_BEFORE) <= sum.day;
        let n_days = sums.iter().filter(is_before).count();
        let n_days = u32::try_from(n_days).unwrap_or(DAYS_BEFORE);
        let from = day.earlier(n_days);
        let until = query.now.min(day.end());
        let before = before(day, n_days, until);
        let comparison = Comparison {
            by: &query.by,
            filters: &query.filters,
            before: &before,
            n_days,
            day: Span {
                from: Some(day.start()),
                to: Some(until),
            },
            book,
        };
        let moved = comparison.moved(store)?;
        if let Some(last) = sums.last_mut().filter(|_| n_days > 0) {
            last.average = Some(moved.total.causes.before);
        }
        let mut states = Vec::new();
        let mut policies = query.budgets.clone();
        model_names::name(&mut policies, book);
        for policy in &policies {
            states.extend(budgets::states(store, policy, until)?);
        }
        let filters = query.filters.iter();
        Ok(Daily {
            day,
            until,
            by: query.by.iter().map(|by| by.name().to_owned()).collect(),
            filters: filters
                .map(|f| format!("{}:{}", f.dimension.name(), f.value))
                .collect(),
            days: sums.into_iter().filter(|sum| sum.day >= from).collect(),
            movers: movers(&moved, query.n_movers),
            moved,
            budgets: states,
        })
    }

    /// Whether the day was over when it was told.
    pub fn is_whole(&self) -> bool {
        self.until == self.day.end()
    }

    /// Days that the day is compared with.
    pub fn n_days(&self) -> u32 {
        self.moved.total.n_days
    }

    fn told_movers(&self) -> impl Iterator<Item = &Mover> {
        self.movers.iter().filter_map(|i| self.moved.groups.get(*i))
    }
}

impl Mover {
    /// The change in tenths of a percent of what it was; `None` where it was nothing, or where
    /// there is nothing to compare with.
    pub fn change_per_mille(&self) -> Option<i128> {
        share::per_mille(self.difference(), self.causes.before)
    }
}

/// What a day is compared with: the days before, each up to the same time of day.
fn before(day: Day, n_days: u32, until: Timestamp) -> Vec<Span> {
    if until == day.end() {
        let all = day.earlier(n_days).span_until(day);
        return if n_days > 0 { vec![all] } else { Vec::new() };
    }
    let elapsed_ms = until.as_unix_ms() - day.start().as_unix_ms();
    let part = |n: u32| {
        let start = day.earlier(n).start();
        let end = start.as_unix_ms() + elapsed_ms;
        Span {
            from: Some(start),
            to: Some(Timestamp::from_unix_ms(end)),
        }
    };
    (1..=n_days).rev().map(part).collect()
}

/// The sums of the day and of two weeks before, days without calls included; none from before the
/// ledger began.
fn days<S: Store>(store: &S, query: &DailyQuery) -> Result<Vec<DaySum>, S::Error> {
    let back = DAYS_BEFORE * 2;
    let first = query.day.earlier(back);
    let rows = store.spend(&SpendQuery {
        by: Vec::new(),
        interval_ms: Some(DAY_MS),
        span: Span {
            from: Some(first.start()),
            to: Some(query.day.end()),
        },
        filters: query.filters.clone(),
    })?;
    let all = (0..=back).rev().map(|n| {
        let day = query.day.earlier(n);
        let row = rows.iter().find(|row| row.start == Some(day.start()));
        DaySum {
            day,
            requests: row.map_or(0, |row| row.requests),
            cost: row.map_or(0, |row| row.cost.as_pico()),
            average: None,
        }
    });
    let has_older = has_calls_before(store, first, query)?;
    let is_too_early = |sum: &DaySum| !has_older && sum.requests == 0 && sum.day < query.day;
    let mut sums: Vec<DaySum> = all.skip_while(is_too_early).collect();
    average(&mut sums);
    Ok(sums)
}

/// Gives each day the mean of those before it.
fn average(sums: &mut [DaySum]) {
    for n in 0..sums.len() {
        let (before, rest) = sums.split_at_mut(n);
        let week = &before[n.saturating_sub(DAYS_BEFORE as usize)..];
        let cost: i128 = week.iter().map(|sum| sum.cost).sum();
        let n_days = u128::try_from(week.len()).unwrap_or(1);
        rest[0].average = (n_days > 0).then(|| share::of(cost, 1, n_days));
    }
}

/// Whether the ledger has calls from before that day.
fn has_calls_before<S: Store>(store: &S, day: Day, query: &DailyQuery) -> Result<bool, S::Error> {
    let older = store.spend(&SpendQuery {
        span: Span {
            from: None,
            to: Some(day.start()),
        },
        filters: query.filters.clone(),
        ..SpendQuery::default()
    })?;
    Ok(older.iter().any(|row| row.requests > 0))
}

/// The groups whose cost changed most.
fn movers(moved: &Moved, n_movers: usize) -> Vec<usize> {
    let mut all: Vec<(usize, i128)> = moved
        .groups
        .iter()
        .enumerate()
        .map(|(i, mover)| (i, mover.difference().abs()))
        .filter(|(_, change)| *change > 0 && moved.total.n_days > 0)
        .collect();
    all.sort_by_key(|(i, change)| (-change, *i));
    all.truncate(n_movers);
    all.into_iter().map(|(i, _)| i).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_that_is_not_over_is_compared_with_as_much_of_those_before() {
        let at = |text: &str| Timestamp::parse(text).unwrap();
        let day = Day::containing(at("2026-11-20T00:00:00Z"));
        let told = |n_days, until| {
            let spans = before(day, n_days, at(until)).into_iter();
            let text = |at: Option<Timestamp>| at.unwrap().to_string()[5..16].to_owned();
            spans
                .map(|span| format!("{} {}", text(span.from), text(span.to)))
                .collect::<Vec<_>>()
        };
        assert_eq!(told(7, "2026-11-21T00:00:00Z"), ["11-13T00:00 11-20T00:00"]);
        assert_eq!(
            told(2, "2026-11-20T08:30:00Z"),
            ["11-18T00:00 11-18T08:30", "11-19T00:00 11-19T08:30"]
        );
        assert!(told(0, "2026-11-21T00:00:00Z").is_empty());
        assert!(told(0, "2026-11-20T08:30:00Z").is_empty());
    }
}
