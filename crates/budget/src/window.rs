//! The stretch of time that a limit is for.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};

/// The longest rolling window, in hours: 31 days.
pub const ROLLING_HOURS_MAX: u32 = 31 * 24;

/// The kind of window. Calendar windows begin on the clock of the budget's time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// An hour of UTC, whatever the zone.
    Hour,
    /// A calendar day; 23 or 25 hours where the clocks change.
    Day,
    /// Seven calendar days, beginning on that day of the week.
    Week(Weekday),
    /// A calendar month.
    Month,
    /// The hours up to now.
    Rolling {
        /// How many, 1 to [`ROLLING_HOURS_MAX`].
        hours: u32,
    },
}

/// Why a text is no window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// The word is none of ours.
    #[error(
        "unknown window {text:?}; \
         expected \"hour\", \"day\", \"week\", \"month\" or \"rolling 24h\""
    )]
    Unknown {
        /// What was written.
        text: String,
    },
    /// A rolling window of no length, or of too great a length.
    #[error("a rolling window is 1 h to {ROLLING_HOURS_MAX} h long, not {text:?}")]
    RollingLength {
        /// What was written.
        text: String,
    },
}

/// One window: from `start` (inclusive) to `end` (exclusive).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WindowSpan {
    /// The first instant.
    pub start: Timestamp,
    /// The first instant after it.
    pub end: Timestamp,
}

impl Window {
    /// The window that `now` falls in. A rolling window ends at `now`.
    ///
    /// `None` only within a day of the ends of representable time.
    pub fn containing(self, now: Timestamp, zone: &TimeZone) -> Option<WindowSpan> {
        let local = now.to_zoned(zone.clone());
        let (start, end) = match self {
            Window::Rolling { hours } => {
                let start = now.checked_sub(i64::from(hours).hours()).ok()?;
                return Some(WindowSpan { start, end: now });
            }
            Window::Hour => return utc_hour_around(now),
            Window::Day => {
                let start = local.start_of_day().ok()?;
                let end = start_of(&start, start.date().tomorrow().ok()?)?;
                (start, end)
            }
            Window::Week(first) => {
                let back = local.date().weekday().since(first);
                let date = local.date().checked_sub(i64::from(back).days()).ok()?;
                (
                    start_of(&local, date)?,
                    start_of(&local, date.checked_add(7.days()).ok()?)?,
                )
            }
            Window::Month => {
                let date = local.date().first_of_month();
                (
                    start_of(&local, date)?,
                    start_of(&local, date.checked_add(1.month()).ok()?)?,
                )
            }
        };
        Some(WindowSpan {
            start: start.timestamp(),
            end: end.timestamp(),
        })
    }
}

/// Where that date begins in the zone: the first instant after midnight where midnight is skipped.
fn start_of(zone_of: &Zoned, date: jiff::civil::Date) -> Option<Zoned> {
    date.to_datetime(Time::midnight())
        .to_zoned(zone_of.time_zone().clone())
        .ok()
}

