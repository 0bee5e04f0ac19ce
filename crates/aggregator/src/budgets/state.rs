//! All accounts of this node and what is reserved from them, behind one lock.

mod aloft;
mod charged;
mod elsewhere;
mod reservations;
mod rolling;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tollmesh_budget::lease::{Carried, Holder, ReservationId};

use super::account::{Account, read_memory};
use super::ended::Ended;
use super::lives::Lives;
use super::policies::{Budget, Policies, Span};
use crate::ledger::budgets::{Identity, Spend, SpendKey};
use aloft::Aloft;
pub use aloft::Asked;
pub use charged::stored_key;
use elsewhere::Elsewheres;
use reservations::Reservation;
pub use reservations::{Hold, Refused, admitted_ms};

/// Values of one budget's keys in one cell that have accounts of their own. What is made up by
/// whoever sets a header shares the account of [`OVERFLOW`].
pub const KEYS_MAX: usize = 10_000;
/// The value of keys beyond.
pub const OVERFLOW: &str = "__other__";
/// Bits of a report's number that count within one life of the process.
const REPORT_BITS: u32 = 32;

/// Everything that one lock holds together.
#[derive(Debug, Default)]
pub struct State {
    /// The budgets that events charge now.
    pub policies: Arc<Policies>,
    /// The accounts that are in use.
    pub accounts: HashMap<SpendKey, Account>,
    /// Accounts of the ledger that nothing has used in this life.
    pub stored: HashMap<SpendKey, Spend>,
    /// Who we are, once the ledger has said so.
    pub identity: Option<Identity>,
    /// Whether the store answered nothing the last time that it was asked, and nothing lately.
    pub is_store_silent: bool,
    /// Whether other nodes may spend from the same cells.
    pub is_shared: bool,
    /// When the next cell of a rolling window begins, in milliseconds since 1970.
    turns_ms: i64,
    /// When the store last answered anything, on the clock of leases; 0 before.
    pub answered_ms: u64,
    /// Whether nothing is to be kept in stock any more.
    pub is_ending: bool,
    /// Whether the decision table is older than what is known here.
    pub is_table_old: bool,
    /// Tiers that were reached and nobody was told yet.
    pub reached: Vec<SpendKey>,
    /// What is known of the store's own life.
    pub lives: Lives,
    aloft: Aloft,
    elsewheres: Elsewheres,
    /// The first instants of the cells of which a budget's key has accounts: of the 95 earlier parts of
    /// a rolling window most keys have few.
    parts: HashMap<(Arc<str>, Arc<str>), Vec<i64>>,
    reservations: HashMap<ReservationId, Reservation>,
    by_event: HashMap<Arc<str>, ReservationId>,
    n_keys: HashMap<(Arc<str>, i64), usize>,
    refused: VecDeque<(String, Refused)>,
    ended: Ended,
    counter: u64,
    reports: u64,
}

// === impl State ===

impl State {
    /// The account of that key in that cell, opened where nobody used it yet.
    pub fn open(
        &mut self,
        budget: &Arc<Budget>,
        key: Vec<String>,
        cell: Span,
        now_ms: u64,
    ) -> &mut Account {
        let (at, key) = self.place(budget, key, cell);
        if !self.accounts.contains_key(&at) {
            let account = self.begin(budget, at.clone(), key, cell, now_ms);
            self.accounts.insert(at.clone(), account);
            self.note_part(&at);

            *self
                .n_keys
                .entry((Arc::clone(&budget.id), cell.start))
                .or_default() += 1;
        }
        let made = || Account::new(Arc::clone(budget), at.clone(), Vec::new(), cell);
        self.accounts.entry(at.clone()).or_insert_with(made)
    }

    /// Where calls with these values are counted.
    pub fn place(
        &self,
        budget: &Arc<Budget>,
        key: Vec<String>,
        cell: Span,
    ) -> (SpendKey, Vec<String>) {
        let at = spend_key(budget, &key, cell);
        let is_known = self.accounts.contains_key(&at) || self.stored.contains_key(&at);
        let place = (Arc::clone(&budget.id), cell.start);
        let n_keys = self.n_keys.get(&place).copied().unwrap_or(0);
        if is_known || n_keys < KEYS_MAX {
            return (at, key);
        }
        let key = overflow(budget.per.len());
        (spend_key(budget, &key, cell), key)
    }

    /// An account as the ledger left it. What an earlier life was granted and did not spend may be
    /// spent yet by its calls in flight.
    fn begin(
        &mut self,
        budget: &Arc<Budget>,
        at: SpendKey,
        key: Vec<String>,
        cell: Span,
        now_ms: u64,
    ) -> Account {
        let account = Account::new(Arc::clone(budget), at.clone(), key, cell);
        let Some(spend) = self.stored.remove(&at) else {
            return self.taught(account);
        };
        let committed = budget.policy.limit.units_of(spend.amount);
        let longest_ms = u64::try_from(budget.policy.max_stream.as_millis()).unwrap_or(u64::MAX);
        let carried = Carried {
            granted: spend.granted,
            until_ms: now_ms.saturating_add(longest_ms),
            boot: self.boot(),
            memory: read_memory(&spend.memory),
        };
        let holder = Holder::new(committed, Some(carried));
        self.taught(account.restored(holder, spend.amount, spend.denied, spend.granted))
    }

    /// Brings an account's tier up to its spend; says whether it changed.
    pub fn judge(&mut self, at: &SpendKey) -> bool {
        let Some(account) = self.accounts.get(at) else {
            return false;
        };
        let tier = account.budget.tier_of(self.spent(account));
        let (before, rises) = (account.tier, tier > account.tier);
        if tier == before {
            return false;
        }
        if let Some(account) = self.accounts.get_mut(at) {
            account.tier = tier;
        }
        if rises {
            self.reached.push(at.clone());
        }
        self.is_table_old = true;
        true
    }

    /// Which start of the process this is.
    pub fn boot(&self) -> u32 {
        let boot = self.identity.as_ref().map_or(0, |identity| identity.boot);
        u32::try_from(boot).unwrap_or(u32::MAX)
    }

    /// A number for the next report to the store, above all before.
    pub fn next_report(&mut self) -> u64 {
        self.reports += 1;
        (u64::from(self.boot()) << REPORT_BITS) + self.reports
    }

    /// Goes on above what another life of this ledger has reported: it was set back to an earlier
    /// copy, or a copy of it is served elsewhere.
    pub fn skip_reports(&mut self) {
        self.reports += 1 << REPORT_BITS;
    }
}

/// The values of the account that keys without an own one share.
fn overflow(n_values: usize) -> Vec<String> {
    vec![OVERFLOW.to_owned(); n_values]
}

/// The same as the ledger has them.
pub fn others(n_values: usize) -> Arc<str> {
    let values: Vec<Option<String>> = overflow(n_values).into_iter().map(Some).collect();
    crate::ledger::budgets::key_text(&values).into()
}

fn spend_key(budget: &Arc<Budget>, key: &[String], cell: Span) -> SpendKey {
    let values: Vec<Option<&str>> = key.iter().map(|value| Some(value.as_str())).collect();
    SpendKey {
        budget: Arc::clone(&budget.id),
        key: crate::ledger::budgets::key_text(&values).into(),
        window_ms: cell.start,
    }
}
