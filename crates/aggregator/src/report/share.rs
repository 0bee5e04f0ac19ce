//! Proportions of whole numbers, without floating point.

/// Factors larger than this are halved together with the divisor: 62 bits each leave room for
/// their product, and what is lost is beyond the 18th digit.
const FACTOR_MAX: u128 = 1 << 62;

/// `amount * part / whole` to the nearest whole number; nothing of nothing is nothing.
pub fn of(amount: i128, part: u128, whole: u128) -> i128 {
    let (mut part, mut whole) = (part, whole);
    while part.max(whole) > FACTOR_MAX {
        part >>= 1;
        whole >>= 1;
    }
    let (Ok(part), Ok(whole)) = (i128::try_from(part), i128::try_from(whole)) else {
        return 0;
    };
    if whole == 0 {
        return 0;
    }
    let (times, rest) = (amount.div_euclid(whole), amount.rem_euclid(whole));
    times
        .saturating_mul(part)
        .saturating_add((rest * part + whole / 2).div_euclid(whole))
}

/// `part / whole` in tenths of a percent, to the nearest; `None` of nothing.
pub fn per_mille(part: i128, whole: i128) -> Option<i128> {
    if whole == 0 {
        return None;
    }
    let twice = part.checked_mul(2_000)?.checked_div(whole)?;
    Some((twice + twice.signum()) / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn proportions_are_rounded_once() {
        for (amount, part, whole, share) in [
            (10, 1, 3, 3),
            (10, 2, 3, 7),
            (-10, 1, 3, -3),
            (1, 1, 2, 1),
            (7, 0, 5, 0),
            (7, 5, 0, 0),
            (
                1_000_000_000_000_000_000_000,
                1 << 90,
                1 << 91,
                500_000_000_000_000_000_000,
            ),
        ] {
            assert_eq!(
                of(amount, part, whole),
                share,
                "{amount} * {part} / {whole}"
            );
        }
        assert_eq!(per_mille(1, 3), Some(333));
        assert_eq!(per_mille(2, 3), Some(667));
        assert_eq!(per_mille(-1, 8), Some(-125));
        assert_eq!(per_mille(1, 0), None);
    }

    proptest! {
        #[test]
        fn a_part_and_the_rest_are_the_whole(
            amount in -(1_i128 << 90)..1_i128 << 90,
            part in 0_u128..1 << 60,
            more in 1_u128..1 << 60,
        ) {
            let whole = part + more;
            let sum = of(amount, part, whole) + of(amount, more, whole);
            prop_assert!((sum - amount).abs() <= 1, "{sum} of {amount}");
        }
    }
}
