//! Rolling windows: what earlier parts have taken of the present one, and going over into the next.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::account::Account;
use super::super::policies::{Budget, Span};
use super::State;
use crate::ledger::budgets::SpendKey;

impl State {
    /// What all nodes have spent in the window that ends with the account's cell.
    pub fn spent(&self, account: &Account) -> u64 {
        let earlier = self.earlier(account).map(|part| part.spent);
        earlier.fold(account.spent(), u64::saturating_add)
    }

    /// What may be allocated in the account's cell: the limit, less what earlier parts of a rolling
    /// window have taken of it; nothing while that is not known.
    pub fn limit(&self, account: &Account) -> u64 {
        if !self.is_bounded(account) {
            return 0;
        }
        let earlier = self.earlier(account).map(|part| part.allocated);
        earlier.fold(account.budget.hard_units, u64::saturating_sub)
    }

    /// What went ahead without a lease in the earlier parts of the window that ends with that cell.
    pub fn unleased_before(&self, at: &SpendKey) -> u64 {
        let Some(account) = self.accounts.get(at) else {
            return 0;
        };
        let starts = account.budget.cells_before(account.cell.start);
        let earlier = starts.filter_map(|window_ms| {
            let at = SpendKey {
                window_ms,
                ..at.clone()
            };
            self.accounts.get(&at)
        });
        earlier.fold(0, |sum, earlier| sum.saturating_add(earlier.unleased))
    }

    /// Opens the earlier parts of a rolling window that the ledger knows of.
    pub fn open_before(&mut self, at: &SpendKey, now_ms: u64) {
        let Some(account) = self.accounts.get(at) else {
            return;
        };
        let budget = Arc::clone(&account.budget);
        let (key, cell) = (account.key.clone(), account.cell);
        let length = cell.end - cell.start;
        for start in budget.cells_before(cell.start) {
            let earlier = SpendKey {
                window_ms: start,
                ..at.clone()
            };
            if self.stored.contains_key(&earlier) {
                let end = start + length;
                self.open(&budget, key.clone(), Span { start, end }, now_ms);
            }
        }
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
    /// spend is seen though no call comes. What is left in stock there is given back.
    pub fn roll(&mut self, unix_ms: i64, now_ms: u64) {
        let is_earlier = |account: &Account| {
            let is_rolling = account.budget.cell_ms().is_some();
            is_rolling
                && account.cell.end <= unix_ms
                && account.budget.counts_until(account.cell) > unix_ms
        };
        let earlier = self.accounts.values().filter(|account| is_earlier(account));
        let counting =
            earlier.filter(|account| !account.is_unspent() || self.is_used_elsewhere(account));
        // One of each key.
        let counting = counting.map(|account| ((&account.at.budget, &account.at.key), account));
        let counting: HashMap<_, &Account> = counting.collect();
        let keys = counting.into_values();
        let keys = keys.map(|account| (account.key.clone(), Arc::clone(&account.budget)));
        let keys: Vec<(Vec<String>, Arc<Budget>)> = keys.collect();
        for account in self.accounts.values_mut() {
            if is_earlier(account) {
                account.give_back();
            }
        }
        for (key, budget) in keys {
            if let Some(cell) = budget.cell_at(unix_ms) {
                let at = self.open(&budget, key, cell, now_ms).at.clone();
                self.judge(&at);
            }
        }
    }
}