/// Hours are UTC's in every zone: zones that change their clocks by half an hour have no other
/// grid that tiles time.
fn utc_hour_around(now: Timestamp) -> Option<WindowSpan> {
    let start = now.as_second().div_euclid(3600) * 3600;
    Some(WindowSpan {
        start: Timestamp::from_second(start).ok()?,
        end: Timestamp::from_second(start + 3600).ok()?,
    })
}

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Window, WindowError> {
        match text {
            "hour" => Ok(Window::Hour),
            "day" => Ok(Window::Day),
            "week" => Ok(Window::Week(Weekday::Monday)),
            "month" => Ok(Window::Month),
            _ => {
                let unknown = || WindowError::Unknown {
                    text: text.to_owned(),
                };
                let length = text.strip_prefix("rolling ").ok_or_else(unknown)?;
                let (number, per) = match length.strip_suffix('d') {
                    Some(days) => (days, 24),
                    None => (length.strip_suffix('h').ok_or_else(unknown)?, 1),
                };
                let hours = number
                    .parse::<u32>()
                    .map_err(|_| unknown())?
                    .checked_mul(per);
                hours
                    .filter(|h| (1..=ROLLING_HOURS_MAX).contains(h))
                    .map(|hours| Window::Rolling { hours })
                    .ok_or_else(|| WindowError::RollingLength {
                        text: length.to_owned(),
                    })
            }
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Window::Hour => f.write_str("hour"),
            Window::Day => f.write_str("day"),
            Window::Week(_) => f.write_str("week"),
            Window::Month => f.write_str("month"),
            Window::Rolling { hours } => write!(f, "rolling {hours}h"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(window: &str, zone: &str, now: &str) -> String {
        let zone = TimeZone::get(zone).unwrap();
        let now: Timestamp = now.parse().unwrap();
        let span = window
            .parse::<Window>()
            .unwrap()
            .containing(now, &zone)
            .unwrap();
        format!("{} {}", span.start, span.end)
    }

    #[test]
    fn windows_begin_on_the_zone_s_clock() {
        for (kind, zone, now, expected) in [
            (
                "hour",
                "UTC",
                "2026-11-22T04:12:07Z",
                "2026-11-22T04:00:00Z 2026-11-22T05:00:00Z",
            ),
            // A zone of half hours has UTC's hours all the same.
            (
                "hour",
                "Asia/Kolkata",
                "2026-11-22T04:12:07Z",
                "2026-11-22T04:00:00Z 2026-11-22T05:00:00Z",
            ),
            (
                "day",
                "Europe/Madrid",
                "2026-11-22T23:30:00Z",
                "2026-11-22T23:00:00Z 2026-11-23T23:00:00Z",
            ),
            // Clocks go forward: a day of 23 hours. Clocks go back: one of 25.
            (
                "day",
                "Europe/Madrid",
                "2026-03-29T12:00:00Z",
                "2026-03-28T23:00:00Z 2026-03-29T22:00:00Z",
            ),
            (
                "day",
                "Europe/Madrid",
                "2026-10-25T12:00:00Z",
                "2026-10-24T22:00:00Z 2026-10-25T23:00:00Z",
            ),
            (
                "week",
                "America/New_York",
                "2026-11-22T04:00:00Z",
                "2026-11-16T05:00:00Z 2026-11-23T05:00:00Z",
            ),
            (
                "month",
                "UTC",
                "2026-02-28T23:59:59Z",
                "2026-02-01T00:00:00Z 2026-03-01T00:00:00Z",
            ),
            (
                "rolling 24h",
                "UTC",
                "2026-11-22T04:12:07Z",
                "2026-11-21T04:12:07Z 2026-11-22T04:12:07Z",
            ),
        ] {
            assert_eq!(
                window(kind, zone, now),
                expected,
                "{kind} in {zone} at {now}"
            );
        }
    }

    #[test]
    fn the_repeated_hour_is_two_windows() {
        let first = window("hour", "Europe/Madrid", "2026-10-25T00:30:00Z");
        let second = window("hour", "Europe/Madrid", "2026-10-25T01:30:00Z");
        assert_eq!(first, "2026-10-25T00:00:00Z 2026-10-25T01:00:00Z");
        assert_eq!(second, "2026-10-25T01:00:00Z 2026-10-25T02:00:00Z");
    }

    #[test]
    fn what_is_no_window_says_why() {
        for (text, why) in [
            (
                "weekly",
                r#"unknown window "weekly"; expected "hour", "day", "week", "month" or "rolling 24h""#,
            ),
            (
                "rolling 0h",
                r#"a rolling window is 1 h to 744 h long, not "0h""#,
            ),
            (
                "rolling 40d",
                r#"a rolling window is 1 h to 744 h long, not "40d""#,
            ),
        ] {
            assert_eq!(
                text.parse::<Window>().map_err(|e| e.to_string()),
                Err(why.to_owned())
            );
        }
    }

    proptest::proptest! {
        /// Windows of one kind tile time: each instant is inside its window, and the window's last
        /// instant has the same window, its end the next.
        #[test]
        fn calendar_windows_tile_time(second in 1_700_000_000_i64..1_900_000_000, kind in 0..4) {
            let kind = ["hour", "day", "week", "month"][kind as usize].parse::<Window>().unwrap();
            for zone in ["UTC", "Europe/Madrid", "America/Sao_Paulo", "Australia/Lord_Howe"] {
                let zone = TimeZone::get(zone).unwrap();
                let now = Timestamp::from_second(second).unwrap();
                let span = kind.containing(now, &zone).unwrap();
                assert!(span.start <= now && now < span.end);
                let last = Timestamp::from_second(span.end.as_second() - 1).unwrap();
                assert_eq!(kind.containing(last, &zone), Some(span));
                let next = kind.containing(span.end, &zone).unwrap();
                assert_eq!(next.start, span.end);
            }
        }
    }
}
