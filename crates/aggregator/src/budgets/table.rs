//! What filters are told: each budget, and the keys that have reached a tier.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tollmesh_budget::{Action, Enforce, OnUnavailable};
use tollmesh_wire::decision::{self, Allowance, BudgetEntry, KeyState, TierEntry, Unavailable};
use tollmesh_wire::{DecisionTable, Match, Timestamp, VERSION};

use super::policies::Budget;
use super::room::{self, Weight};
use super::state::State;
use super::worst::Rates;
use super::{Budgets, Shared, untold};
use crate::clock;

/// Keys above a tier that one table names, over all budgets: some 100 bytes each, in every worker of
/// every filter. What is beyond is held to its limit by reservation alone, and counted.
pub const KEYS_REACHED_MAX: usize = 10_000;
/// Bits of a version that count tables of one life of the process; above them its number stands.
const VERSION_BITS: u32 = 32;
/// From a budget's unit to the wire's, 10^-9 of it.
const NANO: u64 = 1_000_000_000;
/// Pico-dollars in 10^-9 dollars.
const PICO_PER_NANO: u64 = 1_000;

/// What a key's tier does to calls; what does more is told first where there is not room for all.
fn weight(budget: &Budget, tier: usize) -> Weight {
    if budget.per.is_empty() {
        return Weight::Whole;
    }
    let reached = budget.policy.tiers.iter().take(tier + 1);
    let does = |tier: &tollmesh_budget::Tier| match tier.action {
        Action::Warn | Action::Header => Weight::Tells,
        Action::Deny => Weight::Denies,
        _ => Weight::Alters,
    };
    reached.map(does).min().unwrap_or(Weight::Tells)
}

/// The table before there is any.
pub fn empty(version: u64) -> DecisionTable {
    DecisionTable {
        v: VERSION,
        version,
        budgets: Vec::new(),
        models: BTreeMap::new(),
    }
}

impl Budgets {
    /// The table that is not of that version, as soon as there is one; after `within` the one in
    /// force, whichever it is.
    pub async fn wait(&self, after: u64, within: Duration) -> Arc<DecisionTable> {
        let mut table = self.0.table.subscribe();
        // The sender lives as long as we do. A version that is not ours is of another life.
        let newer = table.wait_for(|table| table.version != after);
        let _ = tokio::time::timeout(within, newer).await;
        self.0.table.borrow().clone()
    }

    /// The table in force.
    pub fn table(&self) -> Arc<DecisionTable> {
        self.0.table.borrow().clone()
    }
}

impl Shared {
    /// Makes the table anew where it may have changed.
    pub(super) fn publish(&self) {
        let unix_ms = clock::now().as_unix_ms();
        let mut state = self.state();
        state.turn(unix_ms, clock::since_boot_ms());
        if !std::mem::take(&mut state.is_table_old) {
            return;
        }
        let budgets = self.entries(&state, unix_ms);
        let models = self.models(&state);
        let first = u64::from(state.boot()) << VERSION_BITS;
        // Under the lock, so that no older table takes the place of a newer one.
        self.table.send_if_modified(|table| {
            let is_same = table.budgets == budgets && table.models == models;
            if is_same && table.version > first {
                return false;
            }
            *table = Arc::new(DecisionTable {
                budgets,
                models,
                ..empty(table.version.max(first) + 1)
            });
            true
        });
    }

    /// Names of the models that budgets and guards ask for.
    fn models(&self, state: &State) -> BTreeMap<String, Vec<String>> {
        let guards = self.guards.models();
        let all = state.policies.models.iter().chain(guards.iter());
        all.map(|(model, names)| (model.clone(), names.to_vec()))
            .collect()
    }

