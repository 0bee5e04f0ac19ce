//! What goes into the ledger, and what became of it.

use std::borrow::Cow;
use std::sync::Arc;

use rust_decimal::Decimal;
use tollmesh_pricing::{Line, Priced, Status};
use tollmesh_wire::{Event, Outcome, Timestamp};

use crate::money::{AmountTooLarge, PicoUsd};

/// One event with what it cost.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The event as it came.
    pub event: Event,
    /// Its cost.
    pub cost: CostRecord,
}

impl Entry {
    /// Whether the provider charges this call, and no filter nearer to it counts that.
    pub fn is_charged(&self) -> bool {
        let is_ours = !matches!(self.event.outcome, Outcome::Denied | Outcome::Relayed);
        self.event.billable && is_ours
    }

    /// What the provider says it charged; `None` also where that cannot be read.
    pub fn provider_cost(&self) -> Option<PicoUsd> {
        let text = self.event.provider_cost_usd.as_deref()?;
        PicoUsd::from_usd(text.parse().ok()?).ok()
    }

    /// The same of calls that are charged.
    pub fn stated(&self) -> Option<PicoUsd> {
        self.provider_cost().filter(|_| self.is_charged())
    }
}

/// What a call cost, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CostRecord {
    /// How sure the cost is.
    pub status: Status,
    /// The cost in all, extra usage included; `None` exactly where unpriced.
    pub total: Option<PicoUsd>,
    /// The cost at list prices, where a contract makes `total` differ from it.
    pub list: Option<PicoUsd>,
    /// What the cost is made of.
    pub lines: Vec<CostLine>,
    /// The price row of the call itself, as `file:model:row`.
    pub row: Option<Arc<str>>,
    /// The digest of the price tables; empty where none was asked.
    pub pricing_version: Arc<str>,
    /// Why the call is unpriced, a stable word.
    pub unpriced_because: Option<Cow<'static, str>>,
}

/// The first price of a call that was priced anew since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original {
    /// The cost in all; `None` where the call was unpriced.
    pub total: Option<PicoUsd>,
    /// The price row.
    pub row: Option<Arc<str>>,
    /// The digest of the price tables.
    pub pricing_version: Arc<str>,
}

/// One line of a cost: `amount x rate x times = usd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CostLine {
    /// The bucket's or unit's name.
    pub what: Cow<'static, str>,
    /// Tokens, or units.
    pub amount: Decimal,
    /// US dollars for a million tokens, or for one unit.
    pub rate: Decimal,
    /// The product of all modifiers and overrides.
    pub times: Decimal,
    /// The line's cost in US dollars, not rounded.
    pub usd: Decimal,
    /// Whether the rate was taken from the parent class.
    pub assumed: bool,
    /// Where the line prices extra usage: its index in the event's `extra_usage`.
    pub extra: Option<u32>,
    /// Where the line prices extra usage: the price row.
    pub row: Option<Arc<str>>,
}

/// An event that could not be taken, kept for whoever looks for the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// When it came.
    pub received: Timestamp,
    /// Its id, where one could be read.
    pub event_id: Option<String>,
    /// Why it could not be taken, in words.
    pub reason: String,
    /// The event as it came; the ledger keeps its first 4 KiB.
    pub body: String,
}

/// What became of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It is new, and in the ledger now.
    Accepted,
    /// Its id was in the ledger already; nothing was charged.
    Duplicate,
    /// It was late usage, and completed the row that had waited for it.
    Completed,
    /// It was late usage that no row waits for; nothing was charged.
    Unmatched,
    /// It can never be taken. It is in quarantine, unless it is of a time that is forgotten.
    Refused(Refusal),
}

