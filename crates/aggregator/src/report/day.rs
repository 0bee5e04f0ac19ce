//! One UTC day: the unit of daily reports, since the ledger sums whole hours of UTC.

use std::fmt;

use tollmesh_wire::Timestamp;

use crate::ledger::query::Span;

/// Milliseconds in a day.
pub const DAY_MS: i64 = 86_400_000;

/// A day of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day {
    /// Days since 1970-01-01.
    since_1970: i64,
}

impl Day {
    /// The day that the instant falls in.
    pub fn containing(at: Timestamp) -> Day {
        Day {
            since_1970: at.as_unix_ms().div_euclid(DAY_MS),
        }
    }

    /// Reads `2026-11-21`, `today` or `yesterday`.
    pub fn parse(text: &str, now: Timestamp) -> Option<Day> {
        match text {
            "today" => Some(Day::containing(now)),
            "yesterday" => Some(Day::containing(now).earlier(1)),
            _ if text.len() == "2026-11-21".len() => {
                Timestamp::parse(&format!("{text}T00:00:00Z")).map(Day::containing)
            }
            _ => None,
        }
    }

    /// That many days before.
    pub fn earlier(self, n_days: u32) -> Day {
        Day {
            since_1970: self.since_1970 - i64::from(n_days),
        }
    }

    /// Its first instant.
    pub fn start(self) -> Timestamp {
        Timestamp::from_unix_ms(self.since_1970 * DAY_MS)
    }

    /// The first instant after it.
    pub fn end(self) -> Timestamp {
        Timestamp::from_unix_ms((self.since_1970 + 1) * DAY_MS)
    }

    /// The days from this one to the one before `until`.
    pub fn span_until(self, until: Day) -> Span {
        Span {
            from: Some(self.start()),
            to: Some(until.start()),
        }
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.start().to_string();
        f.pad(start.get(..10).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_as_people_write_them() {
        let now = Timestamp::parse("2026-11-22T00:30:00+01:00").unwrap();
        for (text, day) in [
            ("today", Some("2026-11-21")),
            ("yesterday", Some("2026-11-20")),
            ("2026-02-28", Some("2026-02-28")),
            ("2026-02-30", None),
            ("24h", None),
            ("", None),
        ] {
            let parsed = Day::parse(text, now).map(|day| day.to_string());
            assert_eq!(parsed.as_deref(), day, "{text}");
        }
        let day = Day::containing(now);
        assert_eq!(day.end().as_unix_ms() - day.start().as_unix_ms(), DAY_MS);
        assert!(day.start() <= now && now < day.end());
    }
}
