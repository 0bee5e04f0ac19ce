//! How much a budget allows, and in which unit.

use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;

/// The most that may be spent in one window. Always more than nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// US dollars.
    Usd(Decimal),
    /// Tokens, all buckets together.
    Tokens(u64),
    /// Requests.
    Requests(u64),
}

/// Why a text is no limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// There is no unit behind the number.
    #[error("{text:?} has no unit; write \"200 USD\", \"5M tokens\" or \"10000 requests\"")]
    NoUnit {
        /// What was written.
        text: String,
    },
    /// The unit is none that can be counted.
    #[error("unknown unit {unit:?}; expected \"USD\", \"tokens\" or \"requests\"")]
    UnknownUnit {
        /// What was written.
        unit: String,
    },
    /// The number is none, or too large.
    #[error("{number:?} is no amount; write plain digits, with \"k\", \"M\" or \"G\" if you like")]
    NotANumber {
        /// What was written.
        number: String,
    },
    /// Nothing, or less, could ever be spent.
    #[error("{text:?} allows nothing; a limit is more than 0 (to stop calls, deny them at a tier)")]
    NotPositive {
        /// What was written.
        text: String,
    },
    /// Half a token or half a request.
    #[error("{text:?} is not whole; tokens and requests are counted in whole numbers")]
    NotWhole {
        /// What was written.
        text: String,
    },
}

/// Units of a store in one US dollar: spend is counted in millionths of a dollar.
const UNITS_PER_USD: i128 = 1_000_000;
/// Pico-dollars, in which ledgers count, in one unit of a store.
const PICO_PER_UNIT: i128 = 1_000_000;
/// Decimal places of a dollar that a unit keeps.
const UNIT_PLACES: u32 = 6;

impl Limit {
    /// The word for its unit: `USD`, `tokens` or `requests`.
    pub const fn unit(&self) -> &'static str {
        match self {
            Limit::Usd(_) => "USD",
            Limit::Tokens(_) => "tokens",
            Limit::Requests(_) => "requests",
        }
    }

    /// That share of the limit in a store's units (millionths of a dollar, tokens, requests),
    /// rounded down.
    pub fn units(&self, share: Decimal) -> u64 {
        self.scaled(share).map_or(u64::MAX, |units| {
            u64::try_from(units.floor()).unwrap_or(u64::MAX)
        })
    }

    /// The same, rounded up: the least spend that has reached the share.
    pub fn units_up(&self, share: Decimal) -> u64 {
        self.scaled(share).map_or(u64::MAX, |units| {
            u64::try_from(units.ceil()).unwrap_or(u64::MAX)
        })
    }

    fn scaled(&self, share: Decimal) -> Option<Decimal> {
        let per_unit = match self {
            Limit::Usd(_) => Decimal::from_i128_with_scale(UNITS_PER_USD, 0),
            Limit::Tokens(_) | Limit::Requests(_) => Decimal::ONE,
        };
        self.amount().checked_mul(share)?.checked_mul(per_unit)
    }

    /// What a ledger counts (pico-dollars, tokens, requests) in a store's units, rounded up: one
    /// holder is off by less than a unit, however many calls there were.
    pub fn units_of(&self, amount: i128) -> u64 {
        let units = match self {
            Limit::Usd(_) => {
                let rest = i128::from(amount.rem_euclid(PICO_PER_UNIT) > 0);
                amount.div_euclid(PICO_PER_UNIT) + rest
            }
            Limit::Tokens(_) | Limit::Requests(_) => amount,
        };
        u64::try_from(units.max(0)).unwrap_or(u64::MAX)
    }

    /// Units of a store as a plain number of the limit's unit.
    pub fn amount_of(&self, units: u64) -> Decimal {
        match self {
            Limit::Usd(_) => {
                Decimal::from_i128_with_scale(i128::from(units), UNIT_PLACES).normalize()
            }
            Limit::Tokens(_) | Limit::Requests(_) => Decimal::from(units),
        }
    }

    /// The limit as a plain number of its unit.
    pub fn amount(&self) -> Decimal {
        match self {
            Limit::Usd(usd) => *usd,
            Limit::Tokens(n) | Limit::Requests(n) => Decimal::from(*n),
        }
    }
}

