//! What calls of the past spent, for budgets that begin, and for those that are reckoned anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use tollmesh_pricing::Status;
use tollmesh_usage::{Bucket, Usage};
use tollmesh_wire::{Event, Outcome, Timestamp};

use super::{Spend, SpendKey, key_text};
use crate::ledger::error::QueryError;
use crate::ledger::query::{
    Column, Dimension, Filter, Reader, Span, SpendQuery, SpendRow, Unsummed,
};
use crate::ledger::reduce::OTHER;
use crate::ledger::rollup::HOUR_MS;
use crate::ledger::{CostRecord, Entry};

/// Parts of a time that are asked for one by one at most; a rolling window has 96, a year 366 days.
const INTERVALS_MAX: usize = 1_000;

/// Whose key is none of a call's, which are JSON: what sums no longer tell apart.
const NOBODY: &str = "";

/// Milliseconds in a day.
const DAY_MS: i64 = 24 * HOUR_MS;

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

impl Measure {
    /// What one of them is called.
    fn unit(self) -> &'static str {
        match self {
            Measure::Cost => "pico-dollars",
            Measure::Tokens => "tokens",
            Measure::Requests => "requests",
        }
    }
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
/// charged to the budget, or several calls without a price of one provider and time together.
///
/// Sums answer for nearly all calls. Those that are charged otherwise than their sums say are looked
/// at one by one: what a call used beside its own model is in no sum. Of more keys than may have
/// accounts of their own, those that spent the most have them. What sums of deleted calls no longer
/// tell apart is charged to no key: it was spent by many, and would hold up others for them.
pub fn spent(
    reader: &Reader,
    budget: &Adopted,
    past: &Past,
    charge: &mut dyn FnMut(&Entry) -> i128,
) -> Result<Vec<Spend>, QueryError> {
    let mut amounts = sums(reader, budget, past)?;
    match budget.measure {
        Measure::Cost => add_unpriced(reader, past, charge, &mut amounts)?,
        Measure::Tokens => add_each(reader, past, Unsummed::Extra, &mut amounts, &mut |entry| {
            let tokens = entry.event.usage.tokens();
            let summed: i128 = tokens.map(|(_, n)| i128::from(n)).sum();
            (charge(entry) - summed).max(0)
        })?,
        Measure::Requests => {}
    }
    leave_out(budget, &mut amounts);
    Ok(accounts(budget, past, amounts))
}

/// Leaves out what was spent by nobody in particular, and says so.
fn leave_out(budget: &Adopted, amounts: &mut Amounts) {
    let mut left_out = 0_i128;
    amounts.retain(|(_, key), amount| {
        let is_kept = key != NOBODY;
        left_out = left_out.saturating_add(if is_kept { 0 } else { *amount });
        is_kept
    });
    if left_out > 0 {
        tracing::warn!(
            budget = &*budget.id,
            left_out = %left_out,
            unit = budget.measure.unit(),
            "sums of deleted calls no longer tell who spent some of a budget with keys; it is \
             charged to none of them"
        );
    }
}

/// The account's key; [`NOBODY`] where a value stands for several.
fn own_key(key: &[Option<String>]) -> String {
    match key.iter().flatten().any(|value| value == OTHER) {
        true => NOBODY.to_owned(),
        false => key_text(key),
    }
}

/// Adds what calls without a price are charged: by the sums of their tokens, as long as there are not
/// too many of these, and else call by call.
fn add_unpriced(
    reader: &Reader,
    past: &Past,
    charge: &mut dyn FnMut(&Entry) -> i128,
    amounts: &mut Amounts,
) -> Result<(), QueryError> {
    let sums = match unpriced_sums(reader, past) {
        Ok(sums) => sums,
        Err(QueryError::TooManyGroups { .. }) => {
            return add_each(reader, past, Unsummed::Unpriced, amounts, &mut |entry| {
                charge(entry).max(0)
            });
        }
        Err(error) => return Err(error),
    };
    for sum in sums {
        let (provider, key) = sum.key.split_first().unwrap_or((&None, &[]));
        let (outcome, key) = key.split_last().unwrap_or((&None, &[]));
        if outcome.as_deref().is_some_and(is_not_ours) {
            continue;
        }
        let begin = sum.start.unwrap_or_default();
        let mut usage = Usage::new();
        for (bucket, n) in Bucket::ALL.into_iter().zip(sum.tokens) {
            usage.set(bucket, u64::try_from(n).unwrap_or(u64::MAX));
        }
        let provider = provider.as_deref().unwrap_or_default();
        let place = (past.window_of(begin), own_key(key));
        *amounts.entry(place).or_default() += charge(&alike(provider, begin, usage)).max(0);
    }
    // Sums do not tell what a call used of other models, nor what it is billed for instead.
    add_each(
        reader,
        past,
        Unsummed::UnpricedBeside,
        amounts,
        &mut |entry| {
            let event = &entry.event;
            let summed = alike(&event.provider, event.time, event.usage.clone());
            charge(entry).max(0) - charge(&summed).max(0)
        },
    )
}

