//! The conversation with the store of leases, in beats, and the sweeps that go with it.

use std::sync::Arc;
use std::time::Duration;

use tollmesh_budget::lease::{Elsewhere, Reply};

use super::state::State;
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
/// How long after its last answer a store that fails is away, in milliseconds; until then it may be
/// one shard of it that is.
const SILENT_AFTER_MS: u64 = 1_000;
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
    /// It is away.
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

impl State {
    /// Notes which of so many questions the store did not answer. One shard of a cluster that is
    /// away is not the store.
    fn note_unanswered(&mut self, unanswered: &[&SpendKey], n_asked: usize, now_ms: u64) {
        let is_answered = unanswered.len() < n_asked;
        if is_answered {
            self.answered_ms = now_ms;
        }
        let is_lately = now_ms.saturating_sub(self.answered_ms) < SILENT_AFTER_MS;
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
        // Where one shard is away, only what is asked of it waits.
        match failed.is_some() && self.is_store_away() {
            false => Round::Told { is_more: *is_more },
            true => Round::Failed,
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
                            account.answered(now_ms);
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
        state.note_unanswered(&unanswered, sent.len() + looked.len(), now_ms);
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
                    account.unanswered();
                }
            }
            return;
        }
        let now_ms = clock::since_boot_ms();
        let mut state = self.state();
        for (at, granted) in granted {
            if let Some(account) = state.accounts.get_mut(&at) {
                account.persisted(granted);
                account.answered(now_ms);
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

    /// Whether the store answered nothing the last time that it was asked, and nothing lately.
    pub(super) fn is_store_away(&self) -> bool {
        self.state().is_store_silent
    }
}

#[cfg(test)]
mod tests {
    use super::super::policies::Policies;
    use super::*;
    use crate::config::budgets::parse;

    const NOON_MS: i64 = 1_800_000_000_000;

    #[test]
    fn a_shard_that_is_away_holds_up_only_its_own() {
        let text = "[[budget]]\nname = \"b\"\nper = [\"user\"]\nlimit = \"9 requests\"\n\
                    window = \"day\"\nenforce = \"strict\"";
        let policies = Policies::new(parse("budgets.toml", text).unwrap());
        let budget = Arc::clone(&policies.all[0]);
        let mut state = State::default();
        state.policies = Arc::new(policies);
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
            state.note_unanswered(&[&away], 2, now_ms);
            assert!(!state.is_store_silent);
            // The store has heard of the budget, so that no account is to probe it.
            state.lives.tell(&budget.id, now_ms + pause_ms - 1);
            let soon = due(&mut state, now_ms + pause_ms - 1);
            assert_eq!(soon, std::slice::from_ref(&near), "{pause_ms}");
            assert_eq!(due(&mut state, now_ms + pause_ms).len(), 2, "{pause_ms}");
            now_ms += pause_ms;
        }
        state.accounts.get_mut(&away).unwrap().answered(now_ms);
        assert_eq!(due(&mut state, now_ms).len(), 2);
        // Asked for alone, it is still not the whole store.
        state.note_unanswered(&[&away, &near], 3, now_ms);
        state.note_unanswered(&[&away], 1, now_ms + SILENT_AFTER_MS - 1);
        assert!(!state.is_store_silent);
        state.note_unanswered(&[&away], 1, now_ms + SILENT_AFTER_MS);
        assert!(state.is_store_silent);
        state.note_unanswered(&[], 1, now_ms + SILENT_AFTER_MS);
        assert!(!state.is_store_silent);
    }
}
