//! What is told of a call, as OpenTelemetry's attributes.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use tollmesh_usage::inclusive;
use tollmesh_wire::event::Source;
use tollmesh_wire::{Event, Outcome};

use crate::ledger::query::RequestRow;
use crate::money::PicoUsd;
use crate::otlp::names;
use crate::otlp::place::CostAttribute;

/// The port that providers listen at where a call's authority names none.
const PORT_DEFAULT: i64 = 443;

/// Pico-dollars in a dollar.
const PICO_PER_USD: f64 = 1e12;

/// Inclusive totals of ours, and the conventions' names of the same.
const TOKENS: &[(&str, &str)] = &[
    ("input_tokens", "gen_ai.usage.input_tokens"),
    ("output_tokens", "gen_ai.usage.output_tokens"),
    ("cache_read_tokens", "gen_ai.usage.cache_read.input_tokens"),
    (
        "cache_write_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
    ),
    ("reasoning_tokens", "gen_ai.usage.reasoning.output_tokens"),
    ("audio_input_tokens", "gen_ai.usage.audio.input_tokens"),
    ("audio_output_tokens", "gen_ai.usage.audio.output_tokens"),
    ("image_input_tokens", "gen_ai.usage.image.input_tokens"),
];

/// Tags that the conventions have names for; every tag is told as `tollmesh.tag.…` too.
const TAGS: &[(&str, &str)] = &[
    ("session", "session.id"),
    ("conversation", "gen_ai.conversation.id"),
    ("user", "user.id"),
    ("environment", "deployment.environment.name"),
];

/// Attributes being gathered.
#[derive(Default)]
pub struct Attributes(Vec<KeyValue>);

impl Attributes {
    /// Adds a text.
    pub fn text(&mut self, key: &str, value: impl Into<String>) {
        self.push(key, Value::StringValue(value.into()));
    }

    /// Adds a text where there is one.
    pub fn some_text(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    /// Adds a whole number where there is one.
    pub fn some_number(&mut self, key: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.push(
                key,
                Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)),
            );
        }
    }

    /// Adds that something is the case.
    pub fn flag(&mut self, key: &str) {
        self.push(key, Value::BoolValue(true));
    }

    /// What was gathered.
    pub fn into_vec(self) -> Vec<KeyValue> {
        self.0
    }

    fn push(&mut self, key: &str, value: Value) {
        self.0.push(KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue { value: Some(value) }),
            ..KeyValue::default()
        });
    }
}

/// All that is told of a call.
pub fn of_call(row: &RequestRow, cost: CostAttribute) -> Vec<KeyValue> {
    let event = &row.event;
    let mut all = Attributes::default();
    all.text("gen_ai.operation.name", names::operation(&event.api));
    all.text("gen_ai.provider.name", names::provider(&event.provider));
    all.some_text("gen_ai.request.model", event.model_requested.as_deref());
    all.some_text("gen_ai.response.model", event.model.as_deref());
    all.some_text("gen_ai.response.id", event.response_id.as_deref());
    if let Some(reason) = &event.finish_reason {
        let reason = AnyValue {
            value: Some(Value::StringValue(reason.clone())),
        };
        let values = vec![reason];
        all.push(
            "gen_ai.response.finish_reasons",
            Value::ArrayValue(ArrayValue { values }),
        );
    }
    all.push("gen_ai.request.stream", Value::BoolValue(event.stream));
    if let Some(ttft_ms) = event.ttft_ms.filter(|_| event.stream) {
        let seconds = Value::DoubleValue(seconds(ttft_ms));
        all.push("gen_ai.response.time_to_first_chunk", seconds);
    }
    push_server(&mut all, &event.host);
    all.some_number("http.response.status_code", event.status.map(u64::from));
    all.some_text("error.type", error_type(event).as_deref());
    for (name, key) in TOKENS {
        all.some_number(key, inclusive::total(&event.usage, name));
    }
    push_cost(&mut all, row, cost);
    push_own(&mut all, event);
    for (tag, value) in &event.tags {
        let known = TAGS.iter().find(|(name, _)| name == tag);
        if let Some((_, key)) = known {
            all.text(key, value);
        }
        all.text(&format!("tollmesh.tag.{tag}"), value);
    }
    all.into_vec()
}

