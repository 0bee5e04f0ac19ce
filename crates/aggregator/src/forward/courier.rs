//! Visits to the store: when enough rows wait, or when it is time, and never all sidecars at once.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time;
use tollmesh_wire::Timestamp;

use crate::forward::error::ForwardError;
use crate::forward::place::Place;
use crate::forward::store::{Delivered, KnownIds, Store};
use crate::ledger::outbox::{Note, Parcel, Progress};
use crate::ledger::{Ledger, QueryError};
use crate::metrics::Metrics;

/// Rows in one parcel, which is one statement: some 600 KiB on the way, and a tenth of a second of
/// the server's time at most.
const PARCEL_ROWS_MAX: usize = 1_000;
/// How often the outbox is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Visits that have nothing to bring are made every so many intervals, to hear of losses.
const IDLE_INTERVALS: u32 = 10;
/// The longest pause after failures in a row, before jitter.
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// What one step of a visit may take. A server that is silent for longer is taken for gone.
const STEP_TIME_MAX: Duration = Duration::from_secs(60);

/// How forwarding is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where to.
    pub place: Place,
    /// How long a row waits for others before a visit is made, on average.
    pub interval: Duration,
    /// Months that the store keeps, beside the present one.
    pub retention_months: u32,
}

/// How forwarding is.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Rows that wait, as last looked.
    pub pending: u64,
    /// Outcomes that wait, as last looked.
    pub pending_outcomes: u64,
    /// When the call of the first of them was made.
    pub oldest: Option<Timestamp>,
    /// Why visits fail, while they do.
    pub failing: Option<Failing>,
}

/// An ongoing failure.
#[derive(Clone, Debug)]
pub struct Failing {
    /// When the first of the failures in a row was.
    pub since: Instant,
    /// The last one, on one line.
    pub error: String,
}

/// What forwards.
pub struct Courier {
    ledger: Ledger,
    settings: Settings,
    metrics: Arc<Metrics>,
    status: Arc<Mutex<Status>>,
    known: KnownIds,
    failures: u32,
    /// Rows in the next parcel: fewer while a bad one is looked for.
    parcel_rows: usize,
}

impl Status {
    /// How long the oldest of the waiting rows has waited, in seconds; 0 where none waits.
    pub fn lag_seconds(&self, now: Timestamp) -> u64 {
        let oldest = self.oldest.map_or(now, |oldest| oldest.min(now));
        let lag_ms = now.as_unix_ms().saturating_sub(oldest.as_unix_ms());
        lag_ms.unsigned_abs() / 1_000
    }
}

impl Courier {
    /// One that has not set out yet.
    pub fn new(ledger: Ledger, settings: Settings, metrics: Arc<Metrics>) -> Courier {
        Courier {
            ledger,
            settings,
            metrics,
            status: Arc::default(),
            known: KnownIds::default(),
            failures: 0,
            parcel_rows: PARCEL_ROWS_MAX,
        }
    }

    /// How forwarding is, for as long as it goes on.
    pub fn status(&self) -> Arc<Mutex<Status>> {
        Arc::clone(&self.status)
    }

