//! Reckoning anew, after the store of leases has lost what it knew.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tollmesh_wire::Timestamp;

use super::policies::Budget;
use super::state::{State, stored_key};
use super::{Budgets, Shared, adopted};
use crate::clock;
use crate::ledger::budgets::{Adopted, Spend, SpendKey, spent};
use crate::ledger::query::Reader;
use crate::ledger::{AppendError, Entry, QueryError};
use crate::rows::Rows;

/// What is told of each account.
pub const RECOUNTED_COLUMNS: &[&str] = &[
    "budget",
    "key",
    "window_start",
    "charged",
    "in_rows",
    "unit",
    "raised",
    "released",
];

/// Why budgets were not reckoned anew.
#[derive(Debug, thiserror::Error)]
pub enum RecountError {
    /// There is no such budget.
    #[error("no budget {name:?}; GET /api/v1/budgets lists those in force")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The ledger cannot be read.
    #[error("the ledger cannot be read")]
    Read(#[from] QueryError),
    /// The ledger is closed.
    #[error("no budgets are in force")]
    Closed,
    /// The ledger cannot be written.
    #[error(transparent)]
    Write(#[from] AppendError),
}

impl Budgets {
    /// Holds the accounts of present windows against the rows of this node's ledger, raises those
    /// that are too low, and has the store give up what it holds back for nodes that it has not
    /// heard of since it lost its data: whoever asks for this knows that nothing is missing.
    pub async fn recount(&self, name: Option<&str>) -> Result<Rows, RecountError> {
        let (Some(ledger), Some(store)) = (self.0.ledger.get(), self.0.store.get()) else {
            return Err(RecountError::Closed);
        };
        let policies = self.0.policies.load_full();
        let meant = policies.all.iter();
        let meant = meant.filter(|b| name.is_none_or(|name| b.policy.name == name));
        let meant: Vec<Arc<Budget>> = meant.cloned().collect();
        if let (Some(name), true) = (name, meant.is_empty()) {
            return Err(RecountError::Unknown {
                name: name.to_owned(),
            });
        }
        let reader = ledger.reader().clone();
        let (shared, budgets) = (Arc::clone(&self.0), meant.clone());
        let counted = tokio::task::spawn_blocking(move || count(&shared, &reader, &budgets)).await;
        let counted = counted.map_err(|_| RecountError::Closed)??;
        let mut items = Vec::new();
        for budget in &meant {
            let accounts = self.compare(budget, &counted);
            for (cell, mut item) in accounts {
                let released = store.release_held_back(&cell).await;
                if let Err(error) = &released {
                    tracing::warn!(%error, "the store does not give up what it holds back");
                }
                item.insert("released".to_owned(), released.is_ok().into());
                items.push(item);
            }
        }
        tracing::warn!(
            budget = name.unwrap_or("all"),
            n_accounts = items.len(),
            "budgets were reckoned anew"
        );
        self.0.wake.notify_one();
        Ok(Rows {
            columns: RECOUNTED_COLUMNS.iter().map(ToString::to_string).collect(),
            items,
            next_cursor: None,
        })
    }

    /// The accounts of a budget beside what rows say; those that are too low are raised.
    fn compare(
        &self,
        budget: &Arc<Budget>,
        counted: &[Spend],
    ) -> Vec<(super::store::CellKey, Map<String, Value>)> {
        let (unix_ms, now_ms) = (clock::now().as_unix_ms(), clock::since_boot_ms());
        let mut state = self.0.state();
        let own = counted.iter().filter(|spend| spend.at.budget == budget.id);
        let own = placed(&mut state, budget, own, now_ms);
        let before: Vec<_> = state
            .accounts
            .values()
            .filter(|account| account.at.budget == budget.id)
            .filter(|account| budget.counts_until(account.cell) > unix_ms)
            .map(|account| (account.at.clone(), account.key.clone(), account.amount))
            .collect();
        state.load(own.values().cloned().collect());
        let limit = &budget.policy.limit;
        let text = |amount: i128| limit.amount_of(limit.units_of(amount)).to_string();
        let mut found = Vec::new();
        for (at, key, charged) in before {
            let in_rows = own.get(&at).map_or(0, |spend| spend.amount);
            let Some(account) = state.accounts.get_mut(&at) else {
                continue;
            };
            account.touch();
            let key: Map<String, Value> = budget
                .per
                .iter()
                .cloned()
                .zip(key.into_iter().map(Value::from))
                .collect();
            let item = json!({
                "budget": budget.policy.name,
                "key": key,
                "window_start": Timestamp::from_unix_ms(at.window_ms),
                "charged": text(charged),
                "in_rows": text(in_rows),
                "unit": limit.unit(),
                "raised": in_rows > charged,
            });
            if let Value::Object(item) = item {
                found.push((account.cell_key(), item));
            }
        }
        found
    }
}

/// What rows say by the accounts that calls of these keys are charged to here: which keys have their
/// own is decided by who came first, and not by who spent the most.
fn placed<'a>(
    state: &mut State,
    budget: &Arc<Budget>,
    counted: impl Iterator<Item = &'a Spend>,
    now_ms: u64,
) -> HashMap<SpendKey, Spend> {
    let mut placed: HashMap<SpendKey, Spend> = HashMap::new();
    for spend in counted {
        let Some((key, cell)) = stored_key(budget, &spend.at) else {
            continue;
        };
        let at = state.open(budget, key, cell, now_ms).at.clone();
        let sum = placed.entry(at.clone()).or_insert_with(|| Spend {
            at,
            amount: 0,
            ..spend.clone()
        });
        sum.amount = sum.amount.saturating_add(spend.amount);
    }
    placed
}

/// What rows say of the present windows of these budgets, key by key.
fn count(
    shared: &Shared,
    reader: &Reader,
    budgets: &[Arc<Budget>],
) -> Result<Vec<Spend>, QueryError> {
    let now_ms = clock::now().as_unix_ms();
    let mut counted = Vec::new();
    for budget in budgets {
        let adopted = Adopted {
            keys_max: usize::MAX,
            ..adopted(budget, now_ms)
        };
        for past in &adopted.windows {
            let mut charge = |entry: &Entry| shared.amount(&budget.policy.limit, entry);
            let spent = spent(reader, &adopted, past, &mut charge)?;
            // What is of too many keys to be told apart is held against none of them.
            let is_told = |spend: &Spend| budget.per.is_empty() || spend.at.key != adopted.others;
            counted.extend(spent.into_iter().filter(is_told));
        }
    }
    Ok(counted)
}