impl FromStr for Limit {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Limit, LimitError> {
        let text = text.trim();
        let (number, unit) =
            text.split_once(char::is_whitespace)
                .ok_or_else(|| LimitError::NoUnit {
                    text: text.to_owned(),
                })?;
        let amount = parse_amount(number).ok_or_else(|| LimitError::NotANumber {
            number: number.to_owned(),
        })?;
        if amount <= Decimal::ZERO {
            return Err(LimitError::NotPositive {
                text: text.to_owned(),
            });
        }
        let whole = || {
            let not_whole = || LimitError::NotWhole {
                text: text.to_owned(),
            };
            if amount.fract().is_zero() {
                u64::try_from(amount).map_err(|_| not_whole())
            } else {
                Err(not_whole())
            }
        };
        match unit.trim().to_ascii_lowercase().as_str() {
            "usd" => Ok(Limit::Usd(amount.normalize())),
            "tokens" => Ok(Limit::Tokens(whole()?)),
            "requests" => Ok(Limit::Requests(whole()?)),
            _ => Err(LimitError::UnknownUnit {
                unit: unit.trim().to_owned(),
            }),
        }
    }
}

/// `200`, `0.5`, `5M`: digits with an optional decimal multiplier.
fn parse_amount(text: &str) -> Option<Decimal> {
    let (digits, scale) = match text.chars().last()? {
        'k' | 'K' => (text.get(..text.len() - 1)?, 1_000_u64),
        'M' => (text.get(..text.len() - 1)?, 1_000_000),
        'G' => (text.get(..text.len() - 1)?, 1_000_000_000),
        _ => (text, 1),
    };
    Decimal::from_str_exact(digits)
        .ok()?
        .checked_mul(Decimal::from(scale))
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Usd(usd) => write!(f, "{usd} USD"),
            Limit::Tokens(n) => write!(f, "{n} tokens"),
            Limit::Requests(n) => write!(f, "{n} requests"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        for (text, shown) in [
            ("200 USD", "200 USD"),
            ("0.50 usd", "0.5 USD"),
            ("5M tokens", "5000000 tokens"),
            ("1.5k tokens", "1500 tokens"),
            ("10000 requests", "10000 requests"),
        ] {
            assert_eq!(
                text.parse::<Limit>().map(|l| l.to_string()).as_deref(),
                Ok(shown)
            );
        }
    }

    #[test]
    fn units_never_flatter() {
        let limit = |text: &str| text.parse::<Limit>().unwrap();
        let share = Decimal::new(333, 3);
        for (text, down, up) in [
            ("1 USD", 333_000, 333_000),
            ("0.0000019 USD", 0, 1),
            ("100 tokens", 33, 34),
            ("10000 requests", 3_330, 3_330),
        ] {
            let limit = limit(text);
            assert_eq!(
                (limit.units(share), limit.units_up(share)),
                (down, up),
                "{text}"
            );
        }
        for (text, amount, units) in [
            ("1 USD", 1, 1),
            ("1 USD", 1_000_000, 1),
            ("1 USD", 1_000_001, 2),
            ("1 USD", -5, 0),
            ("1 USD", i128::MAX, u64::MAX),
            ("1 tokens", 7, 7),
        ] {
            assert_eq!(limit(text).units_of(amount), units, "{text} {amount}");
        }
        assert_eq!(limit("1 USD").amount_of(1_250_000).to_string(), "1.25");
    }

    #[test]
    fn what_is_no_limit_says_why() {
        for (text, why) in [
            (
                "200",
                r#""200" has no unit; write "200 USD", "5M tokens" or "10000 requests""#,
            ),
            (
                "5 EUR",
                r#"unknown unit "EUR"; expected "USD", "tokens" or "requests""#,
            ),
            (
                "many tokens",
                r#""many" is no amount; write plain digits, with "k", "M" or "G" if you like"#,
            ),
            (
                "0 USD",
                r#""0 USD" allows nothing; a limit is more than 0 (to stop calls, deny them at a tier)"#,
            ),
            (
                "-3 USD",
                r#""-3 USD" allows nothing; a limit is more than 0 (to stop calls, deny them at a tier)"#,
            ),
            (
                "1.5 requests",
                r#""1.5 requests" is not whole; tokens and requests are counted in whole numbers"#,
            ),
        ] {
            assert_eq!(
                text.parse::<Limit>().map_err(|e| e.to_string()),
                Err(why.to_owned())
            );
        }
    }
}