/// Why the ledger takes an entry never.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// An event without an id cannot be told apart from its own resending.
    #[error("event_id is empty")]
    NoId,
    /// A text is longer than any honest one.
    #[error("{field} has {bytes} bytes; at most {max} are taken")]
    TooLong {
        /// The event's field.
        field: &'static str,
        /// Its length.
        bytes: usize,
        /// The longest that is taken.
        max: usize,
    },
    /// A number is larger than any honest one.
    #[error("{field} is {value}; at most {max} is taken")]
    TooLarge {
        /// The event's field, or the bucket's name.
        field: &'static str,
        /// Its value.
        value: u64,
        /// The largest that is taken.
        max: u64,
    },
    /// Rows of its time were deleted: it may have been counted before. It is in no quarantine.
    #[error(
        "forgotten: calls are kept since {before}; whether it was counted before, nobody knows"
    )]
    Forgotten {
        /// Since when calls are kept.
        before: Timestamp,
    },
    /// `usage_source` is none of the words it can be.
    #[error("usage_source is {0:?}; expected \"reported\", \"estimated\" or \"absent\"")]
    UsageSource(String),
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// What became of each entry, in the order in which they were given.
    pub recorded: Vec<Recorded>,
}

impl Appended {
    /// Entries that the ledger now holds and did not before.
    pub fn accepted(&self) -> u64 {
        self.count(|r| matches!(r, Recorded::Accepted | Recorded::Completed))
    }

    /// Entries that changed nothing, because they had been taken before or nothing waits for them.
    pub fn duplicate(&self) -> u64 {
        self.count(|r| matches!(r, Recorded::Duplicate | Recorded::Unmatched))
    }

    /// Entries in quarantine, as index and reason.
    pub fn refused(&self) -> impl Iterator<Item = (usize, &Refusal)> {
        self.recorded
            .iter()
            .enumerate()
            .filter_map(|(i, r)| match r {
                Recorded::Refused(why) => Some((i, why)),
                _ => None,
            })
    }

    /// Events of a time whose rows were deleted.
    pub fn forgotten(&self) -> u64 {
        self.count(|r| matches!(r, Recorded::Refused(Refusal::Forgotten { .. })))
    }

    fn count(&self, wanted: impl Fn(&Recorded) -> bool) -> u64 {
        self.recorded.iter().filter(|r| wanted(r)).count() as u64
    }
}

impl CostRecord {
    /// The cost of what is not charged: a relayed, denied or free call.
    pub fn free(pricing_version: Arc<str>) -> CostRecord {
        CostRecord {
            status: Status::Exact,
            total: Some(PicoUsd::ZERO),
            list: None,
            lines: Vec::new(),
            row: None,
            pricing_version,
            unpriced_because: None,
        }
    }

    /// The cost of a call that no row prices.
    pub fn unpriced(pricing_version: Arc<str>, because: &'static str) -> CostRecord {
        CostRecord {
            status: Status::Unpriced,
            total: None,
            unpriced_because: Some(Cow::Borrowed(because)),
            ..CostRecord::free(pricing_version)
        }
    }

    /// The cost of a call's own usage together with that of its `extra_usage`, in its order.
    ///
    /// What the operator's contract makes of it is the total. Sums are exact and rounded once. The
    /// least sure part decides the status; where one part is unpriced, the call is.
    pub fn of(
        own: Priced,
        extra: Vec<Priced>,
        pricing_version: Arc<str>,
    ) -> Result<CostRecord, AmountTooLarge> {
        let mut record = CostRecord {
            row: own.row.as_deref().map(Arc::from),
            ..CostRecord::free(pricing_version)
        };
        let (mut net, mut list) = (Some(Decimal::ZERO), Some(Decimal::ZERO));
        let indexes = std::iter::once(None).chain((0_u32..).map(Some));
        for (index, part) in indexes.zip(std::iter::once(own).chain(extra)) {
            record.status = less_sure(record.status, part.status);
            record.unpriced_because = record
                .unpriced_because
                .or(part.unpriced_because.map(Cow::Borrowed));
            net = add(net, part.net)?;
            list = add(list, part.usd)?;
            let row: Option<Arc<str>> = index.and(part.row.as_deref().map(Arc::from));
            let lines = part.lines.iter();
            record
                .lines
                .extend(lines.map(|line| CostLine::of(line, index, row.clone())));
        }
        record.total = net.map(PicoUsd::from_usd).transpose()?;
        record.list = list
            .map(PicoUsd::from_usd)
            .transpose()?
            .filter(|list| record.total != Some(*list));
        Ok(record)
    }
}

