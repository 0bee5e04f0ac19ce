//! Fences for single calls and for what belongs together: a trace, a session, a user.

use std::collections::{BTreeMap, BTreeSet};

use rust_decimal::Decimal;

use crate::Enforce;

/// Parts of a minute by which the pace of calls is told.
const PARTS: usize = 12;
/// A part of a minute, in milliseconds.
const PART_MS: i64 = 60_000 / PARTS as i64;

/// One guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Its name, which no budget has.
    pub name: String,
    /// What a call must be for the guard to concern it.
    pub matches: BTreeMap<String, String>,
    /// What belongs together: `trace_id`, `session_id`, or any other fact or tag. A call that lacks
    /// one of them is judged by itself alone.
    pub per: BTreeSet<String>,
    /// What it does not let pass.
    pub bounds: Bounds,
    /// Whether such calls are refused; else somebody is told.
    pub refuses: bool,
    /// Calls with all these tags are spared.
    pub except: BTreeMap<String, String>,
    /// Whether it acts, or counts what it would have done.
    pub enforce: Enforce,
    /// Receivers that are told, by name.
    pub notify: Vec<String>,
}

/// What a guard does not let pass. What is absent has no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Tokens that one call sends, as far as its size tells.
    pub input_tokens: Option<u64>,
    /// US dollars that one call may cost at most.
    pub request_usd: Option<Decimal>,
    /// US dollars that calls which belong together have cost.
    pub usd: Option<Decimal>,
    /// Calls a minute which belong together.
    pub requests_per_minute: Option<u32>,
    /// Calls with the same body which belong together, within [`IDENTICAL_MS`].
    pub identical_requests: Option<u32>,
}

/// How long a body is remembered: an agent that loops comes back within minutes.
pub const IDENTICAL_MS: i64 = 600_000;

/// How many calls came within the last minute, to a twelfth of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    counts: [u32; PARTS + 1],
    /// The part of time that the last call came in.
    latest: i64,
}

impl Bounds {
    /// Whether any is of what belongs together.
    pub const fn look_beyond_a_call(&self) -> bool {
        self.usd.is_some()
            || self.requests_per_minute.is_some()
            || self.identical_requests.is_some()
    }

    /// Whether nothing is bound at all.
    pub fn is_empty(&self) -> bool {
        *self == Bounds::default()
    }
}

impl Pace {
    /// Calls within the last minute, and within the part of time that it began in.
    pub fn per_minute(&self, unix_ms: i64) -> u32 {
        let mut now = *self;
        now.advance(unix_ms);
        now.counts.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// Counts a call.
    pub fn count(&mut self, unix_ms: i64) {
        self.advance(unix_ms);
        if let Some(count) = self.counts.first_mut() {
            *count = count.saturating_add(1);
        }
    }

    /// Seconds until fewer than `bound` are counted.
    pub fn seconds_until_below(&self, bound: u32, unix_ms: i64) -> u64 {
        let mut then = unix_ms;
        for _ in 0..=PARTS {
            if self.per_minute(then) < bound {
                break;
            }
            then = (then.div_euclid(PART_MS) + 1) * PART_MS;
        }
        (then - unix_ms)
            .max(0)
            .unsigned_abs()
            .div_ceil(1_000)
            .max(1)
    }

    /// Moves on. A clock that went back counts in the present part.
    fn advance(&mut self, unix_ms: i64) {
        let part = unix_ms.div_euclid(PART_MS);
        let passed = usize::try_from(part - self.latest).unwrap_or(0);
        if passed > 0 {
            let emptied = passed.min(PARTS + 1);
            self.counts.rotate_right(emptied);
            self.counts.iter_mut().take(emptied).for_each(|n| *n = 0);
            self.latest = part;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_that_of_the_last_minute() {
        let mut pace = Pace::default();
        let noon = 1_800_000_000_000;
        for second in [0, 1, 30, 59] {
            pace.count(noon + second * 1_000);
        }
        for (second, n) in [
            (59, 4),
            (60, 4),
            (64, 4),
            (65, 2),
            (94, 2),
            (95, 1),
            (125, 0),
            (9_999, 0),
        ] {
            assert_eq!(
                pace.per_minute(noon + second * 1_000),
                n,
                "after {second} s"
            );
        }
        assert_eq!(pace.seconds_until_below(4, noon + 59_000), 6);
        assert_eq!(pace.seconds_until_below(1, noon + 59_500), 61);
        assert_eq!(pace.seconds_until_below(9, noon + 59_500), 1);
        // A clock that went back counts in the present.
        pace.count(noon);
        assert_eq!(pace.per_minute(noon + 59_000), 5);
    }

    proptest::proptest! {
        /// No minute ever has more calls than the pace says, and it forgets within five seconds.
        #[test]
        fn no_minute_is_told_too_slow(gaps in proptest::collection::vec(0_i64..20_000, 1..60)) {
            let mut pace = Pace::default();
            let (mut now, mut times) = (1_800_000_000_000_i64, Vec::new());
            for gap in gaps {
                now += gap;
                pace.count(now);
                times.push(now);
                let within = |ms: i64| times.iter().filter(|t| **t > now - ms).count() as u32;
                let told = pace.per_minute(now);
                assert!(told >= within(60_000) && told <= within(60_000 + PART_MS));
            }
        }
    }
}
