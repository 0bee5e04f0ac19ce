//! Named calendars: on which days, at which hours a rate holds.

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;

const MS_PER_MINUTE: i64 = 60_000;
const MINUTES_PER_DAY: u16 = 24 * 60;

/// Hours in UTC, on days counted by a provider's own clock; both must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    /// The clock that says which day it is.
    pub zone: TimeZone,
    /// Monday first.
    pub days: [bool; 7],
    /// Days on which it never holds: public holidays.
    pub days_off: Vec<Date>,
    /// In UTC; never empty.
    pub hours: Vec<Hours>,
}

/// A span of a UTC day in minutes; where it ends before it starts it passes midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    start: u16,
    end: u16,
}

impl Calendar {
    /// Whether the instant, in milliseconds since 1970, is inside.
    pub fn holds(&self, unix_ms: i64) -> bool {
        let day_minute = unix_ms
            .div_euclid(MS_PER_MINUTE)
            .rem_euclid(i64::from(MINUTES_PER_DAY));
        let inside = |h: &Hours| h.hold(day_minute);
        self.hours.iter().any(inside) && self.is_day(unix_ms)
    }

    fn is_day(&self, unix_ms: i64) -> bool {
        let Ok(instant) = jiff::Timestamp::from_millisecond(unix_ms) else {
            return false;
        };
        let date = instant.to_zoned(self.zone.clone()).date();
        let weekday = usize::from(date.weekday().to_monday_zero_offset().unsigned_abs());
        self.days.get(weekday) == Some(&true) && !self.days_off.contains(&date)
    }
}

impl Hours {
    /// Reads `16:30-00:30`; `24:00` is the end of the day.
    pub fn parse(text: &str) -> Option<Hours> {
        let (start, end) = text.split_once('-')?;
        let (start, end) = (minute_of_day(start)?, minute_of_day(end)?);
        (start != end && start < MINUTES_PER_DAY).then_some(Hours { start, end })
    }

    fn hold(self, minute: i64) -> bool {
        let (start, end) = (i64::from(self.start), i64::from(self.end));
        match start < end {
            true => start <= minute && minute < end,
            false => start <= minute || minute < end,
        }
    }
}

fn minute_of_day(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let two = |s: &str| s.len() == 2 && s.bytes().all(|b| b.is_ascii_digit());
    if !two(hour) || !two(minute) {
        return None;
    }
    let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
    let all = hour * 60 + minute;
    (minute < 60 && all <= MINUTES_PER_DAY).then_some(all)
}

/// Reads `mon-fri`, `sat,sun` or `mon`.
pub fn parse_days(text: &str) -> Option<[bool; 7]> {
    let mut days = [false; 7];
    for span in text.split(',') {
        let (first, last) = span.split_once('-').unwrap_or((span, span));
        let mut day = weekday(first)?;
        let last = weekday(last)?;
        loop {
            let index = usize::from(day.to_monday_zero_offset().unsigned_abs());
            *days.get_mut(index)? = true;
            if day == last {
                break;
            }
            day = day.next();
        }
    }
    Some(days)
}

fn weekday(text: &str) -> Option<Weekday> {
    Some(match text.trim() {
        "mon" => Weekday::Monday,
        "tue" => Weekday::Tuesday,
        "wed" => Weekday::Wednesday,
        "thu" => Weekday::Thursday,
        "fri" => Weekday::Friday,
        "sat" => Weekday::Saturday,
        "sun" => Weekday::Sunday,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix_ms(text: &str) -> i64 {
        text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
    }

    #[test]
    fn days_are_the_zones_and_hours_are_utc() {
        let peak = Calendar {
            zone: TimeZone::get("Asia/Shanghai").unwrap(),
            days: parse_days("mon-fri").unwrap(),
            days_off: vec![jiff::civil::date(2026, 10, 1)],
            hours: ["01:00-04:00", "16:30-00:30"]
                .map(|h| Hours::parse(h).unwrap())
                .into(),
        };
        for (instant, want) in [
            ("2026-11-16T00:59:59.999Z", false),
            ("2026-11-16T01:00:00Z", true),
            ("2026-11-16T03:59:59Z", true),
            ("2026-11-16T04:00:00Z", false),
            // Sunday evening in UTC is Monday in Shanghai, Friday evening is Saturday.
            ("2026-11-15T16:30:00Z", true),
            ("2026-11-13T16:30:00Z", false),
            ("2026-11-16T00:29:59Z", true),
            ("2026-11-16T00:30:00Z", false),
            ("2026-10-01T01:00:00Z", false),
            ("2026-11-14T02:00:00Z", false),
        ] {
            assert_eq!(peak.holds(unix_ms(instant)), want, "{instant}");
        }
        assert!(!peak.holds(i64::MAX) && !peak.holds(i64::MIN));
    }

    #[test]
    fn spans_are_read_strictly() {
        for bad in [
            "",
            "1:00-02:00",
            "01:00",
            "01:60-02:00",
            "25:00-26:00",
            "01:00-01:00",
        ] {
            assert_eq!(Hours::parse(bad), None, "{bad}");
        }
        assert!(Hours::parse("22:00-24:00").is_some());
        assert_eq!(
            parse_days("fri-mon").unwrap(),
            [true, false, false, false, true, true, true]
        );
        assert_eq!(parse_days("weekdays"), None);
    }
}
