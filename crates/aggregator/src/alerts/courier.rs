//! Bringing alerts to their receivers, as often as it takes.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time;

use crate::alerts::outbox::{Delivery, Outbox, Unclaimed};
use crate::alerts::payload;
use crate::alerts::post::{Answer, Reach, post};
use crate::alerts::receiver::{ChannelKind, Receivers};
use crate::budgets::store::Store;
use crate::clock;
use crate::metrics::Metrics;

/// The pause after the first failure; each further one doubles it.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause, whatever a receiver asks for.
const PAUSE_MAX: Duration = Duration::from_secs(600);
/// How long a receiver is tried. Whoever looks a day later looks at the dashboard.
const AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long it is tried to claim an alert in the store. Then it is told all the same: a store that is
/// gone is a bad moment to be silent, and twice is better than never.
const CLAIM_TIME_MAX: Duration = Duration::from_secs(120);
/// How often claims are tried again.
const CLAIM_EVERY: Duration = Duration::from_secs(2);
/// Deliveries at a time, so that one slow receiver does not hold up the others.
const AT_ONCE_MAX: usize = 16;
/// How often what was told of past windows is forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(3600);
/// The longest sleep, should the wall clock jump.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Who makes sure that only one of many sidecars tells an alert.
pub trait Claims: Send + Sync + 'static {
    /// Whether nobody else has claimed that within `ttl_ms`. Asking again for what is ours answers
    /// `true`: the process may have ended before it noted the answer.
    fn claim(&self, what: &str, ttl_ms: u64) -> impl Future<Output = Result<bool, String>> + Send;
}

impl Claims for Arc<dyn Store> {
    async fn claim(&self, what: &str, ttl_ms: u64) -> Result<bool, String> {
        let claimed = Store::claim(self.as_ref(), what, ttl_ms).await;
        claimed.map_err(|error| error.to_string())
    }
}

/// What brings alerts to their receivers.
pub struct Courier<C> {
    receivers: Arc<Receivers>,
    outbox: Arc<Mutex<Outbox>>,
    claims: C,
    metrics: Arc<Metrics>,
    /// Deliveries that are on their way.
    away: HashSet<i64>,
    on_their_way: JoinSet<(Delivery, Verdict)>,
    cannot_claim: bool,
}

/// How a delivery ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// The receiver has it.
    Taken,
    /// The receiver will never take it.
    Refused(String),
    /// It may take it later: after that time, where it says so.
    Failed(String, Option<Duration>),
}

impl<C: Claims> Courier<C> {
    /// One that has not set out yet.
    pub fn new(
        receivers: Arc<Receivers>,
        outbox: Outbox,
        claims: C,
        metrics: Arc<Metrics>,
    ) -> Courier<C> {
        for (name, receiver) in &receivers.by_name {
            for kind in receiver.channels.keys() {
                for outcome in ["taken", "failed", "given_up"] {
                    let labels = [name.as_str(), kind.name(), outcome];
                    let family = &metrics.alert_deliveries_total;
                    family.with_label_values(&labels).inc_by(0);
                }
            }
        }
        Courier {
            receivers,
            outbox: Arc::new(Mutex::new(outbox)),
            claims,
            metrics,
            away: HashSet::new(),
            on_their_way: JoinSet::new(),
            cannot_claim: false,
        }
    }

    /// Brings what comes and what is left of former lives until told to stop; then once more what
    /// is due, for as long as the caller waits.
    pub async fn run(
        mut self,
        mut alerts: mpsc::Receiver<Unclaimed>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut forget = time::interval(FORGET_EVERY);
        loop {
            let pause = self.work().await;
            tokio::select! {
                () = stopped(&mut stop) => break,
                Some(unclaimed) = alerts.recv() => self.note_all(unclaimed, &mut alerts).await,
                Some(brought) = self.on_their_way.join_next() => self.note(brought.ok()).await,
                _ = forget.tick() => self.forget().await,
                () = time::sleep(pause) => {}
            }
        }
        while let Ok(unclaimed) = alerts.try_recv() {
            self.note_all(unclaimed, &mut alerts).await;
        }
        self.work().await;
        while let Some(brought) = self.on_their_way.join_next().await {
            self.note(brought.ok()).await;
        }
    }

    /// Claims what is not claimed, sends what is due; answers when there may be more to do.
    async fn work(&mut self) -> Duration {
        let is_waiting = self.claim().await;
        let next = self.send().await;
        match is_waiting {
            true => next.min(CLAIM_EVERY),
            false => next,
        }
    }

    /// Notes all that has come by now.
    async fn note_all(&mut self, first: Unclaimed, alerts: &mut mpsc::Receiver<Unclaimed>) {
        let mut all = vec![first];
        while let Ok(unclaimed) = alerts.try_recv() {
            all.push(unclaimed);
        }
        let noted = self.with(move |outbox| {
            for unclaimed in &all {
                outbox.note(unclaimed)?;
            }
            Ok(())
        });
        noted.await;
    }

