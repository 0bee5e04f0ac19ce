//! The daily report for programs: JSON, and rows for CSV. Amounts are exact decimals.

use serde_json::{Map, Value, json};

use super::Daily;
use crate::money::PicoSum;
use crate::report::budgets::BudgetState;
use crate::report::causes::Cause;
use crate::report::movers::Mover;
use crate::report::share;
use crate::rows::Rows;

/// The columns of CSV before those of causes.
const COLUMNS: &[&str] = &[
    "day",
    "section",
    "name",
    "requests",
    "average_requests",
    "cost_usd",
    "average_usd",
    "difference_usd",
    "difference_percent",
    "unpriced_requests",
    "estimated_requests",
    "input_tokens",
    "cache_read_tokens",
    "output_tokens",
    "window",
    "window_start",
    "window_end",
    "unit",
    "limit",
    "spent",
    "left",
    "used_percent",
    "tier_percent",
    "tier",
];

impl Daily {
    /// One object.
    pub fn json(&self) -> Value {
        let days = self.days.iter().map(|sum| {
            json!({
                "day": sum.day.to_string(),
                "requests": sum.requests,
                "cost_usd": usd(sum.cost),
                "average_usd": sum.average.map(usd),
            })
        });
        let group = |mover: &Mover| {
            let mut item = Map::new();
            for (name, value) in self.by.iter().zip(&mover.key) {
                item.insert(name.clone(), json!(value));
            }
            item.extend(mover_item(mover));
            Value::Object(item)
        };
        json!({
            "day": self.day.to_string(),
            "until": self.until,
            "complete": self.is_whole(),
            "currency": "USD",
            "by": self.by,
            "where": self.filters,
            "compared_days": self.n_days(),
            "total": mover_item(&self.moved.total),
            "days": days.collect::<Vec<_>>(),
            "budgets": self.budgets.iter().map(budget_item).collect::<Vec<_>>(),
            "groups": self.moved.groups.iter().map(group).collect::<Vec<_>>(),
            "movers": self.told_movers().map(group).collect::<Vec<_>>(),
        })
    }

    /// A row for the whole, each day, each budget and each group; `section` says which of them.
    pub fn rows(&self) -> Rows {
        let mut items = Vec::new();
        let mut push = |section: &str, name: String, mut item: Map<String, Value>| {
            item.insert("day".into(), json!(self.day.to_string()));
            item.insert("section".into(), json!(section));
            item.insert("name".into(), json!(name));
            items.push(item);
        };
        push("total", String::new(), flat(&self.moved.total));
        for sum in &self.days {
            let mut item = Map::new();
            item.insert("requests".into(), json!(sum.requests));
            item.insert("cost_usd".into(), json!(usd(sum.cost)));
            item.insert("average_usd".into(), json!(sum.average.map(usd)));
            let change = percent(sum.change_per_mille());
            item.insert("difference_percent".into(), json!(change));
            push("day", sum.day.to_string(), item);
        }
        for state in &self.budgets {
            push("budget", budget_name(state), budget_fields(state));
        }
        for mover in &self.moved.groups {
            let key = mover.key.iter();
            let words: Vec<&str> = key
                .map(|word| word.as_deref().unwrap_or_default())
                .collect();
            push("group", words.join(" / "), flat(mover));
        }
        let causes = Cause::ALL.map(|cause| format!("{}_usd", cause.name()));
        let columns = COLUMNS.iter().map(|column| (*column).to_owned());
        Rows {
            columns: columns.chain(causes).chain(["reason".to_owned()]).collect(),
            items,
            next_cursor: None,
        }
    }
}

fn usd(pico: i128) -> String {
    PicoSum::from_pico(pico).to_string()
}

/// Tenths of a percent as a plain number.
pub fn percent(per_mille: Option<i128>) -> Option<String> {
    per_mille.map(|n| {
        let sign = if n < 0 { "-" } else { "" };
        format!("{sign}{}.{}", n.unsigned_abs() / 10, n.unsigned_abs() % 10)
    })
}

