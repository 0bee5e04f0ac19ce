//! What budgets would have done, a row for each budget and key.

use rust_decimal::Decimal;
use serde_json::{Map, Value, json};
use tollmesh_budget::Limit;

use super::Rows;
use crate::alerts::amount;
use crate::budgets::replay::{Replayed, Tally};
use crate::money::PicoUsd;

/// What is told of each.
pub const REPLAYED_COLUMNS: &[&str] = &[
    "budget",
    "key",
    "requests",
    "denied_requests",
    "throttled_requests",
    "downgraded_requests",
    "capped_requests",
    "spent",
    "limit",
    "peak_percent",
    "windows",
    "windows_denied",
    "first_denied_at",
    "cost_usd",
    "saved_usd",
    "unpriced_requests",
    "denied_then_requests",
];

/// A row for each.
pub fn replayed(all: &[Replayed]) -> Rows {
    Rows {
        columns: REPLAYED_COLUMNS.iter().map(ToString::to_string).collect(),
        items: all.iter().map(item).collect(),
        next_cursor: None,
    }
}

fn item(replayed: &Replayed) -> Map<String, Value> {
    let tally = &replayed.tally;
    let unit = replayed.limit.unit();
    let values = [
        json!(replayed.budget),
        json!(replayed.key),
        json!(tally.requests),
        json!(tally.denied),
        json!(tally.throttled),
        json!(tally.downgraded),
        json!(tally.capped),
        json!(format!(
            "{} {unit}",
            amount(plain(replayed.limit, tally.spent))
        )),
        json!(replayed.limit.to_string()),
        json!(peak_percent(replayed.limit, tally)),
        json!(tally.windows),
        json!(tally.windows_denied),
        json!(tally.first_denied.map(|at| at.to_string())),
        json!(tally.cost.to_string()),
        json!(tally.saved.to_string()),
        json!(tally.unpriced),
        json!(tally.denied_then),
    ];
    let names = REPLAYED_COLUMNS.iter().map(ToString::to_string);
    names.zip(values).collect()
}

/// What a ledger counts, in the limit's unit.
fn plain(limit: Limit, counted: i128) -> Decimal {
    let places = match limit {
        Limit::Usd(_) => PicoUsd::PLACES,
        Limit::Tokens(_) | Limit::Requests(_) => 0,
    };
    Decimal::try_from_i128_with_scale(counted, places).unwrap_or(Decimal::MAX)
}

/// The dearest window's spend as a share of the limit, in percent.
fn peak_percent(limit: Limit, tally: &Tally) -> Option<String> {
    let share = plain(limit, tally.peak).checked_div(limit.amount())?;
    let percent = share.checked_mul(Decimal::ONE_HUNDRED)?;
    Some(percent.round_dp(1).normalize().to_string())
}
