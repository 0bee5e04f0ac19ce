//! `tollmesh extract`: recorded exchanges to usage, through the scanners that the filter runs.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tollmesh_usage::detect::{detect_as, is_known};
use tollmesh_usage::{
    Detection, Edits, Family, RequestBody, RequestFacts, ResponseHead, Scan, Target, UsageScanner,
    detect, inclusive,
};

use super::{Outcome, lines};

/// Read usage out of recorded exchanges.
///
/// Standard input: one exchange a line, as JSON with `id`, `method`, `host`, `path`,
/// `request_content_type`, `request_body`, `status`, `response_headers`, `response_body_b64`, and
/// optionally `provider`. Standard output: what the filter would have metered, one line each:
/// model, inclusive totals in `usage`, disjoint counts in `buckets`, and what was wrong in
/// `trouble`. The output is what `tollmesh price` reads:
///
/// tollmesh extract < exchanges.jsonl | tollmesh price
#[derive(Debug, Args)]
pub struct Arguments {
    /// Feed the response in pieces of that many bytes; the result is the same.
    #[arg(long, value_name = "BYTES")]
    chunk: Option<NonZeroUsize>,
}

/// One recorded exchange. Unknown fields are somebody else's notes.
#[derive(Debug, Deserialize)]
struct Exchange {
    #[serde(default)]
    id: Value,
    #[serde(default = "post")]
    method: String,
    host: String,
    path: String,
    #[serde(default)]
    request_content_type: Option<String>,
    #[serde(default)]
    request_body: Option<String>,
    #[serde(default = "ok")]
    status: u16,
    #[serde(default)]
    response_headers: BTreeMap<String, String>,
    #[serde(default)]
    response_body_b64: String,
    /// Who bills a host of one's own; hosts in our table are known better.
    #[serde(default)]
    provider: Option<String>,
}

/// What hosts of one's own may offer; paths that two families share are the earlier one's.
const FAMILIES: [Family; 8] = [
    Family::OpenAi,
    Family::Anthropic,
    Family::Gemini,
    Family::Vertex,
    Family::Ollama,
    Family::Cohere,
    Family::Bedrock,
    Family::Watsonx,
];

fn post() -> String {
    "POST".to_owned()
}

const fn ok() -> u16 {
    200
}

/// Scans each line.
pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let scanned = |line: &[u8]| {
        let exchange: Exchange = serde_json::from_slice(line).context("not an exchange")?;
        let body = BASE64
            .decode(&exchange.response_body_b64)
            .context("response_body_b64 is not base64")?;
        Ok(extract(&exchange, &body, arguments.chunk))
    };
    lines::for_each(scanned, |_, _| None)
}

fn extract(exchange: &Exchange, body: &[u8], chunk: Option<NonZeroUsize>) -> Value {
    let target = match own_target(exchange) {
        Some(target) => target,
        None => match detect(&exchange.host, &exchange.path, &exchange.method) {
            Detection::Metered(target) => billed_by(target, exchange.provider.as_deref()),
            Detection::Unreadable { provider, .. } => return unmetered(exchange, Some(provider)),
            Detection::NotOurs => return unmetered(exchange, exchange.provider.as_deref()),
        },
    };
    let facts = scan_request(&target, exchange);
    let head = head_of(exchange);
    let mut scanner = UsageScanner::new(&target, &facts, &head);
    for piece in body.chunks(chunk.map_or(body.len().max(1), NonZeroUsize::get)) {
        scanner.push(piece);
    }
    let mut scan = scanner.finish();
    scan.settle_model(&target, &facts);
    let is_stream = facts.streams || scan.is_stream || is_event_stream(&head);
    found(&exchange.id, &target, &facts, is_stream, scan)
}

/// A host that only the shape of its path made us take for a provider's is the line's to name.
fn billed_by(mut target: Target, provider: Option<&str>) -> Target {
    if let Some(provider) = provider.filter(|_| target.provider.ends_with("-compatible")) {
        target.provider = provider.to_owned();
    }
    target
}

