//! Budgets in force: what holds limits while calls go by.
//!
//! A call's worst case is reserved before it leaves ([`Budgets::reserve`]); its row charges what it
//! cost, in the row's own transaction ([`Bookkeeper`]); the store of leases hears of it in beats
//! ([`sync`]), and filters see what to do in a table that they wait for ([`Budgets::wait`]).

mod account;
mod amount;
mod charger;
mod due;
mod ended;
pub mod guards;
mod lives;
pub mod model_names;
pub mod overrides;
mod paged;
mod policies;
pub mod recount;
pub mod replay;
mod reserve;
mod resets;
mod room;
mod show;
mod state;
mod steady;
pub mod store;
mod sync;
mod table;
mod tell;
mod untold;
mod watch;
mod worst;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch as channel};
use tollmesh_budget::Policy;
use tollmesh_wire::DecisionTable;

use crate::alerts::Alerts;
use crate::clock;
use crate::config::budgets::Limits;
use crate::last_good::LastGood;
use crate::ledger::budgets::{Adopted, Past};
use crate::ledger::query::{Span as Period, SpendQuery};
use crate::ledger::{AppendError, Ledger};
use crate::metrics::Metrics;
use crate::prices::Prices;
use crate::report;
pub use charger::Bookkeeper;
use guards::Guards;
use overrides::Overrides;
pub use paged::{NoSuchPage, PageOfKeys};
pub use policies::{Budget, FACTS, Policies};
pub use show::{COLUMNS, Standings};
use state::State;
use store::Store;
use worst::Worst;

/// The budgets of this node. Clones are handles to the same ones.
#[derive(Clone)]
pub struct Budgets(Arc<Shared>);

/// Everything that several threads look at.
struct Shared {
    state: Mutex<State>,
    /// What events charge now; the same as [`State::policies`], without its lock.
    policies: ArcSwap<Policies>,
    /// What events are to charge once the ledger has charged the past.
    pending: Mutex<Option<Arc<Policies>>>,
    table: channel::Sender<Arc<DecisionTable>>,
    /// Whether the store could be asked the last time.
    store_answers: channel::Sender<Option<String>>,
    /// Wakes whoever talks to the store.
    wake: Notify,
    /// Wakes calls that wait for the store's answer.
    replied: Notify,
    worst: Worst,
    prices: Arc<Prices>,
    metrics: Arc<Metrics>,
    ledger: OnceLock<Ledger>,
    store: OnceLock<Arc<dyn Store>>,
    alerts: OnceLock<Alerts>,
    guards: Guards,
    overrides: Mutex<Overrides>,
    /// Whose turn it is to put budgets in force.
    adopting: tokio::sync::Mutex<()>,
    file: Option<watch::File>,
    /// Has the file looked at.
    changed: Arc<Notify>,
}

// === impl Budgets ===

impl Budgets {
    /// Budgets of that file, none of them in force yet. An error names what is wrong in it.
    pub fn load(
        file: Option<PathBuf>,
        prices: Arc<Prices>,
        metrics: Arc<Metrics>,
    ) -> Result<(Budgets, Vec<Policy>), crate::config::Problems> {
        let file = file.map(watch::File::read).transpose()?;
        Ok(Budgets::of(file, prices, metrics))
    }

    /// The same for a process that meters: where the file is bad, the budgets that were good last
    /// are to be put in force, or else none. Calls would go unmetered until somebody repairs it.
    pub fn start(
        file: Option<PathBuf>,
        prices: Arc<Prices>,
        metrics: Arc<Metrics>,
        kept: LastGood,
    ) -> (Budgets, Vec<Policy>) {
        let file = file.map(|path| watch::File::start(path, kept));
        Budgets::of(file, prices, metrics)
    }

    fn of(
        file: Option<(watch::File, Limits)>,
        prices: Arc<Prices>,
        metrics: Arc<Metrics>,
    ) -> (Budgets, Vec<Policy>) {
        let guards = Guards::new(Arc::clone(&metrics));
        let (file, policies) = match file {
            Some((file, limits)) => {
                guards.adopt(limits.guards, &prices.tables().book);
                (Some(file), limits.policies)
            }
            None => (None, Vec::new()),
        };
        let shared = Shared {
            state: Mutex::default(),
            policies: ArcSwap::default(),
            pending: Mutex::default(),
            table: channel::Sender::new(Arc::new(table::empty(1))),
            store_answers: channel::Sender::new(None),
            wake: Notify::new(),
            replied: Notify::new(),
            worst: Worst::default(),
            prices,
            metrics,
            ledger: OnceLock::new(),
            store: OnceLock::new(),
            alerts: OnceLock::new(),
            guards,
            overrides: Mutex::default(),
            adopting: tokio::sync::Mutex::default(),
            file,
            changed: Arc::default(),
        };
        (Budgets(Arc::new(shared)), policies)
    }

