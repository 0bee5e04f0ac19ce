//! `retention.max_size`: what goes, and in which order, where the ledger's file outgrows it.
//!
//! Damaged files go first, then hourly sums of days whose calls are deleted, then the oldest calls.
//! Calls are not deleted for what other things take: where they are the smaller part, long-ago sums of
//! days go, which months still hold. The last hour of calls stays whatever happens, since its events
//! may come again.

use tollmesh_wire::Timestamp;

use super::{HOUR_MS, Keeper, Reason, Trouble, bytes_aside};
use crate::ledger::query::FileSize;
use crate::ledger::{Pruned, Pruning, Reader, Sums, aside};

/// Once too large, the file is brought down to this many percent of its bound, so that not every
/// minute deletes an hour.
const GOAL_PERCENT: u64 = 90;

/// Where calls, with the sums of their days, take less than this many percent of the bound, they are
/// not what has to go.
const CALLS_PERCENT_MIN: u64 = 25;

/// By this many percent of the bound the file may exceed it for calls that another store is yet to
/// have. Volumes of 2 GiB beside `max_size = "1500 MB"` have room for it and for a write-ahead log.
pub const PENDING_PERCENT: u64 = 25;

/// Why the bound is not held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// Of calls that another store is yet to have.
    Pending,
    /// Of the last hour's calls.
    Recent,
    /// Of sums that nothing else holds.
    Sums,
}

impl Because {
    /// Every one.
    pub const ALL: [Because; 3] = [Because::Pending, Because::Recent, Because::Sums];

    /// The word in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Because::Pending => "pending",
            Because::Recent => "recent",
            Because::Sums => "sums",
        }
    }

    const fn in_words(self) -> &'static str {
        match self {
            Because::Pending => "calls are yet to be forwarded to postgres.url",
            Because::Recent => "the last hour's calls alone take too much",
            Because::Sums => "sums of days and months take too much",
        }
    }
}

/// Making room, at one look.
struct Cut {
    goal_bytes: u64,
    calls_bytes_min: u64,
    /// What calls take with the sums of their days, about.
    calls_bytes: u64,
    /// Rows of hours that end later stay, in milliseconds since 1970.
    last_end_ms: i64,
    /// Sums went, so that dictionaries may hold what nothing refers to.
    is_to_be_swept: bool,
    pruned: Pruned,
}

impl Keeper {
    /// Brings the file below its bound, as far as that can be done.
    pub(super) async fn make_room(&mut self, bytes_max: u64, now_ms: i64) -> Result<(), Trouble> {
        self.delete_aside(bytes_max).await?;
        if self.size().await?.bytes <= bytes_max {
            self.tell(bytes_max, None);
            return Ok(());
        }
        let newest = self.ask(Reader::newest_call).await?;
        let newest_ms = newest.map_or(now_ms, |newest| newest.as_unix_ms().min(now_ms));
        let mut cut = Cut {
            goal_bytes: bytes_max / 100 * GOAL_PERCENT,
            calls_bytes_min: bytes_max / 100 * CALLS_PERCENT_MIN,
            calls_bytes: self.ask(Reader::bytes_of_calls).await?,
            last_end_ms: newest_ms.saturating_sub(HOUR_MS),
            is_to_be_swept: false,
            pruned: Pruned::default(),
        };
        while self.size().await?.used_bytes() > cut.goal_bytes {
            if !self.take_least(&mut cut).await? {
                break;
            }
        }
        let because = self.why_over(bytes_max, &cut).await?;
        if because == Some(Because::Pending) {
            self.delete_pending(bytes_max, cut.last_end_ms).await?;
        }
        self.count(Reason::Size, cut.pruned);
        if cut.pruned.rows > 0 {
            let n_rows = cut.pruned.rows;
            tracing::info!(
                n_rows,
                bytes_max,
                "deleted the oldest calls to keep retention.max_size"
            );
        }
        self.tell(bytes_max, because);
        Ok(())
    }