/// `server.address` and `server.port`.
fn push_server(all: &mut Attributes, authority: &str) {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
        _ => (authority, None),
    };
    all.text("server.address", host);
    all.push("server.port", Value::IntValue(port.unwrap_or(PORT_DEFAULT)));
}

/// What the call cost by our tables. A call without a price has none of these: it is not free.
fn push_cost(all: &mut Attributes, row: &RequestRow, called: CostAttribute) {
    all.text("tollmesh.cost.status", row.cost.status.name());
    if let Some(stated) = row.provider_cost {
        all.push(
            "tollmesh.cost.stated_usd",
            Value::DoubleValue(usd(stated.as_pico().into())),
        );
    }
    let Some(total) = row.cost.total else {
        return;
    };
    let number = Value::DoubleValue(usd(total.as_pico().into()));
    all.push("tollmesh.cost.usd", number.clone());
    all.text("tollmesh.cost.exact_usd", PicoUsd::to_string(&total));
    match called {
        CostAttribute::Plain => all.push("gen_ai.usage.cost", number),
        CostAttribute::Proposed => {
            all.push("gen_ai.usage.cost.amount", number);
            all.text("gen_ai.usage.cost.currency", "USD");
            all.text("gen_ai.usage.cost.source", "local");
        }
    }
}

/// What the conventions have no name for.
fn push_own(all: &mut Attributes, event: &Event) {
    all.text("tollmesh.event_id", &event.event_id);
    all.text("tollmesh.api", &event.api);
    all.text("tollmesh.outcome", event.outcome.name());
    all.text("tollmesh.usage_source", &event.usage_source);
    all.push("tollmesh.billable", Value::BoolValue(event.billable));
    all.some_text("tollmesh.request_id", event.request_id.as_deref());
    all.some_text("tollmesh.service_tier", event.service_tier.as_deref());
    all.some_text("tollmesh.estimate_basis", event.estimate_basis.as_deref());
    all.some_text("tollmesh.trouble", event.trouble.as_deref());
    all.some_number("tollmesh.attempts", Some(u64::from(event.attempts)));
    all.some_number("tollmesh.tool_calls", event.tool_calls.map(u64::from));
    for (bucket, n_tokens) in event.usage.tokens() {
        all.some_number(
            &format!("tollmesh.tokens.{}", bucket.name()),
            Some(n_tokens),
        );
    }
}

/// Who called: the resource that a call's telemetry is of.
pub fn resource(source: &Source) -> Resource {
    let mut all = Attributes::default();
    let name = source
        .workload
        .as_deref()
        .unwrap_or("unknown_service:llm-client");
    all.text("service.name", name);
    all.some_text("service.namespace", source.namespace.as_deref());
    all.some_text("k8s.namespace.name", source.namespace.as_deref());
    all.some_text("k8s.pod.name", source.pod.as_deref());
    all.some_text("k8s.node.name", source.node.as_deref());
    all.some_text("k8s.cluster.name", source.cluster.as_deref());
    all.some_text(
        "tollmesh.service_account",
        source.service_account.as_deref(),
    );
    all.some_text("tollmesh.principal", source.principal.as_deref());
    Resource {
        attributes: all.into_vec(),
        ..Resource::default()
    }
}

/// The class of error that a call ended with; `None` where it went well.
pub fn error_type(event: &Event) -> Option<String> {
    match event.outcome {
        Outcome::Success | Outcome::Relayed => None,
        Outcome::Aborted => Some("aborted".to_owned()),
        Outcome::Denied => Some("denied".to_owned()),
        Outcome::Error => Some(match event.status {
            Some(status) if status >= 400 => status.to_string(),
            Some(_) => "error_in_body".to_owned(),
            None => "no_response".to_owned(),
        }),
    }
}

/// As OTLP's numbers are; the exact amount stands beside it as text.
pub fn usd(pico: i128) -> f64 {
    pico as f64 / PICO_PER_USD
}

/// Milliseconds as OTLP's numbers are.
pub fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}
