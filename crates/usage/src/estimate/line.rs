//! The straight line through what was expected and what was reported, for one model.
//!
//! Expected is what the family's default makes of the relayed text; reported is what the provider
//! then stated. The line's offset is what every answer costs beside its text (framing, hidden
//! preludes), its slope how dense the model's tokens are. Weighted least squares, in integers:
//! answers count by relative error, older ones less and less, and a prior stands for the default
//! until a few answers have come.

/// Fixed point: tokens are counted in thousandths.
const MILLI: i128 = 1000;

/// The weight of an observation that has no size.
const WEIGHT: i128 = 1_000_000_000_000;

/// Below this many tokens, answers are judged by absolute and not by relative error.
const SMALL_TOKENS: i128 = 10;

/// What is left of older observations when a new one comes: seven eighths, so that about the last
/// dozen answers count.
const KEPT: (i128, i128) = (7, 8);

/// The weight of the prior's offset: about that of one answer of twenty tokens.
const PRIOR_OFFSET: i128 = WEIGHT / 1000;

/// The weight of the prior's slope of 1: about that of one long answer.
const PRIOR_SLOPE: i128 = WEIGHT / 10;

/// The flattest line that is believed, in thousandths.
const SLOPE_MIN: i128 = 200;

/// The steepest.
const SLOPE_MAX: i128 = 8000;

/// The most tokens that an observation may have; beyond it is no answer of a model.
const OBSERVED_TOKENS_MAX: u64 = 4_000_000;

/// Weighted sums over the observations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    weight: i128,
    x: i128,
    xx: i128,
    y: i128,
    xy: i128,
}

impl Line {
    /// Learns that so many tokens were reported (`n_tokens`) where `expected_milli` thousandths
    /// were expected.
    pub(super) fn learn(&mut self, expected_milli: u64, n_tokens: u64) {
        if n_tokens > OBSERVED_TOKENS_MAX || expected_milli > OBSERVED_TOKENS_MAX * 1000 {
            return;
        }
        let (x, y) = (i128::from(expected_milli), i128::from(n_tokens) * MILLI);
        let size = (x + y) / MILLI + SMALL_TOKENS;
        let weight = WEIGHT / (size * size);
        for (sum, value) in [
            (&mut self.weight, weight),
            (&mut self.x, weight * x / MILLI),
            (&mut self.xx, weight * x / MILLI * x / MILLI),
            (&mut self.y, weight * y / MILLI),
            (&mut self.xy, weight * x / MILLI * y / MILLI),
        ] {
            *sum = *sum * KEPT.0 / KEPT.1 + value;
        }
    }

    /// The tokens of an answer of which so many thousandths are expected, rounded up;
    /// `offset_milli` is what the default puts at the line's beginning.
    pub(super) fn tokens(&self, expected_milli: u64, offset_milli: u64) -> u64 {
        let (offset, slope) = self.fit(i128::from(offset_milli));
        let milli = offset + slope * i128::from(expected_milli) / MILLI;
        let n_tokens = (milli.max(0) + MILLI - 1) / MILLI;
        u64::try_from(n_tokens).unwrap_or(u64::MAX)
    }

    /// Offset and slope, in thousandths.
    fn fit(&self, prior_offset: i128) -> (i128, i128) {
        let a11 = self.weight + PRIOR_OFFSET;
        let a12 = self.x;
        let a22 = self.xx + PRIOR_SLOPE;
        let b1 = self.y + PRIOR_OFFSET * prior_offset / MILLI;
        let b2 = self.xy + PRIOR_SLOPE;
        let determinant = (a11 * a22 - a12 * a12).max(1);
        let slope = ratio(a11 * b2 - a12 * b1, determinant).clamp(SLOPE_MIN, SLOPE_MAX);
        // With the slope that is believed, the offset that fits it.
        let offset = ratio(b1 - a12 * slope / MILLI, a11);
        if offset >= 0 {
            return (offset, slope);
        }
        (0, ratio(b2, a22.max(1)).clamp(SLOPE_MIN, SLOPE_MAX))
    }
}

/// A quotient in thousandths; what is too large for the multiplication is divided first.
fn ratio(dividend: i128, divisor: i128) -> i128 {
    match dividend.checked_mul(MILLI) {
        Some(milli) => milli / divisor,
        None => dividend / (divisor / MILLI).max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(observations: &[(u64, u64)]) -> Line {
        let mut line = Line::default();
        for (expected, n_tokens) in observations {
            line.learn(expected * 1000, *n_tokens);
        }
        line
    }

    #[test]
    fn a_line_without_observations_is_the_default() {
        assert_eq!(Line::default().tokens(100_000, 0), 100);
        assert_eq!(Line::default().tokens(100_000, 3000), 103);
        assert_eq!(Line::default().tokens(0, 0), 0);
    }

    #[test]
    fn slope_and_offset_are_learnt_and_unlearnt() {
        let dense = [(100, 210), (50, 110), (400, 810), (200, 410)].repeat(5);
        let taught = line(&dense);
        let close = |got: u64, wanted: u64| got.abs_diff(wanted) * 4 <= wanted;
        assert!(close(taught.tokens(300_000, 0), 610), "{taught:?}");
        assert!(close(taught.tokens(20_000, 0), 50), "{taught:?}");
        let mut changed = taught;
        for _ in 0..40 {
            changed.learn(100_000, 100);
            changed.learn(300_000, 300);
        }
        assert!(close(changed.tokens(200_000, 0), 200), "{changed:?}");
    }

    #[test]
    fn absurd_observations_break_nothing() {
        let extremes = [
            (0, 0),
            (0, u64::MAX),
            (u64::MAX / 1000, 1),
            (4_000_000, 4_000_000),
            (0, 4_000_000),
            (4_000_000, 0),
        ];
        let taught = line(&extremes.repeat(50));
        assert!(taught.tokens(1_000_000, 0) <= 1_000_000_000);
        assert!(taught.tokens(u64::MAX, u64::MAX) > 0);
    }
}
