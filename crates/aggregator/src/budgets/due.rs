//! Which accounts the store is told of next.
//!
//! Of a rolling window, earlier parts are looked at before anything is asked for from the one that
//! they bound: what may be given out of it is the limit less what they have taken.

use std::collections::BTreeSet;

use super::account::Account;
use super::state::State;
use crate::ledger::budgets::SpendKey;

/// Accounts that one message to the store speaks of.
const BATCH_MAX: usize = 512;

/// Looks that one message asks for at most: each is at 95 cells.
const LOOKS_MAX: usize = 256;

/// What is to be told and asked now.
#[derive(Debug, Default)]
pub struct Due {
    /// The accounts to tell of, earlier cells first.
    pub accounts: Vec<SpendKey>,
    /// The accounts for whose earlier parts the store is to be looked at.
    pub looks: Vec<SpendKey>,
    /// Whether others wait for these to be answered, or for room.
    pub is_more: bool,
}

impl State {
    /// The accounts to tell the store of, and those to look for: those that calls wait for first.
    pub fn due(&mut self, unix_ms: i64, now_ms: u64) -> Due {
        let silent = self.silent(now_ms);
        let is_due = |account: &&Account| {
            let is_due = account.is_due(now_ms) || self.is_look_wanted(account, unix_ms, now_ms);
            is_due && self.may_ask(account)
        };
        let mut due: Vec<&Account> = self.accounts.values().filter(is_due).collect();
        if due.len() > BATCH_MAX {
            due.sort_by_key(|account| !account.is_waited_for());
        }
        let silent = silent.iter().filter_map(|at| self.accounts.get(at));
        let silent = silent.filter(|account| self.may_ask(account));
        let mut told: BTreeSet<(i64, &SpendKey)> = BTreeSet::new();
        let mut looks: BTreeSet<&SpendKey> = BTreeSet::new();
        let mut is_more = false;
        for (account, is_silent) in silent
            .map(|s| (s, true))
            .chain(due.iter().map(|a| (*a, false)))
        {
            if told.len() >= BATCH_MAX || looks.len() >= LOOKS_MAX {
                is_more = true;
                break;
            }
            let is_looked_for = self.is_look_wanted(account, unix_ms, now_ms);
            if is_looked_for {
                looks.insert(&account.at);
            }
            let has_to_wait = self.wants(account, unix_ms)
                && !self.is_bounded(account)
                && now_ms >= self.lives.waits_until_ms(&account.at.budget);
            if has_to_wait {
                is_more |= is_looked_for;
            } else if is_silent || account.is_due(now_ms) {
                told.insert((account.cell.start, &account.at));
            }
        }
        Due {
            accounts: told.into_iter().map(|(_, at)| at.clone()).collect(),
            looks: looks.into_iter().cloned().collect(),
            is_more,
        }
    }

    /// Whether something may be asked for from that account.
    fn wants(&self, account: &Account, unix_ms: i64) -> bool {
        account.budget.is_strict() && unix_ms < account.cell.end && !self.is_ending
    }

    /// Whether the store is to be looked at for that account's window.
    fn is_look_wanted(&self, account: &Account, unix_ms: i64, now_ms: u64) -> bool {
        let is_present = account.cell.holds(unix_ms) && !self.is_ending;
        let is_asked = is_present && !account.is_failing(now_ms);
        is_asked && self.is_look_due(account, now_ms) && self.is_in_force(account)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tollmesh_budget::lease::{Elsewhere, Marker, Reply};

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
        state.is_shared = true;
        let cell = budget.cell_at(NOON_MS).unwrap();
        let mut keys = Vec::new();
        for n in 0..n_keys {
            let account = state.open(&budget, vec![n.to_string()], cell, NOW_MS);
            account.wait_for(10);
            keys.push(account.at.clone());
        }
        (state, budget, keys)
    }

    /// Has the store answer all that is due; how many looks there were, and what it was told.
    fn answered(state: &mut State, due: &Due) -> (usize, Vec<(i64, u64)>) {
        for at in &due.looks {
            let look = state.look(&state.accounts[at], NOON_MS, NOW_MS);
            assert_eq!(look.cells.len(), 95);
            let mut found = vec![Elsewhere::default(); 95];
            // Ten parts ago, 2 USD are spent and 1 more may be.
            found[9] = Elsewhere {
                spent: 2_000_000,
                allocated: 3_000_000,
                wait_ms: 0,
            };
            state.accounts.get_mut(at).unwrap().looked_ms = Some(NOW_MS);
            state.take_look(at, &look, &found, NOW_MS, NOON_MS);
        }
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
        (due.looks.len(), told)
    }

    #[test]
    fn earlier_parts_of_a_window_are_looked_at_first_and_then_their_bound_is_asked_for() {
        let (mut state, budget, keys) = rolling(1);
        let first = state.due(NOON_MS, NOW_MS);
        assert!(first.is_more);
        assert_eq!(answered(&mut state, &first), (1, Vec::new()));
        let then = state.due(NOON_MS, NOW_MS);
        assert!(!then.is_more);
        let (n_looks, told) = answered(&mut state, &then);
        let limit = budget.hard_units - 3_000_000;
        assert_eq!((n_looks, told), (0, vec![(keys[0].window_ms, limit)]));
        let account = &state.accounts[&keys[0]];
        assert_eq!(account.holder.granted(), 10);
        assert_eq!(state.spent(account), 2_000_000);
        assert_eq!(state.accounts.len(), 1, "nothing is kept of other parts");
        assert!(state.due(NOON_MS, NOW_MS).accounts.is_empty());
    }

    #[test]
    fn many_windows_are_asked_for_in_turns() {
        let (mut state, _, keys) = rolling(600);
        let mut n_rounds = 0;
        loop {
            let due = state.due(NOON_MS, NOW_MS);
            assert!(due.accounts.len() <= BATCH_MAX && due.looks.len() <= LOOKS_MAX);
            answered(&mut state, &due);
            n_rounds += 1;
            if !due.is_more {
                break;
            }
        }
        assert!(n_rounds <= 6, "{n_rounds}");
        for at in &keys {
            assert_eq!(state.accounts[at].holder.granted(), 10);
        }
    }

    #[test]
    fn a_store_that_is_silent_is_not_asked_without_end() {
        let (mut state, _, keys) = rolling(1);
        let looks = |state: &mut State, now_ms| {
            let due = state.due(NOON_MS, now_ms);
            assert!(due.accounts.is_empty() && due.is_more != due.looks.is_empty());
            for at in &due.looks {
                state.accounts.get_mut(at).unwrap().looked_ms = Some(now_ms);
            }
            due.looks.len()
        };
        assert_eq!(looks(&mut state, NOW_MS), 1);
        // A call waits: it is looked again. Where none does, in its own time.
        assert_eq!(looks(&mut state, NOW_MS), 1);
        let account = state.accounts.get_mut(&keys[0]).unwrap();
        account.report(NOW_MS, 1_000, false);
        account.touch();
        assert_eq!(looks(&mut state, NOW_MS + 1), 0);
        assert_eq!(looks(&mut state, NOW_MS + 2_000), 1);
    }
}
