//! All accounts of this node and what is reserved from them, behind one lock.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use tollmesh_budget::lease::{Carried, Holder, Refusal, ReservationId};

use super::account::{Account, read_memory};
use super::ended::Ended;
use super::lives::Lives;
use super::policies::{Budget, Policies, Span};
use crate::ledger::budgets::{Charges, Identity, Known, Settled, Spend, SpendKey};

/// Values of one budget's keys in one cell that have accounts of their own. What is made up by
/// whoever sets a header shares the account of [`OVERFLOW`].
pub const KEYS_MAX: usize = 10_000;
/// The value of keys beyond.
pub const OVERFLOW: &str = "__other__";
/// Refusals whose facts are kept until the call's event comes.
const REFUSED_MAX: usize = 4_096;
/// Bits of a reservation's number that count within one millisecond.
const NUMBER_BITS: u32 = 20;

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
    /// Whether the store answered nothing the last time that it was asked.
    pub is_store_silent: bool,
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
    reservations: HashMap<ReservationId, Reservation>,
    by_event: HashMap<Arc<str>, ReservationId>,
    n_keys: HashMap<(Arc<str>, i64), usize>,
    refused: VecDeque<(String, Refused)>,
    ended: Ended,
    counter: u64,
    reports: u64,
}

/// A call that was let go ahead.
#[derive(Debug)]
struct Reservation {
    event_id: Arc<str>,
    since_ms: u64,
    holds: Vec<Hold>,
}

/// What one account holds for a call.
#[derive(Clone, Debug)]
pub struct Hold {
    /// The account.
    pub at: SpendKey,
    /// In the store's units.
    pub units: u64,
    /// Whether the lease covers it; else it went ahead without one.
    pub is_leased: bool,
}

