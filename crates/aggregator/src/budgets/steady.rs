//! How far the time of day is believed where something is forgotten by it: a clock may jump ahead,
//! and back again when somebody sets it right.

/// How far ahead of the time that has passed the clock may be, milliseconds. It is set by more
/// where a machine starts without one.
const LEAP_MS: i64 = 3_600_000;
/// How long one that jumped further is not believed, milliseconds: a day, in which somebody may
/// set it right.
const DOUBT_MS: u64 = 86_400_000;

/// The time of day as it was last believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steady {
    unix_ms: i64,
    since_boot_ms: u64,
}

impl Steady {
    /// The clock is believed at the start.
    pub fn new(unix_ms: i64, since_boot_ms: u64) -> Steady {
        Steady {
            unix_ms,
            since_boot_ms,
        }
    }

    /// The time of day, or what it should be by the time that has passed, where the clock says
    /// that it is later by too much.
    pub fn believed(&mut self, unix_ms: i64, since_boot_ms: u64) -> i64 {
        let passed_ms = since_boot_ms.saturating_sub(self.since_boot_ms);
        let expected_ms = self.unix_ms.saturating_add_unsigned(passed_ms);
        if unix_ms > expected_ms.saturating_add(LEAP_MS) && passed_ms < DOUBT_MS {
            return expected_ms;
        }
        *self = Steady::new(unix_ms, since_boot_ms);
        unix_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON_MS: i64 = 1_800_000_000_000;
    const DAY_MS: i64 = 86_400_000;

    #[test]
    fn a_leap_ahead_is_not_believed_for_a_day() {
        let mut steady = Steady::new(NOON_MS, 1_000);
        for (passed_ms, said, believed) in [
            (10_000, NOON_MS + 10_000, NOON_MS + 10_000),
            (20_000, NOON_MS + LEAP_MS, NOON_MS + LEAP_MS),
            (30_000, NOON_MS + 9 * DAY_MS, NOON_MS + LEAP_MS + 10_000),
            (40_000, NOON_MS + 40_000, NOON_MS + 40_000),
            (50_000, NOON_MS - DAY_MS, NOON_MS - DAY_MS),
            (60_000, NOON_MS, NOON_MS - DAY_MS + 10_000),
            (50_000 + DOUBT_MS, NOON_MS + DAY_MS, NOON_MS + DAY_MS),
        ] {
            assert_eq!(
                steady.believed(said, 1_000 + passed_ms),
                believed,
                "{passed_ms}"
            );
        }
    }
}
