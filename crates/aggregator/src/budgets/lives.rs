//! Noticing that a store has lost its data, though nobody asks about the accounts that it lost.

use std::collections::HashMap;
use std::sync::Arc;

use super::account::{Account, read_memory};
use super::state::State;
use crate::ledger::budgets::SpendKey;

/// How long a budget of which something is known here may be silent, in milliseconds: less than half
/// of what a store waits for those who remember what it lost (`HOLD_MS` of leases).
const SILENCE_MS_MAX: u64 = 5_000;

/// What this node last heard of each budget.
#[derive(Debug, Default)]
pub struct Lives(HashMap<Arc<str>, Heard>);

#[derive(Debug, Default)]
struct Heard {
    /// Names the life of the budget in the store; 0 before the first answer.
    life: u64,
    /// When the store was last told something, on the clock of leases.
    told_ms: u64,
    /// Until when the store waits for those who remember what it lost, on the clock of leases.
    waits_until_ms: u64,
}

impl Lives {
    /// Until when the store may lack what others have of the budget, on the clock of leases.
    pub fn waits_until_ms(&self, budget: &Arc<str>) -> u64 {
        self.0.get(budget).map_or(0, |heard| heard.waits_until_ms)
    }

    /// Notes that it waits until then.
    pub fn wait_until(&mut self, budget: &Arc<str>, until_ms: u64) {
        let heard = self.0.entry(Arc::clone(budget)).or_default();
        heard.waits_until_ms = heard.waits_until_ms.max(until_ms);
    }

    /// What an account that is opened now knows of the budget's life.
    pub fn of(&self, budget: &Arc<str>) -> u64 {
        self.0.get(budget).map_or(0, |heard| heard.life)
    }

    /// Notes that the store is told of one of the budget's accounts.
    pub fn tell(&mut self, budget: &Arc<str>, now_ms: u64) {
        self.0.entry(Arc::clone(budget)).or_default().told_ms = now_ms;
    }

    fn is_silent(&self, budget: &Arc<str>, now_ms: u64) -> bool {
        let told_ms = self.0.get(budget).map_or(0, |heard| heard.told_ms);
        now_ms.saturating_sub(told_ms) >= SILENCE_MS_MAX
    }
}

impl State {
    /// Takes notice of the life that the store names. Where it is another one, all that this node
    /// knows of the budget is told anew, whether or not anybody uses it.
    pub fn hear(&mut self, budget: &Arc<str>, life: u64, now_ms: u64) {
        let heard = self.lives.0.entry(Arc::clone(budget)).or_default();
        if heard.life == life {
            return;
        }
        heard.life = life;
        let is_old = |known: u64| known != life;
        for (at, account) in &mut self.accounts {
            if at.budget == *budget && is_old(account.holder.memory().life) {
                account.wait_for(0);
            }
        }
        let stored = self.stored.iter();
        let stored = stored
            .filter(|(at, spend)| at.budget == *budget && is_old(read_memory(&spend.memory).life));
        let stored: Vec<SpendKey> = stored.map(|(at, _)| at.clone()).collect();
        for at in &stored {
            self.open_stored(at, now_ms);
        }
    }

    /// One account of each budget that the store has heard nothing of for too long.
    pub fn silent(&mut self, now_ms: u64) -> Vec<SpendKey> {
        let known = self.accounts.keys().chain(self.stored.keys());
        let mut probes: HashMap<&Arc<str>, &SpendKey> = HashMap::new();
        for at in known.filter(|at| self.lives.is_silent(&at.budget, now_ms)) {
            probes.entry(&at.budget).or_insert(at);
        }
        let probes: Vec<SpendKey> = probes.into_values().cloned().collect();
        for at in &probes {
            self.lives.tell(&at.budget, now_ms);
            if !self.accounts.contains_key(at) {
                self.open_stored(at, now_ms);
            }
        }
        probes
    }

    /// Has a new account know what its budget's other accounts know.
    pub(super) fn taught(&self, mut account: Account) -> Account {
        let life = self.lives.of(&account.at.budget);
        if account.holder.memory().life == 0 {
            account.holder.learn(life);
        }
        account
    }
}

#[cfg(test)]
mod tests {
    use super::super::policies::Policies;
    use super::*;
    use crate::config::budgets::parse;
    use crate::ledger::budgets::Spend;

    const NOW_MS: u64 = 100_000;

    /// Two users whose spend an earlier process has told a store of that life, and nobody since.
    fn after_restart(life: u64) -> (State, Arc<str>, Vec<SpendKey>) {
        let text =
            "[[budget]]\nname = \"b\"\nper = [\"user\"]\nlimit = \"9 USD\"\nwindow = \"day\"";
        let policies = Policies::new(parse("budgets.toml", text).unwrap());
        let budget = Arc::clone(&policies.all[0]);
        let day = budget.cell_at(1_800_000_000_000).unwrap();
        let mut state = State::default();
        state.policies = Arc::new(policies);
        let spend = |user: &str| Spend {
            at: SpendKey {
                budget: Arc::clone(&budget.id),
                key: format!("[\"{user}\"]").into(),
                window_ms: day.start,
            },
            end_ms: day.end,
            amount: 5_000_000_000_000,
            denied: 0,
            granted: 5_000_000,
            memory: format!("1 2 3 4 {life}"),
        };
        let spends = vec![spend("ann"), spend("bob")];
        let names = spends.iter().map(|spend| spend.at.clone()).collect();
        state.load(spends);
        (state, Arc::clone(&budget.id), names)
    }

    #[test]
    fn another_life_of_the_store_is_told_all() {
        let (mut state, budget, names) = after_restart(7);
        state.hear(&budget, 7, NOW_MS);
        assert!(state.accounts.is_empty(), "the store knows them");
        state.hear(&budget, 8, NOW_MS);
        for at in &names {
            let account = &state.accounts[at];
            assert!(account.is_due(NOW_MS));
            assert_eq!(account.holder.memory().life, 7, "what proves the loss");
            assert_eq!(account.holder.committed(), 5_000_000);
        }
    }

    #[test]
    fn a_silent_budget_is_asked_about_by_one_account() {
        let (mut state, budget, names) = after_restart(7);
        let probes = state.silent(NOW_MS);
        assert_eq!((probes.len(), state.accounts.len()), (1, 1));
        assert!(names.contains(&probes[0]));
        assert!(state.silent(NOW_MS + SILENCE_MS_MAX - 1).is_empty());
        state.lives.tell(&budget, NOW_MS + 1);
        assert!(state.silent(NOW_MS + SILENCE_MS_MAX).is_empty());
        assert_eq!(state.silent(NOW_MS + SILENCE_MS_MAX + 1).len(), 1);
    }
}
