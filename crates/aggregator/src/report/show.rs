//! Amounts, counts and words as people read them; programs get them whole.

use crate::money::PICO_PER_USD;
use crate::shown::shown;

/// The word for calls without a tag.
const NONE: &str = "(none)";

/// Dollars: to the cent from ten cents on, to the millionth below.
pub fn usd(pico: i128) -> String {
    let sign = if pico < 0 { "-" } else { "" };
    format!("{sign}{}", magnitude(pico))
}

/// Dollars with a sign in any case.
pub fn signed_usd(pico: i128) -> String {
    let sign = if pico < 0 { "-" } else { "+" };
    format!("{sign}{}", magnitude(pico))
}

fn magnitude(pico: i128) -> String {
    const PER_USD: u128 = PICO_PER_USD.unsigned_abs() as u128;
    let pico = pico.unsigned_abs();
    let places: usize = if pico == 0 || pico >= PER_USD / 10 {
        2
    } else {
        6
    };
    let unit = PER_USD / 10_u128.pow(places as u32);
    let rounded = (pico + unit / 2) / unit;
    let per_dollar = 10_u128.pow(places as u32);
    let (dollars, rest) = (rounded / per_dollar, rounded % per_dollar);
    format!("${}.{rest:0places$}", grouped(dollars))
}

/// A whole number, by thousands.
pub fn count(n: impl Into<u128>) -> String {
    grouped(n.into())
}

/// A whole number that may be negative, by thousands.
pub fn whole(n: i128) -> String {
    let sign = if n < 0 { "-" } else { "" };
    format!("{sign}{}", grouped(n.unsigned_abs()))
}

/// So many requests.
pub fn requests(n: u64) -> String {
    match n {
        1 => "1 request".to_owned(),
        n => format!("{} requests", grouped(n.into())),
    }
}

/// `part / whole`, with a decimal where it is not whole.
pub fn tenths(part: u128, whole: u128) -> String {
    let whole = whole.max(1);
    let tenths = (part.saturating_mul(10) + whole / 2) / whole;
    match tenths % 10 {
        0 => grouped(tenths / 10),
        rest => format!("{}.{rest}", grouped(tenths / 10)),
    }
}

/// Tenths of a percent.
pub fn percent(per_mille: i128) -> String {
    let sign = if per_mille < 0 { "-" } else { "" };
    let n = per_mille.unsigned_abs();
    format!("{sign}{}.{} %", grouped(n / 10), n % 10)
}

/// Tenths of a percent with a sign in any case.
pub fn signed_percent(per_mille: i128) -> String {
    let sign = if per_mille < 0 { "" } else { "+" };
    format!("{sign}{}", percent(per_mille))
}

/// A value that may have come in a header: what acts on a terminal is written out.
pub fn key(value: &str) -> String {
    shown(value).into_owned()
}

/// The values that make a group, as one name.
pub fn keys(values: &[Option<String>]) -> String {
    let shown = values.iter().map(|value| match value.as_deref() {
        None | Some("") => NONE.to_owned(),
        Some(value) => key(value),
    });
    shown.collect::<Vec<_>>().join(" / ")
}

fn grouped(n: u128) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_as_people_read_them() {
        for (pico, shown) in [
            (0, "$0.00"),
            (1_234_567_890_000_000_000, "$1,234,567.89"),
            (99_999_999_999, "$0.100000"),
            (3_530_000_000, "$0.003530"),
            (-2_005_000_000_000, "-$2.01"),
            (400_000, "$0.000000"),
        ] {
            assert_eq!(usd(pico), shown, "{pico}");
        }
        assert_eq!(signed_usd(1_000_000_000_000), "+$1.00");
        assert_eq!(signed_percent(-125), "-12.5 %");
        assert_eq!(signed_percent(12_345), "+1,234.5 %");
        assert_eq!(tenths(10, 7), "1.4");
        assert_eq!(tenths(7_000_000, 7), "1,000,000");
        let hostile = "a\u{1b}[2J\u{202e}b".to_owned();
        assert_eq!(
            keys(&[None, Some(hostile)]),
            r"(none) / a\u{1b}[2J\u{202e}b"
        );
    }
}
