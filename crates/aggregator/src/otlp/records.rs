//! A call as a span, and as a log record.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use sha2::{Digest, Sha256};
use tollmesh_usage::inclusive;
use tollmesh_wire::Event;
use tollmesh_wire::event::Source;

use crate::ledger::query::RequestRow;
use crate::otlp::place::CostAttribute;
use crate::otlp::{attributes, names};

/// What a log record of a call is called:
/// <https://github.com/open-telemetry/semantic-conventions-genai/blob/main/docs/gen-ai/gen-ai-events.md>.
const EVENT_NAME: &str = "gen_ai.client.inference.operation.details";

/// Sampled; and of a parent, that it is another process's
/// (<https://github.com/open-telemetry/opentelemetry-proto>, `SpanFlags`).
const FLAGS: u32 = 0x001;
const FLAGS_OF_CHILD: u32 = 0x301;

/// Nanoseconds in a millisecond.
const NANOS_PER_MS: u64 = 1_000_000;

/// Which span a call is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ids {
    trace: Vec<u8>,
    span: Vec<u8>,
    /// Empty where the call was no part of a trace.
    parent: Vec<u8>,
}

/// The calls as spans, grouped by who called.
pub fn spans<'r>(
    rows: impl Iterator<Item = &'r RequestRow>,
    cost: CostAttribute,
) -> ExportTraceServiceRequest {
    let resource_spans = grouped(rows, |row| span(row, cost))
        .into_iter()
        .map(|(source, spans)| ResourceSpans {
            resource: Some(attributes::resource(source)),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope()),
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        });
    ExportTraceServiceRequest {
        resource_spans: resource_spans.collect(),
    }
}

/// The calls as log records, grouped by who called.
pub fn logs<'r>(
    rows: impl Iterator<Item = &'r RequestRow>,
    cost: CostAttribute,
    now_ms: i64,
) -> ExportLogsServiceRequest {
    let resource_logs = grouped(rows, |row| log_record(row, cost, now_ms))
        .into_iter()
        .map(|(source, log_records)| ResourceLogs {
            resource: Some(attributes::resource(source)),
            scope_logs: vec![ScopeLogs {
                scope: Some(scope()),
                log_records,
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        });
    ExportLogsServiceRequest {
        resource_logs: resource_logs.collect(),
    }
}

/// What made the telemetry.
pub fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "tollmesh".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

fn grouped<'r, T>(
    rows: impl Iterator<Item = &'r RequestRow>,
    made: impl Fn(&RequestRow) -> T,
) -> BTreeMap<&'r Source, Vec<T>> {
    let mut groups: BTreeMap<&Source, Vec<T>> = BTreeMap::new();
    for row in rows {
        groups.entry(&row.event.source).or_default().push(made(row));
    }
    groups
}

fn span(row: &RequestRow, cost: CostAttribute) -> Span {
    let event = &row.event;
    let ids = Ids::of(event);
    let start = nanos(event.time.as_unix_ms());
    let error = attributes::error_type(event);
    Span {
        trace_id: ids.trace,
        span_id: ids.span,
        flags: match ids.parent.is_empty() {
            true => FLAGS,
            false => FLAGS_OF_CHILD,
        },
        parent_span_id: ids.parent,
        name: name(event),
        kind: SpanKind::Client.into(),
        start_time_unix_nano: start,
        end_time_unix_nano: start.saturating_add(event.duration_ms.saturating_mul(NANOS_PER_MS)),
        attributes: attributes::of_call(row, cost),
        status: error.map(|message| Status {
            message,
            code: StatusCode::Error.into(),
        }),
        ..Span::default()
    }
}

fn log_record(row: &RequestRow, cost: CostAttribute, now_ms: i64) -> LogRecord {
    let event = &row.event;
    let ids = Ids::of(event);
    let severity = match attributes::error_type(event) {
        Some(_) => SeverityNumber::Warn,
        None => SeverityNumber::Info,
    };
    LogRecord {
        time_unix_nano: nanos(event.time.as_unix_ms()),
        observed_time_unix_nano: nanos(now_ms),
        severity_number: severity.into(),
        severity_text: match severity {
            SeverityNumber::Warn => "WARN".to_owned(),
            _ => "INFO".to_owned(),
        },
        body: Some(AnyValue {
            value: Some(Value::StringValue(line(row))),
        }),
        attributes: attributes::of_call(row, cost),
        flags: FLAGS,
        trace_id: ids.trace,
        span_id: ids.span,
        event_name: EVENT_NAME.to_owned(),
        ..LogRecord::default()
    }
}