    fn entries(&self, state: &State, unix_ms: i64) -> Vec<BudgetEntry> {
        let mut entries: Vec<BudgetEntry> = state
            .policies
            .all
            .iter()
            .map(|budget| self.entry(budget, unix_ms))
            .collect();
        let reached = state.accounts.values().filter_map(|account| {
            let place = state.policies.place_of(&account.at.budget)?;
            let tier = account.tier.filter(|_| account.cell.holds(unix_ms))?;
            Some((place, weight(&account.budget, tier), account))
        });
        let refused = reached.clone().filter(|(_, _, account)| {
            account
                .tier
                .is_some_and(|n| untold::refuses(&account.budget, n))
        });
        let (told, n_untold) = room::shared(reached.clone(), KEYS_REACHED_MAX);
        self.metrics.budget_keys_untold_total.inc_by(n_untold);
        let known = told
            .iter()
            .map(|(place, account)| (*place, account.key.as_slice()));
        let refused = refused.map(|(place, _, account)| (place, account));
        for place in untold::asking(&state.policies, refused, &known.collect()) {
            if let Some(entry) = entries.get_mut(place) {
                entry.enforce = decision::Enforcement::Strict;
                entry.on_unavailable = Unavailable::Open;
            }
        }
        for (place, account) in told {
            let (Some(entry), Some(tier)) = (entries.get_mut(place), account.tier) else {
                continue;
            };
            let resets = state.resets(account, tier);
            entry.reached.push(KeyState {
                key: account.key.clone(),
                tier,
                reset_at: resets.all,
                tier_resets: resets.each,
            });
        }
        for entry in &mut entries {
            entry.reached.sort_by(|a, b| a.key.cmp(&b.key));
        }
        entries.extend(self.guards.entries());
        entries
    }

    fn entry(&self, budget: &Budget, unix_ms: i64) -> BudgetEntry {
        let policy = &budget.policy;
        let tiers = policy.tiers.iter().map(|tier| TierEntry {
            at: percent(tier.at),
            action: action(&tier.action),
            except: Match::new(tier.except.clone()),
        });
        BudgetEntry {
            budget: policy.name.clone(),
            matches: budget.matches.clone(),
            per: budget.per.clone(),
            enforce: match policy.enforce {
                Enforce::Observe => decision::Enforcement::Observe,
                Enforce::Cached => decision::Enforcement::Cached,
                Enforce::Strict => decision::Enforcement::Strict,
            },
            tiers: tiers.collect(),
            reached: Vec::new(),
            on_unavailable: match policy.on_unavailable {
                OnUnavailable::Closed => Unavailable::Closed,
                OnUnavailable::Open => Unavailable::Open,
                OnUnavailable::OpenCapped { allowance } => {
                    let provider = policy.matches.get("provider");
                    let provider = provider.map(String::as_str);
                    let rates = self.worst.ceiling(&self.prices, provider, unix_ms);
                    Unavailable::OpenCapped(capped(budget, allowance, &rates))
                }
            },
            limit: policy.limit.to_string(),
            window: policy.window.to_string(),
            window_ends: window_end(budget, unix_ms),
        }
    }
}

/// When the window ends; those of rolling ones never do at once.
fn window_end(budget: &Budget, unix_ms: i64) -> Option<Timestamp> {
    let is_rolling = budget.cell_ms().is_some();
    let cell = budget.cell_at(unix_ms).filter(|_| !is_rolling)?;
    Some(Timestamp::from_unix_ms(cell.end))
}

/// What one proxy may let pass unasked, and how it reckons calls.
fn capped(budget: &Budget, allowance: rust_decimal::Decimal, rates: &Rates) -> Allowance {
    use tollmesh_budget::Limit;
    let nano = allowance.checked_mul(NANO.into());
    let nano = nano.and_then(|nano| u64::try_from(nano.floor()).ok());
    let of_pico = |pico: u64| pico.div_ceil(PICO_PER_NANO);
    let (request, input, output) = match budget.policy.limit {
        Limit::Usd(_) => (
            of_pico(rates.per_request()),
            of_pico(rates.per_input_token()),
            of_pico(rates.per_output_token()),
        ),
        Limit::Tokens(_) => (0, NANO, NANO),
        Limit::Requests(_) => (NANO, 0, 0),
    };
    Allowance {
        nano: nano.unwrap_or(u64::MAX),
        nano_per_request: request,
        nano_per_input_byte: input,
        nano_per_output_token: output,
        output_tokens: budget.policy.estimate_output_tokens,
    }
}

/// A share for people, as `85%`.
pub fn percent(share: rust_decimal::Decimal) -> String {
    let percent = share.checked_mul(rust_decimal::Decimal::ONE_HUNDRED);
    format!("{}%", percent.unwrap_or(share).normalize())
}

fn action(action: &Action) -> decision::Action {
    match action {
        Action::Warn => decision::Action::Warn,
        Action::Header => decision::Action::Header,
        Action::CapOutput { max_tokens } => decision::Action::CapOutput {
            max_tokens: *max_tokens,
        },
        Action::Downgrade { models } => decision::Action::Downgrade {
            models: models.clone(),
        },
        Action::Throttle {
            requests_per_second,
        } => decision::Action::Throttle {
            requests_per_second: *requests_per_second,
        },
        Action::Shed => decision::Action::Shed,
        Action::Deny => decision::Action::Deny,
    }
}