    /// Forwards until told to stop, then what is left; the caller says for how long.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut last_visit = Instant::now();
        let mut pause = jittered(self.settings.interval);
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                () = time::sleep(LOOK_EVERY.min(self.settings.interval)) => {}
            }
            let pending = self.look().await;
            let waited = last_visit.elapsed();
            let is_full = pending >= PARCEL_ROWS_MAX as u64 && self.failures == 0;
            let is_time = waited >= pause && (pending > 0 || self.failures > 0);
            if !is_full && !is_time && waited < self.settings.interval * IDLE_INTERVALS {
                continue;
            }
            let visited = self.visit().await;
            self.look().await;
            self.note(visited);
            last_visit = Instant::now();
            pause = jittered(self.pause());
        }
        let visited = self.visit().await;
        self.look().await;
        self.note(visited);
    }

    /// One visit: connects, makes sure that both sides speak of the same rows, sends what waits,
    /// disconnects.
    pub async fn visit(&mut self) -> Result<(), ForwardError> {
        let visited = self.deliver_what_waits().await;
        if visited.is_err() {
            // A server that takes over may lack facts whose ids the old one has just told, though it
            // has all of the rows: ids of another server would name other facts there.
            self.known = KnownIds::default();
        }
        visited
    }

    async fn deliver_what_waits(&mut self) -> Result<(), ForwardError> {
        let progress = self.progress().await?;
        let months = self.settings.retention_months;
        let open = Store::open(&self.settings.place, &progress.ledger_id, months);
        let mut store = in_time(open).await?;
        self.reconcile(&progress, &store).await?;
        loop {
            let parcel = self.parcel().await?;
            if parcel.is_empty() {
                return Ok(());
            }
            match in_time(store.deliver(&parcel, &mut self.known)).await {
                Ok(delivered) => {
                    self.count(&parcel, delivered);
                    self.parcel_rows = (self.parcel_rows * 2).min(PARCEL_ROWS_MAX);
                }
                Err(error) if error.blames_content() && parcel.len() > 1 => {
                    self.parcel_rows = parcel.len().div_ceil(2);
                    continue;
                }
                Err(error) if error.blames_content() => {
                    self.metrics
                        .forward_skipped_rows_total
                        .with_label_values(&["refused"])
                        .inc();
                    tracing::error!(
                        row = ?parcel.rows.first().map(|(row, _)| row),
                        error = %error.chain(),
                        "the store can never take this call; it stays in this ledger alone"
                    );
                    in_time(store.pass_over(&parcel)).await?;
                }
                Err(error) => return Err(error),
            }
            let note = Note::Forwarded {
                upto: parcel.upto,
                rows: parcel.rows,
                outcomes_upto: parcel.outcomes_upto,
                parcel: parcel.number,
            };
            self.ledger.note(note).await?;
        }
    }

    /// What the store lacks although it was forwarded becomes pending again.
    async fn reconcile(&mut self, progress: &Progress, store: &Store) -> Result<(), ForwardError> {
        let from = store.forwarded_row();
        let mut seen = progress.lost.clone();
        let parcel = store.last_parcel();
        if from < progress.forwarded_row {
            tracing::warn!(
                from,
                forwarded = progress.forwarded_row,
                "the store is an empty or an earlier one; calls are sent again"
            );
        } else if parcel != progress.last_parcel {
            tracing::info!("the store is another than last, or an answer of it was lost");
        }
        if from < progress.forwarded_row || parcel != progress.last_parcel {
            self.known = KnownIds::default();
            self.ledger.note(Note::Restart { from, parcel }).await?;
            seen.clear();
        } else if store.is_new() {
            self.known = KnownIds::default();
        }
        for (month, lost) in store.lost() {
            let name = month.to_string();
            if seen.get(&name).copied().unwrap_or(0) >= lost {
                continue;
            }
            self.ledger
                .note(Note::Resend {
                    month: name,
                    lost,
                    from_ms: month.start_ms(),
                    to_ms: month.after(1).start_ms(),
                })
                .await?;
        }
        Ok(())
    }

    fn count(&self, parcel: &Parcel, delivered: Delivered) {
        let n_rows = parcel.rows.len() as u64;
        let sent = n_rows.saturating_sub(delivered.outside);
        self.metrics.forwarded_rows_total.inc_by(sent);
        if delivered.outside > 0 {
            self.metrics
                .forward_skipped_rows_total
                .with_label_values(&["outside_retention"])
                .inc_by(delivered.outside);
            tracing::warn!(
                n_rows = delivered.outside,
                "calls of months that the store does not keep were not forwarded"
            );
        }
    }

    /// A failure is logged when it begins and when it ends.
    fn note(&mut self, visited: Result<(), ForwardError>) {
        let mut status = lock(&self.status);
        match visited {
            Ok(()) => {
                if let Some(failing) = status.failing.take() {
                    let after_seconds = failing.since.elapsed().as_secs();
                    tracing::info!(after_seconds, "forwarding works again");
                }
                self.failures = 0;
            }
            Err(error) => {
                self.metrics.forward_failures_total.inc();
                self.failures = self.failures.saturating_add(1);
                let error = error.chain();
                let since = status.failing.as_ref().map(|failing| failing.since);
                if since.is_none() {
                    tracing::warn!(%error, "calls cannot be forwarded; they wait in the ledger");
                }
                let since = since.unwrap_or_else(Instant::now);
                status.failing = Some(Failing { since, error });
            }
        }
    }

    /// The pause before the next visit: longer with each failure in a row.
    fn pause(&self) -> Duration {
        let doubled = self.settings.interval * 2_u32.pow(self.failures.min(10));
        doubled.min(PAUSE_MAX.max(self.settings.interval))
    }

    /// Looks how much waits, rows and outcomes together.
    async fn look(&self) -> u64 {
        match self.progress().await {
            Ok(progress) => {
                let mut status = lock(&self.status);
                status.pending = progress.pending;
                status.pending_outcomes = progress.pending_outcomes;
                status.oldest = progress.oldest;
                progress.pending.saturating_add(progress.pending_outcomes)
            }
            // A ledger that cannot be read is told where events are refused.
            Err(error) => {
                tracing::debug!(error = %error.chain(), "the outbox cannot be looked at");
                0
            }
        }
    }

    async fn progress(&self) -> Result<Progress, ForwardError> {
        let reader = self.ledger.reader().clone();
        read(move || reader.progress()).await
    }

    async fn parcel(&self) -> Result<Parcel, ForwardError> {
        let reader = self.ledger.reader().clone();
        let rows = self.parcel_rows;
        read(move || reader.parcel(rows)).await
    }
}

