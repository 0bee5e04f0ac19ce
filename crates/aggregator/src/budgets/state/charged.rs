//! What the ledger says: charges that are durable, accounts as they stand in its file, and which of
//! them count.

use std::collections::HashSet;
use std::sync::Arc;

use super::super::account::{self, Account};
use super::super::policies::{Budget, Policies, Span};
use super::State;
use crate::ledger::budgets::{Charges, Known, Settled, Spend, SpendKey};

impl State {
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
            self.settle(settled, charges, &opened, now_ms);
        }
        self.raise(&charges.totals);
    }

    /// Raises accounts to what the ledger has: one that was opened while a clock was wrong may have
    /// begun with nothing.
    fn raise(&mut self, totals: &[Spend]) {
        for total in totals {
            let Some(account) = self.accounts.get_mut(&total.at) else {
                continue;
            };
            let more = total.amount.saturating_sub(account.amount);
            if more > 0 {
                account.charge(None, more, 0);
                self.judge(&total.at);
            }
        }
    }

    fn settle(
        &mut self,
        settled: &Settled,
        charges: &Charges,
        opened: &HashSet<&SpendKey>,
        now_ms: u64,
    ) {
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
                account.use_at(now_ms);
                if !opened.contains(&charge.at) {
                    account.charge(id, charge.amount, charge.denied);
                }
                self.judge(&charge.at);
            }
        }
        if let (Some(id), Some(reservation)) = (id, reservation) {
            // Where the charge went to the same account, its hold is gone already.
            self.let_go(id, &reservation.holds, !settled.charges.is_empty());
        }
    }

    /// Opens the account of that name, where its budget is in force.
    pub fn open_stored(&mut self, at: &SpendKey, now_ms: u64) -> bool {
        let Some(budget) = self.policies.of_id(&at.budget).cloned() else {
            return false;
        };
        let Some((key, cell)) = stored_key(&budget, at) else {
            return false;
        };
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
            memory: account::write_memory(&account.holder.memory()),
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
                account.change_limit(budget, now_ms);
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

    /// Whether that account's budget is in force.
    pub fn is_in_force(&self, account: &Account) -> bool {
        self.policies.of_id(&account.at.budget).is_some()
    }

    /// Forgets accounts that count no more and hold nothing.
    pub fn forget(&mut self, unix_ms: i64, kept_ms: i64) {
        let n_before = self.accounts.len();
        self.accounts.retain(|_, account| {
            let until = account.budget.counts_until(account.cell) + kept_ms;
            // Of a rolling window, parts of which nothing came are not kept for its whole length.
            let is_idle = account.cell.end <= unix_ms && account.is_empty();
            !is_idle && unix_ms < until || account.holder.held() > 0
        });
        self.stored
            .retain(|_, spend| unix_ms < spend.end_ms + kept_ms);
        if self.accounts.len() != n_before {
            self.forget_failing();
            self.forget_elsewhere();

            self.note_parts();
            self.n_keys.clear();
            for account in self.accounts.values() {
                let place = (Arc::clone(&account.at.budget), account.cell.start);
                *self.n_keys.entry(place).or_default() += 1;
            }
        }
    }
}

/// The values and the cell that the ledger's name of an account means; `None` where it is none of
/// that budget's.
pub fn stored_key(budget: &Budget, at: &SpendKey) -> Option<(Vec<String>, Span)> {
    let key: Vec<String> = serde_json::from_str(&at.key).unwrap_or_default();
    let cell = budget.cell_at(at.window_ms)?;
    let is_own = cell.start == at.window_ms && key.len() == budget.per.len();
    is_own.then_some((key, cell))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::budgets::parse;
    use crate::ledger::budgets::Charge;

    #[test]
    fn an_account_that_was_forgotten_and_opened_again_is_what_the_ledger_has() {
        let text = "[[budget]]\nname = \"b\"\nlimit = \"9 requests\"\nwindow = \"day\"";
        let policies = Policies::new(parse("budgets.toml", text).unwrap());
        let budget = Arc::clone(&policies.all[0]);
        let day = budget.cell_at(1_800_000_000_000).unwrap();
        let mut state = State {
            policies: Arc::new(policies),
            ..State::default()
        };
        let at = state.open(&budget, Vec::new(), day, 1).at.clone();
        let charge = Charge {
            at: at.clone(),
            end_ms: day.end,
            amount: 1,
            denied: 0,
        };
        let total = Spend {
            at: at.clone(),
            end_ms: day.end,
            amount: 8,
            denied: 0,
            granted: 0,
            memory: String::new(),
        };
        let charges = Charges {
            charges: vec![charge],
            settled: vec![Settled {
                event_id: "e".to_owned(),
                reservation_id: None,
                charges: 0..1,
            }],
            totals: vec![total],
            ..Charges::default()
        };
        state.commit(&charges, 1);
        let account = &state.accounts[&at];
        assert_eq!((account.amount, account.holder.committed()), (8, 8));
    }
}
