//! One event of a batch: read alone, so that a bad one spoils nothing but itself.

use rust_decimal::Decimal;
use serde::Deserialize;
use tollmesh_wire::{Event, Timestamp};

/// Tags, ids and a dozen counts come to a few KiB; what is larger is no event.
const EVENT_BYTES_MAX: usize = 64 * 1024;

/// How far ahead of our clock an event may be, milliseconds: a year. Who calls has our clock or one
/// like it, which may leap, and be set right again.
const AHEAD_MS_MAX: i64 = 366 * 86_400_000;
/// No clock that is right says less (2026-01-01): one that is behind is no reason to refuse events.
const CLOCK_MS_MIN: i64 = 1_767_225_600_000;

/// Why an event cannot be taken, now or ever.
#[derive(Debug, thiserror::Error)]
pub enum BadEvent {
    /// It is no event.
    #[error("not an event: {0}")]
    Shape(#[from] serde_json::Error),
    /// It is larger than any event.
    #[error("{bytes} bytes; an event has at most {EVENT_BYTES_MAX}")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// A field that every event has is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// It is of a time that no clock has.
    #[error("time is {time}: more than a year ahead of this machine's clock, {now}")]
    Ahead {
        /// What it says.
        time: Timestamp,
        /// Our clock.
        now: Timestamp,
    },
    /// Nobody is paid for a call.
    #[error("provider_cost_usd is {0:?}; a cost is not below zero")]
    NegativeCost(String),
}

/// Reads and checks one event by our clock. Lengths and other numbers are the ledger's to judge.
pub fn event(json: &str, now: Timestamp) -> Result<Event, BadEvent> {
    if json.len() > EVENT_BYTES_MAX {
        return Err(BadEvent::TooLarge { bytes: json.len() });
    }
    let event: Event = serde_json::from_str(json)?;
    let required = [
        ("event_id", event.event_id.is_empty()),
        ("time", event.time.as_unix_ms() == 0),
        ("provider", event.provider.is_empty()),
        ("usage_source", event.usage_source.is_empty()),
    ];
    if let Some((name, _)) = required.into_iter().find(|(_, is_missing)| *is_missing) {
        return Err(BadEvent::Missing(name));
    }
    let latest_ms = now.as_unix_ms().max(CLOCK_MS_MIN) + AHEAD_MS_MAX;
    if event.time.as_unix_ms() > latest_ms {
        let time = event.time;
        return Err(BadEvent::Ahead { time, now });
    }
    let stated = event.provider_cost_usd.as_deref();
    if let Some(cost) = stated.filter(|cost| is_negative(cost)) {
        return Err(BadEvent::NegativeCost(cost.to_owned()));
    }
    Ok(event)
}

fn is_negative(cost: &str) -> bool {
    let cost: Result<Decimal, _> = cost.parse();
    cost.is_ok_and(|cost| cost < Decimal::ZERO)
}

/// The id of an event that cannot be read otherwise.
pub fn id_of(json: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Id {
        event_id: String,
    }
    let id: Id = serde_json::from_str(json).ok()?;
    Some(id.event_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bad_event_has_its_reason() {
        let long = format!(r#"{{"event_id":"{}"}}"#, "x".repeat(EVENT_BYTES_MAX));
        for (json, reason) in [
            (
                r#"{"event_id":7}"#,
                "not an event: invalid type: integer `7`, expected a string at line 1 column 13",
            ),
            (r#"{"event_id":"e"}"#, "time is missing"),
            (
                r#"{"event_id":"e","time":"2026-11-22T04:00:00Z"}"#,
                "provider is missing",
            ),
            (
                r#"{"event_id":"e","time":"soon"}"#,
                "not an event: invalid value: string \"soon\", expected RFC 3339 at line 1 \
                 column 30",
            ),
            (long.as_str(), "65551 bytes; an event has at most 65536"),
        ] {
            assert_eq!(event(json, now()).unwrap_err().to_string(), reason);
        }
    }

    fn now() -> Timestamp {
        Timestamp::parse("2026-11-22T04:00:00Z").unwrap()
    }

    #[test]
    fn times_far_ahead_and_costs_below_zero_are_refused() {
        let read = |time: &str, cost: &str, now| {
            let json = format!(
                r#"{{"event_id":"e","time":"{time}","provider":"p","usage_source":"body",
                    "provider_cost_usd":"{cost}"}}"#
            );
            event(&json, now).map_err(|error| error.to_string()).err()
        };
        let (soon, odd) = ("2026-11-22T04:00:00Z", "2999-01-01T00:00:00Z");
        assert_eq!(
            read(odd, "1", now()).as_deref(),
            Some(
                "time is 2999-01-01T00:00:00.000Z: more than a year ahead of this machine's \
                 clock, 2026-11-22T04:00:00.000Z"
            )
        );
        assert_eq!(
            read(soon, "-5", now()).as_deref(),
            Some("provider_cost_usd is \"-5\"; a cost is not below zero")
        );
        for (time, cost, now) in [
            (soon, "0.5", now()),
            (soon, "-0.00", now()),
            (soon, "soon", now()),
            // A clock that leapt, and one that was never set.
            ("2027-11-22T04:00:00Z", "0", now()),
            (soon, "0", Timestamp::default()),
        ] {
            assert_eq!(read(time, cost, now), None, "{time} {cost}");
        }
    }

    #[test]
    fn ids_of_unreadable_events() {
        assert_eq!(id_of(r#"{"event_id":"e","time":3}"#).as_deref(), Some("e"));
        assert_eq!(id_of(r#"[1]"#), None);
    }
}
