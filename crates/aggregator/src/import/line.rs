//! One line of an access log: the events in it, if it has any.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// Why a line cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BadLine {
    /// It is no object, or it is cut.
    #[error("not a JSON object: {0}")]
    Shape(serde_json::Error),
    /// The field is of another kind.
    #[error("{field:?} is {found}; expected an event, as a string of JSON or as an object")]
    Kind {
        /// The field.
        field: String,
        /// Its first bytes.
        found: String,
    },
}

/// Bytes of a strange value that an error shows.
const SHOWN_BYTES_MAX: usize = 40;

/// The events' JSON in the line's `field`: one of a call, those of all responses of a WebSocket
/// connection, one a line, and none where the line is of a call without usage. `None` where there
/// is no such field, as in all lines of a log whose format has none.
///
/// Other fields are not looked at, whatever they hold: an app can write what it likes into a
/// header that the operator logs.
pub fn events_json(line: &[u8], field: &str) -> Result<Option<Vec<String>>, BadLine> {
    if is_process_log(line) {
        return Ok(Some(Vec::new()));
    }
    let fields: BTreeMap<String, &RawValue> =
        serde_json::from_slice(without_container_prefix(line)).map_err(BadLine::Shape)?;
    fields
        .get(field)
        .map(|value| events_in(value, field))
        .transpose()
}

fn events_in(value: &RawValue, field: &str) -> Result<Vec<String>, BadLine> {
    let strange = |found: &str| BadLine::Kind {
        field: field.to_owned(),
        found: found[..found.floor_char_boundary(SHOWN_BYTES_MAX)].to_owned(),
    };
    match value.get().as_bytes().first() {
        Some(b'{') => Ok(vec![value.get().to_owned()]),
        Some(b'n') => Ok(Vec::new()),
        Some(b'"') => {
            let text: String = serde_json::from_str(value.get()).map_err(BadLine::Shape)?;
            match text.trim() {
                // What Envoy writes for a value that is not there: `null` as JSON, `-` as text
                // (https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage).
                "" | "-" => Ok(Vec::new()),
                lines => match lines.lines().find(|json| !json.starts_with('{')) {
                    Some(other) => Err(strange(other)),
                    None => Ok(lines.lines().map(str::to_owned).collect()),
                },
            }
        }
        _ => Err(strange(value.get())),
    }
}

/// The line as Envoy wrote it, where a container runtime put time, stream and the mark of a whole
/// line before it
/// (https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md).
fn without_container_prefix(line: &[u8]) -> &[u8] {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let (Some(_time), Some(stream), Some(mark), Some(rest)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return line;
    };
    let is_prefix = matches!(stream, b"stdout" | b"stderr") && mark == b"F";
    if is_prefix { rest } else { line }
}

/// Whether this is a line of the proxy's own log, which stands between the others where both of
/// its streams go to one file: it begins with a date, in brackets or not. A line that speaks of an
/// event is none, so that a torn record is told. Of the format of the log's records it says nothing.
pub fn is_process_log(line: &[u8]) -> bool {
    const EVENT: &[u8] = b"event_id";
    let line = without_container_prefix(line);
    let text = line.strip_prefix(b"[").unwrap_or(line);
    let is_dated = text.len() > 10
        && text.iter().zip(b"dddd-dd-dd").all(|(b, want)| match want {
            b'd' => b.is_ascii_digit(),
            _ => b == want,
        });
    is_dated && !line.windows(EVENT.len()).any(|window| window == EVENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let event = r#"{"event_id":"e","tags":{"team":"ré\"d"}}"#;
        let as_text = serde_json::to_string(event).unwrap();
        for (line, want) in [
            (
                format!(r#"{{"status":200,"tollmesh":{as_text}}}"#),
                Some(event),
            ),
            (format!(r#" {{"tollmesh": {event} }}"#), Some(event)),
            (
                format!(r#"2026-11-22T04:00:00.1Z stdout F {{"tollmesh":{event}}}"#),
                Some(event),
            ),
            (r#"{"tollmesh":null,"status":200}"#.to_owned(), None),
            (r#"{"tollmesh":"-"}"#.to_owned(), None),
            (r#"{"tollmesh":""}"#.to_owned(), None),
            (r#"{"status":200}"#.to_owned(), None),
            // An app that names itself so forges nothing.
            (
                format!(r#"{{"authority":{as_text},"tollmesh":null}}"#),
                None,
            ),
            (
                "[2026-11-22 04:00:00.123][7][info] starting".to_owned(),
                None,
            ),
            ("2026-11-22T04:00:00Z\tinfo\tready".to_owned(), None),
        ] {
            let found = events_json(line.as_bytes(), "tollmesh").unwrap();
            let has_field = line != r#"{"status":200}"#;
            assert_eq!(found.is_some(), has_field, "{line}");
            assert_eq!(found.unwrap_or_default(), Vec::from_iter(want), "{line}");
        }
        let own = events_json(br#"{"usage":{"event_id":"e"}}"#, "usage");
        assert_eq!(own.unwrap().unwrap(), [r#"{"event_id":"e"}"#]);
        let two = format!("{event}\n{event}");
        let line = serde_json::json!({"tollmesh": two}).to_string();
        assert_eq!(
            events_json(line.as_bytes(), "tollmesh").unwrap().unwrap(),
            [event, event]
        );
    }

    #[test]
    fn broken_lines() {
        for (line, why) in [
            (
                "nonsense",
                "not a JSON object: expected ident at line 1 column 2",
            ),
            (
                r#"{"tollmesh":"{\"event"#,
                "not a JSON object: EOF while parsing a string at line 1 column 21",
            ),
            (
                r#"2026-11-22 {"tollmesh":"{\"event_id\":\"e\"}"}"#,
                "not a JSON object: invalid type: integer `2026`, expected a map at line 1 column 4",
            ),
            (
                r#"{"tollmesh":7}"#,
                r#""tollmesh" is 7; expected an event, as a string of JSON or as an object"#,
            ),
            (
                r#"{"tollmesh":"{\"event_id\":\"e\"}\n-"}"#,
                r#""tollmesh" is -; expected an event, as a string of JSON or as an object"#,
            ),
            (
                r#"{"tollmesh":"CgIxMg=="}"#,
                r#""tollmesh" is CgIxMg==; expected an event, as a string of JSON or as an object"#,
            ),
        ] {
            let error = events_json(line.as_bytes(), "tollmesh").unwrap_err();
            assert_eq!(error.to_string(), why, "{line}");
        }
    }
}
