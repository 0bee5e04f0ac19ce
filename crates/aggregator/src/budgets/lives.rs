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
}

impl Lives {
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