    /// Every tag that a budget in force asks for, each once.
    pub fn tags(&self) -> BTreeSet<String> {
        self.0.policies.load().tags()
    }

    /// Whether there is a file of budgets. Without one nothing is charged, kept or watched.
    pub fn are_configured(&self) -> bool {
        self.0.file.is_some()
    }

    /// What charges a ledger's events; for [`crate::ledger::LedgerOptions::charger`].
    pub fn bookkeeper(&self) -> Bookkeeper {
        Bookkeeper::new(Arc::clone(&self.0))
    }

    /// Puts the policies in force over that ledger. `store` makes the store of leases for the node
    /// of that name.
    pub async fn begin(
        &self,
        ledger: &Ledger,
        policies: Vec<Policy>,
        store: impl FnOnce(String) -> Arc<dyn Store>,
    ) -> Result<(), AppendError> {
        let identity = ledger.begin().await?;
        let store = store(identity.instance.clone());
        {
            let mut state = self.0.state();
            state.identity = Some(identity);
            state.is_shared = store.is_shared();
        }
        // Both are set once: nobody else begins.
        let _ = self.0.ledger.set(ledger.clone());
        let _ = self.0.store.set(store);
        if let Err(error) = self.load_overrides().await {
            tracing::error!(%error, "temporary limits cannot be read; the file's hold");
        }
        self.adopt(policies).await
    }

    /// Puts other policies in force, with the temporary limits that hold. What calls of the past
    /// spent in the windows of new ones counts.
    pub async fn adopt(&self, policies: Vec<Policy>) -> Result<(), AppendError> {
        self.note_file(policies);
        self.put_overrides_in_force().await
    }

    /// Puts exactly these policies in force.
    async fn put(&self, mut policies: Vec<Policy>) -> Result<(), AppendError> {
        let Some(ledger) = self.0.ledger.get() else {
            return Ok(());
        };
        model_names::name(&mut policies, &self.0.prices.tables().book);
        let policies = Arc::new(Policies::new(policies));
        let now_ms = clock::now().as_unix_ms();
        let adopted = policies.all.iter().map(|b| adopted(b, now_ms)).collect();
        *self.0.pending() = Some(policies);
        ledger.adopt(adopted).await?;
        self.0.wake.notify_one();
        Ok(())
    }

    /// Why the newest file is not in force; `None` where it is.
    pub fn broken(&self) -> Option<String> {
        self.0.file.as_ref().and_then(watch::File::broken)
    }

    /// Has whoever watches look at the file now.
    pub fn look_soon(&self) {
        self.0.changed.notify_one();
    }

    /// Holds budgets and guards by the names that the price tables in force have for their models.
    async fn rename(&self) -> Result<(), AppendError> {
        self.0.guards.rename(&self.0.prices.tables().book);
        self.put_overrides_in_force().await
    }

    /// The store of leases, once budgets are in force.
    pub fn store(&self) -> Option<Arc<dyn Store>> {
        self.0.store.get().cloned()
    }

    /// Why the store of leases does not answer; `None` where it does.
    pub fn store_failing(&self) -> Option<String> {
        self.0.store_answers.borrow().clone()
    }
}

/// What the ledger needs to know of a budget, and what it may have to look up for a new one.
fn adopted(budget: &Arc<Budget>, now_ms: i64) -> Adopted {
    let window = budget.window_at(now_ms);
    let past = window.map(|window| Past {
        window_ms: window.start,
        end_ms: window.end,
        counts_ms: budget.rolling_ms(),
        query: SpendQuery {
            interval_ms: budget.cell_ms(),
            span: Period {
                from: Some(tollmesh_wire::Timestamp::from_unix_ms(window.start)),
                to: None,
            },
            ..report::budgets::spent_by(&budget.policy)
        },
    });
    Adopted {
        id: Arc::clone(&budget.id),
        measure: charger::measure(&budget.policy.limit),
        keys_max: state::KEYS_MAX,
        others: Arc::clone(&budget.others),
        windows: past.into_iter().collect(),
    }
}

// === impl Shared ===

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // What it holds is whole after each statement, whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pending(&self) -> MutexGuard<'_, Option<Arc<Policies>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the pending policies in force, on the thread that charges.
    fn put_in_force(&self) {
        let Some(policies) = self.pending().take() else {
            return;
        };
        self.policies.store(Arc::clone(&policies));
        let unix_ms = clock::now().as_unix_ms();
        self.state()
            .adopt(policies, unix_ms, clock::since_boot_ms());
        self.publish();
    }
}
