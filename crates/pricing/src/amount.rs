//! Decimals that are exact or refused, never rounded in silence.

use std::fmt;

use rust_decimal::Decimal;

/// Decimal places that a rate or a factor may have; with this many a product still fits.
pub const MONEY_DECIMALS_MAX: u32 = 12;

/// Characters that an amount of money may have; beyond it no provider's price is written.
const MONEY_CHARS_MAX: usize = 24;

/// Rates stand for a million tokens: a line is moved down by this many decimal places.
pub const PER_MILLION_SCALE: u32 = 6;

/// Why a text is no amount of money.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMoney {
    /// Not digits with at most one point.
    #[error("expected a decimal such as \"0.25\", or two with a stroke such as \"0.50/12\"")]
    NotDecimal,
    /// Too many decimal places or digits.
    #[error("more than {MONEY_DECIMALS_MAX} decimal places, or more digits than any price has")]
    TooLong,
    /// A stroke with nothing to divide by.
    #[error("the number under the stroke is zero")]
    DivisorZero,
}

/// US dollars for a million tokens or for one unit: a decimal, or the quotient of two decimals
/// where the provider's price repeats for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    numerator: Decimal,
    divisor: Decimal,
}

impl Rate {
    /// A rate of that decimal.
    pub fn of(decimal: Decimal) -> Rate {
        Rate {
            numerator: decimal.normalize(),
            divisor: Decimal::ONE,
        }
    }

    /// Reads `0.25` or `0.50/12`; no sign, no exponent, at most [`MONEY_DECIMALS_MAX`] places.
    pub fn parse(text: &str) -> Result<Rate, BadMoney> {
        let Some((over, under)) = text.split_once('/') else {
            return Ok(Rate::of(plain(text)?));
        };
        let (numerator, divisor) = (plain(over)?, plain(under)?);
        if divisor.is_zero() {
            return Err(BadMoney::DivisorZero);
        }
        Ok(Rate { numerator, divisor })
    }

    /// Whether the rate is nothing.
    pub fn is_zero(self) -> bool {
        self.numerator.is_zero()
    }

    /// The rate as one decimal; a repeating one is cut after 28 digits.
    pub fn as_decimal(self) -> Decimal {
        self.divide(self.numerator).unwrap_or(self.numerator)
    }

    /// `amount x rate x times`, moved down by `scale` decimal places. Exact for a decimal rate;
    /// a quotient is divided last, once, to 28 digits. `None` where it does not fit.
    pub fn charge(self, amount: Decimal, times: Decimal, scale: u32) -> Option<Decimal> {
        let product = exact_product(exact_product(amount, self.numerator)?, times)?;
        let moved = shifted(product, scale)?;
        self.divide(moved)
    }

    fn divide(self, product: Decimal) -> Option<Decimal> {
        if self.divisor == Decimal::ONE {
            return Some(product);
        }
        product.checked_div(self.divisor)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.divisor == Decimal::ONE {
            true => write!(f, "{}", self.numerator),
            false => write!(f, "{}/{}", self.numerator, self.divisor),
        }
    }
}

/// A decimal without sign or exponent, as people write money.
pub fn plain(text: &str) -> Result<Decimal, BadMoney> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return Err(BadMoney::NotDecimal);
    }
    if fraction.len() > MONEY_DECIMALS_MAX as usize || text.len() > MONEY_CHARS_MAX {
        return Err(BadMoney::TooLong);
    }
    let decimal = Decimal::from_str_exact(text).map_err(|_| BadMoney::TooLong)?;
    Ok(decimal.normalize())
}

/// The product with every digit, or `None` where 96 bits or 28 places do not hold it.
/// (`Decimal`'s own product rounds instead.)
pub fn exact_product(a: Decimal, b: Decimal) -> Option<Decimal> {
    let mantissa = a.mantissa().checked_mul(b.mantissa())?;
    Decimal::try_from_i128_with_scale(mantissa, a.scale() + b.scale()).ok()
}

/// The sum with every digit, or `None`. (`Decimal`'s own sum rounds instead.)
pub fn exact_sum(a: Decimal, b: Decimal) -> Option<Decimal> {
    let scale = a.scale().max(b.scale());
    let sum = mantissa_at(a, scale)?.checked_add(mantissa_at(b, scale)?)?;
    if let Ok(exact) = Decimal::try_from_i128_with_scale(sum, scale) {
        return Some(exact);
    }
    // Quotients of 28 digits may leave no room: only then is the sum cut, in its last digits.
    a.checked_add(b)
}

fn mantissa_at(a: Decimal, scale: u32) -> Option<i128> {
    let factor = 10i128.checked_pow(scale - a.scale())?;
    a.mantissa().checked_mul(factor)
}

fn shifted(a: Decimal, places: u32) -> Option<Decimal> {
    Decimal::try_from_i128_with_scale(a.mantissa(), a.scale() + places).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_plain_decimals() {
        for (text, want) in [
            ("3", Ok("3")),
            ("3.750", Ok("3.75")),
            ("0.000000000001", Ok("0.000000000001")),
            ("0.0000000000001", Err(BadMoney::TooLong)),
            ("-1", Err(BadMoney::NotDecimal)),
            ("+1", Err(BadMoney::NotDecimal)),
            ("1e3", Err(BadMoney::NotDecimal)),
            (".5", Err(BadMoney::NotDecimal)),
            ("5.", Err(BadMoney::NotDecimal)),
            ("1_000", Err(BadMoney::NotDecimal)),
            ("", Err(BadMoney::NotDecimal)),
            ("99999999999999999999999999999", Err(BadMoney::TooLong)),
        ] {
            let got = plain(text).map(|d| d.to_string());
            assert_eq!(got, want.map(str::to_owned), "{text}");
        }
    }

    #[test]
    fn quotients_are_kept_until_the_line() {
        let rate = Rate::parse("0.50/12").unwrap();
        let dozen_million = Decimal::from(12_000_000u64);
        let usd = rate.charge(dozen_million, Decimal::ONE, PER_MILLION_SCALE);
        assert_eq!(usd, Some(Decimal::new(5, 1)));
        assert_eq!(Rate::parse("1/0"), Err(BadMoney::DivisorZero));
        assert_eq!(Rate::parse("1/2/3"), Err(BadMoney::NotDecimal));
    }

    #[test]
    fn products_are_exact_or_refused() {
        let rate = Rate::parse("0.003625").unwrap();
        let times = plain("1.1").unwrap();
        let usd = rate.charge(Decimal::ONE, times, PER_MILLION_SCALE);
        assert_eq!(usd.unwrap().to_string(), "0.0000000039875");
        let huge = Rate::parse("12345678901.123456789012").unwrap();
        assert_eq!(huge.charge(Decimal::from(u64::MAX), times, 6), None);
    }

    #[test]
    fn sums_keep_every_digit() {
        let a = Decimal::new(1, 0);
        let b = Decimal::new(1, 28);
        assert_eq!(
            exact_sum(a, b).unwrap().to_string(),
            "1.0000000000000000000000000001"
        );
        assert_eq!(exact_sum(Decimal::MAX, Decimal::MAX), None);
    }
}
