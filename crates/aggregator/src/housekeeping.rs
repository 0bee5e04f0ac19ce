//! What keeps the ledger small and quick while the process runs: hours folded into days, old calls
//! deleted, and the oldest ones where the file grows too large.

use std::sync::Arc;
use std::time::Duration;

use tollmesh_wire::Timestamp;

use crate::clock;
use crate::ledger::query::FileSize;
use crate::ledger::{AppendError, Ledger, QueryError};
use crate::metrics::Metrics;

/// How often the ledger is looked at.
const EVERY: Duration = Duration::from_secs(60);

/// Milliseconds in an hour: calls are deleted by whole ones.
const HOUR_MS: i64 = 3_600_000;

/// An hour is folded this long after its end: what comes later is folded at once, which costs more.
const GRACE_MS: i64 = 10 * 60_000;

/// Once too large, the file is brought down to this many percent of its bound, so that not every
/// minute deletes an hour.
const GOAL_PERCENT: u64 = 90;

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

/// Looks after the ledger until it is closed. Its counters are there at once.
pub fn keep(
    ledger: Ledger,
    retention: Retention,
    metrics: Arc<Metrics>,
) -> impl Future<Output = ()> + Send {
    deleted(&metrics, "age", 0);
    deleted(&metrics, "size", 0);
    async move {
        loop {
            match look_after(&ledger, retention, clock::now(), &metrics).await {
                Ok(()) => {}
                Err(Trouble::Write(AppendError::Closed)) => return,
                // A ledger that cannot be written is told where events are refused.
                Err(error) => tracing::debug!(%error, "housekeeping is put off"),
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}

/// One look at the ledger.
pub async fn look_after(
    ledger: &Ledger,
    retention: Retention,
    now: Timestamp,
    metrics: &Metrics,
) -> Result<(), Trouble> {
    let now_ms = now.as_unix_ms();
    let ended = Timestamp::from_unix_ms(now_ms - GRACE_MS);
    ledger.fold(ended).await?;
    let age_ms = i64::from(retention.days) * 24 * HOUR_MS;
    let before = Timestamp::from_unix_ms(now_ms.saturating_sub(age_ms));
    let n_rows = ledger.prune(before).await?;
    if n_rows > 0 {
        let days = retention.days;
        tracing::info!(n_rows, days, "deleted calls beyond retention.days");
    }
    deleted(metrics, "age", n_rows);
    if let Some(bytes_max) = retention.bytes_max {
        cut(ledger, bytes_max, now_ms, metrics).await?;
    }
    let bytes = size(ledger).await?.bytes;
    metrics
        .ledger_bytes
        .set(i64::try_from(bytes).unwrap_or(i64::MAX));
    Ok(())
}

/// Deletes the oldest hours of a file that is too large, except the present one.
async fn cut(
    ledger: &Ledger,
    bytes_max: u64,
    now_ms: i64,
    metrics: &Metrics,
) -> Result<(), Trouble> {
    if size(ledger).await?.bytes <= bytes_max {
        return Ok(());
    }
    let goal = bytes_max / 100 * GOAL_PERCENT;
    let mut n_rows = 0;
    let mut is_stuck = false;
    while size(ledger).await?.used_bytes() > goal && !is_stuck {
        let reader = ledger.reader().clone();
        let oldest = tokio::task::spawn_blocking(move || reader.oldest_call()).await??;
        let end_ms = oldest.map(|at| (at.as_unix_ms().div_euclid(HOUR_MS) + 1) * HOUR_MS);
        let n = match end_ms.filter(|end_ms| *end_ms <= now_ms) {
            Some(end_ms) => ledger.prune(Timestamp::from_unix_ms(end_ms)).await?,
            None => 0,
        };
        n_rows += n;
        is_stuck = n == 0;
    }
    if is_stuck {
        tracing::warn!(
            bytes_max,
            "the ledger is larger than retention.max_size without calls that may be deleted"
        );
    }
    if n_rows > 0 {
        tracing::info!(
            n_rows,
            bytes_max,
            "deleted the oldest calls to keep retention.max_size"
        );
    }
    deleted(metrics, "size", n_rows);
    Ok(())
}

async fn size(ledger: &Ledger) -> Result<FileSize, Trouble> {
    let reader = ledger.reader().clone();
    Ok(tokio::task::spawn_blocking(move || reader.file_size()).await??)
}

fn deleted(metrics: &Metrics, because: &str, n_rows: u64) {
    let counter = metrics
        .ledger_deleted_rows_total
        .with_label_values(&[because]);
    counter.inc_by(n_rows);
}
