//! How one model's reported output compares with what was expected of its text.
//!
//! The quotient of two sums, in integers: each answer counts by relative error and not by length,
//! older ones less and less, and a prior of 1 stands for the family's default until a few answers
//! have come. One number and no line: what an answer costs beside its text is the family's, since
//! a line through the few short answers of one model runs far off among long ones.

/// Fixed point: tokens are counted in thousandths.
const MILLI: i128 = 1000;

/// The weight of an observation of one token.
const WEIGHT: i128 = 1_000_000_000;

/// Below this many tokens, an answer counts less: a few tokens more or less say little.
const SMALL_TOKENS: i128 = 10;

/// What is left of older observations when a new one comes: fifteen sixteenths, so that about the
/// last two dozen answers count.
const KEPT: (i128, i128) = (15, 16);

/// The weight of the default: that of one long answer.
const PRIOR: i128 = WEIGHT * MILLI / 2;

/// The lowest quotient that is believed, in thousandths.
const QUOTIENT_MIN: i128 = 200;

/// The highest.
const QUOTIENT_MAX: i128 = 8000;

/// The most tokens that an observation may have; beyond it is no answer of a model.
const OBSERVED_TOKENS_MAX: u64 = 4_000_000;

/// Weighted sums over the observations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ratio {
    reported: i128,
    expected: i128,
}

impl Ratio {
    /// Learns that so many tokens were reported (`n_tokens`) where `expected_milli` thousandths
    /// were expected.
    pub(super) fn learn(&mut self, expected_milli: u64, n_tokens: u64) {
        if n_tokens > OBSERVED_TOKENS_MAX || expected_milli > OBSERVED_TOKENS_MAX * 1000 {
            return;
        }
        let (expected, reported) = (i128::from(expected_milli), i128::from(n_tokens) * MILLI);
        let weight = WEIGHT / ((expected + reported) / MILLI + SMALL_TOKENS);
        self.reported = self.reported * KEPT.0 / KEPT.1 + weight * reported;
        self.expected = self.expected * KEPT.0 / KEPT.1 + weight * expected;
    }

    /// The tokens where so many thousandths are expected, rounded up.
    pub(super) fn tokens(&self, expected_milli: u64) -> u64 {
        let quotient = (self.reported + PRIOR) * MILLI / (self.expected + PRIOR);
        let quotient = quotient.clamp(QUOTIENT_MIN, QUOTIENT_MAX);
        let milli = i128::from(expected_milli) * quotient / MILLI;
        u64::try_from((milli + MILLI - 1) / MILLI).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(observations: &[(u64, u64)]) -> Ratio {
        let mut ratio = Ratio::default();
        for (expected, n_tokens) in observations {
            ratio.learn(expected * 1000, *n_tokens);
        }
        ratio
    }

    #[test]
    fn without_observations_the_default_holds() {
        assert_eq!(Ratio::default().tokens(100_000), 100);
        assert_eq!(Ratio::default().tokens(100_001), 101);
        assert_eq!(Ratio::default().tokens(0), 0);
    }

    #[test]
    fn density_is_learnt_and_unlearnt() {
        let dense = ratio(&[(100, 200), (50, 100), (400, 800), (20, 40)].repeat(8));
        assert!((180..=200).contains(&dense.tokens(100_000)), "{dense:?}");
        let mut changed = dense;
        for _ in 0..60 {
            changed.learn(100_000, 100);
        }
        assert!((98..=106).contains(&changed.tokens(100_000)), "{changed:?}");
    }

    #[test]
    fn one_odd_answer_does_not_rule() {
        let odd = ratio(&[(100, 10)]);
        assert!((40..=75).contains(&odd.tokens(100_000)), "{odd:?}");
        let tiny = ratio(&[(1, 9)]);
        assert!((100..=175).contains(&tiny.tokens(100_000)), "{tiny:?}");
    }

    #[test]
    fn absurd_observations_break_nothing() {
        let extremes = [
            (0, 0),
            (0, u64::MAX),
            (u64::MAX / 1000, 1),
            (0, 4_000_000),
            (4_000_000, 0),
        ];
        let taught = ratio(&extremes.repeat(50));
        assert!(taught.tokens(1_000_000) <= 8000);
        assert!(taught.tokens(u64::MAX) > 0);
    }
}