    /// Takes what is worth least, a step of it; false where nothing may go.
    async fn take_least(&mut self, cut: &mut Cut) -> Result<bool, Trouble> {
        if self.ledger.thin(Sums::Hours).await? > 0 {
            cut.is_to_be_swept = true;
            return Ok(true);
        }
        if cut.is_to_be_swept {
            cut.is_to_be_swept = false;
            self.ledger.sweep().await?;
            return Ok(true);
        }
        if cut.calls_bytes > cut.calls_bytes_min {
            return self.delete_oldest(cut).await;
        }
        for sums in [Sums::TagsAndPods, Sums::Pods, Sums::Days] {
            if self.ledger.thin(sums).await? > 0 {
                cut.is_to_be_swept = true;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Deletes the oldest hour of calls, but none that another store is yet to have.
    async fn delete_oldest(&mut self, cut: &mut Cut) -> Result<bool, Trouble> {
        let before = self.size().await?.used_bytes();
        let spares_pending = self.ledger.forwards();
        let pruned = self.delete_hour(spares_pending, cut.last_end_ms).await?;
        cut.pruned.rows += pruned.rows;
        cut.pruned.not_exported += pruned.not_exported;
        if pruned.rows > 0 {
            self.tidy().await?;
        }
        let after = self.size().await?.used_bytes();
        let freed = before.saturating_sub(after);
        cut.calls_bytes = cut.calls_bytes.saturating_sub(freed);
        Ok(pruned.rows > 0)
    }

    async fn delete_hour(&self, spares_pending: bool, last_end_ms: i64) -> Result<Pruned, Trouble> {
        let oldest = match spares_pending {
            true => self.ask(Reader::oldest_forwarded_call).await?,
            false => self.ask(Reader::oldest_call).await?,
        };
        let end_ms = oldest.map(|at| (at.as_unix_ms().div_euclid(HOUR_MS) + 1) * HOUR_MS);
        let Some(end_ms) = end_ms.filter(|end_ms| *end_ms <= last_end_ms) else {
            return Ok(Pruned::default());
        };
        let pruning = Pruning {
            before: Timestamp::from_unix_ms(end_ms),
            spares_pending,
        };
        Ok(self.ledger.prune_as(pruning).await?)
    }

    /// Calls that another store is yet to have wait in what is beyond the bound; where that is full,
    /// the oldest go.
    async fn delete_pending(&mut self, bytes_max: u64, last_end_ms: i64) -> Result<(), Trouble> {
        let room = bytes_max / 100 * PENDING_PERCENT;
        let mut size = self.size().await?;
        if size.bytes <= bytes_max.saturating_add(room) {
            return Ok(());
        }
        let mut all = Pruned::default();
        while size.used_bytes() > bytes_max.saturating_add(room / 2) {
            let pruned = self.delete_hour(false, last_end_ms).await?;
            if pruned.rows == 0 {
                break;
            }
            all.rows += pruned.rows;
            all.not_forwarded += pruned.not_forwarded;
            all.not_exported += pruned.not_exported;
            self.tidy().await?;
            size = self.size().await?;
        }
        self.count(Reason::Size, all);
        self.metrics
            .forward_skipped_rows_total
            .with_label_values(&["no_room"])
            .inc_by(all.not_forwarded);
        if all.not_forwarded > 0 {
            let n_rows = all.not_forwarded;
            tracing::error!(
                n_rows,
                bytes_max,
                "deleted calls that postgres.url does not have: the ledger has no room for more"
            );
        }
        Ok(())
    }

    /// Deletes damaged files, the oldest first, where they and the ledger have no room together.
    async fn delete_aside(&self, bytes_max: u64) -> Result<(), Trouble> {
        let FileSize { bytes, .. } = self.size().await?;
        let reader = self.ledger.reader();
        for old in aside::all(reader.path()).unwrap_or_default() {
            if bytes + bytes_aside(reader) <= bytes_max {
                return Ok(());
            }
            let path = old.path.display();
            match aside::delete(&old) {
                Ok(()) => tracing::warn!(
                    %path,
                    bytes_max,
                    "a damaged ledger was deleted to keep retention.max_size"
                ),
                Err(error) => tracing::warn!(%path, %error, "a damaged ledger cannot be deleted"),
            }
        }
        Ok(())
    }

    /// Why the file is still too large; `None` where it is not.
    async fn why_over(&self, bytes_max: u64, cut: &Cut) -> Result<Option<Because>, Trouble> {
        if self.size().await?.used_bytes() <= bytes_max {
            return Ok(None);
        }
        if cut.calls_bytes <= cut.calls_bytes_min {
            return Ok(Some(Because::Sums));
        }
        let oldest = self.ask(Reader::oldest_call).await?;
        let is_old = oldest.is_some_and(|at| {
            (at.as_unix_ms().div_euclid(HOUR_MS) + 1) * HOUR_MS <= cut.last_end_ms
        });
        Ok(Some(match is_old && self.ledger.forwards() {
            true => Because::Pending,
            false => Because::Recent,
        }))
    }

    /// Tells why the bound is not held, when that changes.
    fn tell(&mut self, bytes_max: u64, because: Option<Because>) {
        for each in Because::ALL {
            self.metrics
                .ledger_over_bound
                .with_label_values(&[each.name()])
                .set(i64::from(because == Some(each)));
        }
        if self.over == because {
            return;
        }
        self.over = because;
        match because {
            Some(because) => tracing::warn!(
                bytes_max,
                "the ledger is larger than retention.max_size: {}",
                because.in_words()
            ),
            None => tracing::info!(bytes_max, "the ledger is within retention.max_size again"),
        }
    }
}