/// Reads the ledger where blocking is allowed.
async fn read<T: Send + 'static>(
    question: impl FnOnce() -> Result<T, QueryError> + Send + 'static,
) -> Result<T, ForwardError> {
    match tokio::task::spawn_blocking(question).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(ForwardError::Broken),
    }
}

/// A step of a visit, which must not last for ever: half-open connections never fail.
async fn in_time<T>(
    step: impl Future<Output = Result<T, ForwardError>>,
) -> Result<T, ForwardError> {
    time::timeout(STEP_TIME_MAX, step)
        .await
        .unwrap_or(Err(ForwardError::Silent {
            seconds: STEP_TIME_MAX.as_secs(),
        }))
}

/// Between half of it and one and a half: sidecars that start together part ways.
fn jittered(pause: Duration) -> Duration {
    // Hashers are seeded by chance, which is all the chance that this takes.
    let permille = 500 + RandomState::new().hash_one(()) % 1_000;
    pause.mul_f64(permille as f64 / 1_000.0)
}

fn lock(status: &Mutex<Status>) -> MutexGuard<'_, Status> {
    status.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_differ_and_stay_near() {
        let pause = Duration::from_secs(10);
        let all: std::collections::BTreeSet<Duration> = (0..50).map(|_| jittered(pause)).collect();
        assert!(all.len() > 25, "{all:?}");
        let bounds = Duration::from_secs(5)..Duration::from_secs(15);
        assert!(all.iter().all(|pause| bounds.contains(pause)), "{all:?}");
    }

    #[test]
    fn lag_is_the_age_of_the_oldest_waiting_call() {
        let at = Timestamp::from_unix_ms;
        let mut status = Status::default();
        assert_eq!(status.lag_seconds(at(5_000)), 0);
        status.oldest = Some(at(1_000));
        assert_eq!(status.lag_seconds(at(5_999)), 4);
        // A filter whose clock runs ahead.
        assert_eq!(status.lag_seconds(at(0)), 0);
    }
}
