//! Instants as both sides write them.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An instant in milliseconds since 1970-01-01T00:00:00Z; RFC 3339 with three decimals in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// `9999-12-30T22:00:00Z`, the last instant whose date has four digits in every time zone.
const UNIX_MS_MAX: i64 = 253_402_207_200_000;

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

    /// Reads RFC 3339, any offset; finer digits than milliseconds are cut off.
    pub fn parse(text: &str) -> Option<Timestamp> {
        let instant: jiff::Timestamp = text.parse().ok()?;
        Some(Timestamp::from_unix_ms(instant.as_millisecond()))
    }
}

impl Timestamp {
    /// RFC 3339 with three decimals. Written by hand, since the filter writes one for each call.
    fn text(self) -> [u8; 24] {
        let ms = self.0.unsigned_abs();
        let (days, ms_of_day) = (ms / MS_PER_DAY, ms % MS_PER_DAY);
        let (year, month, day) = date(days);
        let (seconds, minutes) = (ms_of_day / 1_000, ms_of_day / 60_000);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let places: [(u64, &[usize]); 7] = [
            (year, &[3, 2, 1, 0]),
            (month, &[6, 5]),
            (day, &[9, 8]),
            (minutes / 60, &[12, 11]),
            (minutes % 60, &[15, 14]),
            (seconds % 60, &[18, 17]),
            (ms_of_day % 1_000, &[22, 21, 20]),
        ];
        for (mut number, digits) in places {
            for place in digits {
                if let Some(digit) = text.get_mut(*place) {
                    *digit += (number % 10) as u8;
                }
                number /= 10;
            }
        }
        text
    }
}

const MS_PER_DAY: u64 = 86_400_000;

/// Year, month and day that many days after 1970-01-01, in the Gregorian calendar. Years are counted
/// from March on here, so that a leap day is a year's last.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_FROM_0000_03_01: u64 = 719_468;
    const DAYS_PER_400_YEARS: u64 = 146_097;
    let days = days + DAYS_FROM_0000_03_01;
    let (eras, day) = (days / DAYS_PER_400_YEARS, days % DAYS_PER_400_YEARS);
    // Without the leap days before it every day lies at its year times 365.
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // From March on five months have 153 days, again and again.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let is_next_year = month >= 10;
    let month = if is_next_year { month - 9 } else { month + 3 };
    (eras * 400 + year + u64::from(is_next_year), month, day)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(std::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(&self.text()).unwrap_or_default())
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
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_calendar_is_the_librarys(ms in 0..=UNIX_MS_MAX) {
            let instant = jiff::Timestamp::from_millisecond(ms).unwrap();
            prop_assert_eq!(Timestamp::from_unix_ms(ms).to_string(), format!("{instant:.3}"));
        }
    }

    #[test]
    fn every_day_of_400_years_is_the_librarys() {
        for day in 0..=146_097 {
            let ms = i64::try_from(day * MS_PER_DAY).unwrap();
            let instant = jiff::Timestamp::from_millisecond(ms).unwrap();
            assert_eq!(
                Timestamp::from_unix_ms(ms).to_string(),
                format!("{instant:.3}")
            );
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
