//! Telling people that a budget has come so far, once in the whole cluster.
//!
//! Who notices a tier hands it to [`Alerts`], and goes on at once. The alert is noted in a small
//! file before anything else, and claimed in the store that all sidecars share: who gets the claim
//! tells it, the others remember that it is told. Without such a store the file itself is the
//! claim. Each receiver is then tried until it has taken the alert, with pauses that grow, over
//! restarts of the process. An alert is told at least once: should an answer be lost, it comes
//! again with the same id.
//!
//! *Absent:* no redirect is followed, and no name leads to a private address unless the operator
//! allows it. *Absent:* no secret is kept: files are read for each alert.

mod address;
mod alert;
mod courier;
mod outbox;
mod payload;
mod post;
mod receiver;
mod target;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rust_decimal::Decimal;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tollmesh_budget::{Policy, WindowSpan};

use crate::clock;
use crate::metrics::Metrics;
pub use alert::{
    Alert, AlertWindow, GuardTripped, Kind, Severity, TierReached, amount, identity, percent,
};
pub use courier::{Claims, Courier};
pub use outbox::{OUTBOX_FILE, Outbox, OutboxError, Unclaimed};
pub use post::{Answer, PostError, Reach, post};
pub use receiver::{
    Channel, ChannelKind, Owners, PAGERDUTY_URL, Place, RESERVED, Receiver, Receivers, SetUpError,
};
pub use target::{BadTarget, Target};

/// Alerts that may wait to be noted: a moment's worth. What does not fit is told when it is noticed
/// again.
const WAITING_MAX: usize = 1_024;

/// Alerts that are remembered in memory as told, so that noticing one again costs nothing. Beyond
/// it all are forgotten, and the file remembers.
const REMEMBERED_MAX: usize = 50_000;

/// Takes what is to be told. Clones are handles to the same.
#[derive(Clone)]
pub struct Alerts {
    receivers: Arc<Receivers>,
    sender: mpsc::Sender<Unclaimed>,
    noticed: Arc<Mutex<HashMap<String, i64>>>,
    metrics: Arc<Metrics>,
}

/// A courier on its round.
pub struct Round {
    stop: watch::Sender<bool>,
    courier: JoinHandle<()>,
}

/// Begins to tell alerts: what is handed over from now on, and what an earlier life of the process
/// left in its outbox in that directory. Needs a runtime; reads a small file.
pub fn start(
    dir: &Path,
    receivers: Receivers,
    claims: impl Claims,
    metrics: &Arc<Metrics>,
) -> Result<(Alerts, Round), OutboxError> {
    let receivers = Arc::new(receivers);
    let (sender, queue) = mpsc::channel(WAITING_MAX);
    let alerts = Alerts {
        receivers: Arc::clone(&receivers),
        sender,
        noticed: Arc::default(),
        metrics: Arc::clone(metrics),
    };
    let courier = Courier::new(receivers, Outbox::open(dir)?, claims, Arc::clone(metrics));
    let stop = watch::Sender::new(false);
    let round = Round {
        courier: tokio::spawn(courier.run(queue, stop.subscribe())),
        stop,
    };
    Ok((alerts, round))
}

impl Round {
    /// Tells what is due, at most for that long. What is left then is told in the next life.
    pub async fn finish(self, patience: Duration) {
        self.stop.send_replace(true);
        if tokio::time::timeout(patience, self.courier).await.is_err() {
            tracing::warn!("alerts were not told; they are when this state_dir is served again");
        }
    }
}

impl Alerts {
    /// Nobody is told of anything.
    pub fn to_nobody(metrics: Arc<Metrics>) -> Alerts {
        Alerts {
            receivers: Arc::default(),
            sender: mpsc::channel(1).0,
            noticed: Arc::default(),
            metrics,
        }
    }

    /// Tells everybody concerned that a tier is reached. Returns at once; noticing the same again
    /// changes nothing.
    pub fn tier_reached(&self, reached: &TierReached) {
        let meant = self
            .receivers
            .meant(&reached.notify, &reached.matches, &reached.key);
        if meant.is_empty() || !self.is_new(&reached.id(), reached.forgotten_after_ms()) {
            return;
        }
        self.send(
            reached.alert(clock::now()),
            &reached.notify,
            reached.forgotten_after_ms(),
        );
    }

    /// Tells of every tier that a key's spend has reached, given in the order of `per`. Cheap where
    /// none has anybody to notify, and else to be asked only when the tier rises.
    pub fn spent(
        &self,
        policy: &Policy,
        key: &[String],
        spent: Decimal,
        span: WindowSpan,
        projected: Option<Decimal>,
    ) {
        let Some((highest, _)) = policy.tier_at(spent) else {
            return;
        };
        let reached = policy.tiers.iter().take(highest + 1);
        for tier in reached.filter(|tier| !tier.notify.is_empty()) {
            let reached = TierReached::of(policy, tier, key, spent, span, projected);
            self.tier_reached(&reached);
        }
    }

    /// Tells everybody concerned that a guard stops calls, or would. Returns at once; noticing the
    /// same again within the hour changes nothing.
    pub fn guard_tripped(&self, tripped: &GuardTripped<'_>) {
        let guard = tripped.guard;
        let meant = self
            .receivers
            .meant(&guard.notify, &guard.matches, &tripped.key);
        let until_ms = tripped.forgotten_after_ms();
        if !meant.is_empty() && self.is_new(&tripped.id(), until_ms) {
            self.send(tripped.alert(), &guard.notify, until_ms);
        }
    }

    /// Whether that is noticed for the first time, as far as memory goes.
    fn is_new(&self, id: &str, until_ms: i64) -> bool {
        let mut noticed = self.noticed();
        if noticed.contains_key(id) {
            return false;
        }
        if noticed.len() >= REMEMBERED_MAX {
            noticed.clear();
        }
        noticed.insert(id.to_owned(), until_ms);
        true
    }

    fn send(&self, alert: Alert, notify: &[String], until_ms: i64) {
        let unclaimed = Unclaimed {
            since_ms: alert.time.as_unix_ms(),
            alert,
            notify: notify.to_vec(),
            until_ms,
        };
        if let Err(error) = self.sender.try_send(unclaimed) {
            let (mpsc::error::TrySendError::Full(lost) | mpsc::error::TrySendError::Closed(lost)) =
                error;
            self.metrics.alerts_dropped_total.inc();
            self.noticed().remove(&lost.alert.id);
        }
    }

    fn noticed(&self) -> MutexGuard<'_, HashMap<String, i64>> {
        self.noticed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
