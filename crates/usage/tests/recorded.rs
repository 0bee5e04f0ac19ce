//! Scores the scanner against recorded exchanges, where they lie beside the project.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tollmesh_usage::{
    Detection, RequestFacts, ResponseHead, Scan, Target, Unit, UsageScanner, UsageSource, detect,
    inclusive,
};

/// The providers whose every unambiguous case must be right.
const PROVIDERS: &[&str] = &["openai", "anthropic", "google", "vertex"];

/// Names of the recordings' totals, and ours.
const TOTALS: &[(&str, &str)] = &[
    ("input_tokens", "input_tokens"),
    ("cache_read_tokens", "cache_read_tokens"),
    ("cache_write_tokens", "cache_write_tokens"),
    ("cache_write_1h_tokens", "cache_write_1h_tokens"),
    ("output_tokens", "output_tokens"),
    ("reasoning_tokens", "reasoning_tokens"),
    ("input_audio_tokens", "audio_input_tokens"),
    ("output_audio_tokens", "audio_output_tokens"),
];

struct Case {
    id: String,
    api: String,
    target: Option<Target>,
    head: ResponseHead,
    body: Vec<u8>,
    expected: Value,
    requested: Option<String>,
}

impl Case {
    fn read(line: &str) -> Option<Case> {
        let case: Value = serde_json::from_str(line).expect("a JSON line");
        let text = |key: &str| case[key].as_str().unwrap_or_default().to_owned();
        let is_ambiguous = !case["ambiguous"].is_null() || !case["expected"]["ambiguous"].is_null();
        if !PROVIDERS.contains(&text("provider").as_str()) || is_ambiguous {
            return None;
        }
        let target = match detect(&text("host"), &text("path"), &text("method")) {
            Detection::Metered(target) => Some(target),
            _ => None,
        };
        Some(Case {
            id: text("id"),
            api: text("api"),
            target,
            head: ResponseHead {
                status: u16::try_from(case["status"].as_u64()?).ok()?,
                headers: headers(&case["response_headers"]),
            },
            body: STANDARD.decode(text("response_body_b64")).expect("base64"),
            expected: case["expected"].clone(),
            requested: requested_model(&text("request_body")),
        })
    }

    fn scan(&self, target: &Target, n_chunk: usize) -> Scan {
        let mut scanner = UsageScanner::new(target, &RequestFacts::default(), &self.head);
        self.body.chunks(n_chunk).for_each(|c| scanner.push(c));
        scanner.finish()
    }

    /// The fields that are wrong, each with what was got and what was wanted.
    fn wrong(&self) -> Vec<String> {
        let Some(target) = &self.target else {
            return vec!["not detected".to_owned()];
        };
        if target.api.name() != self.api {
            return vec![format!("detected as {}", target.api.name())];
        }
        let whole = self.scan(target, self.body.len().max(1));
        for n_chunk in [1, 7] {
            let cut = self.scan(target, n_chunk);
            if cut != whole {
                return vec![format!("by {n_chunk}: {cut:?}\n  whole: {whole:?}")];
            }
        }
        self.compare(target, &whole)
    }

    fn compare(&self, target: &Target, scan: &Scan) -> Vec<String> {
        let expected = &self.expected;
        let mut wrong = Vec::new();
        let mut check = |name: &str, got: Value, wanted: &Value| {
            if got != *wanted {
                wrong.push(format!("{name}: got {got}, wanted {wanted}"));
            }
        };
        for (theirs, ours) in TOTALS {
            let got = inclusive::total(&scan.usage, ours);
            check(theirs, json!(got), &expected[*theirs]);
        }
        let fallback = target.path_model.clone().or(self.requested.clone());
        let model = scan
            .model
            .clone()
            .or(fallback.filter(|_| !expected["model"].is_null()));
        check("model", json!(model), &expected["model"]);
        // Protobuf's JSON prints enums as numbers on request; ours is text.
        let finish = match &expected["finish_reason"] {
            Value::Number(n) => json!(n.to_string()),
            other => other.clone(),
        };
        check("finish_reason", json!(scan.finish_reason), &finish);
        check(
            "tool_calls",
            json!(scan.tool_calls),
            &expected["tool_calls"],
        );
        check("complete", json!(scan.complete), &expected["complete"]);
        check("billable", json!(scan.billable), &expected["billable"]);
        let has_counts =
            !scan.usage.has_no_tokens() || scan.usage.unit(Unit::AudioSeconds).is_some();
        let is_present = scan.usage_source == UsageSource::Reported && has_counts;
        check(
            "usage_present",
            json!(is_present),
            &expected["usage_present"],
        );
        let is_error = expected["error"].as_bool().unwrap_or(false);
        check("error", json!(scan.is_error), &json!(is_error));
        self.compare_where_present(scan, &mut check);
        wrong
    }

