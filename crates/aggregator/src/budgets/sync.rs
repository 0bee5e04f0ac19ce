//! The conversation with the store of leases, in beats, and the sweeps that go with it.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tollmesh_budget::lease::{Elsewhere, Reply};

use super::state::{Asked, State};
use super::steady::Steady;
use super::store::{Ask, Look, Store, StoreError};
use super::{Budgets, Shared};
use crate::clock;
use crate::housekeeping::CLOCK_LEAP_MS;
use crate::ledger::Ledger;
use crate::ledger::budgets::{Grant, SpendKey, Step};

/// How often accounts are looked at although nobody waits.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Between two tries of a store that does not answer, in milliseconds.
const BACK_OFF_MS: u64 = 200;
/// Between two tries of making budgets known, after the first that fails; twice as long after each.
const REGISTER_PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest of these pauses: a store that is back has taken reports long before.
const REGISTER_PAUSE_MAX: Duration = Duration::from_secs(60);
/// How long after its last answer a store is not taken for away, in milliseconds: two beats of accounts
/// that nobody uses.
const ANSWERED_LATELY_MS: u64 = 10_000;
/// How often what is over is swept out.
const SWEEP_EVERY_MS: u64 = 10_000;
/// How long accounts stay in memory after their window: calls that were let go ahead in it end.
const KEPT_MS: i64 = 3_600_000;
/// How long they stay in the ledger: nobody asks about them any more, but a clock may be set back.
const LEDGER_KEPT_MS: i64 = 3 * 86_400_000;
/// How long a node that ends tries to give back what it holds.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(1);

/// Since when the windows have to have ended of accounts that are of no interest any more, in
/// milliseconds since 1970.
pub fn counts_after_ms() -> i64 {
    clock::now().as_unix_ms() - KEPT_MS
}

/// One report on its way, or one look.
struct Sent {
    at: SpendKey,
    sent_ms: u64,
}

/// What one budget asks of the store at one time. All of it is on one server of a cluster; other
/// servers' answers do not wait for it.
#[derive(Default)]
struct Questions {
    asks: Vec<Ask>,
    /// What the reports' replies need.
    sent: Vec<Sent>,
    looks: Vec<Look>,
    /// What the looks' answers need.
    looked: Vec<Sent>,
    /// Whether some of it speaks of accounts for which no call waits.
    is_quiet: bool,
}

/// Questions on their way; each says whether the store is away.
type Flights<'a> = FuturesUnordered<Pin<Box<dyn Future<Output = bool> + Send + 'a>>>;

/// The clock as it is believed at the start: where it is far ahead of when the ledger was last served
/// by one that was believed, that one.
async fn steady_since(ledger: &Ledger) -> Steady {
    let unix_ms = clock::now().as_unix_ms();
    let reader = ledger.reader().clone();
    let known = tokio::task::spawn_blocking(move || reader.believed_clock()).await;
    let known = known.ok().and_then(Result::ok).flatten();
    let known_ms = known.map(|known| known.at.as_unix_ms());
    let far_behind = known_ms.filter(|known_ms| unix_ms.saturating_sub(*known_ms) > CLOCK_LEAP_MS);
    Steady::new(far_behind.unwrap_or(unix_ms), clock::since_boot_ms())
}

impl Budgets {
    /// Talks to the store and keeps the table up to date. Never returns.
    pub async fn keep(self) {
        let shared = &self.0;
        let (Some(store), Some(ledger)) = (shared.store.get(), shared.ledger.get()) else {
            return;
        };
        tokio::join!(
            shared.keep_beats(store.as_ref(), ledger),
            shared.keep_registered(store.as_ref()),
        );
    }