/// The tokens of calls without a price by provider, by the window's keys and by outcome, day by day.
/// They are of an hour at most: the rates that they are charged by may change with the next.
fn unpriced_sums(reader: &Reader, past: &Past) -> Result<Vec<SpendRow>, QueryError> {
    let interval_ms = past.query.interval_ms.unwrap_or(HOUR_MS);
    let by = &past.query.by;
    let provider = Dimension::Column(Column::Provider);
    let unpriced = Filter::new(Column::CostStatus.name(), Status::Unpriced.name());
    let query = SpendQuery {
        by: [provider].into_iter().chain(by.iter().cloned()).collect(),
        filters: [unpriced]
            .into_iter()
            .chain(past.query.filters.clone())
            .collect(),
        interval_ms: Some(common_divisor(interval_ms, HOUR_MS)),
        span: past.query.span,
    };
    let mut sums = Vec::new();
    for span in intervals(query.span, DAY_MS, past.end_ms) {
        sums.extend(reader.spend(&SpendQuery {
            span,
            ..query.clone()
        })?);
    }
    Ok(sums)
}

/// A call without a price of that provider, time and usage.
fn alike(provider: &str, time: Timestamp, usage: Usage) -> Entry {
    let event = Event {
        provider: provider.to_owned(),
        time,
        usage,
        ..Event::default()
    };
    let cost = CostRecord::unpriced(Arc::from(""), "a sum of calls");
    Entry { event, cost }
}

/// Adds what each of those calls is charged beyond what sums say.
fn add_each(
    reader: &Reader,
    past: &Past,
    which: Unsummed,
    amounts: &mut Amounts,
    beyond: &mut dyn FnMut(&Entry) -> i128,
) -> Result<(), QueryError> {
    let SpendQuery {
        by, filters, span, ..
    } = &past.query;
    reader.each_unsummed(which, *span, by, filters, &mut |key, entry| {
        let (outcome, key) = key.split_last().unwrap_or((&None, &[]));
        if outcome.as_deref().is_some_and(is_not_ours) {
            return;
        }
        let place = (past.window_of(entry.event.time), own_key(key));
        *amounts.entry(place).or_default() += beyond(entry);
    })
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
    match past.query.interval_ms {
        Some(length_ms) => intervals(past.query.span, length_ms, past.end_ms),
        None => vec![past.query.span],
    }
}

/// The intervals of a span, one after another, as far as `end_ms` where the span is open; the last
/// has what is left.
fn intervals(whole: Span, length_ms: i64, end_ms: i64) -> Vec<Span> {
    let Some(from) = whole.from else {
        return vec![whole];
    };
    let to_ms = whole.to.map_or(end_ms, Timestamp::as_unix_ms);
    let mut spans = Vec::new();
    let mut begin = from.as_unix_ms();
    loop {
        let end = begin - begin.rem_euclid(length_ms) + length_ms;
        let is_last = end >= to_ms || spans.len() + 1 == INTERVALS_MAX;
        spans.push(Span {
            from: Some(Timestamp::from_unix_ms(begin)),
            to: match is_last {
                true => whole.to,
                false => Some(Timestamp::from_unix_ms(end)),
            },
        });
        if is_last {
            return spans;
        }
        begin = end;
    }
}

/// The greatest length that fits into both without a rest.
fn common_divisor(a: i64, b: i64) -> i64 {
    match b {
        0 => a,
        _ => common_divisor(b, a % b),
    }
}

