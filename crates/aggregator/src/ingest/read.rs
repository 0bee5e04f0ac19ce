//! One event of a batch: read alone, so that a bad one spoils nothing but itself.

use serde::Deserialize;
use tollmesh_wire::Event;

/// Tags, ids and a dozen counts come to a few KiB; what is larger is no event.
const EVENT_BYTES_MAX: usize = 64 * 1024;

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
}

/// Reads and checks one event. Lengths and numbers are the ledger's to judge.
pub fn event(json: &str) -> Result<Event, BadEvent> {
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
    Ok(event)
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
            assert_eq!(event(json).unwrap_err().to_string(), reason);
        }
    }

    #[test]
    fn ids_of_unreadable_events() {
        assert_eq!(id_of(r#"{"event_id":"e","time":3}"#).as_deref(), Some("e"));
        assert_eq!(id_of(r#"[1]"#), None);
    }
}