    /// Gives back what is held in stock, for a node that ends.
    pub async fn finish(&self) {
        let (Some(store), Some(ledger)) = (self.0.store.get(), self.0.ledger.get()) else {
            return;
        };
        {
            let mut state = self.0.state();
            state.is_ending = true;
            // Whoever kept the beats has gone, and with them what was on its way.
            state.land_all();
            for account in state.accounts.values_mut() {
                account.wait_for(0);
            }
        }
        let farewell = async { while self.0.beat(store.as_ref(), ledger).await {} };
        if tokio::time::timeout(FAREWELL_TIME_MAX, farewell)
            .await
            .is_err()
        {
            tracing::warn!(
                "leases were not all given back; they are when this ledger is served again"
            );
        }
    }
}

impl Shared {
    async fn keep_beats(&self, store: &dyn Store, ledger: &Ledger) {
        let mut swept_ms = 0;
        let mut steady = steady_since(ledger).await;
        let mut flights = Flights::new();
        let mut again_ms = 0;
        loop {
            let woken = tokio::time::timeout(LOOK_EVERY, self.wake.notified());
            let mut is_away = tokio::select! {
                _ = woken => false,
                Some(is_away) = flights.next() => is_away,
            };
            // What came at the same time is looked at together.
            while let Some(Some(other)) = flights.next().now_or_never() {
                is_away |= other;
            }
            let now_ms = clock::since_boot_ms();
            if is_away {
                again_ms = now_ms.saturating_add(BACK_OFF_MS);
            }
            if now_ms.saturating_sub(swept_ms) >= SWEEP_EVERY_MS {
                swept_ms = now_ms;
                let unix_ms = steady.believed(clock::now().as_unix_ms(), now_ms);
                self.sweep(ledger, unix_ms, now_ms).await;
            }
            if now_ms >= again_ms {
                self.ask(store, ledger, &flights);
            }
            self.publish();
            self.tell_reached();
        }
    }

    /// Tells the store of what is due and takes its answers; says whether it did.
    async fn beat(&self, store: &dyn Store, ledger: &Ledger) -> bool {
        let mut flights = Flights::new();
        self.ask(store, ledger, &flights);
        let is_idle = flights.is_empty();
        let mut is_away = false;
        while let Some(other) = flights.next().await {
            is_away |= other;
        }
        !is_idle && !is_away
    }

