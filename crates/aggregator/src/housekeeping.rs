//! What keeps the ledger small and quick while the process runs: hours folded into days, old calls
//! deleted, their sums reduced, and room made where the file grows too large.

mod belief;
mod room;

use std::sync::Arc;
use std::time::Duration;

use tollmesh_wire::Timestamp;

use crate::clock;
use crate::ledger::query::FileSize;
use crate::ledger::recovered::{self, TakeInError};
use crate::ledger::{AppendError, HOUR_MS, Ledger, Pruned, Pruning, QueryError, Reader, aside};
use crate::metrics::Metrics;
use crate::otlp::Signal;
pub use belief::{CLOCK_DOUBTS_MAX, CLOCK_LEAP_MS};
pub use room::PENDING_PERCENT;

/// How often the ledger is looked at. The first look comes that long after the start: what filters
/// send again because an answer was lost is taken before its rows could be deleted.
const EVERY: Duration = Duration::from_secs(60);

/// An hour is folded this long after its end: what comes later is folded at once, which costs more.
const GRACE_MS: i64 = 10 * 60_000;

/// How long calls are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Days.
    pub days: u32,
    /// Bytes that the ledger's file may have; beyond it the oldest calls go earlier.
    pub bytes_max: Option<u64>,
}

/// Why a look at the ledger was cut short. The next does the rest.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] AppendError),
    /// It could not be read.
    #[error(transparent)]
    Read(#[from] QueryError),
    /// It could not be asked.
    #[error("a question was not answered")]
    Lost(#[from] tokio::task::JoinError),
}

/// Says which tags are worth most in sums: those that labels and budgets name.
pub type NamedTags = Box<dyn Fn() -> Vec<String> + Send + Sync>;

/// Who looks after a ledger.
pub struct Keeper {
    ledger: Ledger,
    retention: Retention,
    metrics: Arc<Metrics>,
    named: NamedTags,
    /// What a receiver of telemetry is told.
    exported: Vec<Signal>,
    /// Whether the log says that the clock is not believed.
    doubts: bool,
    /// Why the bound is not held, as the log says.
    over: Option<room::Because>,
    /// What was reduced at this look.
    tidied: Tidied,
}

/// What became of sums of deleted calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tidied {
    /// Days whose sums were regrouped.
    days: u64,
    /// What nothing referred to any more.
    n_swept: u64,
}

/// Why rows are deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Age,
    Size,
}

impl Reason {
    const fn name(self) -> &'static str {
        match self {
            Reason::Age => "age",
            Reason::Size => "size",
        }
    }
}

// === impl Keeper ===

impl Keeper {
    /// Of that ledger. Its counters are there at once.
    pub fn new(ledger: Ledger, retention: Retention, metrics: Arc<Metrics>) -> Keeper {
        for reason in [Reason::Age, Reason::Size] {
            metrics
                .ledger_deleted_rows_total
                .with_label_values(&[reason.name()])
                .inc_by(0);
        }
        for because in room::Because::ALL {
            metrics
                .ledger_over_bound
                .with_label_values(&[because.name()])
                .set(0);
        }
        metrics
            .ledger_bytes_max
            .set(saturate(retention.bytes_max.unwrap_or(0)));
        Keeper {
            ledger,
            retention,
            metrics,
            named: Box::new(Vec::new),
            exported: Vec::new(),
            doubts: false,
            over: None,
            tidied: Tidied::default(),
        }
    }

    /// The same, with those tags worth most in sums.
    pub fn named(self, named: NamedTags) -> Keeper {
        Keeper { named, ..self }
    }

    /// The same for a ledger of which a receiver of telemetry is told these signals.
    pub fn exported(self, exported: Vec<Signal>) -> Keeper {
        Keeper { exported, ..self }
    }

    /// Looks after the ledger until it is closed.
    pub async fn keep(mut self) {
        if let Err(error) = self.measure().await {
            tracing::debug!(%error, "the ledger cannot be measured");
        }
        loop {
            tokio::time::sleep(EVERY).await;
            match self.look_after(clock::now()).await {
                Ok(()) => {}
                Err(Trouble::Write(AppendError::Closed)) => return,
                // A ledger that cannot be written is told where events are refused.
                Err(error) => tracing::debug!(%error, "housekeeping is put off"),
            }
        }
    }