    /// Finds out who tells what; answers whether that is still open for some.
    async fn claim(&mut self) -> bool {
        let unclaimed = self.with(|outbox| outbox.unclaimed()).await;
        for unclaimed in unclaimed.unwrap_or_default() {
            let now_ms = clock::now().as_unix_ms();
            let ttl_ms = unclaimed.until_ms.saturating_sub(now_ms).max(60_000);
            let what = format!("alert:{}", unclaimed.alert.id);
            let claimed = self.claims.claim(&what, ttl_ms.unsigned_abs()).await;
            let waited_ms = now_ms.saturating_sub(unclaimed.since_ms).unsigned_abs();
            match claimed {
                Ok(true) => self.take(unclaimed).await,
                Ok(false) => {
                    let id = unclaimed.alert.id;
                    self.with(move |outbox| outbox.leave(&id)).await;
                }
                Err(error) if u128::from(waited_ms) >= CLAIM_TIME_MAX.as_millis() => {
                    let summary = &unclaimed.alert.summary;
                    tracing::warn!(error, summary, "told without a claim, perhaps twice");
                    self.take(unclaimed).await;
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.cannot_claim, true) {
                        tracing::warn!(
                            error,
                            "alerts wait: the store cannot be asked who tells them"
                        );
                    }
                    return true;
                }
            }
            self.cannot_claim = false;
        }
        false
    }

    /// An alert is ours to tell.
    async fn take(&mut self, unclaimed: Unclaimed) {
        let Unclaimed { alert, notify, .. } = unclaimed;
        let meant = self.receivers.meant(&notify, &alert.matches, &alert.key);
        let mut to: Vec<(String, ChannelKind)> = Vec::new();
        for name in meant {
            let receiver = self.receivers.by_name.get(name);
            let channels = receiver.into_iter().flat_map(|r| r.channels.keys());
            to.extend(channels.map(|kind| (name.to_owned(), *kind)));
        }
        tracing::info!(
            id = alert.id,
            budget = alert.budget,
            tier = alert.tier,
            n_receivers = to.len(),
            "alert: {}",
            alert.summary
        );
        let now_ms = clock::now().as_unix_ms();
        let left_out = self
            .with(move |outbox| outbox.take(&alert, &to, now_ms))
            .await;
        let left_out = left_out.unwrap_or(0);
        if left_out > 0 {
            self.metrics.alerts_dropped_total.inc_by(left_out as u64);
            tracing::error!(left_out, "too many alerts wait; some are not told");
        }
    }

    /// Sends what is due; answers how long nothing else will be.
    async fn send(&mut self) -> Duration {
        let now_ms = clock::now().as_unix_ms();
        // Those that are away are due, too, until they are noted.
        let max = AT_ONCE_MAX + self.away.len();
        let due = self.with(move |outbox| outbox.due(now_ms, max)).await;
        for delivery in due.unwrap_or_default() {
            if self.away.len() >= AT_ONCE_MAX || !self.away.insert(delivery.id) {
                continue;
            }
            let receivers = Arc::clone(&self.receivers);
            self.on_their_way.spawn(async move {
                let verdict = bring(&receivers, &delivery).await;
                (delivery, verdict)
            });
        }
        if !self.away.is_empty() {
            return LOOK_EVERY;
        }
        let next = self.with(|outbox| outbox.next_due_ms()).await.flatten();
        let wait_ms = next.map(|next| next.saturating_sub(now_ms).max(0).unsigned_abs());
        wait_ms.map_or(LOOK_EVERY, |ms| Duration::from_millis(ms).min(LOOK_EVERY))
    }

    /// Notes how a delivery ended. One that broke off is due again as soon as others are noted.
    async fn note(&mut self, brought: Option<(Delivery, Verdict)>) {
        let Some((delivery, verdict)) = brought else {
            self.away.clear();
            return;
        };
        self.away.remove(&delivery.id);
        let (receiver, channel) = (delivery.receiver.as_str(), delivery.channel.name());
        let (summary, attempts) = (&delivery.alert.summary, delivery.attempts + 1);
        let id = delivery.id;
        let now_ms = clock::now().as_unix_ms();
        let age_ms = now_ms
            .saturating_sub(delivery.since_ms)
            .max(0)
            .unsigned_abs();
        let is_old = u128::from(age_ms) >= AGE_MAX.as_millis();
        let outcome = match verdict {
            Verdict::Taken => {
                tracing::info!(receiver, channel, attempts, summary, "an alert was taken");
                self.with(move |outbox| outbox.finish(id)).await;
                "taken"
            }
            Verdict::Failed(error, asked) if !is_old => {
                let pause = pause(delivery.attempts, asked);
                let again_seconds = pause.as_secs();
                tracing::warn!(
                    receiver,
                    channel,
                    attempts,
                    again_seconds,
                    error,
                    "an alert was not taken; it is tried again"
                );
                let due_ms = now_ms.saturating_add_unsigned(pause.as_millis() as u64);
                self.with(move |outbox| outbox.postpone(id, due_ms)).await;
                "failed"
            }
            Verdict::Refused(error) | Verdict::Failed(error, _) => {
                tracing::error!(
                    receiver,
                    channel,
                    attempts,
                    error,
                    summary,
                    "an alert is given up"
                );
                self.with(move |outbox| outbox.finish(id)).await;
                "given_up"
            }
        };
        let labels = [receiver, channel, outcome];
        let family = &self.metrics.alert_deliveries_total;
        family.with_label_values(&labels).inc();
    }

    async fn forget(&mut self) {
        let now_ms = clock::now().as_unix_ms();
        self.with(move |outbox| outbox.forget(now_ms)).await;
    }

    /// Uses the outbox where blocking is allowed. What fails is logged, and tried again by the work
    /// that comes by next.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Outbox) -> rusqlite::Result<T> + Send + 'static,
    ) -> Option<T> {
        let outbox = Arc::clone(&self.outbox);
        let work = move || {
            let mut outbox = outbox.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut outbox)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(done)) => Some(done),
            Ok(Err(error)) => {
                tracing::error!(%error, "the outbox of alerts cannot be used");
                None
            }
            Err(_) => None,
        }
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone means a stop, too.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// One attempt.
async fn bring(receivers: &Receivers, delivery: &Delivery) -> Verdict {
    let receiver = receivers.by_name.get(&delivery.receiver);
    let channel = receiver.and_then(|r| Some((r, r.channels.get(&delivery.channel)?)));
    let Some((receiver, channel)) = channel else {
        return Verdict::Refused("the configuration names it no more".to_owned());
    };
    let kind = delivery.channel;
    let (target, secret) = match (channel.target(kind), channel.secret()) {
        (Ok(target), Ok(secret)) => (target, secret),
        (Err(error), _) | (_, Err(error)) => return Verdict::Failed(chain(&error), None),
    };
    let body = payload::body(kind, &delivery.alert, &secret).to_string();
    let bearer = match kind {
        // Its key is part of the body.
        ChannelKind::PagerDuty => "",
        _ => &secret,
    };
    let reach = Reach {
        allow_private: receiver.allow_private,
        ca_file: receiver.ca_file.clone(),
    };
    match post(&target, &reach, bearer, body.into_bytes()).await {
        Ok(answer) => judge(&answer),
        Err(error) => Verdict::Failed(error.chain(), None),
    }
}