/// Why a call was refused, in figures.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The account.
    pub at: SpendKey,
    /// What the call might have cost, in the store's units.
    pub asked: u64,
    /// What was spent, by all nodes.
    pub spent: u64,
    /// What calls in flight held, through this node.
    pub held: u64,
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
        let key = overflow(budget);
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

    /// What all nodes have spent in the window that ends with the account's cell.
    pub fn spent(&self, account: &Account) -> u64 {
        let earlier = self.before(account).map(Account::spent);
        earlier.fold(account.spent(), u64::saturating_add)
    }

    /// What may be allocated in the account's cell: the limit, less what earlier cells of a rolling
    /// window have taken of it; nothing while one of them is not known.
    pub fn limit(&self, account: &Account) -> u64 {
        let mut limit = account.budget.hard_units;
        for earlier in self.before(account) {
            if !earlier.is_known() {
                return 0;
            }
            limit = limit.saturating_sub(earlier.allocated());
        }
        limit
    }

    /// The accounts of earlier cells that count together with that one.
    pub(super) fn before<'s>(&'s self, account: &'s Account) -> impl Iterator<Item = &'s Account> {
        let starts = account.budget.cells_before(account.cell.start);
        starts.filter_map(|window_ms| {
            let at = SpendKey {
                window_ms,
                ..account.at.clone()
            };
            self.accounts.get(&at)
        })
    }

    /// Opens the earlier cells of a rolling window, once: of those that other nodes may have used,
    /// all.
    pub fn open_before(&mut self, at: &SpendKey, is_shared: bool, now_ms: u64) {
        let Some(account) = self.accounts.get_mut(at) else {
            return;
        };
        if std::mem::replace(&mut account.has_earlier, true) {
            return;
        }
        let budget = Arc::clone(&account.budget);
        let (key, cell) = (account.key.clone(), account.cell);
        let length = cell.end - cell.start;
        for start in budget.cells_before(cell.start) {
            let earlier = SpendKey {
                window_ms: start,
                ..at.clone()
            };
            if is_shared || self.stored.contains_key(&earlier) {
                let end = start + length;
                self.open(&budget, key.clone(), Span { start, end }, now_ms);
            }
        }
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

    // === reservations ===

    /// The reservation of that event, if it has one.
    pub fn reserved(&self, event_id: &str) -> Option<ReservationId> {
        self.by_event.get(event_id).copied()
    }

    /// Whether that call is over already, so that nothing is to be held for it.
    pub fn has_ended(&self, event_id: &str) -> bool {
        self.ended.has(event_id)
    }

    /// An id for a reservation at that instant. The number tells the instant too, so that a call is
    /// counted in the window of its admission even by a process that never heard of it.
    pub fn next_id(&mut self, unix_ms: i64) -> ReservationId {
        self.counter += 1;
        let in_ms = self.counter & ((1 << NUMBER_BITS) - 1);
        ReservationId {
            boot: self.boot(),
            number: (unix_ms.unsigned_abs() << NUMBER_BITS) | in_ms,
        }
    }

    /// Holds what a call may cost in one account.
    pub fn hold(
        &mut self,
        at: &SpendKey,
        id: ReservationId,
        units: u64,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        // A lease from before the limit was lowered may still cover more.
        let is_over = self.accounts.get(at).is_some_and(|account| {
            let taken = self.spent(account).saturating_add(account.holder.held());
            taken.saturating_add(units) > account.budget.hard_units
        });
        let Some(account) = self.accounts.get_mut(at) else {
            return Err(Refusal::NeedsGrant);
        };
        account.use_at(now_ms);
        account.holder.reserve(now_ms, id, units)?;
        if is_over {
            account.holder.release(id);
            return Err(Refusal::Exhausted);
        }
        account.took(units);
        Ok(())
    }

    /// Notes a call that goes ahead with these holds.
    pub fn keep(&mut self, id: ReservationId, event_id: &str, holds: Vec<Hold>, now_ms: u64) {
        let event_id: Arc<str> = event_id.into();
        self.by_event.insert(Arc::clone(&event_id), id);
        let reservation = Reservation {
            event_id,
            since_ms: now_ms,
            holds,
        };
        self.reservations.insert(id, reservation);
    }

    /// Lets go of holds that come to nothing.
    pub fn let_go(&mut self, id: ReservationId, holds: &[Hold]) {
        for hold in holds {
            if let Some(account) = self.accounts.get_mut(&hold.at) {
                match hold.is_leased {
                    true => account.holder.release(id),
                    false => account.unleased = account.unleased.saturating_sub(hold.units),
                }
                account.touch();
            }
        }
    }

    /// Ends reservations that nobody has settled for as long as a call may take.
    pub fn expire(&mut self, now_ms: u64) -> usize {
        let longest = self.policies.all.iter().map(|b| b.policy.max_stream).max();
        let longest_ms = longest.map_or(0, |longest| longest.as_millis());
        let longest_ms = u64::try_from(longest_ms).unwrap_or(u64::MAX);
        let old = |r: &Reservation| now_ms.saturating_sub(r.since_ms) > longest_ms;
        let old = self.reservations.iter().filter(|(_, r)| old(r));
        let old: Vec<ReservationId> = old.map(|(id, _)| *id).collect();
        for id in &old {
            self.end(*id);
        }
        old.len()
    }

    fn end(&mut self, id: ReservationId) {
        if let Some(reservation) = self.reservations.remove(&id) {
            self.by_event.remove(&reservation.event_id);
            self.let_go(id, &reservation.holds);
        }
    }

    /// Calls in flight that something is reserved for.
    pub fn n_reserved(&self) -> usize {
        self.reservations.len()
    }

    /// Keeps why a call was refused until its event comes.
    pub fn refuse(&mut self, event_id: &str, refused: Refused) {
        if self.refused.len() >= REFUSED_MAX {
            self.refused.pop_front();
        }
        self.refused.push_back((event_id.to_owned(), refused));
    }

    /// Why that call was refused.
    pub fn refused(&self, event_id: &str) -> Option<&Refused> {
        let mut newest = self.refused.iter().rev();
        newest.find(|(id, _)| id == event_id).map(|(_, why)| why)
    }

    // === what the ledger says ===

    /// Takes in what events have charged durably.
    pub fn commit(&mut self, charges: &Charges, now_ms: u64) {
        // An account that was forgotten, or never used in this life, goes on where the ledger is.
        let mut opened = HashSet::new();
        for total in &charges.totals {
            if self.accounts.contains_key(&total.at) {
                continue;
            }
            let before = self.stored.remove(&total.at);
            let spend = Spend {
                granted: before.as_ref().map_or(0, |before| before.granted),
                memory: before.map(|before| before.memory).unwrap_or_default(),
                ..total.clone()
            };
            self.stored.insert(total.at.clone(), spend);
            self.open_stored(&total.at, now_ms);
            opened.insert(&total.at);
        }
        for settled in &charges.settled {
            self.settle(settled, charges, &opened);
        }
    }

    fn settle(&mut self, settled: &Settled, charges: &Charges, opened: &HashSet<&SpendKey>) {
        let named = settled.reservation_id.as_deref();
        let id = named.and_then(|id| id.parse().ok());
        let id = id.or_else(|| self.reserved(&settled.event_id));
        let reservation = id.and_then(|id| self.reservations.remove(&id));
        self.by_event.remove(&*settled.event_id);
        // A connection's first event settles what was reserved under the connection's own name.
        if let Some(reservation) = &reservation {
            self.by_event.remove(&reservation.event_id);
        }
        if reservation.is_none() && self.policies.reserve() {
            self.ended.note(&settled.event_id);
        }
        let own = charges.charges.get(settled.charges.clone());
        for charge in own.unwrap_or_default() {
            if let Some(account) = self.accounts.get_mut(&charge.at) {
                if !opened.contains(&charge.at) {
                    account.charge(id, charge.amount, charge.denied);
                }
                self.judge(&charge.at);
            }
        }
        if let (Some(id), Some(mut reservation)) = (id, reservation) {
            // What went ahead without a lease has used up its allowance.
            reservation
                .holds
                .retain(|hold| hold.is_leased || settled.charges.is_empty());
            // Where the charge went to the same account, its hold is gone already.
            self.let_go(id, &reservation.holds);
        }
    }

    /// Opens the account of that name, where its budget is in force.
    pub fn open_stored(&mut self, at: &SpendKey, now_ms: u64) -> bool {
        let Some(budget) = self.policies.of_id(&at.budget).cloned() else {
            return false;
        };
        let key: Vec<String> = serde_json::from_str(&at.key).unwrap_or_default();
        let Some(cell) = budget.cell_at(at.window_ms) else {
            return false;
        };
        if cell.start != at.window_ms || key.len() != budget.per.len() {
            return false;
        }
        self.open(&budget, key, cell, now_ms);
        true
    }

    /// Takes in accounts as they stand in the ledger's file.
    pub fn load(&mut self, spends: Vec<Spend>) {
        for spend in spends {
            let Some(account) = self.accounts.get_mut(&spend.at) else {
                self.stored.insert(spend.at.clone(), spend);
                continue;
            };
            let more = spend.amount.saturating_sub(account.amount).max(0);
            let denied = spend.denied.saturating_sub(account.denied);
            if more > 0 || denied > 0 {
                account.charge(None, more, denied);
            }
        }
    }

    /// Everything, for a file that may have to be made again; with since when accounts count.
    pub fn known(&self, counts_after_ms: i64) -> Known {
        let in_use = self.accounts.values().map(|account| Spend {
            at: account.at.clone(),
            end_ms: account.budget.counts_until(account.cell),
            amount: account.amount,
            denied: account.denied,
            granted: account.holder.granted(),
            memory: super::account::write_memory(&account.holder.memory()),
        });
        Known {
            identity: self.identity.clone(),
            ids: self
                .policies
                .all
                .iter()
                .map(|b| Arc::clone(&b.id))
                .collect(),
            spends: in_use.chain(self.stored.values().cloned()).collect(),
            counts_after_ms,
        }
    }

    /// Puts other policies in force; accounts of budgets that are no more charge nothing from now on.
    pub fn adopt(&mut self, policies: Arc<Policies>, unix_ms: i64, now_ms: u64) {
        self.policies = policies;
        self.turns_ms = 0;
        for account in self.accounts.values_mut() {
            if let Some(budget) = self.policies.of_id(&account.at.budget) {
                account.budget = Arc::clone(budget);
                // What the store said last was said under another limit.
                account.wait_for(0);
            }
        }
        let stored: Vec<SpendKey> = self
            .stored
            .values()
            .filter(|spend| self.counts(spend, unix_ms))
            .map(|spend| spend.at.clone())
            .collect();
        for at in &stored {
            self.open_stored(at, now_ms);
        }
        self.roll(unix_ms, now_ms);
        let all: Vec<SpendKey> = self.accounts.keys().cloned().collect();
        for at in &all {
            self.judge(at);
        }
        self.is_table_old = true;
    }

    /// Whether an account of the ledger still matters: its spend counts, or a grant is left that an
    /// earlier life may yet spend.
    fn counts(&self, spend: &Spend, unix_ms: i64) -> bool {
        let Some(budget) = self.policies.of_id(&spend.at.budget) else {
            return false;
        };
        let cell = budget.cell_at(spend.at.window_ms);
        cell.is_some_and(|cell| budget.counts_until(cell) > unix_ms)
            || spend.granted > budget.policy.limit.units_of(spend.amount)
    }

    /// Goes over into the next cells of rolling windows, as soon as one begins: what is told of the
    /// last ones holds no more.
    pub fn turn(&mut self, unix_ms: i64, now_ms: u64) {
        if unix_ms < self.turns_ms {
            return;
        }
        self.roll(unix_ms, now_ms);
        self.is_table_old = true;
        let rolling = self.policies.all.iter().filter(|b| b.cell_ms().is_some());
        let ends = rolling.filter_map(|budget| Some(budget.cell_at(unix_ms)?.end));
        self.turns_ms = ends.min().unwrap_or(i64::MAX);
    }

    /// Opens the present cell of rolling windows that earlier cells still count in, so that their
    /// spend is seen though no call comes.
    pub fn roll(&mut self, unix_ms: i64, now_ms: u64) {
        let is_earlier = |account: &&Account| {
            let is_rolling = account.budget.cell_ms().is_some();
            is_rolling
                && account.cell.end <= unix_ms
                && account.budget.counts_until(account.cell) > unix_ms
        };
        let earlier = self.accounts.values().filter(is_earlier);
        let earlier: HashMap<(Arc<str>, Vec<String>), Arc<Budget>> = earlier
            .map(|account| {
                let place = (Arc::clone(&account.at.budget), account.key.clone());
                (place, Arc::clone(&account.budget))
            })
            .collect();
        for ((_, key), budget) in earlier {
            if let Some(cell) = budget.cell_at(unix_ms) {
                let at = self.open(&budget, key, cell, now_ms).at.clone();
                self.judge(&at);
            }
        }
    }

    /// Whether that account's budget is in force.
    pub fn is_in_force(&self, account: &Account) -> bool {
        self.policies.of_id(&account.at.budget).is_some()
    }

    /// Forgets accounts that count no more and hold nothing.
    pub fn forget(&mut self, unix_ms: i64, kept_ms: i64) {
        let n_before = self.accounts.len();
        self.accounts.retain(|_, account| {
            let until = account.budget.counts_until(account.cell) + kept_ms;
            unix_ms < until || account.holder.held() > 0
        });
        self.stored
            .retain(|_, spend| unix_ms < spend.end_ms + kept_ms);
        if self.accounts.len() != n_before {
            self.n_keys.clear();
            for account in self.accounts.values() {
                let place = (Arc::clone(&account.at.budget), account.cell.start);
                *self.n_keys.entry(place).or_default() += 1;
            }
        }
    }
}

/// When the call of that reservation was let go ahead, in milliseconds since 1970.
pub fn admitted_ms(id: ReservationId) -> i64 {
    i64::try_from(id.number >> NUMBER_BITS).unwrap_or(i64::MAX)
}

/// The values of the account that keys without an own one share.
fn overflow(budget: &Budget) -> Vec<String> {
    budget.per.iter().map(|_| OVERFLOW.to_owned()).collect()
}

/// The same as the ledger has them.
pub fn others(budget: &Budget) -> Arc<str> {
    let values: Vec<Option<String>> = overflow(budget).into_iter().map(Some).collect();
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
