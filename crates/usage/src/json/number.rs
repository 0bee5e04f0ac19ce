//! Numbers as JSON writes them, read without floating point.

/// The largest count that is believed: beyond 2^53 most JSON writers have lost digits.
pub const COUNT_MAX: u64 = 1 << 53;

/// So many digits are in a `u64` whatever they are, and no count that is believed has more.
const PLAIN_DIGITS_MAX: usize = 16;

/// Longest run of digits that an exponent may ask for; anything longer is no amount of money.
const DECIMAL_DIGITS_MAX: usize = 40;

/// The count that a JSON number states. Integral floats (`6.0`, `1e3`) are counts; negatives,
/// fractions and anything above [`COUNT_MAX`] are `None`.
pub fn count_of(text: &str) -> Option<u64> {
    match plain_count(text.as_bytes()) {
        Some(count) => Some(count).filter(|n| *n <= COUNT_MAX),
        None => unusual_count(text),
    }
}

/// A count as nearly all are written: a few digits, and nothing else.
fn plain_count(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > PLAIN_DIGITS_MAX {
        return None;
    }
    digits.iter().try_fold(0, |n: u64, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then(|| n * 10 + u64::from(digit))
    })
}

#[cold]
fn unusual_count(text: &str) -> Option<u64> {
    let plain = decimal_of(text)?;
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    if fraction.bytes().any(|b| b != b'0') {
        return None;
    }
    let whole = match whole.strip_prefix('-') {
        Some(digits) if digits.bytes().all(|b| b == b'0') => "0",
        Some(_) => return None,
        None => whole,
    };
    whole.parse().ok().filter(|n| *n <= COUNT_MAX)
}

/// The number as a plain decimal without exponent (`5.7e-05` is `0.000057`), digit by digit.
/// `None` for what is no JSON number, and where the exponent asks for absurdly many digits.
pub fn decimal_of(text: &str) -> Option<String> {
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent_of(exponent)?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (mantissa, ""),
    };
    let is_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    if exponent == 0 {
        return Some(text.split(['e', 'E']).next().unwrap_or(text).to_owned());
    }
    shift(whole, fraction, exponent).map(|plain| format!("{sign}{plain}"))
}

fn exponent_of(text: &str) -> Option<i32> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn shift(whole: &str, fraction: &str, exponent: i32) -> Option<String> {
    let digits = format!("{whole}{fraction}");
    if digits.bytes().all(|b| b == b'0') {
        return Some("0".to_owned());
    }
    let point = i32::try_from(whole.len()).ok()?.checked_add(exponent)?;
    let length = usize::try_from(point.unsigned_abs()).ok()?;
    if digits.len().max(length) > DECIMAL_DIGITS_MAX {
        return None;
    }
    if point <= 0 {
        return Some(format!("0.{}{digits}", "0".repeat(length)));
    }
    let whole = format!("{digits:0<length$}");
    let (whole, fraction) = whole.split_at_checked(length)?;
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        trimmed => trimmed,
    };
    if fraction.is_empty() {
        return Some(whole.to_owned());
    }
    Some(format!("{whole}.{fraction}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_whole_and_bounded() {
        for (text, count) in [
            ("0", Some(0)),
            ("12", Some(12)),
            ("6.0", Some(6)),
            ("1e3", Some(1000)),
            ("1.5e1", Some(15)),
            ("1200e-2", Some(12)),
            ("-0", Some(0)),
            ("-0.0", Some(0)),
            ("9007199254740992", Some(COUNT_MAX)),
            ("9007199254740993", None),
            ("9223372036854775808", None),
            ("1e400", None),
            ("1e-400", None),
            ("0e400", Some(0)),
            ("-1", None),
            ("1.5", None),
            ("1.", None),
            (".5", None),
            ("e3", None),
            ("1e", None),
            ("", None),
            ("-", None),
            ("0x10", None),
            ("NaN", None),
        ] {
            assert_eq!(count_of(text), count, "{text}");
        }
    }

    #[test]
    fn decimals_lose_no_digit() {
        for (text, plain) in [
            ("0.0002833", Some("0.0002833")),
            ("5.7e-05", Some("0.000057")),
            ("1E-1", Some("0.1")),
            ("2.50e1", Some("25.0")),
            ("-1.5e1", Some("-15")),
            ("12345e-2", Some("123.45")),
            ("1e2", Some("100")),
            ("1e99", None),
            ("1e0", Some("1")),
        ] {
            assert_eq!(decimal_of(text).as_deref(), plain, "{text}");
        }
    }
}
