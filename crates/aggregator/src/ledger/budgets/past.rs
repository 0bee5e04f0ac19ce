//! What calls of the past spent, for budgets that begin, and for those that are reckoned anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use tollmesh_wire::{Outcome, Timestamp};

use super::{Spend, SpendKey, key_text};
use crate::ledger::Entry;
use crate::ledger::error::QueryError;
use crate::ledger::query::{Reader, SpendQuery, SpendRow, Unsummed};

/// Which number of a sum an account counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Pico-dollars.
    Cost,
    /// Tokens.
    Tokens,
    /// Calls.
    Requests,
}

/// A budget whose spend events charge from now on.
#[derive(Clone, Debug)]
pub struct Adopted {
    /// Its id.
    pub id: Arc<str>,
    /// What its accounts count.
    pub measure: Measure,
    /// The windows that calls of the past still count in.
    pub windows: Vec<Past>,
}

/// A window that has begun before the budget did.
#[derive(Clone, Debug)]
pub struct Past {
    /// Its first instant, in milliseconds since 1970.
    pub window_ms: i64,
    /// The first instant after it.
    pub end_ms: i64,
    /// Where the question asks for intervals, how long each counts from its first instant, in
    /// milliseconds.
    pub counts_ms: Option<i64>,
    /// What was spent in it so far: by the account's keys, and by the outcome behind them. Where it
    /// asks for intervals, each of them is a window.
    pub query: SpendQuery,
}

/// What calls of the past spent in that window, account by account. `charge` says what a call is
/// charged to the budget.
///
/// Sums answer for nearly all calls. Those that are charged otherwise than their sums say are looked
/// at one by one: a call without a price is charged a ceiling, and what a call used beside its own
/// model is in no sum of tokens.
pub fn spent(
    reader: &Reader,
    budget: &Adopted,
    past: &Past,
    charge: &mut dyn FnMut(&Entry) -> i128,
) -> Result<Vec<Spend>, QueryError> {
    let mut amounts = of_sums(budget, past, &reader.spend(&past.query)?);
    let unsummed = match budget.measure {
        Measure::Cost => Unsummed::Unpriced,
        Measure::Tokens => Unsummed::Extra,
        Measure::Requests => return Ok(accounts(budget, past, amounts)),
    };
    let SpendQuery { by, filters, .. } = &past.query;
    reader.each_unsummed(unsummed, past.query.span, by, filters, &mut |key, entry| {
        let (outcome, key) = key.split_last().unwrap_or((&None, &[]));
        if outcome.as_deref().is_some_and(is_not_ours) {
            return;
        }
        let at_ms = entry.event.time.as_unix_ms();
        let start = past
            .query
            .interval_ms
            .map(|length| at_ms - at_ms.rem_euclid(length));
        let place = (start.unwrap_or(past.window_ms), key_text(key));
        let more = charge(entry) - summed(budget.measure, entry);
        *amounts.entry(place).or_default() += more.max(0);
    })?;
    Ok(accounts(budget, past, amounts))
}

/// What sums have of a call.
fn summed(measure: Measure, entry: &Entry) -> i128 {
    match measure {
        Measure::Cost => entry.cost.total.map_or(0, |total| total.as_pico().into()),
        Measure::Requests => 1,
        Measure::Tokens => entry.event.usage.tokens().map(|(_, n)| i128::from(n)).sum(),
    }
}

/// Spend by the window's first instant and by key.
type Amounts = BTreeMap<(i64, String), i128>;

fn of_sums(budget: &Adopted, past: &Past, rows: &[SpendRow]) -> Amounts {
    let mut amounts = Amounts::new();
    for row in rows {
        let (outcome, key) = row.key.split_last().unwrap_or((&None, &[]));
        if outcome.as_deref().is_some_and(is_not_ours) {
            continue;
        }
        let amount = match budget.measure {
            Measure::Cost => row.cost.as_pico().max(0),
            Measure::Requests => i128::from(row.requests),
            Measure::Tokens => row
                .tokens
                .iter()
                .fold(0_i128, |sum, n| sum.saturating_add_unsigned(*n)),
        };
        let window_ms = row.start.map_or(past.window_ms, Timestamp::as_unix_ms);
        *amounts.entry((window_ms, key_text(key))).or_default() += amount;
    }
    amounts
}

fn accounts(budget: &Adopted, past: &Past, amounts: Amounts) -> Vec<Spend> {
    let spends = amounts.into_iter().map(|((window_ms, key), amount)| Spend {
        at: SpendKey {
            budget: Arc::clone(&budget.id),
            key: key.into(),
            window_ms,
        },
        end_ms: past
            .counts_ms
            .map_or(past.end_ms, |counts| window_ms + counts),
        amount,
        denied: 0,
        granted: 0,
        memory: String::new(),
    });
    spends.collect()
}

/// Calls that never left, and calls that a filter nearer to the provider counts.
fn is_not_ours(outcome: &str) -> bool {
    [Outcome::Denied, Outcome::Relayed]
        .map(Outcome::name)
        .contains(&outcome)
}