    fn compare_where_present(&self, scan: &Scan, check: &mut impl FnMut(&str, Value, &Value)) {
        let unit = |unit: Unit| json!(scan.usage.unit(unit).map(|q| q.as_thousandths() / 1000));
        let billed = scan.billed_usage.as_ref().unwrap_or(&scan.usage);
        let cost = json!(
            scan.provider_cost_usd
                .as_ref()
                .and_then(|c| c.parse::<f64>().ok())
        );
        let extra: Vec<Value> = scan.extra_usage.iter().map(extra_json).collect();
        let tier = json!(scan.service_tier);
        let traffic = json!(scan.pricing_context.get("traffic_type"));
        for (name, got) in [
            ("service_tier", tier),
            ("traffic_type", traffic),
            ("web_search_requests", unit(Unit::WebSearches)),
            ("web_search_calls", unit(Unit::WebSearches)),
            ("web_fetch_requests", unit(Unit::WebFetches)),
            ("provider_cost_usd", cost),
            (
                "billed_input_tokens",
                json!(inclusive::total(billed, "input_tokens")),
            ),
            (
                "billed_output_tokens",
                json!(inclusive::total(billed, "output_tokens")),
            ),
            (
                "input_image_tokens",
                json!(inclusive::total(&scan.usage, "image_input_tokens")),
            ),
            (
                "output_image_tokens",
                json!(inclusive::total(&scan.usage, "image_output_tokens")),
            ),
            ("extra_usage", json!(extra)),
        ] {
            match &self.expected[name] {
                Value::Null => {}
                Value::Array(items) => {
                    let known: Vec<Value> = items
                        .iter()
                        .enumerate()
                        .map(|(i, item)| known_extra(item, &got[i]))
                        .collect();
                    check(name, got, &json!(known));
                }
                Value::Number(wanted) if name == "provider_cost_usd" => {
                    check(name, got, &json!(wanted.as_f64()));
                }
                Value::String(_) | Value::Number(_) => {
                    let as_text = |v: &Value| v.as_str().map_or(v.to_string(), str::to_owned);
                    let wanted = as_text(&self.expected[name]);
                    check(name, json!(as_text(&got)), &json!(wanted));
                }
                wanted => check(name, got, wanted),
            }
        }
    }
}

fn extra_json(extra: &tollmesh_usage::ExtraUsage) -> Value {
    let mut json = json!({"type": extra.kind, "model": extra.model});
    for (theirs, ours) in &TOTALS[..6] {
        json[*theirs] = json!(inclusive::total(&extra.usage, ours));
    }
    json
}

/// The recordings' extra usage, over what was got: they leave some keys out.
fn known_extra(item: &Value, got: &Value) -> Value {
    let mut json = got.clone();
    for (key, value) in item.as_object().into_iter().flatten() {
        json[key] = value.clone();
    }
    json
}

fn headers(json: &Value) -> Vec<(String, String)> {
    let text = |v: &Value| match v {
        Value::Array(items) => items[0].as_str().unwrap_or_default().to_owned(),
        other => other.as_str().unwrap_or_default().to_owned(),
    };
    match json {
        Value::Object(map) => map
            .iter()
            .map(|(name, value)| (name.to_lowercase(), text(value)))
            .collect(),
        Value::Array(pairs) => pairs
            .iter()
            .map(|pair| (text(&pair[0]).to_lowercase(), text(&pair[1])))
            .collect(),
        _ => Vec::new(),
    }
}

fn requested_model(body: &str) -> Option<String> {
    let body: Value = serde_json::from_str(body).ok()?;
    Some(body["model"].as_str()?.to_owned())
}

#[test]
fn every_unambiguous_recording_is_read_right() {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus/exchanges.jsonl");
    let Ok(file) = File::open(&path) else {
        println!("SKIPPED: no recorded exchanges at {}", path.display());
        return;
    };
    let mut scores: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    let mut failures = Vec::new();
    for line in BufReader::new(file).lines() {
        let Some(case) = Case::read(&line.expect("a line")) else {
            continue;
        };
        let wrong = case.wrong();
        let score = scores.entry(case.api.clone()).or_default();
        score.1 += 1;
        if wrong.is_empty() {
            score.0 += 1;
        } else {
            failures.push(format!("{} {}: {}", case.api, case.id, wrong.join("; ")));
        }
    }
    for (api, (n_right, n_cases)) in &scores {
        println!("{api:32} {n_right:4} of {n_cases:4}");
    }
    assert!(
        failures.is_empty(),
        "{} wrong:\n{}",
        failures.len(),
        failures.join("\n")
    );
}