impl Past {
    /// The first instant of the window that a call of that time counts in.
    fn window_of(&self, at: Timestamp) -> i64 {
        let at_ms = at.as_unix_ms();
        match self.query.interval_ms {
            Some(length_ms) => at_ms - at_ms.rem_euclid(length_ms),
            None => self.window_ms,
        }
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
        *amounts.entry((window_ms, own_key(key))).or_default() += amount;
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
    use tollmesh_wire::ExtraUsage;

    use super::*;
    use crate::ledger::{Ledger, LedgerOptions};

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
    fn what_sums_no_longer_tell_apart_is_nobodys() {
        let budget = Adopted {
            id: "budget".into(),
            measure: Measure::Requests,
            keys_max: 10,
            others: OTHERS.into(),
            windows: vec![],
        };
        let past = Past {
            window_ms: 0,
            end_ms: DAY_MS,
            counts_ms: None,
            query: SpendQuery::default(),
        };
        let row = |team: &str, user: &str, requests| SpendRow {
            key: [team, user, "success"].map(|v| Some(v.to_owned())).into(),
            requests,
            ..SpendRow::default()
        };
        let rows = [
            row("red", "ann", 3),
            row("red", OTHER, 700),
            row(OTHER, "ann", 40),
        ];
        let mut amounts = of_sums(&budget, &past, &rows);
        assert_eq!(amounts.values().sum::<i128>(), 743);
        leave_out(&budget, &mut amounts);
        let ann = (0, r#"["red","ann"]"#.to_owned());
        assert_eq!(amounts, Amounts::from([(ann, 3)]));
    }

    const MINUTE_MS: i64 = 60_000;

    /// Most calls have no price; some of them used other models too, or are billed otherwise.
    fn call(n: i64) -> Entry {
        let input = Usage::new().with(Bucket::Input, 10 + n.unsigned_abs());
        let extra = ExtraUsage {
            model: Some("another".into()),
            usage: Usage::new().with(Bucket::Output, 7),
            ..ExtraUsage::default()
        };
        let of = |every| n % every == 0;
        let event = Event {
            event_id: n.to_string(),
            time: Timestamp::from_unix_ms(n * MINUTE_MS / 3),
            provider: if of(2) { "one" } else { "other" }.into(),
            outcome: if of(13) {
                Outcome::Denied
            } else {
                Outcome::Success
            },
            usage_source: "reported".into(),
            billed_usage: of(11).then(|| Usage::new().with(Bucket::Output, 3)),
            extra_usage: of(17).then_some(extra).into_iter().collect(),
            usage: input.with(Bucket::Output, 3),
            tags: [("team".to_owned(), (n % 3).to_string())].into(),
            ..Event::default()
        };
        let digest = Arc::from("digest");
        let cost = match of(5) {
            true => CostRecord::free(digest),
            false => CostRecord::unpriced(digest, "model"),
        };
        Entry { event, cost }
    }

    /// What a call is charged: rates are a provider's, and change with the hour.
    fn charge(entry: &Entry) -> i128 {
        if entry.cost.total.is_some() {
            return 0;
        }
        let event = &entry.event;
        let own = event.billed_usage.as_ref().unwrap_or(&event.usage);
        let extra = event.extra_usage.iter().map(|extra| &extra.usage);
        let usages = extra.chain([own]).flat_map(Usage::tokens);
        let tokens: i128 = usages
            .map(|(bucket, n)| i128::from(n) * (1 + bucket as i128))
            .sum();
        let rate = 1 + event.time.as_unix_ms() / HOUR_MS % 5 + event.provider.len() as i64;
        tokens * i128::from(rate)
    }

    #[test]
    fn calls_without_a_price_are_charged_by_their_sums() {
        let n_calls = 2_000;
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(LedgerOptions::new(dir.path())).unwrap();
        let calls: Vec<Entry> = (0..n_calls).map(call).collect();
        let runtime = tokio::runtime::Builder::new_current_thread();
        let appended = ledger.append(calls.clone(), vec![]);
        { runtime }.build().unwrap().block_on(appended).unwrap();
        let budget = Adopted {
            id: "budget".into(),
            measure: Measure::Cost,
            keys_max: 10,
            others: OTHERS.into(),
            windows: vec![],
        };
        let from_ms = HOUR_MS + 20 * MINUTE_MS;
        // So many calls may be looked at alone, and so many sums.
        let n_beside = n_calls / 11 + n_calls / 17;
        let n_hours = n_calls / 180 + 1;
        for (interval_ms, n_sums) in [
            (None, 6 * n_hours),
            (Some(3 * HOUR_MS), 6 * n_hours),
            (Some(90 * MINUTE_MS), 2 * 6 * n_hours),
        ] {
            let past = Past {
                window_ms: from_ms,
                end_ms: n_calls * MINUTE_MS,
                counts_ms: None,
                query: SpendQuery {
                    by: vec![Dimension::parse("team"), Dimension::parse("outcome")],
                    interval_ms,
                    span: Span {
                        from: Some(Timestamp::from_unix_ms(from_ms)),
                        to: None,
                    },
                    filters: vec![],
                },
            };
            let mut wanted = Amounts::new();
            for entry in &calls {
                let time = entry.event.time;
                if time.as_unix_ms() < from_ms || entry.event.outcome == Outcome::Denied {
                    continue;
                }
                let team = entry.event.tags.get("team");
                let place = (past.window_of(time), key_text(&[team]));
                *wanted.entry(place).or_default() += charge(entry);
            }
            let mut n_asked = 0;
            let spends = spent(ledger.reader(), &budget, &past, &mut |entry| {
                n_asked += 1;
                charge(entry)
            });
            let found = spends.unwrap().into_iter();
            let found = found.map(|s| ((s.at.window_ms, s.at.key.to_string()), s.amount));
            assert_eq!(found.collect::<Amounts>(), wanted, "{interval_ms:?}");
            assert!(n_asked <= n_sums + 2 * n_beside, "{n_asked} of {n_sums}");
        }
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
        // The last has what is left.
        let open = windows(&past(Some(1_000), None));
        assert_eq!(
            (open.len(), open[3]),
            (
                4,
                Span {
                    from: at(4_000),
                    to: None
                }
            )
        );
        assert_eq!(windows(&past(None, None)), [past(None, None).query.span]);
    }
}
