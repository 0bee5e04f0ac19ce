//! Metrics over the calls that were exported, cumulative since the process began.
//!
//! Histograms and their bounds are those of
//! <https://github.com/open-telemetry/semantic-conventions-genai/blob/main/docs/gen-ai/gen-ai-metrics.md>,
//! read 2026-11-22. Sums are ours: the conventions have no settled ones for cost.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use tollmesh_usage::inclusive;
use tollmesh_wire::{Event, Outcome};

use crate::ledger::query::RequestRow;
use crate::otlp::attributes::{self, Attributes};
use crate::otlp::names;
use crate::otlp::records::scope;

/// Attribute sets of one instrument; what is beyond goes under one set of its own, as
/// OpenTelemetry's SDKs do it
/// (<https://opentelemetry.io/docs/specs/otel/metrics/sdk/#cardinality-limits>).
const SETS_MAX: usize = 2_000;

/// The attribute of that set.
const OVERFLOW: &str = "otel.metric.overflow";

const NANOS_PER_MS: u64 = 1_000_000;

/// In tokens.
const TOKEN_BOUNDS: &[u64] = &[
    1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216,
    67_108_864,
];

/// In milliseconds.
const DURATION_BOUNDS: &[u64] = &[
    10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 5_120, 10_240, 20_480, 40_960, 81_920,
];

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instrument {
    TokenUsage,
    Duration,
    Cost,
    Tokens,
    Requests,
}

/// An attribute set, in a form that sorts.
type Set = BTreeMap<String, String>;

/// One attribute set's sum, with the buckets that it fell into where it is a histogram.
#[derive(Clone, Debug, Default)]
struct Point {
    sum: i128,
    count: u64,
    buckets: Vec<u64>,
}

/// Everything that was measured since it began.
#[derive(Debug)]
pub struct Meter {
    start_ms: i64,
    /// Tags that may be attributes; the same that may be Prometheus' labels.
    tags: Vec<String>,
    points: [BTreeMap<Set, Point>; Instrument::ALL.len()],
}

// === impl Instrument ===

impl Instrument {
    const ALL: [Instrument; 5] = [
        Instrument::TokenUsage,
        Instrument::Duration,
        Instrument::Cost,
        Instrument::Tokens,
        Instrument::Requests,
    ];

    /// Name, unit, description.
    const fn texts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Instrument::TokenUsage => (
                "gen_ai.client.token.usage",
                "{token}",
                "Input and output tokens of a call.",
            ),
            Instrument::Duration => (
                "gen_ai.client.operation.duration",
                "s",
                "From the first byte of a call's request to the last of its response.",
            ),
            Instrument::Cost => (
                "tollmesh.cost",
                "{USD}",
                "US dollars that providers charge, by our price tables.",
            ),
            Instrument::Tokens => (
                "tollmesh.tokens",
                "{token}",
                "Tokens; each is in exactly one bucket.",
            ),
            Instrument::Requests => ("tollmesh.requests", "{request}", "Metered calls."),
        }
    }

    const fn bounds(self) -> &'static [u64] {
        match self {
            Instrument::TokenUsage => TOKEN_BOUNDS,
            Instrument::Duration => DURATION_BOUNDS,
            _ => &[],
        }
    }

    /// A sum or a bound in the metric's unit.
    fn in_unit(self, value: i128) -> f64 {
        match self {
            Instrument::Duration => value as f64 / 1_000.0,
            Instrument::Cost => attributes::usd(value),
            _ => value as f64,
        }
    }
}

// === impl Meter ===

impl Meter {
    /// One that begins now.
    pub fn new(start_ms: i64, tags: Vec<String>) -> Meter {
        Meter {
            start_ms,
            tags,
            points: Default::default(),
        }
    }

    /// Whether nothing was measured yet.
    pub fn is_empty(&self) -> bool {
        self.points.iter().all(BTreeMap::is_empty)
    }

    /// Measures a call.
    pub fn add(&mut self, row: &RequestRow) {
        let event = &row.event;
        let set = self.set_of(event);
        let with = |name: &str, value: &str| {
            let mut set = set.clone();
            set.insert(name.to_owned(), value.to_owned());
            set
        };
        for (total, kind) in [("input_tokens", "input"), ("output_tokens", "output")] {
            if let Some(n) = inclusive::total(&event.usage, total) {
                self.record(
                    Instrument::TokenUsage,
                    with("gen_ai.token.type", kind),
                    n.into(),
                );
            }
        }
        for (bucket, n_tokens) in event.usage.tokens() {
            let set = with("tollmesh.bucket", bucket.name());
            self.record(Instrument::Tokens, set, n_tokens.into());
        }
        if event.outcome != Outcome::Denied {
            let set = match attributes::error_type(event) {
                Some(error) => with("error.type", &error),
                None => set.clone(),
            };
            self.record(Instrument::Duration, set, event.duration_ms.into());
        }
        let mut requests = with("tollmesh.outcome", event.outcome.name());
        requests.insert("tollmesh.usage_source".into(), event.usage_source.clone());
        self.record(Instrument::Requests, requests, 1);
        if let Some(cost) = row.cost.total {
            self.record(Instrument::Cost, set, cost.as_pico().into());
        }
    }