/// `{operation} {model}`, as the conventions have it.
fn name(event: &Event) -> String {
    let operation = names::operation(&event.api);
    match event.model_requested.as_ref().or(event.model.as_ref()) {
        Some(model) => format!("{operation} {model}"),
        None => operation.to_owned(),
    }
}

/// The call in a line for people.
fn line(row: &RequestRow) -> String {
    let count = |total| match inclusive::total(&row.event.usage, total) {
        Some(n) => n.to_string(),
        None => "?".to_owned(),
    };
    let cost = row
        .cost
        .total
        .map_or_else(|| "?".to_owned(), |cost| cost.to_string());
    format!(
        "{}: {}, {} tokens in, {} out, {cost} USD",
        name(&row.event),
        row.event.outcome.name(),
        count("input_tokens"),
        count("output_tokens"),
    )
}

fn nanos(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or(0).saturating_mul(NANOS_PER_MS)
}

impl Ids {
    /// A child of the span that the request named. The ids are made from the event's, so that a
    /// call which is sent twice is the same span twice.
    fn of(event: &Event) -> Ids {
        let digest = Sha256::digest(event.event_id.as_bytes());
        let (made, rest) = digest.split_at(16);
        let span = rest.get(..8).unwrap_or_default().to_vec();
        let trace = event.trace_id.as_deref().and_then(|text| id(text, 16));
        let parent = event.span_id.as_deref().and_then(|text| id(text, 8));
        match trace {
            Some(trace) => Ids {
                trace,
                span,
                parent: parent.unwrap_or_default(),
            },
            None => Ids {
                trace: made.to_vec(),
                span,
                parent: Vec::new(),
            },
        }
    }
}

/// An id of that many bytes in hexadecimal digits; shorter ones, as b3 knows them, are filled up
/// with zeros before them. An id of zeros only is none.
fn id(text: &str, n_bytes: usize) -> Option<Vec<u8>> {
    let padded = format!("{text:0>width$}", width = 2 * n_bytes);
    let is_hex = padded.bytes().all(|byte| byte.is_ascii_hexdigit());
    if text.is_empty() || padded.len() != 2 * n_bytes || !is_hex {
        return None;
    }
    let bytes = (0..n_bytes).map(|n| u8::from_str_radix(padded.get(2 * n..2 * n + 2)?, 16).ok());
    let bytes: Vec<u8> = bytes.collect::<Option<_>>()?;
    bytes.iter().any(|byte| *byte != 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_or_made() {
        let mut event = Event {
            event_id: "e-1".into(),
            ..Event::default()
        };
        let alone = Ids::of(&event);
        assert_eq!(
            (alone.trace.len(), alone.span.len(), alone.parent.len()),
            (16, 8, 0)
        );
        assert_eq!(alone, Ids::of(&event));

        event.trace_id = Some("0af7651916cd43dd8448eb211c80319c".into());
        event.span_id = Some("b7ad6b7169203331".into());
        let child = Ids::of(&event);
        assert_eq!(child.trace[..2], [0x0a, 0xf7]);
        assert_eq!(child.parent[6..], [0x33, 0x31]);
        assert_eq!(child.span, alone.span);

        // What a client may send in place of ids.
        for bad in [
            "",
            "0",
            "00000000000000000000000000000000",
            "xyz",
            "é",
            "+1",
            "1 2",
        ] {
            event.trace_id = Some(bad.into());
            assert_eq!(Ids::of(&event), alone, "{bad:?}");
        }
    }

    #[test]
    fn short_ids_are_filled_up() {
        assert_eq!(id("b7ad6b7169203331", 16).unwrap()[..8], [0; 8]);
        assert_eq!(id("1", 8).unwrap(), [0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(id(&"1".repeat(33), 16), None);
    }
}
