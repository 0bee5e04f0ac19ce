//! Temporary limits of budgets.

use serde_json::{Value, json};
use tollmesh_wire::Timestamp;

use super::Rows;
use crate::ledger::overrides::Override;

/// What is told of each.
pub const OVERRIDDEN_COLUMNS: &[&str] = &[
    "budget", "limit", "from", "until", "holds", "by", "reason", "ended", "ended_by", "id",
];

/// A row for each.
pub fn overridden(all: &[Override], now: Timestamp) -> Rows {
    let items = all.iter().map(|one| {
        let mut item = match json!(one) {
            Value::Object(item) => item,
            _ => serde_json::Map::new(),
        };
        item.insert("holds".to_owned(), one.holds(now).into());
        item
    });
    Rows {
        columns: OVERRIDDEN_COLUMNS.iter().map(ToString::to_string).collect(),
        items: items.collect(),
        next_cursor: None,
    }
}
