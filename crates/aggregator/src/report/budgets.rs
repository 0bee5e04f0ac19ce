//! How much of each budget is spent.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use tollmesh_budget::{Limit, Policy, Window, WindowSpan};
use tollmesh_wire::Timestamp;
use tollmesh_wire::matching::forms;

use super::Store;
use crate::ledger::query::{Column, Dimension, Filter, Span, SpendQuery, SpendRow};
use crate::money::PicoUsd;

/// One budget, or the part of one that a value of its `per` tags has for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetState {
    /// The budget's name.
    pub name: String,
    /// The values of its `per` tags, by name.
    pub key: Vec<(String, Option<String>)>,
    /// The window's word, as `day`.
    pub window: String,
    /// The window's first instant.
    pub from: Timestamp,
    /// The first instant after the window.
    pub until: Timestamp,
    /// The most that may be spent.
    pub limit: Limit,
    /// What is spent, in the limit's unit.
    pub spent: Decimal,
    /// Calls without a price: they cost something that is not in `spent`.
    pub unpriced: u64,
    /// The share of the limit at which the reached tier begins, and what happens there.
    pub tier: Option<(Decimal, &'static str)>,
}

impl BudgetState {
    /// What is left; less than nothing where more is spent.
    pub fn left(&self) -> Decimal {
        self.limit.amount() - self.spent
    }

    /// The share that is spent, in tenths of a percent.
    pub fn used_per_mille(&self) -> Option<i128> {
        let share = self.spent.checked_div(self.limit.amount())?;
        let per_mille = share.checked_mul(Decimal::ONE_THOUSAND)?.round();
        Some(per_mille.mantissa())
    }
}

/// The state of a budget at that instant, those that are used most first: in the window that holds
/// it, as far as calls came before it. A budget `per` something has a state for each value that
/// calls had.
pub fn states<S: Store>(
    store: &S,
    policy: &Policy,
    at: Timestamp,
) -> Result<Vec<BudgetState>, S::Error> {
    let Some(window) = window(policy, at) else {
        return Ok(Vec::new());
    };
    let rows = store.spend(&SpendQuery {
        span: Span {
            from: Some(wire(window.start)),
            to: Some(at),
        },
        ..spent_by(policy)
    })?;
    let mut sums: BTreeMap<Vec<Option<String>>, (Decimal, u64)> = BTreeMap::new();
    if policy.per.is_empty() {
        sums.insert(Vec::new(), Default::default());
    }
    for row in &rows {
        let (outcome, key) = row.key.split_last().unwrap_or((&None, &[]));
        if outcome.as_deref() == Some("denied") {
            continue;
        }
        let sum = sums.entry(key.to_vec()).or_default();
        sum.0 += spent(policy.limit, row);
        sum.1 += row.unpriced;
    }
    let states = sums.into_iter();
    let mut states: Vec<BudgetState> = states
        .map(|(key, sum)| state(policy, window, key, sum))
        .collect();
    states.sort_by(|a, b| b.spent.cmp(&a.spent).then_with(|| a.key.cmp(&b.key)));
    Ok(states)
}

/// The question for what calls spent of a budget: by the values of its keys, and by the outcome
/// behind them.
pub(crate) fn spent_by(policy: &Policy) -> SpendQuery {
    let per = policy.per.iter().map(|name| dimension(name));
    let outcome = Dimension::Column(Column::Outcome);
    SpendQuery {
        by: per.chain([outcome]).collect(),
        filters: filters(policy),
        ..SpendQuery::default()
    }
}

/// The window that ends with the instant, or is cut by it: the instant itself is the first that is
/// not looked at.
fn window(policy: &Policy, at: Timestamp) -> Option<WindowSpan> {
    let last_ms = match policy.window {
        Window::Rolling { .. } => at.as_unix_ms(),
        _ => at.as_unix_ms().saturating_sub(1),
    };
    let last = jiff::Timestamp::from_millisecond(last_ms).ok()?;
    policy.window.containing(last, &policy.zone)
}

fn state(
    policy: &Policy,
    window: WindowSpan,
    key: Vec<Option<String>>,
    (spent, unpriced): (Decimal, u64),
) -> BudgetState {
    let tier = policy.tier_at(spent);
    BudgetState {
        name: policy.name.clone(),
        key: policy.per.iter().cloned().zip(key).collect(),
        window: policy.window.to_string(),
        from: wire(window.start),
        until: wire(window.end),
        limit: policy.limit,
        spent,
        unpriced,
        tier: tier.map(|(_, tier)| (tier.at, tier.action.name())),
    }
}

/// In the limit's unit. Amounts beyond what a decimal holds are as good as that.
fn spent(limit: Limit, row: &SpendRow) -> Decimal {
    match limit {
        Limit::Usd(_) => Decimal::try_from_i128_with_scale(row.cost.as_pico(), PicoUsd::PLACES)
            .unwrap_or(Decimal::MAX),
        Limit::Tokens(_) => {
            let tokens: u128 = row.tokens.iter().sum();
            Decimal::from(u64::try_from(tokens).unwrap_or(u64::MAX))
        }
        Limit::Requests(_) => Decimal::from(row.requests),
    }
}

fn filters(policy: &Policy) -> Vec<Filter> {
    let matches = policy.matches.iter();
    let filters = matches.map(|(name, value)| match dimension(name) {
        Dimension::Column(Column::ModelJudged) => {
            let others = policy.models.get(value);
            let others = others.iter().flat_map(|names| names.iter());
            Filter {
                dimension: Dimension::Column(Column::ModelJudged),
                value: value.clone(),
                forms: others.chain([value]).flat_map(|name| forms(name)).collect(),
            }
        }
        dimension => Filter {
            dimension,
            value: value.clone(),
            forms: Vec::new(),
        },
    });
    filters.collect()
}

/// What a budget's key speaks of: the facts that a match knows, else a tag, whatever other columns
/// questions have.
fn dimension(name: &str) -> Dimension {
    match Column::parse(name) {
        // As budgets judge a call before it is served.
        Some(Column::Model) => Dimension::Column(Column::ModelJudged),
        Some(
            column @ (Column::Provider
            | Column::Namespace
            | Column::Workload
            | Column::ServiceAccount
            | Column::Principal
            | Column::Pod
            | Column::Node
            | Column::Cluster),
        ) => Dimension::Column(column),
        _ => Dimension::Tag(name.to_owned()),
    }
}

fn wire(at: jiff::Timestamp) -> Timestamp {
    Timestamp::from_unix_ms(at.as_millisecond())
}
