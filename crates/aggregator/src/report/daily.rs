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
use crate::ledger::query::{Dimension, Filter, Span, SpendQuery, SpendRow};

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
        let first = day.earlier(DAYS_BEFORE);
        let sums = days(store, first, query)?;
        let n_days = n_days_before(store, first, &sums, query)?;
        let from = day.earlier(n_days);
        let comparison = Comparison {
            by: &query.by,
            filters: &query.filters,
            before: from.span_until(day),
            n_days,
            day,
            book,
        };
        let moved = comparison.moved(store)?;
        let until = query.now.min(day.end());
        let mut states = Vec::new();
        for policy in &query.budgets {
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

/// The sums of each day, those without calls included.
fn days<S: Store>(store: &S, first: Day, query: &DailyQuery) -> Result<Vec<DaySum>, S::Error> {
    let rows = store.spend(&SpendQuery {
        by: Vec::new(),
        interval_ms: Some(DAY_MS),
        span: Span {
            from: Some(first.start()),
            to: Some(query.day.end()),
        },
        filters: query.filters.clone(),
    })?;
    let sum = |day: Day| {
        let is_its = |row: &&SpendRow| row.start == Some(day.start());
        let row = rows.iter().find(is_its);
        DaySum {
            day,
            requests: row.map_or(0, |row| row.requests),
            cost: row.map_or(0, |row| row.cost.as_pico()),
        }
    };
    let back = (0..=DAYS_BEFORE).rev();
    Ok(back.map(|n| sum(query.day.earlier(n))).collect())
}

/// How many days there are to compare with: all, unless the ledger began within them.
fn n_days_before<S: Store>(
    store: &S,
    first: Day,
    sums: &[DaySum],
    query: &DailyQuery,
) -> Result<u32, S::Error> {
    let older = store.spend(&SpendQuery {
        span: Span {
            from: None,
            to: Some(first.start()),
        },
        filters: query.filters.clone(),
        ..SpendQuery::default()
    })?;
    if older.iter().any(|row| row.requests > 0) {
        return Ok(DAYS_BEFORE);
    }
    let before = sums.iter().filter(|sum| sum.day < query.day);
    let empty = before.take_while(|sum| sum.requests == 0).count();
    Ok(DAYS_BEFORE - u32::try_from(empty).unwrap_or(DAYS_BEFORE))
}

/// The groups whose cost changed most.
fn movers(moved: &Moved, n_movers: usize) -> Vec<usize> {
    let mut all: Vec<(usize, i128)> = moved
        .groups
        .iter()
        .enumerate()
        .map(|(i, mover)| (i, mover.difference().abs()))
        .filter(|(i, change)| *change > 0 && moved.groups[*i].n_days > 0)
        .collect();
    all.sort_by_key(|(i, change)| (-change, *i));
    all.truncate(n_movers);
    all.into_iter().map(|(i, _)| i).collect()
}
