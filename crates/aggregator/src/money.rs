//! Amounts of money as the ledger keeps them: whole pico-dollars.

use std::fmt;

use rust_decimal::Decimal;

/// Pico-dollars in one US dollar.
pub const PICO_PER_USD: i64 = 1_000_000_000_000;

/// Decimal places of a dollar that a pico-dollar keeps.
const PICO_PLACES: u32 = 12;

/// The amount of one call, in pico-dollars: at most $9,223,372.036854775807 either way.
///
/// The one rounding that money undergoes here is [`PicoUsd::from_usd`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PicoUsd(i64);

/// A sum of amounts, in pico-dollars. 128 bits hold 18 quintillion of the largest [`PicoUsd`], so
/// that no sum over a ledger overflows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PicoSum(i128);

/// An amount that a [`PicoUsd`] cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{usd} USD is more than one call can cost (at most 9223372.036854775807)")]
pub struct AmountTooLarge {
    /// The amount.
    pub usd: Decimal,
}

impl PicoUsd {
    /// Decimal places of a dollar that a pico-dollar keeps.
    pub const PLACES: u32 = PICO_PLACES;

    /// No money.
    pub const ZERO: PicoUsd = PicoUsd(0);

    /// That many pico-dollars.
    pub const fn from_pico(pico: i64) -> PicoUsd {
        PicoUsd(pico)
    }

    /// The amount in pico-dollars.
    pub const fn as_pico(self) -> i64 {
        self.0
    }

    /// An exact amount, rounded once to the nearest pico-dollar, ties to even.
    pub fn from_usd(usd: Decimal) -> Result<PicoUsd, AmountTooLarge> {
        let scale = usd.scale();
        // Not through `Decimal`'s own product, which would round a long fraction a first time.
        let pico = match PICO_PLACES.checked_sub(scale) {
            Some(up) => usd.mantissa().checked_mul(10_i128.pow(up)),
            None => Some(divide_half_even(
                usd.mantissa(),
                10_i128.pow(scale - PICO_PLACES),
            )),
        };
        pico.and_then(|pico| i64::try_from(pico).ok())
            .map(PicoUsd)
            .ok_or(AmountTooLarge { usd })
    }

    /// The amount in US dollars, exactly.
    pub fn to_usd(self) -> Decimal {
        Decimal::new(self.0, PICO_PLACES).normalize()
    }
}

impl PicoSum {
    /// No money.
    pub const ZERO: PicoSum = PicoSum(0);

    /// That many pico-dollars.
    pub const fn from_pico(pico: i128) -> PicoSum {
        PicoSum(pico)
    }

    /// The sum in pico-dollars.
    pub const fn as_pico(self) -> i128 {
        self.0
    }

    /// The sum divided by that number, to the nearest pico-dollar, ties to even; by one for 0.
    pub fn per(self, n: u64) -> PicoSum {
        PicoSum(divide_half_even(self.0, i128::from(n.max(1))))
    }

    /// Adds an amount.
    pub fn add(&mut self, amount: PicoUsd) {
        self.0 += i128::from(amount.0);
    }
}

/// `dividend / divisor` to the nearest whole number, ties to even; the divisor is positive.
fn divide_half_even(dividend: i128, divisor: i128) -> i128 {
    let floor = dividend.div_euclid(divisor);
    let twice_rest = dividend.rem_euclid(divisor) * 2;
    let goes_up = twice_rest > divisor || (twice_rest == divisor && floor % 2 != 0);
    floor + i128::from(goes_up)
}

/// A plain decimal number of dollars, without an exponent and without trailing zeros.
fn write_usd(f: &mut fmt::Formatter<'_>, pico: i128) -> fmt::Result {
    const PER_USD: u128 = PICO_PER_USD.unsigned_abs() as u128;
    let sign = if pico < 0 { "-" } else { "" };
    let (whole, rest) = (pico.unsigned_abs() / PER_USD, pico.unsigned_abs() % PER_USD);
    if rest == 0 {
        return write!(f, "{sign}{whole}");
    }
    let fraction = format!("{rest:012}");
    write!(f, "{sign}{whole}.{}", fraction.trim_end_matches('0'))
}

impl fmt::Display for PicoUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_usd(f, i128::from(self.0))
    }
}

impl fmt::Display for PicoSum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_usd(f, self.0)
    }
}

impl From<PicoUsd> for PicoSum {
    fn from(amount: PicoUsd) -> PicoSum {
        PicoSum(i128::from(amount.0))
    }
}

impl std::ops::AddAssign for PicoSum {
    fn add_assign(&mut self, more: PicoSum) {
        self.0 += more.0;
    }
}

impl std::iter::Sum<PicoUsd> for PicoSum {
    fn sum<I: Iterator<Item = PicoUsd>>(amounts: I) -> PicoSum {
        PicoSum(amounts.map(|amount| i128::from(amount.0)).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rust_decimal::RoundingStrategy::MidpointNearestEven;

    #[test]
    fn one_rounding_ties_to_even() {
        for (usd, pico) in [
            ("0", Some("0")),
            ("0.0123", Some("0.0123")),
            ("12.50", Some("12.5")),
            ("-3", Some("-3")),
            ("0.0000000000005", Some("0")),
            ("0.0000000000015", Some("0.000000000002")),
            ("0.0000000000025", Some("0.000000000002")),
            ("-0.0000000000005", Some("0")),
            ("-0.0000000000015", Some("-0.000000000002")),
            // Twice rounded, first to 28 digits and then to 12, this would be 0.000000000002.
            ("0.0000000000014999999999999999", Some("0.000000000001")),
            ("9223372.036854775807", Some("9223372.036854775807")),
            ("9223372.036854775808", None),
            ("79228162514264337593543950335", None),
        ] {
            let got = PicoUsd::from_usd(usd.parse().unwrap()).ok();
            assert_eq!(got.map(|p| p.to_string()).as_deref(), pico, "{usd}");
        }
    }

    #[test]
    fn sums_go_beyond_what_one_call_can_cost() {
        let sum: PicoSum = [PicoUsd::from_pico(i64::MAX); 3].into_iter().sum();
        assert_eq!(sum.to_string(), "27670116.110564327421");
    }

    proptest! {
        #[test]
        fn dollars_and_back(pico: i64) {
            let amount = PicoUsd::from_pico(pico);
            prop_assert_eq!(PicoUsd::from_usd(amount.to_usd()), Ok(amount));
            let text: Decimal = amount.to_string().parse().unwrap();
            prop_assert_eq!(PicoUsd::from_usd(text), Ok(amount));
        }

        #[test]
        fn rounding_agrees_with_decimals_own(
            mantissa in -1_i64 << 60..1_i64 << 60,
            scale in 0_u32..=28,
        ) {
            let usd = Decimal::new(mantissa, scale);
            let rounded = usd.round_dp_with_strategy(12, MidpointNearestEven);
            prop_assert_eq!(PicoUsd::from_usd(usd).ok(), PicoUsd::from_usd(rounded).ok());
        }
    }
}