/// A host that nobody knows, whose provider the line names, is taken for one of one's own, as the
/// filter takes those of its `apis`. The path says whose endpoints it offers.
fn own_target(exchange: &Exchange) -> Option<Target> {
    let provider = exchange.provider.as_deref();
    let provider = provider.filter(|_| !is_known(&exchange.host))?;
    FAMILIES
        .into_iter()
        .find_map(|family| detect_as(family, provider, &exchange.path, &exchange.method))
}

fn scan_request(target: &Target, exchange: &Exchange) -> RequestFacts {
    let content_type = exchange.request_content_type.as_deref();
    let mut request = RequestBody::new(target, content_type, Edits::default());
    if let Some(body) = &exchange.request_body {
        // Without edits nothing comes back to be sent.
        let _ = request.push(body.as_bytes());
    }
    request.facts().clone()
}

fn head_of(exchange: &Exchange) -> ResponseHead {
    let headers = exchange.response_headers.iter();
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
    ResponseHead {
        status: exchange.status,
        headers: headers
            .filter(|(name, _)| ResponseHead::WANTED.contains(&name.as_str()))
            .collect(),
    }
}

fn is_event_stream(head: &ResponseHead) -> bool {
    let media_type = head.header("content-type").unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    ["text/event-stream", "application/vnd.amazon.eventstream"]
        .iter()
        .any(|stream| media_type.eq_ignore_ascii_case(stream))
}

/// The line of an exchange that was scanned.
fn found(id: &Value, target: &Target, facts: &RequestFacts, is_stream: bool, scan: Scan) -> Value {
    let model_requested = facts.model.as_ref().or(target.path_model.as_ref());
    let service_tier = scan.service_tier.as_ref().or(facts.service_tier.as_ref());
    let mut context = target.pricing_context.clone();
    context.extend(scan.pricing_context);
    let extra = scan.extra_usage.iter().map(|extra| {
        json!({
            "kind": extra.kind,
            "model": extra.model,
            "usage": named(&extra.usage),
            "buckets": extra.usage,
        })
    });
    json!({
        "id": id,
        "api": target.api.name(),
        "provider": target.provider,
        "model": scan.model,
        "model_requested": model_requested,
        "response_id": scan.response_id,
        "stream": is_stream,
        "usage_source": scan.usage_source.name(),
        "billable": scan.billable,
        "complete": scan.complete,
        "error": scan.is_error,
        "usage": named(&scan.usage),
        "buckets": scan.usage,
        "billed_buckets": scan.billed_usage,
        "extra_usage": extra.collect::<Vec<_>>(),
        "finish_reason": scan.finish_reason.as_deref().map(as_written),
        "tool_calls": scan.tool_calls,
        "service_tier": service_tier,
        "pricing_context": context,
        "provider_cost_usd": scan.provider_cost_usd,
        "trouble": scan.trouble.map(|trouble| trouble.name()),
    })
}

/// A reason to end as the provider wrote it: protobuf's JSON has the numbers of its enums where a
/// client asked for them (`$alt=json;enum-encoding=int`), everyone else has words.
fn as_written(finish_reason: &str) -> Value {
    match finish_reason.parse::<u32>() {
        Ok(number) => json!(number),
        Err(_) => json!(finish_reason),
    }
}

/// The counts under the names that people know; absent ones are null.
fn named(usage: &tollmesh_usage::Usage) -> Value {
    let tokens = inclusive::totals(usage);
    let mut names: Map<String, Value> = tokens
        .map(|(name, count)| (name.to_owned(), json!(count)))
        .collect();
    for (unit, amount) in usage.units() {
        names.insert(unit.name().to_owned(), json!(amount));
    }
    Value::Object(names)
}

/// The line of an exchange that the filter would not have scanned.
fn unmetered(exchange: &Exchange, provider: Option<&str>) -> Value {
    json!({
        "id": exchange.id,
        "api": null,
        "provider": provider,
        "model": null,
        "model_requested": null,
        "stream": null,
        "usage_source": "absent",
        "billable": false,
        "complete": null,
        "usage": {},
        "buckets": {},
        "extra_usage": [],
        "finish_reason": null,
        "tool_calls": null,
        "service_tier": null,
        "provider_cost_usd": null,
        "trouble": "unmetered",
    })
}
