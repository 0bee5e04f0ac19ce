//! Keys that filters are not told of, though a cached budget refuses their calls: those that share
//! the account of all keys beyond the first, and those for which the table has no room. While
//! there are any, calls that the budget concerns are asked about, as with strict budgets; nothing
//! is held for them.

use std::collections::HashSet;

use tollmesh_budget::{Action, Enforce, Tier};
use tollmesh_wire::{Denied, Match, ReservationRequest, Subject};

use super::Shared;
use super::account::Account;
use super::policies::{Budget, Policies};
use super::state::{OVERFLOW, State};

/// The tag that says how much a call matters, and its value where a `shed` tier spares it.
const CRITICAL: (&str, &str) = ("priority", "critical");

impl Account {
    /// Whether it is the one that keys without an own one share.
    pub(super) fn is_of_others(&self) -> bool {
        !self.key.is_empty() && self.key.iter().all(|value| value == OVERFLOW)
    }
}

/// Whether calls of a key at that tier are refused.
pub fn refuses(budget: &Budget, tier: usize) -> bool {
    reached(budget, tier).any(|tier| matches!(tier.action, Action::Deny | Action::Shed))
}

fn reached(budget: &Budget, tier: usize) -> impl Iterator<Item = &Tier> {
    budget.policy.tiers.iter().take(tier.saturating_add(1))
}

/// The cached budgets that have such keys, by their place in the file. `told` are the keys that
/// filters are told of.
pub fn asking<'a>(
    policies: &Policies,
    refused: impl Iterator<Item = (usize, &'a Account)>,
    told: &HashSet<(usize, &[String])>,
) -> HashSet<usize> {
    let is_untold = |(place, account): &(usize, &Account)| {
        let budget = policies.all.get(*place);
        let is_cached = budget.is_some_and(|b| b.policy.enforce == Enforce::Cached);
        is_cached && (account.is_of_others() || !told.contains(&(*place, account.key.as_slice())))
    };
    refused.filter(is_untold).map(|(place, _)| place).collect()
}

impl Shared {
    /// Why a cached budget refuses the call, where one does.
    pub(super) fn refused_by_cached(
        &self,
        request: &ReservationRequest,
        unix_ms: i64,
    ) -> Option<Denied> {
        let policies = self.policies.load();
        let subject = Subject::from(request);
        let cached = policies
            .concerning(&subject)
            .filter(|budget| budget.policy.enforce == Enforce::Cached && !budget.per.is_empty());
        let state = self.state();
        cached
            .filter_map(|budget| refusal(&state, budget, &subject, unix_ms))
            .next()
    }
}

fn refusal(
    state: &State,
    budget: &std::sync::Arc<Budget>,
    subject: &Subject<'_>,
    unix_ms: i64,
) -> Option<Denied> {
    let cell = budget.cell_at(unix_ms)?;
    let (at, _) = state.place(budget, budget.key_of(subject), cell);
    let account = state.accounts.get(&at)?;
    let (n, tier) = reached(budget, account.tier?)
        .enumerate()
        .find(|(_, tier)| {
            let is_refusing = matches!(tier.action, Action::Deny | Action::Shed);
            is_refusing && !spares(budget, tier, subject)
        })?;
    let resets = state.resets(account, n);
    Some(Denied {
        budget: budget.policy.name.clone(),
        is_short: false,
        reason: match tier.action {
            Action::Shed => "shed",
            _ => "budget_exceeded",
        }
        .to_owned(),
        reset_at: Some(resets.each.last().copied().unwrap_or(resets.all)),
        retry_after_seconds: None,
        limit: budget.policy.limit.to_string(),
        window: budget.policy.window.to_string(),
    })
}

fn spares(budget: &Budget, tier: &Tier, subject: &Subject<'_>) -> bool {
    let (tag, value) = CRITICAL;
    let is_critical = subject.tags.get(tag).is_some_and(|said| said == value);
    let except = || Match::new(tier.except.clone()).knowing(&budget.policy.models);
    let is_excepted = !tier.except.is_empty() && except().matches(subject);
    is_excepted || tier.action == Action::Shed && is_critical
}
