//! What calls charge to budgets, in the transaction of their rows.
//!
//! The ledger does not know what a budget is: a [`Charger`] says what an event charges to which
//! account, and hears of it after the commit.

mod accounts;
mod denials;
mod past;

use std::ops::Range;
use std::sync::Arc;

use crate::ledger::Entry;
use crate::ledger::overrides::Override;
use crate::ledger::totals::Occasion;
pub use accounts::{add, begin, ids, load, raise, restore, set_ids, take};
pub use denials::keep_denials;
pub use past::{Adopted, Measure, Past, spent};

/// What spend is counted for: one budget, one key, one window.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpendKey {
    /// The budget's id.
    pub budget: Arc<str>,
    /// The values of its keys, as a JSON list of texts.
    pub key: Arc<str>,
    /// The window's first instant, in milliseconds since 1970.
    pub window_ms: i64,
}

/// What an event adds to one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The account.
    pub at: SpendKey,
    /// The first instant after the window, in milliseconds since 1970.
    pub end_ms: i64,
    /// Pico-dollars, tokens or requests.
    pub amount: i128,
    /// Calls that the budget denied.
    pub denied: u64,
}

/// What stands in one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spend {
    /// The account.
    pub at: SpendKey,
    /// The first instant after the window, in milliseconds since 1970.
    pub end_ms: i64,
    /// Pico-dollars, tokens or requests.
    pub amount: i128,
    /// Calls that the budget denied.
    pub denied: u64,
    /// The most that the store has let this ledger spend, in the store's units.
    pub granted: u64,
    /// What the charger wants to know of the store after a restart; empty for nothing.
    pub memory: String,
}

/// How much the store lets this ledger spend from one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The account.
    pub at: SpendKey,
    /// The first instant after the window, in milliseconds since 1970.
    pub end_ms: i64,
    /// In the store's units.
    pub granted: u64,
    /// What the charger wants to know of the store after a restart.
    pub memory: String,
}

/// An event that charges something, or that ends a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The event.
    pub event_id: String,
    /// The reservation, where the event names it.
    pub reservation_id: Option<String>,
    /// Which of [`Charges::charges`] are its own.
    pub charges: Range<usize>,
}

/// What a budget did to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// When, in milliseconds since 1970.
    pub time_ms: i64,
    /// The call's event.
    pub event_id: String,
    /// `x-request-id`.
    pub request_id: Option<String>,
    /// The budget's name.
    pub budget: String,
    /// The facts, a JSON object.
    pub body: String,
}

/// What the events of one transaction did to budgets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Charges {
    /// What they charge.
    pub charges: Vec<Charge>,
    /// The events, those that end a reservation and charge nothing among them.
    pub settled: Vec<Settled>,
    /// What budgets did to them.
    pub denials: Vec<Denial>,
    /// The accounts that were charged, as they stand after the commit; the ledger fills them in.
    pub totals: Vec<Spend>,
}

/// Says what events charge to which accounts. Called on the writer thread, so it has to be quick.
pub trait Charger: Send + 'static {
    /// Called once for each event that is new or newly completed, before its transaction ends.
    /// Should the transaction fail, the charges are forgotten, and the event will come again.
    fn charge(&mut self, entry: &Entry, occasion: Occasion<'_>, charges: &mut Charges);

    /// Called after the commit that made the charges durable, before anybody is answered.
    fn committed(&mut self, charges: Charges);

    /// What is known here of a ledger that has to be opened afresh: another file may have taken
    /// its place, or not.
    fn known(&mut self) -> Known;

    /// What an event of the past is charged to the budget of that id, which may be one that is not
    /// adopted yet. It may stand for several without a price, of one provider and one hour, with the
    /// tokens of all: what these are charged must be what each of them is charged, added up.
    fn past(&mut self, budget: &str, entry: &Entry) -> i128;

    /// Accounts whose windows end no later are of no interest any more; in milliseconds since 1970.
    fn counts_after_ms(&self) -> i64;

    /// Accounts as they stand in a file that has just been opened, or that have been begun: those of
    /// interest.
    fn opened(&mut self, spends: Vec<Spend>);

    /// From here on events charge what [`crate::ledger::Ledger::adopt`] was called for.
    fn adopted(&mut self);

    /// Whether nobody charges: rows that come now are missing in accounts, which are made anew from
    /// rows the next time that budgets are adopted.
    fn is_absent(&self) -> bool {
        false
    }
}

/// The charger of a ledger without budgets.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCharger;

impl Charger for NoCharger {
    fn charge(&mut self, _: &Entry, _: Occasion<'_>, _: &mut Charges) {}

    fn committed(&mut self, _: Charges) {}

    fn known(&mut self) -> Known {
        Known::default()
    }

    fn past(&mut self, _: &str, _: &Entry) -> i128 {
        0
    }

    fn counts_after_ms(&self) -> i64 {
        i64::MAX
    }

    fn opened(&mut self, _: Vec<Spend>) {}

    fn adopted(&mut self) {}

    fn is_absent(&self) -> bool {
        true
    }
}

/// What a process knows of budgets, whatever becomes of the file.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Who it is, once that is decided.
    pub identity: Option<Identity>,
    /// The budgets that events charge.
    pub ids: Vec<Arc<str>>,
    /// Their accounts.
    pub spends: Vec<Spend>,
    /// [`Charger::counts_after_ms`].
    pub counts_after_ms: i64,
}

/// Who this ledger is to a store of budgets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// A name that no other ledger has.
    pub instance: String,
    /// How often a process has begun to enforce budgets over this ledger.
    pub boot: u64,
}

/// A step of the budgets' own.
pub enum Step {
    /// Notes how much the store lets this ledger spend.
    Grants(Vec<Grant>),
    /// Deletes some of the accounts of windows that ended before that instant, in milliseconds since
    /// 1970: those that ended first.
    Forget(i64),
    /// Writes down a temporary limit, or what became of it.
    Override(Box<Override>),
}

/// A key as accounts have it: what a call does not have is the empty text.
pub fn key_text<T: AsRef<str>>(values: &[Option<T>]) -> String {
    let values = values
        .iter()
        .map(|value| value.as_ref().map_or("", AsRef::as_ref));
    serde_json::Value::from_iter(values).to_string()
}