fn mover_item(mover: &Mover) -> Map<String, Value> {
    let mut item = sums(mover);
    let is_compared = mover.n_days > 0;
    let causes = mover.causes.parts.iter();
    let causes: Map<String, Value> = causes
        .map(|(cause, part)| (cause.name().to_owned(), json!(usd(*part))))
        .collect();
    item.insert("causes_usd".into(), json!(is_compared.then_some(causes)));
    item.insert("reason".into(), json!(mover.reason));
    item
}

/// The same with a column a cause.
fn flat(mover: &Mover) -> Map<String, Value> {
    let mut item = sums(mover);
    if mover.n_days > 0 {
        for (cause, part) in &mover.causes.parts {
            item.insert(format!("{}_usd", cause.name()), json!(usd(*part)));
        }
    }
    item.insert("reason".into(), json!(mover.reason));
    item
}

fn sums(mover: &Mover) -> Map<String, Value> {
    let compared = |value: Value| if mover.n_days > 0 { value } else { Value::Null };
    let count = |n: u128| json!(u64::try_from(n).unwrap_or(u64::MAX));
    let (before, after) = (&mover.before, &mover.after);
    let mean_tenths = share::of(
        i128::from(before.requests) * 10,
        1,
        u128::from(mover.n_days.max(1)),
    );
    let fields = [
        ("requests", json!(after.requests)),
        (
            "average_requests",
            compared(json!(percent(Some(mean_tenths)))),
        ),
        ("cost_usd", json!(usd(mover.causes.after))),
        ("average_usd", compared(json!(usd(mover.causes.before)))),
        ("difference_usd", compared(json!(usd(mover.difference())))),
        (
            "difference_percent",
            compared(json!(percent(mover.change_per_mille()))),
        ),
        ("unpriced_requests", json!(mover.unpriced)),
        ("estimated_requests", json!(mover.estimated)),
        ("input_tokens", count(after.input())),
        ("cache_read_tokens", count(after.cached())),
        ("output_tokens", count(after.output())),
    ];
    fields
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
}

fn budget_item(state: &BudgetState) -> Value {
    let mut item = budget_fields(state);
    let key = state.key.iter();
    let key: Map<String, Value> = key
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    item.insert("budget".into(), json!(state.name));
    item.insert("key".into(), json!(key));
    Value::Object(item)
}

/// The unit of a limit.
pub fn unit(state: &BudgetState) -> &'static str {
    use tollmesh_budget::Limit;
    match state.limit {
        Limit::Usd(_) => "USD",
        Limit::Tokens(_) => "tokens",
        Limit::Requests(_) => "requests",
    }
}

fn budget_fields(state: &BudgetState) -> Map<String, Value> {
    let tier_at = state
        .tier
        .map(|(at, _)| (at * rust_decimal::Decimal::ONE_HUNDRED).normalize());
    let fields = [
        ("window", json!(state.window)),
        ("window_start", json!(state.from)),
        ("window_end", json!(state.until)),
        ("unit", json!(unit(state))),
        ("limit", json!(state.limit.amount().normalize().to_string())),
        ("spent", json!(state.spent.normalize().to_string())),
        ("left", json!(state.left().normalize().to_string())),
        ("used_percent", json!(percent(state.used_per_mille()))),
        ("unpriced_requests", json!(state.unpriced)),
        ("tier_percent", json!(tier_at.map(|at| at.to_string()))),
        ("tier", json!(state.tier.map(|(_, action)| action))),
    ];
    fields
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
}

/// The budget's name, and the values that have it for themselves.
pub fn budget_name(state: &BudgetState) -> String {
    let key = state.key.iter();
    let words: Vec<String> = key
        .map(|(name, value)| format!("{name}={}", value.as_deref().unwrap_or_default()))
        .collect();
    match words.is_empty() {
        true => state.name.clone(),
        false => format!("{} {}", state.name, words.join(" ")),
    }
}
