//! Instants as both sides write them.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An instant in milliseconds since 1970-01-01T00:00:00Z; RFC 3339 with three decimals in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// `9999-12-30T22:00:00Z`, the last instant whose date has four digits in every time zone.
const UNIX_MS_MAX: i64 = 253_402_207_200_000;

/// What every instant looks like.
const TEMPLATE: &[u8; 24] = b"0000-00-00T00:00:00.000Z";

const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60 * SECOND_MS;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS.cast_signed();

impl Timestamp {
    /// That many milliseconds after 1970; instants that RFC 3339 cannot write are moved to the
    /// nearest that it can.
    pub fn from_unix_ms(ms: i64) -> Timestamp {
        Timestamp(ms.clamp(0, UNIX_MS_MAX))
    }

    /// Milliseconds since 1970.
    pub const fn as_unix_ms(self) -> i64 {
        self.0
    }

    /// The instant as all are written: `2026-11-22T04:00:00.007Z`.
    pub(crate) fn text(self) -> Text {
        let date = Date::of(self.0.div_euclid(DAY_MS).unsigned_abs());
        let ms = self.0.rem_euclid(DAY_MS).unsigned_abs();
        let mut text = Text(*TEMPLATE);
        for (place, n) in [
            (0..4, date.year),
            (5..7, date.month),
            (8..10, date.day),
            (11..13, ms / HOUR_MS),
            (14..16, ms / MINUTE_MS % 60),
            (17..19, ms / SECOND_MS % 60),
            (20..23, ms % SECOND_MS),
        ] {
            text.put(place, n);
        }
        text
    }

    /// Reads RFC 3339, any offset; finer digits than milliseconds are cut off.
    pub fn parse(text: &str) -> Option<Timestamp> {
        let instant: jiff::Timestamp = text.parse().ok()?;
        Some(Timestamp::from_unix_ms(instant.as_millisecond()))
    }
}

/// An instant that is written.
pub(crate) struct Text([u8; TEMPLATE.len()]);

impl Text {
    /// Writes the last digits of `n` at that place.
    fn put(&mut self, place: std::ops::Range<usize>, n: u64) {
        let mut rest = n;
        for byte in self.0.get_mut(place).unwrap_or_default().iter_mut().rev() {
            *byte = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }

    /// It is all ASCII, so that there is always text.
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// A date of the Gregorian calendar.
struct Date {
    year: u64,
    month: u64,
    day: u64,
}

impl Date {
    /// The date of that many days after 1970-01-01. It is reckoned in years that begin with March,
    /// so that a leap day is a year's last: 153 days are five months from March on, and 400 years
    /// always have as many days.
    fn of(days_since_1970: u64) -> Date {
        const DAYS_0000_TO_1970: u64 = 719_468;
        const DAYS_IN_400_YEARS: u64 = 146_097;
        const DAYS_IN_100_YEARS: u64 = 36_524;
        const DAYS_IN_4_YEARS: u64 = 1_461;
        let days = days_since_1970 + DAYS_0000_TO_1970;
        let day_of_400 = days % DAYS_IN_400_YEARS;
        // Each leap day before is taken out, so that all years have 365.
        let leap_days = day_of_400 / (DAYS_IN_4_YEARS - 1) - day_of_400 / DAYS_IN_100_YEARS
            + day_of_400 / (DAYS_IN_400_YEARS - 1);
        let year_of_400 = (day_of_400 - leap_days) / 365;
        let days_before = 365 * year_of_400 + year_of_400 / 4 - year_of_400 / 100;
        let day_of_year = day_of_400 - days_before;
        let months_since_march = (5 * day_of_year + 2) / 153;
        let is_next_year = months_since_march >= 10;
        let month = match is_next_year {
            true => months_since_march - 9,
            false => months_since_march + 3,
        };
        Date {
            year: days / DAYS_IN_400_YEARS * 400 + year_of_400 + u64::from(is_next_year),
            month,
            day: day_of_year - (153 * months_since_march + 2) / 5 + 1,
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        Timestamp::parse(&text)
            .ok_or_else(|| de::Error::invalid_value(de::Unexpected::Str(&text), &"RFC 3339"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_instant_is_as_the_calendar_has_it(ms in 0..=UNIX_MS_MAX) {
            let expected = format!("{:.3}", jiff::Timestamp::from_millisecond(ms).unwrap());
            prop_assert_eq!(Timestamp::from_unix_ms(ms).to_string(), expected);
        }
    }

    #[test]
    fn every_day_is_as_the_calendar_has_it() {
        for day in 0..=UNIX_MS_MAX / DAY_MS {
            let midnight = Timestamp::from_unix_ms(day * DAY_MS);
            let expected = jiff::Timestamp::from_millisecond(day * DAY_MS).unwrap();
            assert_eq!(midnight.to_string(), format!("{expected:.3}"));
        }
    }

    #[test]
    fn rfc_3339_both_ways() {
        let t = Timestamp::from_unix_ms(1_795_320_000_007);
        assert_eq!(t.to_string(), "2026-11-22T04:00:00.007Z");
        assert_eq!(Timestamp::parse("2026-11-22T05:00:00.0079+01:00"), Some(t));
        assert_eq!(Timestamp::parse("yesterday"), None);
        assert_eq!(
            Timestamp::from_unix_ms(i64::MIN).to_string(),
            "1970-01-01T00:00:00.000Z"
        );
        assert_eq!(
            Timestamp::from_unix_ms(i64::MAX).to_string(),
            "9999-12-30T22:00:00.000Z"
        );
    }
}
