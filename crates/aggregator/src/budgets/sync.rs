//! The conversation with the store of leases, in beats, and the sweeps that go with it.

use std::sync::Arc;
use std::time::Duration;

use tollmesh_budget::lease::{Elsewhere, Reply};

use super::steady::Steady;
use super::store::{Ask, Look, Store, StoreError};
use super::{Budgets, Shared};
use crate::clock;
use crate::housekeeping::CLOCK_LEAP_MS;
use crate::ledger::Ledger;
use crate::ledger::budgets::{Grant, SpendKey, Step};

/// How often accounts are looked at although nobody waits.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Between two tries of a store that does not answer.
const BACK_OFF: Duration = Duration::from_millis(200);
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

/// What came of a round of reports.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    /// Nothing was due.
    Idle,
    /// The store has answered; there may be more to tell it at once.
    Told { is_more: bool },
    /// It has not, or not all.
    Failed,
}

/// One report on its way, or one look.
struct Sent {
    at: SpendKey,
    sent_ms: u64,
}

/// All that goes to the store in one round.
#[derive(Default)]
struct Questions {
    asks: Vec<Ask>,
    /// What the reports' replies need.
    sent: Vec<Sent>,
    looks: Vec<Look>,
    /// What the looks' answers need.
    looked: Vec<Sent>,
    /// Whether there is more to ask at once.
    is_more: bool,
}

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
        loop {
            let woken = self.wake.notified();
            let _ = tokio::time::timeout(LOOK_EVERY, woken).await;
            let now_ms = clock::since_boot_ms();
            if now_ms.saturating_sub(swept_ms) >= SWEEP_EVERY_MS {
                swept_ms = now_ms;
                let unix_ms = steady.believed(clock::now().as_unix_ms(), now_ms);
                self.sweep(ledger, unix_ms, now_ms).await;
            }
            self.beat(store, ledger).await;
            self.publish();
            self.tell_reached();
        }
    }

    /// Tells the store of what is due and takes its answers; says whether it did.
    async fn beat(&self, store: &dyn Store, ledger: &Ledger) -> bool {
        let mut last = self.round(store, ledger).await;
        if last == (Round::Told { is_more: true }) {
            // What a rolling window may still give is asked for once its earlier parts are known.
            last = match self.round(store, ledger).await {
                Round::Idle => Round::Told { is_more: false },
                other => other,
            };
        }
        match last {
            Round::Idle => false,
            Round::Told { is_more } => {
                if is_more {
                    // The rest in the next beat, which is at once.
                    self.wake.notify_one();
                }
                self.replied.notify_waiters();
                true
            }
            Round::Failed => {
                self.replied.notify_waiters();
                tokio::time::sleep(BACK_OFF).await;
                false
            }
        }
    }

    async fn round(&self, store: &dyn Store, ledger: &Ledger) -> Round {
        let questions = self.questions();
        let Questions {
            asks,
            sent,
            looks,
            looked,
            is_more,
        } = &questions;
        if asks.is_empty() && looks.is_empty() {
            return Round::Idle;
        }
        let (replies, found) = tokio::join!(store.sync(asks), store.look(looks));
        let (grants, failed) = self.take(sent, replies, (looks, looked), found);
        self.tell(failed.as_ref());
        if !grants.is_empty() {
            self.persist(ledger, grants).await;
        }
        match failed {
            None => Round::Told { is_more: *is_more },
            Some(_) => Round::Failed,
        }
    }

    /// Takes the store's answers: what has to be on disk before it is used, and why one is missing.
    fn take(
        &self,
        sent: &[Sent],
        replies: Vec<Result<Reply, StoreError>>,
        (looks, looked): (&[Look], &[Sent]),
        found: Vec<Result<Vec<Elsewhere>, StoreError>>,
    ) -> (Vec<Grant>, Option<StoreError>) {
        let mut grants = Vec::new();
        let mut failed = None;
        let mut n_failed = 0;
        let unix_ms = clock::now().as_unix_ms();
        let mut state = self.state();
        for ((looked, look), found) in looked.iter().zip(looks).zip(found) {
            match found {
                Ok(found) => {
                    state.take_look(&looked.at, look, &found, looked.sent_ms, unix_ms);
                }
                Err(error) => {
                    if let Some(account) = state.accounts.get_mut(&looked.at) {
                        account.is_answered = false;
                    }
                    n_failed += 1;
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
                        account.is_answered |= grant.is_none();
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
                    if let Some(account) = state.accounts.get_mut(&sent.at) {
                        account.touch();
                        account.is_answered = false;
                    }
                    n_failed += 1;
                    failed = Some(error);
                }
            }
        }
        // One shard of a cluster that is away is not the store.
        let n_asked = sent.len() + looked.len();
        state.is_store_silent = n_failed == n_asked;
        if n_failed < n_asked {
            state.answered_ms = clock::since_boot_ms();
        }
        (grants, failed)
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
                    account.is_answered = false;
                    account.touch();
                }
            }
            return;
        }
        let mut state = self.state();
        for (at, granted) in granted {
            if let Some(account) = state.accounts.get_mut(&at) {
                account.persisted(granted);
                account.is_answered = true;
            }
        }
    }

    /// The reports and looks that are due.
    fn questions(&self) -> Questions {
        let unix_ms = clock::now().as_unix_ms();
        let now_ms = clock::since_boot_ms();
        let mut state = self.state();
        let due = state.due(unix_ms, now_ms);
        let mut questions = Questions {
            is_more: due.is_more,
            ..Questions::default()
        };
        for at in due.looks {
            let Some(account) = state.accounts.get(&at) else {
                continue;
            };
            questions.looks.push(state.look(account, unix_ms, now_ms));
            if let Some(account) = state.accounts.get_mut(&at) {
                account.looked_ms = Some(now_ms);
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
            questions.asks.push(Ask {
                cell: account.cell_key(),
                terms,
                report: account.report(now_ms, seq, is_over),
            });
            let sent_ms = now_ms;
            questions.sent.push(Sent { at, sent_ms });
        }
        questions
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
        let mut is_told = false;
        loop {
            match self.register(store, &mut registered).await {
                Ok(()) => {
                    if std::mem::take(&mut is_told) && !self.is_store_away() {
                        self.tell(None);
                    }
                    pause = LOOK_EVERY;
                }
                Err(error) => {
                    // A store that takes reports is not away.
                    if self.is_answered_lately() {
                        tracing::warn!(%error, "budgets cannot be made known to the store");
                    } else {
                        is_told = true;
                        self.tell(Some(&error));
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

    /// Says once that the store does not answer, and once that it does again.
    fn tell(&self, failed: Option<&StoreError>) {
        let failed = failed.map(ToString::to_string);
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

    /// Whether the store answered nothing the last time that it was asked.
    pub(super) fn is_store_away(&self) -> bool {
        self.state().is_store_silent
    }
}