    /// Sets out to ask what is due.
    fn ask<'a>(&'a self, store: &'a dyn Store, ledger: &'a Ledger, flights: &Flights<'a>) {
        let (questions, is_more) = self.questions();
        if is_more && !questions.is_empty() {
            // The rest in the next beat, which is at once.
            self.wake.notify_one();
        }
        for (budget, questions) in questions {
            flights.push(Box::pin(self.fly(store, ledger, budget, questions)));
        }
    }

    /// Asks, takes the answers, and has the disk know of them; says whether the store is away.
    async fn fly(
        &self,
        store: &dyn Store,
        ledger: &Ledger,
        budget: Arc<str>,
        questions: Questions,
    ) -> bool {
        let Questions {
            asks,
            sent,
            looks,
            looked,
            is_quiet,
        } = &questions;
        let (replies, found) = tokio::join!(store.sync(asks), store.look(looks));
        let grants = self.take(&budget, sent, replies, (looks, looked), found);
        if !grants.is_empty() {
            self.persist(ledger, grants).await;
        }
        let is_away = {
            let mut state = self.state();
            let names = sent.iter().chain(looked).map(|sent| &sent.at);
            state.land(&budget, *is_quiet, names);
            state.is_store_silent && state.is_failing(&budget)
        };
        self.replied.notify_waiters();
        is_away
    }

    /// Takes the store's answers; says what has to be on disk before it is used.
    fn take(
        &self,
        budget: &Arc<str>,
        sent: &[Sent],
        replies: Vec<Result<Reply, StoreError>>,
        (looks, looked): (&[Look], &[Sent]),
        found: Vec<Result<Vec<Elsewhere>, StoreError>>,
    ) -> Vec<Grant> {
        let mut grants = Vec::new();
        let mut failed = None;
        let mut unanswered = Vec::new();
        let unix_ms = clock::now().as_unix_ms();
        let now_ms = clock::since_boot_ms();
        let mut state = self.state();
        for ((looked, look), found) in looked.iter().zip(looks).zip(found) {
            match found {
                Ok(found) => {
                    state.take_look(&looked.at, look, &found, looked.sent_ms, unix_ms);
                }
                Err(error) => {
                    unanswered.push(&looked.at);
                    failed = Some(error);
                }
            }
        }
        for (sent, reply) in sent.iter().zip(replies) {
            match reply {
                Ok(reply) => {
                    if reply.is_stale {
                        state.skip_reports();
                        tracing::warn!(
                            budget = &*sent.at.budget,
                            "the store has heard of a later life of this ledger: it was set \
                             back, or is served twice"
                        );
                    }
                    if let Some(account) = state.accounts.get_mut(&sent.at) {
                        let grant = account.take(&reply, sent.sent_ms);
                        // What the disk has yet to know of is no answer yet.
                        if grant.is_none() {
                            account.answered();
                        }
                        grants.extend(grant);
                    }
                    state.hear(&sent.at.budget, reply.life, sent.sent_ms);
                    let wait_ms = reply.granting_from_ms.saturating_sub(reply.now_ms);
                    if wait_ms > 0 {
                        let until_ms = sent.sent_ms.saturating_add(wait_ms);
                        state.lives.wait_until(&sent.at.budget, until_ms);
                    }
                    state.judge(&sent.at);
                }
                Err(error) => {
                    unanswered.push(&sent.at);
                    failed = Some(error);
                }
            }
        }
        let sent_ms = sent.iter().chain(looked).map(|sent| sent.sent_ms).max();
        let asked = Asked {
            n: sent.len() + looked.len(),
            sent_ms: sent_ms.unwrap_or(now_ms),
        };
        state.note_unanswered(&unanswered, asked, now_ms);
        state.note_failed(Some(budget), failed.as_ref());
        if asked.n > unanswered.len() {
            // A store that takes reports is there, whatever else it does not take.
            state.note_failed(None, None);
        }
        self.tell(&state);
        grants
    }

    /// Has the disk know of grants before they are used.
    async fn persist(&self, ledger: &Ledger, grants: Vec<Grant>) {
        let granted: Vec<(SpendKey, u64)> = grants
            .iter()
            .map(|grant| (grant.at.clone(), grant.granted))
            .collect();
        if let Err(error) = ledger.budgets(Step::Grants(grants)).await {
            tracing::warn!(%error, "leases cannot be noted, and are not used");
            // A disk that is full is as good as a store that is away: policies hold.
            let mut state = self.state();
            for (at, _) in &granted {
                if let Some(account) = state.accounts.get_mut(at) {
                    account.unanswered();
                }
            }
            return;
        }
        let mut state = self.state();
        for (at, granted) in granted {
            if let Some(account) = state.accounts.get_mut(&at) {
                account.persisted(granted);
                account.answered();
            }
        }
    }

    /// The reports and looks that are due, by budget; and whether there is more to ask at once.
    fn questions(&self) -> (BTreeMap<Arc<str>, Questions>, bool) {
        let unix_ms = clock::now().as_unix_ms();
        let now_ms = clock::since_boot_ms();
        let mut state = self.state();
        let due = state.due(unix_ms, now_ms);
        let mut all: BTreeMap<Arc<str>, Questions> = BTreeMap::new();
        for at in due.looks {
            let Some(account) = state.accounts.get(&at) else {
                continue;
            };
            let questions = all.entry(Arc::clone(&at.budget)).or_default();
            questions.is_quiet |= !account.is_waited_for();
            questions.looks.push(state.look(account, unix_ms, now_ms));
            if let Some(account) = state.accounts.get_mut(&at) {
                account.looked_ms = Some(now_ms);
                account.set_out();
            }
            let sent_ms = now_ms;
            questions.looked.push(Sent { at, sent_ms });
        }
        for at in due.accounts {
            let Some(account) = state.accounts.get(&at) else {
                continue;
            };
            let is_over =
                state.is_ending || unix_ms >= account.cell.end || !state.is_in_force(account);
            let terms = account.terms(state.limit(account));
            let seq = state.next_report();
            state.lives.tell(&at.budget, now_ms);
            let Some(account) = state.accounts.get_mut(&at) else {
                continue;
            };
            let questions = all.entry(Arc::clone(&at.budget)).or_default();
            questions.is_quiet |= !account.is_waited_for();
            questions.asks.push(Ask {
                cell: account.cell_key(),
                terms,
                report: account.report(now_ms, seq, is_over),
            });
            account.set_out();
            let sent_ms = now_ms;
            questions.sent.push(Sent { at, sent_ms });
        }
        for (budget, questions) in &all {
            state.note_set_out(budget, questions.is_quiet);
        }
        (all, due.is_more)
    }

    /// Ends what is over.
    async fn sweep(&self, ledger: &Ledger, believed_ms: i64, now_ms: u64) {
        {
            let mut state = self.state();
            let n_expired = state.expire(now_ms);
            if n_expired > 0 {
                tracing::warn!(n_expired, "reservations ended that no event has settled");
            }
            state.forget(believed_ms, KEPT_MS);
            self.tell(&state);
            state.roll(clock::now().as_unix_ms(), now_ms);
            // A window that ended takes its tier with it.
            state.is_table_old = true;
        }
        // What cannot be deleted now is in the next sweep.
        let _ = ledger
            .budgets(Step::Forget(believed_ms - LEDGER_KEPT_MS))
            .await;
    }

    /// Makes budgets known to the store whenever there are others. Beside the beats: what has failed
    /// here is nothing that a call waits for.
    async fn keep_registered(&self, store: &dyn Store) {
        let mut registered = Vec::new();
        let mut pause = LOOK_EVERY;
        loop {
            match self.register(store, &mut registered).await {
                Ok(()) => {
                    self.note_registering(None);
                    pause = LOOK_EVERY;
                }
                Err(error) => {
                    // A store that takes reports is not away.
                    if self.is_answered_lately() {
                        tracing::warn!(%error, "budgets cannot be made known to the store");
                    } else {
                        self.note_registering(Some(&error));
                    }
                    pause = (pause * 2).clamp(REGISTER_PAUSE_MIN, REGISTER_PAUSE_MAX);
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Makes budgets known to the store, each once.
    async fn register(
        &self,
        store: &dyn Store,
        registered: &mut Vec<Arc<str>>,
    ) -> Result<(), StoreError> {
        let policies = self.policies.load_full();
        let ids: Vec<Arc<str>> = policies.all.iter().map(|b| Arc::clone(&b.id)).collect();
        if ids == *registered {
            return Ok(());
        }
        let names: Vec<String> = ids.iter().map(|id| id.to_string()).collect();
        store.register(&names).await?;
        *registered = ids;
        Ok(())
    }

    fn is_answered_lately(&self) -> bool {
        let answered_ms = self.state().answered_ms;
        answered_ms > 0 && clock::since_boot_ms().saturating_sub(answered_ms) < ANSWERED_LATELY_MS
    }

    fn note_registering(&self, failed: Option<&StoreError>) {
        let mut state = self.state();
        state.note_failed(None, failed);
        self.tell(&state);
    }

    /// Says once that the store does not answer, and once that it does again: all of it that is asked.
    fn tell(&self, state: &State) {
        let failed = state.failing().map(str::to_owned);
        self.metrics
            .budget_store_up
            .set(i64::from(failed.is_none()));
        self.store_answers.send_if_modified(|before| {
            let is_change = before.is_some() != failed.is_some();
            match &failed {
                Some(error) if is_change => {
                    tracing::error!(error, "the store of budgets does not answer");
                }
                None if is_change => tracing::info!("the store of budgets answers again"),
                _ => {}
            }
            *before = failed;
            is_change
        });
    }

    /// Whether the store answered nothing the last time that it was asked, and nothing lately.
    pub(super) fn is_store_away(&self) -> bool {
        self.state().is_store_silent
    }
}
