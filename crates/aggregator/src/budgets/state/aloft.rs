//! What is on its way to the store of leases, and what of the store did not answer.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::super::account::Account;
use super::super::store::StoreError;
use super::State;
use crate::ledger::budgets::SpendKey;

/// How long after its last answer a store that fails is away, in milliseconds; until then it may be
/// one shard of it that is.
const SILENT_AFTER_MS: u64 = 1_000;

/// Budgets that are asked about, and how that went.
#[derive(Debug, Default)]
pub struct Aloft {
    /// How many questions of a budget are on their way that speak of accounts for which no call waited.
    /// Others come as fast as calls do, and would leave no time between them.
    by_budget: HashMap<Arc<str>, usize>,
    /// What the store did not answer the last time, and why: of a budget, or of being told of them.
    failing: BTreeMap<Option<Arc<str>>, String>,
}

/// So many questions that left together.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// How many.
    pub n: usize,
    /// When, on the clock of leases.
    pub sent_ms: u64,
}

impl State {
    /// Whether the account may be asked about: nothing that it asked is unanswered, and of its budget
    /// nothing for which no call waited, unless one waits for it. A budget is on one server, which may hang.
    pub fn may_ask(&self, account: &Account) -> bool {
        let is_quiet = || !self.aloft.by_budget.contains_key(&account.at.budget);
        !account.is_aloft() && (account.is_waited_for() || is_quiet())
    }

    /// Notes that questions of that budget set out; `is_quiet` where some of them speak of accounts
    /// that no call waits for.
    pub fn note_set_out(&mut self, budget: &Arc<str>, is_quiet: bool) {
        if !is_quiet {
            return;
        }
        *self.aloft.by_budget.entry(Arc::clone(budget)).or_default() += 1;
    }