    /// All of it, as of that instant.
    pub fn export(&self, now_ms: i64) -> ExportMetricsServiceRequest {
        let metrics = Instrument::ALL
            .into_iter()
            .zip(&self.points)
            .filter(|(_, points)| !points.is_empty())
            .map(|(instrument, points)| self.metric(instrument, points, now_ms))
            .collect();
        let mut resource = Attributes::default();
        resource.text("service.name", "tollmesh");
        resource.text("service.version", env!("CARGO_PKG_VERSION"));
        ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(Resource {
                    attributes: resource.into_vec(),
                    ..Resource::default()
                }),
                scope_metrics: vec![ScopeMetrics {
                    scope: Some(scope()),
                    metrics,
                    ..ScopeMetrics::default()
                }],
                ..ResourceMetrics::default()
            }],
        }
    }

    fn set_of(&self, event: &Event) -> Set {
        let mut set = Set::new();
        let mut put = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                set.insert(name.to_owned(), value.to_owned());
            }
        };
        put("gen_ai.operation.name", Some(names::operation(&event.api)));
        put(
            "gen_ai.provider.name",
            Some(names::provider(&event.provider)),
        );
        put("gen_ai.request.model", event.model_requested.as_deref());
        put("gen_ai.response.model", event.model.as_deref());
        put("server.address", Some(&event.host));
        put("k8s.namespace.name", event.source.namespace.as_deref());
        put("tollmesh.service", event.source.workload.as_deref());
        for tag in &self.tags {
            let value = event.tags.get(tag).map(String::as_str);
            put(&format!("tollmesh.tag.{tag}"), value);
        }
        set
    }

    fn record(&mut self, instrument: Instrument, mut set: Set, value: i128) {
        let Some(points) = self.points.get_mut(instrument as usize) else {
            return;
        };
        if points.len() >= SETS_MAX - 1 && !points.contains_key(&set) {
            set = Set::from([(OVERFLOW.to_owned(), "true".to_owned())]);
        }
        let point = points.entry(set).or_default();
        point.sum += value;
        point.count += 1;
        let bounds = instrument.bounds();
        if !bounds.is_empty() {
            point.buckets.resize(bounds.len() + 1, 0);
            let at = bounds.partition_point(|bound| i128::from(*bound) < value);
            if let Some(bucket) = point.buckets.get_mut(at) {
                *bucket += 1;
            }
        }
    }

    fn metric(&self, instrument: Instrument, points: &BTreeMap<Set, Point>, now_ms: i64) -> Metric {
        let (name, unit, description) = instrument.texts();
        let times = (nanos(self.start_ms), nanos(now_ms));
        let temporality = AggregationTemporality::Cumulative.into();
        let data = if instrument.bounds().is_empty() {
            let points = points.iter();
            Data::Sum(Sum {
                data_points: points
                    .map(|(set, point)| number(instrument, set, point, times))
                    .collect(),
                aggregation_temporality: temporality,
                is_monotonic: true,
            })
        } else {
            let points = points.iter();
            Data::Histogram(Histogram {
                data_points: points
                    .map(|(set, point)| histogram(instrument, set, point, times))
                    .collect(),
                aggregation_temporality: temporality,
            })
        };
        Metric {
            name: name.to_owned(),
            unit: unit.to_owned(),
            description: description.to_owned(),
            data: Some(data),
            ..Metric::default()
        }
    }
}

fn number(
    instrument: Instrument,
    set: &Set,
    point: &Point,
    (start, now): (u64, u64),
) -> NumberDataPoint {
    let value = match instrument {
        Instrument::Cost => Number::AsDouble(instrument.in_unit(point.sum)),
        _ => Number::AsInt(i64::try_from(point.sum).unwrap_or(i64::MAX)),
    };
    NumberDataPoint {
        attributes: key_values(set),
        start_time_unix_nano: start,
        time_unix_nano: now,
        value: Some(value),
        ..NumberDataPoint::default()
    }
}

