//! What a call counts for a budget: one rule for calls as they come, for calls of the past, and for
//! those that pass other budgets once more.

use tollmesh_budget::Limit;
use tollmesh_usage::Usage;
use tollmesh_wire::Event;

use super::worst::{self, Worst};
use crate::ledger::Entry;
use crate::money::PicoUsd;
use crate::prices::Prices;

/// As the ledger counts: pico-dollars, tokens, requests. `pico` is what the call is charged.
pub fn amount(limit: &Limit, event: &Event, pico: impl FnOnce() -> i128) -> i128 {
    match limit {
        Limit::Requests(_) => 1,
        Limit::Tokens(_) => {
            // What is charged by its parts alone is their sum.
            let is_sum = event.billed_usage.as_ref().is_some_and(Usage::is_empty);
            let own = (!is_sum).then_some(&event.usage);
            let extra = event.extra_usage.iter().map(|extra| &extra.usage);
            let usages = extra.chain(own);
            let tokens = usages.flat_map(|usage| usage.tokens());
            tokens.map(|(_, n)| i128::from(n)).sum()
        }
        Limit::Usd(_) => pico().max(0),
    }
}

/// What a call is charged, in pico-dollars: its cost, or, where nobody knows it, what its counts cost
/// at the dearest rates.
pub fn charged(worst: &Worst, prices: &Prices, event: &Event, cost: Option<PicoUsd>) -> i128 {
    match cost {
        Some(cost) => cost.as_pico().into(),
        None if event.usage.is_empty() && event.extra_usage.is_empty() => 0,
        None => worst::unpriced(worst, prices, event),
    }
}

impl super::Shared {
    /// What a call counts for a limit of that unit.
    pub(super) fn amount(&self, limit: &Limit, entry: &Entry) -> i128 {
        let event = &entry.event;
        amount(limit, event, || {
            charged(&self.worst, &self.prices, event, entry.cost.total)
        })
    }
}

#[cfg(test)]
mod tests {
    use tollmesh_usage::Bucket;
    use tollmesh_wire::ExtraUsage;

    use super::*;

    #[test]
    fn tokens_are_counted_once_whatever_they_are_charged_as() {
        let tokens = |n: u64| Usage::new().with(Bucket::Input, n);
        let part = |n: u64| ExtraUsage {
            usage: tokens(n),
            ..ExtraUsage::default()
        };
        for (name, billed, parts, wanted) in [
            ("a call", None, vec![], 50),
            ("less is charged", Some(tokens(10)), vec![], 50),
            ("usage beside", None, vec![part(7)], 57),
            (
                "charged by parts",
                Some(Usage::new()),
                vec![part(20), part(30)],
                50,
            ),
        ] {
            let event = Event {
                usage: tokens(50),
                billed_usage: billed,
                extra_usage: parts,
                ..Event::default()
            };
            let limit = Limit::Tokens(1000);
            assert_eq!(amount(&limit, &event, || 0), wanted, "{name}");
        }
    }
}