    /// Notes that questions about these accounts are answered, or never will be; `is_quiet` as
    /// when they set out.
    pub fn land<'a>(
        &mut self,
        budget: &Arc<str>,
        is_quiet: bool,
        accounts: impl Iterator<Item = &'a SpendKey>,
    ) {
        for at in accounts {
            if let Some(account) = self.accounts.get_mut(at) {
                account.land();
            }
        }
        if is_quiet && let Some(n) = self.aloft.by_budget.get_mut(budget) {
            *n = n.saturating_sub(1);
        }
        self.aloft.by_budget.retain(|_, n| *n > 0);
    }

    /// Notes that nothing is on its way any more.
    pub fn land_all(&mut self) {
        self.aloft.by_budget.clear();
        self.accounts.values_mut().for_each(Account::land);
    }

    /// Notes which of the questions about a budget the store did not answer. One shard of a cluster
    /// that is away is not the store.
    pub fn note_unanswered(&mut self, unanswered: &[&SpendKey], asked: Asked, now_ms: u64) {
        let is_answered = unanswered.len() < asked.n;
        if is_answered {
            self.answered_ms = now_ms;
        }
        let is_lately = asked.sent_ms.saturating_sub(self.answered_ms) < SILENT_AFTER_MS;
        self.is_store_silent = !is_answered && (self.answered_ms == 0 || !is_lately);
        for at in unanswered {
            let Some(account) = self.accounts.get_mut(*at) else {
                continue;
            };
            account.unanswered();
            if !self.is_store_silent {
                account.pause(now_ms);
            }
        }
    }

    /// Notes how asking about a budget went, or else telling the store of budgets.
    pub fn note_failed(&mut self, budget: Option<&Arc<str>>, failed: Option<&StoreError>) {
        let place = budget.cloned();
        match failed {
            Some(error) => drop(self.aloft.failing.insert(place, error.to_string())),
            None => drop(self.aloft.failing.remove(&place)),
        }
    }

    /// Why the store does not answer, where it does not answer all that it is asked.
    pub fn failing(&self) -> Option<&str> {
        self.aloft.failing.values().next().map(String::as_str)
    }

    /// Whether it does not answer about that budget.
    pub fn is_failing(&self, budget: &Arc<str>) -> bool {
        self.aloft.failing.contains_key(&Some(Arc::clone(budget)))
    }

    /// Forgets budgets that nobody asks about any more.
    pub(super) fn forget_failing(&mut self) {
        let accounts = &self.accounts;
        let is_asked = |budget: &Arc<str>| accounts.keys().any(|at| at.budget == *budget);
        self.aloft
            .failing
            .retain(|place, _| place.as_ref().is_none_or(is_asked));
    }

    /// Whether calls need not wait for the store's word on that account: the last did not come.
    pub fn is_away(&self, at: &SpendKey) -> bool {
        let account = self.accounts.get(at);
        self.is_store_silent || account.is_some_and(Account::is_away)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::policies::Policies;
    use super::*;
    use crate::budgets::policies::Budget;
    use crate::config::budgets::parse;

    const NOON_MS: i64 = 1_800_000_000_000;

    fn asked(n: usize, sent_ms: u64) -> Asked {
        Asked { n, sent_ms }
    }

    /// A state with a strict budget for each user.
    fn per_user() -> (State, Arc<Budget>) {
        let text = "[[budget]]\nname = \"b\"\nper = [\"user\"]\nlimit = \"9 requests\"\n\
                    window = \"day\"\nenforce = \"strict\"";
        let policies = Policies::new(parse("budgets.toml", text).unwrap());
        let budget = Arc::clone(&policies.all[0]);
        let state = State {
            policies: Arc::new(policies),
            ..State::default()
        };
        (state, budget)
    }

    #[test]
    fn calls_that_wait_leave_others_their_beat() {
        let (mut state, budget) = per_user();
        let cell = budget.cell_at(NOON_MS).unwrap();
        let mut open = |user: &str, is_waited_for: bool| {
            let account = state.open(&budget, vec![user.to_owned()], cell, 1);
            if is_waited_for {
                account.wait_for(1);
            }
            account.at.clone()
        };
        let (waited, others) = (open("a", true), [open("b", false), open("c", false)]);
        let flies = |state: &mut State, at: &SpendKey| {
            let account = state.accounts.get_mut(at).unwrap();
            let is_quiet = !account.is_waited_for();
            account.set_out();
            state.note_set_out(&at.budget, is_quiet);
        };
        let asks = |state: &State, at: &SpendKey| state.may_ask(&state.accounts[at]);
        flies(&mut state, &waited);
        assert!(!asks(&state, &waited) && others.iter().all(|at| asks(&state, at)));
        // One at a time of these, whatever hangs.
        flies(&mut state, &others[0]);
        assert!(!asks(&state, &others[1]));
        state.land(&budget.id, false, [&waited].into_iter());
        assert!(asks(&state, &waited) && !asks(&state, &others[1]));
        state.land(&budget.id, true, [&others[0]].into_iter());
        assert!(others.iter().all(|at| asks(&state, at)));
    }

    #[test]
    fn a_shard_that_is_away_holds_up_only_its_own() {
        let (mut state, budget) = per_user();
        let cell = budget.cell_at(NOON_MS).unwrap();
        let mut open = |user: &str| {
            let account = state.open(&budget, vec![user.to_owned()], cell, 1);
            account.wait_for(1);
            account.at.clone()
        };
        let (away, near) = (open("away"), open("near"));
        let due = |state: &mut State, now_ms| state.due(NOON_MS, now_ms).accounts;
        let mut now_ms = 1_000;
        for pause_ms in [200, 400, 800, 1_600, 3_200, 3_200] {
            state.note_unanswered(&[&away], asked(2, now_ms), now_ms);
            assert!(!state.is_store_silent);
            // The store has heard of the budget, so that no account is to probe it.
            state.lives.tell(&budget.id, now_ms + pause_ms - 1);
            let soon = due(&mut state, now_ms + pause_ms - 1);
            assert_eq!(soon, std::slice::from_ref(&near), "{pause_ms}");
            assert_eq!(due(&mut state, now_ms + pause_ms).len(), 2, "{pause_ms}");
            now_ms += pause_ms;
        }
        state.accounts.get_mut(&away).unwrap().answered();
        assert_eq!(due(&mut state, now_ms).len(), 2);
        // Asked for alone, it is still not the whole store.
        state.note_unanswered(&[&away, &near], asked(3, now_ms), now_ms);
        let soon_ms = now_ms + SILENT_AFTER_MS - 1;
        state.note_unanswered(&[&away], asked(1, soon_ms), soon_ms);
        assert!(!state.is_store_silent);
        let late_ms = now_ms + SILENT_AFTER_MS;
        // Others were answered while it was asked, and that took long.
        state.note_unanswered(&[&away], asked(1, soon_ms), late_ms + 500);
        assert!(!state.is_store_silent);
        state.note_unanswered(&[&away], asked(1, late_ms), late_ms);
        assert!(state.is_store_silent);
        state.note_unanswered(&[], asked(1, late_ms), late_ms);
        assert!(!state.is_store_silent);
    }
}
