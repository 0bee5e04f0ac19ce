//! How budgets stand, for people and for Prometheus.

use std::fmt::Write as _;
use std::sync::Arc;

use rust_decimal::Decimal;
use serde_json::{Map, Value, json};
use tollmesh_budget::{Enforce, Limit};
use tollmesh_wire::Timestamp;

use super::Budgets;
use super::account::Account;
use super::policies::{Budget, Policies, Span};
use super::state::State;
use super::table::percent;
use crate::clock;
use crate::metrics::push_pair;
use crate::rows::Rows;

/// The columns of a budget's state.
pub const COLUMNS: &[&str] = &[
    "budget",
    "key",
    "unit",
    "limit",
    "spent",
    "used_percent",
    "reserved",
    "lease",
    "tier",
    "action",
    "projected",
    "denied",
    "window_start",
    "window_end",
    "resets_at",
    "granting_from",
    "enforce",
];
/// Keys of one budget that `/metrics` shows one by one; `/api/v1/budgets` shows all.
const KEYS_SHOWN_MAX: usize = 100;

/// How far one key of a budget has come.
pub(super) struct Standing {
    pub(super) budget: Arc<Budget>,
    pub(super) key: Vec<String>,
    window: Span,
    pub(super) spent: u64,
    reserved: u64,
    lease: u64,
    tier: Option<usize>,
    denied: u64,
    /// When the tier could be left: with a calendar's window, or when enough of what is spent in a
    /// rolling one counts no more, where a tier is reached.
    resets_at: Option<Timestamp>,
    granting_from: Option<i64>,
}

/// How far all budgets and their keys had come in their windows at one instant.
pub struct Standings {
    pub(super) unix_ms: i64,
    /// In the file's order, and there the most spent first.
    pub(super) all: Vec<Standing>,
}

impl Budgets {
    /// How budgets stand. Calls wait for the time that it takes to look; what is made of it is made
    /// later.
    pub fn standings(&self) -> Standings {
        let unix_ms = clock::now().as_unix_ms();
        let (policies, of_budget) = {
            let state = self.0.state();
            (Arc::clone(&state.policies), used(&state, unix_ms))
        };
        Standings {
            unix_ms,
            all: in_order(&policies, of_budget, unix_ms),
        }
    }

    /// All budgets and their keys in the present window, in the file's order, the most spent first.
    pub fn rows(&self) -> Rows {
        let standings = self.standings();
        let unix_ms = standings.unix_ms;
        Rows {
            columns: columns(),
            items: standings.all.iter().map(|s| s.item(unix_ms)).collect(),
            next_cursor: None,
        }
    }

    /// Appends the budgets' gauges. A key is a label only where `labels` has every tag that it is
    /// made of; else keys are counted by tier.
    pub fn push_metrics(&self, out: &mut String, labels: &[String]) {
        let standings = self.standings().all;
        let mut shown: Vec<&Standing> = Vec::new();
        let mut last = None;
        let mut n = 0;
        for standing in &standings {
            n = match last == Some(&standing.budget.id) {
                true => n + 1,
                false => 0,
            };
            last = Some(&standing.budget.id);
            let is_label = standing.budget.per.iter().all(|tag| labels.contains(tag));
            if is_label && n < KEYS_SHOWN_MAX {
                shown.push(standing);
            }
        }
        push_gauges(out, &shown);
        push_keys(out, &standings);
    }
}

pub(super) fn columns() -> Vec<String> {
    COLUMNS.iter().map(|&name| name.to_owned()).collect()
}

/// The accounts in their present cells, by budget.
fn used(state: &State, unix_ms: i64) -> Vec<Vec<Standing>> {
    let mut of_budget: Vec<Vec<Standing>> = Vec::new();
    of_budget.resize_with(state.policies.all.len(), Vec::new);
    for account in state.accounts.values() {
        let place = state.policies.place_of(&account.at.budget);
        let own = place.and_then(|n| of_budget.get_mut(n));
        let window = account.budget.window_at(unix_ms);
        if let (Some(own), Some(window)) = (own, window)
            && account.cell.holds(unix_ms)
        {
            own.push(standing(state, account, window));
        }
    }
    of_budget
}

fn in_order(policies: &Policies, mut of_budget: Vec<Vec<Standing>>, unix_ms: i64) -> Vec<Standing> {
    for (budget, own) in policies.all.iter().zip(&mut of_budget) {
        if own.is_empty()
            && budget.per.is_empty()
            && let Some(window) = budget.window_at(unix_ms)
        {
            own.push(Standing::unused(budget, window));
        }
        own.sort_by(|a, b| b.spent.cmp(&a.spent).then_with(|| a.key.cmp(&b.key)));
    }
    of_budget.into_iter().flatten().collect()
}

