//! Whether the clock is believed. One that jumped ahead would have every call deleted for its age.

use tollmesh_wire::Timestamp;

use super::{HOUR_MS, Keeper, Trouble};
use crate::ledger::Reader;
use crate::ledger::clock::Believed;

/// How far the clock may be ahead of when it was last believed, at most; half of what calls are kept
/// where that is less, so that a jump which is believed cannot reach what is new. No call is deleted
/// for its age beyond it: a jump is one possibility, and that nobody served this ledger for so long is
/// the other.
pub const CLOCK_LEAP_MS: i64 = 2 * 24 * HOUR_MS;

/// Looks, one a minute, after which a clock is believed that was not: a day in which somebody may set
/// it right.
pub const CLOCK_DOUBTS_MAX: u32 = 24 * 60;

impl Keeper {
    /// Whether calls may be deleted for their age now.
    pub(super) async fn believes(&mut self, now: Timestamp) -> Result<bool, Trouble> {
        let unheard_of = Believed {
            at: now,
            doubts: 0,
            is_noted: false,
        };
        let known = self.ask(Reader::believed_clock).await?;
        let known = known.unwrap_or(unheard_of);
        let ahead_ms = now.as_unix_ms().saturating_sub(known.at.as_unix_ms());
        let half_ms = i64::from(self.retention.days) * 12 * HOUR_MS;
        let is_ahead = ahead_ms > CLOCK_LEAP_MS.min(half_ms) && known.doubts < CLOCK_DOUBTS_MAX;
        let ahead_seconds = if is_ahead { ahead_ms / 1_000 } else { 0 };
        self.metrics.ledger_clock_ahead_seconds.set(ahead_seconds);
        if is_ahead {
            let doubts = known.doubts + 1;
            self.ledger.note_clock(Believed { doubts, ..known }).await?;
        } else if known.doubts > 0 || ahead_ms.abs() >= HOUR_MS || !known.is_noted {
            self.ledger.note_clock(unheard_of).await?;
        }
        if is_ahead && !self.doubts {
            tracing::warn!(
                ahead_seconds,
                last_believed = %known.at,
                "the clock is far ahead of when it was last believed: for a day nothing is deleted \
                 for its age; set the clock right if it is wrong"
            );
        }
        self.doubts = is_ahead;
        Ok(!is_ahead)
    }
}
