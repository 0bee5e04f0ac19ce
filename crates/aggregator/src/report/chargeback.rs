//! Who pays: spend by team and cost centre, with each one's share of the whole.

use serde_json::json;

use super::share;
use crate::ledger::query::{Dimension, SpendRow};
use crate::rows::{self, Rows};

/// What bills are split by where nobody says otherwise.
pub const CHARGED_BY: [&str; 2] = ["team", "cost_center"];

/// The rows of a question for sums, with `share_percent` after the cost: of the whole, or of its
/// interval. Calls that carry no such tag are a row of their own, so that the shares make 100.
pub fn chargeback(by: &[Dimension], has_interval: bool, sums: &[SpendRow]) -> Rows {
    let mut rows = rows::spend(by, has_interval, sums);
    for (item, sum) in rows.items.iter_mut().zip(sums) {
        let peers = sums.iter().filter(|peer| peer.start == sum.start);
        let whole: i128 = peers.map(|peer| peer.cost.as_pico()).sum();
        let share = share::per_mille(sum.cost.as_pico(), whole);
        let share = share.map(|share| format!("{}.{}", share / 10, share % 10));
        item.insert("share_percent".into(), json!(share));
    }
    let after_cost = rows.columns.iter().position(|column| column == "cost_usd");
    let at = after_cost.map_or(rows.columns.len(), |at| at + 1);
    rows.columns.insert(at, "share_percent".into());
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::PicoSum;

    #[test]
    fn shares_are_of_the_whole() {
        let row = |team: Option<&str>, pico| SpendRow {
            key: vec![team.map(str::to_owned)],
            requests: 1,
            cost: PicoSum::from_pico(pico),
            ..SpendRow::default()
        };
        let sums = [row(Some("red"), 2_000), row(None, 1_000)];
        let rows = chargeback(&[Dimension::Tag("team".into())], false, &sums);
        let shares: Vec<_> = rows
            .items
            .iter()
            .map(|item| &item["share_percent"])
            .collect();
        assert_eq!(shares, [&json!("66.7"), &json!("33.3")]);
        assert_eq!(
            rows.columns[..4],
            ["team", "requests", "cost_usd", "share_percent"]
        );
        let free = chargeback(&[], false, &[row(None, 0)]);
        assert_eq!(free.items[0]["share_percent"], json!(null));
    }
}
