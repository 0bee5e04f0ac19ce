//! Which accounts the store is told of next.
//!
//! Of a rolling window, earlier parts come before the one that they bound: what may be given out of
//! it is the limit less what they have taken, so nothing is asked for before they are known.

use std::collections::BTreeSet;

use super::account::Account;
use super::state::State;
use crate::ledger::budgets::SpendKey;

/// Accounts that one message to the store speaks of; a rolling window's earlier parts may come on top.
const BATCH_MAX: usize = 512;

/// What is to be told now.
#[derive(Debug, Default)]
pub struct Due {
    /// The accounts, earlier cells first.
    pub accounts: Vec<SpendKey>,
    /// Whether others wait for these to be answered, or for room.
    pub is_more: bool,
}

impl State {
    /// The accounts to tell the store of: those that calls wait for first.
    pub fn due(&mut self, unix_ms: i64, now_ms: u64) -> Due {
        let silent = self.silent(now_ms);
        let due = self.accounts.values();
        let mut due: Vec<&Account> = due.filter(|account| account.is_due(now_ms)).collect();
        if due.len() > BATCH_MAX {
            due.sort_by_key(|account| !account.is_waited_for());
        }
        let silent = silent.iter().filter_map(|at| self.accounts.get(at));
        let mut told: BTreeSet<(i64, &SpendKey)> = BTreeSet::new();
        let mut is_more = false;
        for account in silent.chain(due) {
            if told.len() >= BATCH_MAX {
                is_more = true;
                break;
            }
            let unknown = self.unknown_before(account, unix_ms);
            if unknown.is_empty() {
                told.insert((account.cell.start, &account.at));
                continue;
            }
            // A store that was asked and did not answer is asked again at their own pace, unless a
            // call waits.
            let hurries = account.is_waited_for();
            let asked = unknown.iter().filter(|e| hurries || e.is_due(now_ms));
            let asked: Vec<(i64, &SpendKey)> = asked.map(|e| (e.cell.start, &e.at)).collect();
            is_more |= !asked.is_empty();
            told.extend(asked);
        }
        Due {
            accounts: told.into_iter().map(|(_, at)| at.clone()).collect(),
            is_more,
        }
    }

    /// The earlier cells that have to be known before anything can be asked for from that account.
    fn unknown_before<'s>(&'s self, account: &'s Account, unix_ms: i64) -> Vec<&'s Account> {
        let wants = account.budget.is_strict() && unix_ms < account.cell.end && !self.is_ending;
        if !wants || account.budget.cell_ms().is_none() {
            return Vec::new();
        }
        let before = self.before(account);
        before.filter(|earlier| !earlier.is_known()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tollmesh_budget::lease::{Marker, Reply};

    use super::super::policies::{Budget, Policies};
    use super::*;
    use crate::config::budgets::parse;

    const NOON_MS: i64 = 1_800_000_000_000;
    const NOW_MS: u64 = 100_000;

    fn rolling(n_keys: usize) -> (State, Arc<Budget>, Vec<SpendKey>) {
        let text = "[[budget]]\nname = \"b\"\nper = [\"user\"]\nlimit = \"9 USD\"\n\
                    window = \"rolling 24h\"\nenforce = \"strict\"";
        let policies = Policies::new(parse("budgets.toml", text).unwrap());
        let budget = Arc::clone(&policies.all[0]);
        let mut state = State::default();
        state.policies = Arc::new(policies);
        let cell = budget.cell_at(NOON_MS).unwrap();
        let mut keys = Vec::new();
        for n in 0..n_keys {
            let account = state.open(&budget, vec![n.to_string()], cell, NOW_MS);
            account.wait_for(10);
            let at = account.at.clone();
            state.open_before(&at, true, NOW_MS);
            keys.push(at);
        }
        (state, budget, keys)
    }

    /// Has the store answer all that is due; what it was told.
    fn answered(state: &mut State, due: &Due) -> Vec<(i64, u64)> {
        let mut told = Vec::new();
        for at in &due.accounts {
            let limit = state.limit(&state.accounts[at]);
            let seq = state.next_report();
            let account = state.accounts.get_mut(at).unwrap();
            let report = account.report(NOW_MS, seq, false);
            told.push((at.window_ms, limit));
            let terms = account.terms(limit);
            let mut marker = Marker::OLD;
            let mut cell = tollmesh_budget::lease::Cell::default();
            let reply: Reply = cell.sync(&mut marker, 2_000_000, "n", &report, &terms);
            account.take(&reply, NOW_MS);
        }
        told
    }

    #[test]
    fn earlier_parts_of_a_window_are_asked_for_first_and_then_their_bound() {
        let (mut state, budget, keys) = rolling(1);
        let first = state.due(NOON_MS, NOW_MS);
        assert!(first.is_more);
        let told = answered(&mut state, &first);
        assert_eq!(told.len(), 95);
        assert!(told.iter().all(|(start, _)| *start < keys[0].window_ms));
        assert!(told.is_sorted());
        let then = state.due(NOON_MS, NOW_MS);
        assert!(!then.is_more);
        let told = answered(&mut state, &then);
        assert_eq!(told, [(keys[0].window_ms, budget.hard_units)]);
        assert_eq!(state.accounts[&keys[0]].holder.granted(), 10);
        assert!(state.due(NOON_MS, NOW_MS).accounts.is_empty());
    }

    #[test]
    fn many_windows_are_asked_for_in_turns() {
        let (mut state, budget, keys) = rolling(40);
        let mut n_rounds = 0;
        loop {
            let due = state.due(NOON_MS, NOW_MS);
            assert!(due.accounts.len() < BATCH_MAX + 96);
            answered(&mut state, &due);
            n_rounds += 1;
            if !due.is_more {
                break;
            }
        }
        assert!(n_rounds <= 40 * 96 / BATCH_MAX + 2, "{n_rounds}");
        for at in &keys {
            assert_eq!(state.accounts[at].holder.granted(), 10);
            assert_eq!(state.limit(&state.accounts[at]), budget.hard_units);
        }
    }

    #[test]
    fn a_store_that_is_silent_is_not_asked_without_end() {
        let (mut state, _, keys) = rolling(1);
        let due = state.due(NOON_MS, NOW_MS);
        for at in &due.accounts {
            let seq = state.next_report();
            let account = state.accounts.get_mut(at).unwrap();
            account.report(NOW_MS, seq, false);
            account.touch();
        }
        // A call waits: they are asked for again. Where none does, in their own time.
        assert_eq!(state.due(NOON_MS, NOW_MS).accounts.len(), 95);
        let account = state.accounts.get_mut(&keys[0]).unwrap();
        account.report(NOW_MS, 1_000, false);
        account.touch();
        let due = state.due(NOON_MS, NOW_MS + 1);
        assert!(due.accounts.is_empty() && !due.is_more);
        assert_eq!(state.due(NOON_MS, NOW_MS + 2_000).accounts.len(), 95);
    }
}