    /// One look at the ledger.
    pub async fn look_after(&mut self, now: Timestamp) -> Result<(), Trouble> {
        let done = self.reduce(now).await;
        // Once a look, whatever the number of steps: a tag that each call has alone fills every hour.
        let Tidied { days, n_swept } = std::mem::take(&mut self.tidied);
        if days > 0 {
            tracing::info!(
                days,
                n_swept,
                "tags, models or pods of deleted calls were too many for sums, and became __other__"
            );
        }
        done?;
        self.measure().await
    }

    async fn reduce(&mut self, now: Timestamp) -> Result<(), Trouble> {
        let now_ms = now.as_unix_ms();
        self.take_in().await;
        let ended = Timestamp::from_unix_ms(now_ms - GRACE_MS);
        self.ledger.fold(ended).await?;
        if self.believes(now).await? {
            self.delete_by_age(now_ms).await?;
        }
        self.tidy().await?;
        if let Some(bytes_max) = self.retention.bytes_max {
            self.make_room(bytes_max, now_ms).await?;
        }
        Ok(())
    }

    /// Takes in what replaced ledgers had recorded. Whatever is wrong with a copy, the rest goes on.
    async fn take_in(&self) {
        match self.ledger.take_in().await {
            // Copies that wait are told of where they fail.
            Ok(taken) if taken.copies + taken.calls + taken.outcomes == 0 => {}
            Ok(taken) => tracing::warn!(
                n_copies = taken.copies,
                n_calls = taken.calls,
                n_refused = taken.refused,
                n_outcomes = taken.outcomes,
                "what a replaced ledger had recorded was taken into the ledger"
            ),
            Err(TakeInError::Write(AppendError::Closed)) => {}
            Err(error) => tracing::warn!(%error, "a recovered copy is not taken in yet"),
        }
    }

    async fn delete_by_age(&self, now_ms: i64) -> Result<(), Trouble> {
        let days = self.retention.days;
        let age_ms = i64::from(days) * 24 * HOUR_MS;
        let pruning = Pruning {
            before: Timestamp::from_unix_ms(now_ms.saturating_sub(age_ms)),
            spares_pending: self.ledger.forwards(),
        };
        let pruned = self.ledger.prune_as(pruning).await?;
        self.count(Reason::Age, pruned);
        if pruned.rows > 0 {
            let n_rows = pruned.rows;
            tracing::info!(n_rows, days, "deleted calls beyond retention.days");
        }
        Ok(())
    }

    fn count(&self, reason: Reason, pruned: Pruned) {
        self.metrics
            .ledger_deleted_rows_total
            .with_label_values(&[reason.name()])
            .inc_by(pruned.rows);
        if pruned.not_exported == 0 {
            return;
        }
        for signal in &self.exported {
            self.metrics
                .otlp_skipped_rows_total
                .with_label_values(&[signal.name(), "deleted"])
                .inc_by(pruned.not_exported);
        }
        if !self.exported.is_empty() {
            let n_rows = pruned.not_exported;
            tracing::warn!(
                n_rows,
                "calls were deleted before otlp.endpoint was told of them"
            );
        }
    }

    /// Reduces the sums of hours whose calls are gone, and deletes what nothing refers to then.
    async fn tidy(&mut self) -> Result<(), Trouble> {
        let regrouped = self.ledger.regroup(&(self.named)()).await?;
        if regrouped.days == 0 {
            return Ok(());
        }
        self.tidied.days += regrouped.days;
        self.tidied.n_swept += self.ledger.sweep().await?;
        Ok(())
    }

    async fn measure(&self) -> Result<(), Trouble> {
        let bytes = self.size().await?.bytes + bytes_aside(self.ledger.reader());
        self.metrics.ledger_bytes.set(saturate(bytes));
        Ok(())
    }

    async fn size(&self) -> Result<FileSize, Trouble> {
        self.ask(Reader::file_size).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Reader) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, Trouble> {
        let reader = self.ledger.reader().clone();
        Ok(tokio::task::spawn_blocking(move || question(&reader)).await??)
    }
}

/// Bytes of damaged files, and of copies that wait to be taken in; those that cannot be seen take none.
fn bytes_aside(reader: &Reader) -> u64 {
    let damaged = aside::all(reader.path()).unwrap_or_default();
    let recovered = recovered::all(reader.path()).unwrap_or_default();
    let found = damaged.iter().chain(&recovered);
    found.map(|aside| aside.bytes).sum()
}

fn saturate(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
