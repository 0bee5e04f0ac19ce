//! Calendar months of UTC, by which the store is partitioned.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::{Date, date};
use jiff::tz::TimeZone;

/// A month of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    first: Date,
}

impl Month {
    /// The month of that instant, in milliseconds since 1970; `None` beyond the calendar's years.
    pub fn of(ms: i64) -> Option<Month> {
        let time = Timestamp::from_millisecond(ms).ok()?;
        let day = TimeZone::UTC.to_datetime(time).date();
        Some(Month {
            first: day.first_of_month(),
        })
    }

    /// The month that many before this one; the calendar's first where it ends.
    pub fn before(self, n: u32) -> Month {
        let span = jiff::Span::new().months(i64::from(n.min(12_000)));
        Month {
            first: self.first.saturating_sub(span),
        }
    }

    /// The month that many after this one; the calendar's last where it ends.
    pub fn after(self, n: u32) -> Month {
        let span = jiff::Span::new().months(i64::from(n.min(12_000)));
        Month {
            first: self.first.saturating_add(span).first_of_month(),
        }
    }

    /// Reads `2026-11-01`.
    pub fn parse(text: &str) -> Option<Month> {
        let first: Date = text.parse().ok()?;
        Some(Month {
            first: date(first.year(), first.month(), 1),
        })
    }

    /// The first instant in it, in milliseconds since 1970.
    pub fn start_ms(self) -> i64 {
        self.first
            .to_zoned(TimeZone::UTC)
            .map_or(i64::MIN, |start| start.timestamp().as_millisecond())
    }

    /// Its first day.
    pub fn first_day(self) -> String {
        self.first.to_string()
    }

    /// The name of its partition.
    pub fn partition(self) -> String {
        format!("events_{:04}_{:02}", self.first.year(), self.first.month())
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.first.year(), self.first.month())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_begin_at_midnight_utc() {
        let november = Month::of(1_795_320_000_000).unwrap();
        assert_eq!(november.to_string(), "2026-11");
        assert_eq!(november.partition(), "events_2026_11");
        assert_eq!(november.first_day(), "2026-11-01");
        assert_eq!(november.after(2).to_string(), "2027-01");
        assert_eq!(november.before(11).to_string(), "2025-12");
        assert_eq!(Month::of(november.start_ms()), Some(november));
        assert_eq!(Month::of(november.start_ms() - 1), Some(november.before(1)));
        assert_eq!(Month::parse("2026-11-01"), Some(november));
        assert_eq!(Month::of(i64::MAX), None);
    }
}
