//! What calls of the past spent, for budgets that begin, and for those that are reckoned anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use tollmesh_wire::{Outcome, Timestamp};

use super::{Spend, SpendKey, key_text};
use crate::ledger::Entry;
use crate::ledger::error::QueryError;
use crate::ledger::query::{Reader, Span, SpendQuery, SpendRow, Unsummed};

/// Parts of a time that are asked for one by one at most; a rolling window has 96.
const WINDOWS_MAX: usize = 1_000;

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
    /// How many keys of a window have accounts of their own.
    pub keys_max: usize,
    /// The key of the account that the others share.
    pub others: Arc<str>,
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
/// model is in no sum of tokens. Of more keys than may have accounts of their own, those that spent
/// the most have them.
pub fn spent(
    reader: &Reader,
    budget: &Adopted,
    past: &Past,
    charge: &mut dyn FnMut(&Entry) -> i128,
) -> Result<Vec<Spend>, QueryError> {
    let mut amounts = sums(reader, budget, past)?;
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

/// What sums say, window by window where there are too many keys to ask for all at once. A window
/// that has too many alone is charged to the account of the others as a whole: budgets must not
/// fail to begin because of what somebody put into a header.
fn sums(reader: &Reader, budget: &Adopted, past: &Past) -> Result<Amounts, QueryError> {
    match reader.spend(&past.query) {
        Ok(rows) => return Ok(of_sums(budget, past, &rows)),
        Err(QueryError::TooManyGroups { .. }) => {}
        Err(error) => return Err(error),
    }
    let mut amounts = Amounts::new();
    for span in windows(past) {
        let query = SpendQuery {
            span,
            ..past.query.clone()
        };
        match reader.spend(&query) {
            Ok(rows) => amounts.append(&mut of_sums(budget, past, &rows)),
            Err(QueryError::TooManyGroups { max }) => {
                tracing::warn!(
                    budget = &*budget.id,
                    "more than {max} keys have spent in one window; what they have is counted together"
                );
                let by = past.query.by.last().cloned().into_iter().collect();
                let rows = reader.spend(&SpendQuery { by, ..query })?;
                for ((window_ms, _), amount) in of_sums(budget, past, &rows) {
                    let others = (window_ms, budget.others.to_string());
                    *amounts.entry(others).or_default() += amount;
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(amounts)
}

/// The windows of that time, one after another.
fn windows(past: &Past) -> Vec<Span> {
    let whole = past.query.span;
    let (Some(length), Some(from)) = (past.query.interval_ms, whole.from) else {
        return vec![whole];
    };
    let to_ms = whole.to.map_or(past.end_ms, Timestamp::as_unix_ms);
    let mut spans = Vec::new();
    let mut begin = from.as_unix_ms();
    while begin < to_ms && spans.len() < WINDOWS_MAX {
        let end = begin - begin.rem_euclid(length) + length;
        spans.push(Span {
            from: Some(Timestamp::from_unix_ms(begin)),
            to: Some(Timestamp::from_unix_ms(end.min(to_ms))),
        });
        begin = end;
    }
    spans
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
    let amounts = bounded(amounts, budget.keys_max, &budget.others);
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

/// The same with so many keys a window, those that spent the most; the others' spend is one account's.
fn bounded(amounts: Amounts, keys_max: usize, others: &str) -> Amounts {
    let mut by_window: BTreeMap<i64, Vec<(String, i128)>> = BTreeMap::new();
    for ((window_ms, key), amount) in amounts {
        by_window.entry(window_ms).or_default().push((key, amount));
    }
    let mut bounded = Amounts::new();
    for (window_ms, mut keys) in by_window {
        if keys.len() > keys_max {
            keys.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            for (key, _) in keys.iter_mut().skip(keys_max) {
                *key = others.to_owned();
            }
        }
        for (key, amount) in keys {
            *bounded.entry((window_ms, key)).or_default() += amount;
        }
    }
    bounded
}

/// Calls that never left, and calls that a filter nearer to the provider counts.
fn is_not_ours(outcome: &str) -> bool {
    [Outcome::Denied, Outcome::Relayed]
        .map(Outcome::name)
        .contains(&outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHERS: &str = r#"["__other__"]"#;

    #[test]
    fn who_spent_most_has_an_account_and_nothing_is_lost() {
        let amounts: Amounts = (0..10)
            .flat_map(|window| (0..100).map(move |n| ((window, format!("k{n:02}")), i128::from(n))))
            .collect();
        let total: i128 = amounts.values().sum();
        let bounded = bounded(amounts, 10, OTHERS);
        assert_eq!(bounded.values().sum::<i128>(), total);
        assert_eq!(bounded.len(), 10 * 11);
        assert_eq!(bounded[&(3, "k90".to_owned())], 90);
        assert_eq!(bounded[&(3, OTHERS.to_owned())], (0..90).sum::<i128>());
    }

    #[test]
    fn a_rolling_window_is_asked_for_part_by_part() {
        let at = |ms| Some(Timestamp::from_unix_ms(ms));
        let past = |interval_ms, to| Past {
            window_ms: 1_500,
            end_ms: 5_000,
            counts_ms: None,
            query: SpendQuery {
                interval_ms,
                span: Span {
                    from: at(1_500),
                    to,
                },
                ..SpendQuery::default()
            },
        };
        let span = |from, to| Span {
            from: at(from),
            to: at(to),
        };
        assert_eq!(
            windows(&past(Some(1_000), at(3_200))),
            [span(1_500, 2_000), span(2_000, 3_000), span(3_000, 3_200)]
        );
        assert_eq!(windows(&past(Some(1_000), None)).len(), 4);
        assert_eq!(windows(&past(None, None)), [past(None, None).query.span]);
    }
}