fn standing(state: &State, account: &Account, window: Span) -> Standing {
    let now_ms = clock::since_boot_ms();
    let wait_ms = account.holder.granting_from_ms().saturating_sub(now_ms);
    let granting_from = clock::now().as_unix_ms() + i64::try_from(wait_ms).unwrap_or(0);
    Standing {
        budget: Arc::clone(&account.budget),
        key: account.key.clone(),
        window,
        spent: state.spent(account),
        reserved: account.holder.held(),
        lease: account.holder.left(),
        tier: account.tier,
        denied: account.denied,
        resets_at: resets_at(state, account),
        granting_from: (wait_ms > 0).then_some(granting_from),
    }
}

fn resets_at(state: &State, account: &Account) -> Option<Timestamp> {
    let Some(tier) = account.tier else {
        return ends_at(&account.budget, account.cell);
    };
    let resets = state.resets(account, tier);
    let at = resets.each.last().copied().unwrap_or(resets.all);
    (at != Timestamp::default()).then_some(at)
}

/// When a calendar's window ends.
fn ends_at(budget: &Budget, window: Span) -> Option<Timestamp> {
    let is_calendars = budget.cell_ms().is_none();
    is_calendars.then(|| Timestamp::from_unix_ms(window.end))
}

impl Standing {
    fn unused(budget: &Arc<Budget>, window: Span) -> Standing {
        Standing {
            budget: Arc::clone(budget),
            key: Vec::new(),
            window,
            spent: 0,
            reserved: 0,
            lease: 0,
            tier: None,
            denied: 0,
            resets_at: ends_at(budget, window),
            granting_from: None,
        }
    }

    pub(super) fn item(&self, unix_ms: i64) -> Map<String, Value> {
        let budget = &self.budget;
        let policy = &budget.policy;
        let amount = |units| Value::from(budget.amount_of(units).to_string());
        let names = budget.per.iter().cloned();
        let key: Map<String, Value> = names
            .zip(self.key.iter().map(|value| Value::from(value.as_str())))
            .collect();
        let tier = self.tier.and_then(|n| policy.tiers.get(n));
        let time = |ms| Timestamp::from_unix_ms(ms).to_string();
        let item = json!({
            "budget": policy.name,
            "key": key,
            "unit": policy.limit.unit(),
            "limit": policy.limit.amount().to_string(),
            "spent": amount(self.spent),
            "used_percent": self.share(Decimal::ONE_HUNDRED, 1),
            "reserved": amount(self.reserved),
            "lease": amount(self.lease),
            "tier": tier.map(|tier| percent(tier.at)),
            "action": tier.map(|tier| tier.action.name()),
            "projected": self.projected(unix_ms).map(|d| d.to_string()),
            "denied": self.denied,
            "window": { "start": time(self.window.start), "end": time(self.window.end) },
            "window_start": time(self.window.start),
            "window_end": time(self.window.end),
            "resets_at": self.resets_at.map(|at| at.to_string()),
            "granting_from": self.granting_from.map(time),
            "enforce": enforce(policy.enforce),
        });
        match item {
            Value::Object(item) => item,
            _ => Map::new(),
        }
    }

    fn projected(&self, unix_ms: i64) -> Option<Decimal> {
        projected(&self.budget, self.window, self.spent, unix_ms)
    }

    /// The share of the limit that is spent.
    fn share(&self, of: Decimal, places: u32) -> Option<String> {
        let spent = self.budget.amount_of(self.spent);
        let share = spent.checked_div(self.budget.policy.limit.amount())?;
        let share = share.checked_mul(of)?.round_dp(places).normalize();
        Some(share.to_string())
    }
}

/// What is spent at the window's end, if it goes on as it did so far.
pub fn projected(budget: &Budget, window: Span, spent: u64, unix_ms: i64) -> Option<Decimal> {
    let elapsed = Decimal::from((unix_ms - window.start).max(1));
    let length = Decimal::from(window.end - window.start);
    let projected = budget.amount_of(spent).checked_mul(length)?;
    let places = match budget.policy.limit {
        Limit::Usd(_) => 6,
        Limit::Tokens(_) | Limit::Requests(_) => 0,
    };
    let projected = projected.checked_div(elapsed)?;
    Some(projected.round_dp(places).normalize())
}

const fn enforce(enforce: Enforce) -> &'static str {
    match enforce {
        Enforce::Observe => "observe",
        Enforce::Cached => "cached",
        Enforce::Strict => "strict",
    }
}