/// Statuses by which a receiver says that this body is wrong, whenever it comes. All others may
/// change: an operator repairs a URL or a token, a service comes back.
fn judge(answer: &Answer) -> Verdict {
    let status = answer.status;
    let told = match answer.shown.trim() {
        "" => format!("answered {status}"),
        shown => format!("answered {status}: {shown}"),
    };
    match status.as_u16() {
        200..=299 => Verdict::Taken,
        400 | 413 | 422 => Verdict::Refused(told),
        _ => Verdict::Failed(told, answer.retry_after_seconds.map(Duration::from_secs)),
    }
}

/// The pause after so many failures before this one: between a half and the whole of a time that
/// doubles, and what the receiver asks for at least.
fn pause(failures: u32, asked: Option<Duration>) -> Duration {
    let doubled = PAUSE_MIN * 2_u32.pow(failures.min(16));
    // Hashers are seeded by chance, which is all the chance that this takes.
    let permille = 500 + RandomState::new().hash_one(()) % 500;
    let pause = doubled.min(PAUSE_MAX) * permille as u32 / 1_000;
    pause.max(asked.unwrap_or_default()).min(PAUSE_MAX)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;

    use super::*;

    #[test]
    fn answers_are_judged_by_whether_they_may_change() {
        let answered = |status: u16, retry_after_seconds| {
            judge(&Answer {
                status: StatusCode::from_u16(status).unwrap(),
                retry_after_seconds,
                shown: "no_service".into(),
            })
        };
        for status in [200, 201, 202, 204] {
            assert_eq!(answered(status, None), Verdict::Taken);
        }
        for status in [400, 413, 422] {
            assert!(
                matches!(answered(status, None), Verdict::Refused(_)),
                "{status}"
            );
        }
        for status in [301, 302, 307, 401, 403, 404, 408, 410, 429, 500, 502, 503] {
            assert!(
                matches!(answered(status, None), Verdict::Failed(_, None)),
                "{status}"
            );
        }
        assert_eq!(
            answered(429, Some(30)),
            Verdict::Failed(
                "answered 429 Too Many Requests: no_service".into(),
                Some(Duration::from_secs(30))
            )
        );
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        for (failures, asked, min_ms, max_ms) in [
            (0, None, 500, 1_000),
            (3, None, 4_000, 8_000),
            (3, Some(30), 30_000, 30_000),
            (40, None, 300_000, 600_000),
            (0, Some(100_000), 600_000, 600_000),
        ] {
            let pause = pause(failures, asked.map(Duration::from_secs)).as_millis();
            assert!(
                (min_ms..=max_ms).contains(&pause),
                "{failures} {asked:?}: {pause}"
            );
        }
    }
}