impl CostLine {
    fn of(line: &Line, extra: Option<u32>, row: Option<Arc<str>>) -> CostLine {
        CostLine {
            what: Cow::Borrowed(line.what),
            amount: line.amount,
            rate: line.rate,
            times: line.times,
            usd: line.usd,
            assumed: line.assumed,
            extra,
            row,
        }
    }
}

/// The sum, which is unknown where a part is.
fn add(sum: Option<Decimal>, more: Option<Decimal>) -> Result<Option<Decimal>, AmountTooLarge> {
    match (sum, more) {
        (Some(sum), Some(more)) => match sum.checked_add(more) {
            Some(sum) => Ok(Some(sum)),
            None => Err(AmountTooLarge { usd: more }),
        },
        _ => Ok(None),
    }
}

/// The less sure of two statuses.
fn less_sure(a: Status, b: Status) -> Status {
    match (a, b) {
        (Status::Unpriced, _) | (_, Status::Unpriced) => Status::Unpriced,
        (Status::Assumed, _) | (_, Status::Assumed) => Status::Assumed,
        (Status::Exact, Status::Exact) => Status::Exact,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn priced(usd: &str, net: &str) -> Priced {
        let usd = usd.parse().unwrap();
        let line = Line {
            what: "input",
            amount: Decimal::ONE,
            rate: usd,
            times: Decimal::ONE,
            usd,
            assumed: false,
        };
        Priced {
            status: Status::Exact,
            usd: Some(usd),
            net: Some(net.parse().unwrap()),
            net_by: None,
            lines: vec![line],
            row: Some(format!("row of {usd}")),
            unpriced_because: None,
        }
    }

    #[test]
    fn parts_are_added_before_they_are_rounded() {
        let half = || priced("0.0000000000005", "0.0000000000005");
        let record = CostRecord::of(half(), vec![half(), half()], "v".into()).unwrap();
        assert_eq!(record.total, Some(PicoUsd::from_pico(2)));
        assert_eq!(record.list, None);
        let extras: Vec<_> = record.lines.iter().map(|line| line.extra).collect();
        assert_eq!(extras, [None, Some(0), Some(1)]);
        let rows: Vec<_> = record.lines.iter().map(|line| line.row.is_some()).collect();
        assert_eq!(rows, [false, true, true]);
        assert_eq!(record.row.as_deref(), Some("row of 0.0000000000005"));
    }

    #[test]
    fn a_contract_makes_the_total_differ_from_the_list() {
        let own = priced("2", "1.5");
        let record = CostRecord::of(own, vec![priced("1", "1")], "v".into()).unwrap();
        assert_eq!(record.total.map(|p| p.to_string()).as_deref(), Some("2.5"));
        assert_eq!(record.list.map(|p| p.to_string()).as_deref(), Some("3"));
    }

    #[test]
    fn the_least_sure_part_decides() {
        let assumed = Priced {
            status: Status::Assumed,
            ..priced("1", "1")
        };
        let unpriced = Priced {
            status: Status::Unpriced,
            usd: None,
            net: None,
            unpriced_because: Some("no_row"),
            ..priced("1", "1")
        };
        let of = |extra| CostRecord::of(priced("1", "1"), extra, "v".into()).unwrap();
        assert_eq!(of(vec![assumed.clone()]).status, Status::Assumed);
        let record = of(vec![assumed, unpriced]);
        assert_eq!((record.status, record.total), (Status::Unpriced, None));
        assert_eq!(record.unpriced_because.as_deref(), Some("no_row"));
    }
}
