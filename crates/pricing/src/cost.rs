//! One call's cost: what it is made of, and how sure it is.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use tollmesh_usage::Usage;

/// US dollars, exact.
pub type Usd = Decimal;

/// A call to be priced.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Who bills it.
    pub provider: &'a str,
    /// The model that served.
    pub model: Option<&'a str>,
    /// The model asked for; used where no served one is known.
    pub model_requested: Option<&'a str>,
    /// When, in milliseconds since 1970.
    pub unix_ms: i64,
    /// The service tier, in the provider's word.
    pub service_tier: Option<&'a str>,
    /// The counts that are charged.
    pub usage: &'a Usage,
    /// How long the inputs are, where the counts are a sum over requests.
    pub inputs: Option<Inputs>,
    /// Facts that prices depend on.
    pub context: &'a BTreeMap<String, String>,
}

/// How long the inputs are of requests whose counts are known together only, in tokens, caches
/// included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inputs {
    /// The length whose prices are taken for all.
    pub taken: u64,
    /// None is shorter.
    pub min: u64,
    /// None is longer.
    pub max: u64,
}

/// How sure a cost is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Every count had a rate of its own.
    Exact,
    /// A count without a rate of its own was charged at its parent's, or a unit that the provider
    /// charges for with other models has no fee for this one, or requests are summed that may have
    /// different prices.
    Assumed,
    /// No row prices the call. Never zero.
    Unpriced,
}

impl Status {
    /// The name in JSON and in the ledger.
    pub const fn name(self) -> &'static str {
        match self {
            Status::Exact => "exact",
            Status::Assumed => "assumed",
            Status::Unpriced => "unpriced",
        }
    }
}

/// One line of a cost: `amount x rate x times = usd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The bucket's or unit's name.
    pub what: &'static str,
    /// Tokens, or units.
    pub amount: Decimal,
    /// US dollars for a million tokens, or for one unit.
    pub rate: Decimal,
    /// The product of all modifiers and overrides.
    pub times: Decimal,
    /// The line's cost.
    pub usd: Usd,
    /// Whether the rate was taken from the parent class.
    pub assumed: bool,
}

/// The cost of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Priced {
    /// How sure it is.
    pub status: Status,
    /// The cost by the public list; `None` exactly where unpriced.
    pub usd: Option<Usd>,
    /// What the operator's contract makes of it; the same as `usd` where there is none.
    pub net: Option<Usd>,
    /// The operator's terms that made `net`, as `file:id`; `None` where none did.
    pub net_by: Option<String>,
    /// What it is made of.
    pub lines: Vec<Line>,
    /// The row that priced it, as `file:model:row`.
    pub row: Option<String>,
    /// Why it is unpriced, a stable word.
    pub unpriced_because: Option<&'static str>,
}

/// Why nothing prices a call; the words in `unpriced_because`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No price file is of this provider.
    UnknownProvider,
    /// Neither response nor request named a model.
    NoModel,
    /// No `match` of the provider's files fits the model.
    UnknownModel,
    /// The provider's file does not know the word for the service tier.
    UnknownTier,
    /// No row of the model holds for that tier, instant and input.
    NoRow,
    /// The row has no rate for a class that was used, and no parent stands in.
    NoRate,
    /// No count was reported.
    NoUsage,
    /// The product does not fit 28 digits.
    Overflow,
}

impl Reason {
    /// The stable word.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::UnknownProvider => "unknown_provider",
            Reason::NoModel => "no_model",
            Reason::UnknownModel => "unknown_model",
            Reason::UnknownTier => "unknown_tier",
            Reason::NoRow => "no_row",
            Reason::NoRate => "no_rate",
            Reason::NoUsage => "no_usage",
            Reason::Overflow => "overflow",
        }
    }
}

impl Priced {
    /// A call that nothing prices.
    pub fn unpriced(reason: Reason) -> Priced {
        Priced {
            status: Status::Unpriced,
            usd: None,
            net: None,
            net_by: None,
            lines: Vec::new(),
            row: None,
            unpriced_because: Some(reason.name()),
        }
    }
}