/// The families with a series for each key.
fn push_gauges(out: &mut String, shown: &[&Standing]) {
    type Value = fn(&Standing) -> Option<String>;
    let families: [(&str, &str, Value); 5] = [
        (
            "tollmesh_budget_limit_usd",
            "The most that may be spent in a window.",
            |s| s.usd(None),
        ),
        (
            "tollmesh_budget_spent_usd",
            "What is spent in the present window, by all nodes.",
            |s| s.usd(Some(s.spent)),
        ),
        (
            "tollmesh_budget_reserved_usd",
            "What calls in flight through this node may cost.",
            |s| s.usd(Some(s.reserved)),
        ),
        (
            "tollmesh_budget_used_ratio",
            "The share of the limit that is spent, in whatever unit it has.",
            |s| s.share(Decimal::ONE, 6),
        ),
        (
            "tollmesh_budget_tier",
            "The tiers that are reached: 0 for none, 1 for the first.",
            |s| Some(s.tier.map_or(0, |n| n + 1).to_string()),
        ),
    ];
    for (name, help, value) in families {
        let mut is_first = true;
        for standing in shown {
            let Some(value) = value(standing) else {
                continue;
            };
            if std::mem::take(&mut is_first) {
                // Writing to a String cannot fail.
                let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n");
            }
            let mut set = String::new();
            push_pair(&mut set, "budget", &standing.budget.policy.name);
            push_pair(&mut set, "key", &standing.key.join("/"));
            let _ = writeln!(out, "{name}{{{set}}} {value}");
        }
    }
}

impl Standing {
    /// Those units in dollars, the limit itself where none are given; `None` for other units.
    fn usd(&self, units: Option<u64>) -> Option<String> {
        match (self.budget.policy.limit, units) {
            (Limit::Usd(_), Some(units)) => Some(self.budget.amount_of(units).to_string()),
            (Limit::Usd(usd), None) => Some(usd.to_string()),
            _ => None,
        }
    }
}

/// How many keys of each budget have come how far.
fn push_keys(out: &mut String, standings: &[Standing]) {
    let name = "tollmesh_budget_keys";
    let mut counts: Vec<((&str, String), u64)> = Vec::new();
    for standing in standings {
        let tiers = &standing.budget.policy.tiers;
        let tier = standing.tier.and_then(|n| tiers.get(n));
        let tier = tier.map_or_else(|| "none".to_owned(), |tier| percent(tier.at));
        let place = (standing.budget.policy.name.as_str(), tier);
        match counts.iter_mut().find(|(known, _)| *known == place) {
            Some((_, n)) => *n += 1,
            None => counts.push((place, 1)),
        }
    }
    if counts.is_empty() {
        return;
    }
    let help = "Keys of a budget that have reached that tier and no higher one.";
    let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n");
    for ((budget, tier), n) in counts {
        let mut set = String::new();
        push_pair(&mut set, "budget", budget);
        push_pair(&mut set, "tier", &tier);
        let _ = writeln!(out, "{name}{{{set}}} {n}");
    }
}

impl Budgets {
    /// Brings the budgets' own gauges up to this instant.
    pub fn observe(&self) {
        let n = self.0.state().n_reserved();
        let n = i64::try_from(n).unwrap_or(i64::MAX);
        self.0.metrics.budget_open_reservations.set(n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::budgets::parse;

    const NOON_MS: i64 = 1_800_000_000_000;
    const HOUR_MS: i64 = 3_600_000;

    /// When the only account of a budget resets that spent so much now.
    fn resets_at(window: &str, spent: i128) -> Value {
        let text = format!(
            "[[budget]]\nname = \"b\"\nlimit = \"100 requests\"\nwindow = \"{window}\"\n\
             tiers = [{{ at = \"50%\", do = \"warn\" }}, {{ at = \"100%\", do = \"deny\" }}]"
        );
        let mut state = State::default();
        state.policies = Arc::new(Policies::new(parse("budgets.toml", &text).unwrap()));
        let budget = Arc::clone(&state.policies.all[0]);
        let cell = budget.cell_at(NOON_MS).unwrap();
        let account = state.open(&budget, Vec::new(), cell, 1);
        account.charge(None, spent, 0);
        let at = account.at.clone();
        state.judge(&at);
        let standing = used(&state, NOON_MS).remove(0).remove(0);
        standing.item(NOON_MS)["resets_at"].clone()
    }

    #[test]
    fn a_rolling_budget_resets_when_spend_leaves_its_window() {
        let day_later = Timestamp::from_unix_ms(NOON_MS + 24 * HOUR_MS).to_string();
        assert_eq!(resets_at("rolling 24h", 100), json!(day_later));
        assert_eq!(resets_at("rolling 24h", 60), json!(day_later));
        assert_eq!(resets_at("rolling 24h", 10), Value::Null);
        let hour_later = Timestamp::from_unix_ms(NOON_MS + HOUR_MS).to_string();
        for spent in [100, 10] {
            assert_eq!(resets_at("hour", spent), json!(hour_later));
        }
    }
}