fn histogram(
    instrument: Instrument,
    set: &Set,
    point: &Point,
    (start, now): (u64, u64),
) -> HistogramDataPoint {
    let bounds = instrument.bounds().iter();
    HistogramDataPoint {
        attributes: key_values(set),
        start_time_unix_nano: start,
        time_unix_nano: now,
        count: point.count,
        sum: Some(instrument.in_unit(point.sum)),
        bucket_counts: point.buckets.clone(),
        explicit_bounds: bounds
            .map(|bound| instrument.in_unit((*bound).into()))
            .collect(),
        ..HistogramDataPoint::default()
    }
}

fn key_values(set: &Set) -> Vec<KeyValue> {
    let mut all = Attributes::default();
    for (name, value) in set {
        match name.as_str() {
            OVERFLOW => all.flag(name),
            _ => all.text(name, value),
        }
    }
    all.into_vec()
}

fn nanos(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or(0).saturating_mul(NANOS_PER_MS)
}

#[cfg(test)]
mod tests {
    use tollmesh_pricing::Status;
    use tollmesh_usage::Bucket;

    use super::*;
    use crate::ledger::CostRecord;
    use crate::money::PicoUsd;

    fn row(team: &str, output: u64, cost: Option<i64>) -> RequestRow {
        let mut event = Event {
            provider: "google".into(),
            api: "gemini.generate".into(),
            duration_ms: 20,
            ..Event::default()
        };
        event.usage.set(Bucket::Input, Some(3));
        event.usage.set(Bucket::CacheRead, Some(4));
        event.usage.set(Bucket::Output, Some(output));
        event.tags.insert("team".into(), team.into());
        event.tags.insert("user".into(), "somebody".into());
        RequestRow {
            row: 1,
            event,
            cost: CostRecord {
                total: cost.map(PicoUsd::from_pico),
                status: Status::Exact,
                list: None,
                lines: Vec::new(),
                row: None,
                pricing_version: "".into(),
                unpriced_because: None,
            },
            provider_cost: None,
            original: None,
            outcome_label: None,
        }
    }

    fn metric(meter: &Meter, name: &str) -> Metric {
        let request = meter.export(2_000);
        let all = &request.resource_metrics[0].scope_metrics[0].metrics;
        all.iter()
            .find(|metric| metric.name == name)
            .unwrap()
            .clone()
    }

    #[test]
    fn calls_add_up_by_their_attributes() {
        let mut meter = Meter::new(1_000, vec!["team".into()]);
        assert!(meter.is_empty());
        meter.add(&row("red", 5, Some(250_000_000_000)));
        meter.add(&row("red", 4, Some(500_000_000_000)));
        meter.add(&row("blue", 0, None));
        let Some(Data::Sum(cost)) = metric(&meter, "tollmesh.cost").data else {
            panic!("no sum");
        };
        // A call without a price adds no point: it is unknown, not free.
        assert_eq!(cost.data_points.len(), 1);
        assert_eq!(cost.data_points[0].value, Some(Number::AsDouble(0.75)));
        assert_eq!(cost.data_points[0].start_time_unix_nano, 1_000_000_000);
        let names: Vec<&str> = cost.data_points[0]
            .attributes
            .iter()
            .map(|attribute| attribute.key.as_str())
            .collect();
        assert!(names.contains(&"tollmesh.tag.team") && !names.join(" ").contains("user"));

        let Some(Data::Histogram(tokens)) = metric(&meter, "gen_ai.client.token.usage").data else {
            panic!("no histogram");
        };
        // Input and output of two teams each.
        assert_eq!(tokens.data_points.len(), 4);
        let counts: u64 = tokens.data_points.iter().map(|point| point.count).sum();
        let sums: f64 = tokens
            .data_points
            .iter()
            .filter_map(|point| point.sum)
            .sum();
        assert_eq!((counts, sums), (6, 30.0));
        for point in &tokens.data_points {
            assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
            assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
        }
        let Some(Data::Histogram(durations)) =
            metric(&meter, "gen_ai.client.operation.duration").data
        else {
            panic!("no histogram");
        };
        // Upper bounds are inclusive: 20 ms are in the second bucket, 0.01 to 0.02 seconds.
        assert!(
            durations
                .data_points
                .iter()
                .all(|point| point.bucket_counts[1] == point.count)
        );
    }

    #[test]
    fn sets_beyond_the_limit_are_one() {
        let mut meter = Meter::new(0, vec!["team".into()]);
        for n in 0..SETS_MAX + 10 {
            meter.add(&row(&format!("team-{n}"), 1, Some(1)));
        }
        let Some(Data::Sum(cost)) = metric(&meter, "tollmesh.cost").data else {
            panic!("no sum");
        };
        assert_eq!(cost.data_points.len(), SETS_MAX);
        let overflow = cost
            .data_points
            .iter()
            .find(|p| p.attributes[0].key == OVERFLOW);
        let sum = attributes::usd(11);
        assert_eq!(overflow.unwrap().value, Some(Number::AsDouble(sum)));
    }
}
