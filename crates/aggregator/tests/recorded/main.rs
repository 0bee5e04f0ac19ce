//! The commands `extract` and `price` over recorded exchanges and decided costs, where such lie
//! beside the project: every unambiguous case must come out right, in every field.

/// Our cost beside the one that providers state.
mod stated;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use rust_decimal::Decimal;
use serde_json::{Value, json};

/// Inclusive totals: the recordings' name, and ours.
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

/// Counts that the recordings name only where an answer has them.
const TOTALS_WHERE_NAMED: &[(&str, &str)] = &[
    ("web_search_requests", "web_searches"),
    ("web_fetch_requests", "web_fetches"),
    ("input_image_tokens", "image_input_tokens"),
    ("output_image_tokens", "image_output_tokens"),
];

/// How far a cost may be from the one noted down, relative to it: those who noted it down reckoned
/// in binary fractions.
const RELATIVE_ERROR_MAX: Decimal = Decimal::from_parts(1, 0, 0, false, 9);

/// One dollar in the ticks that xAI states costs in (docs.x.ai, `cost_in_usd_ticks`).
const TICKS_PER_USD: Decimal = Decimal::from_parts(1_410_065_408, 2, 0, false, 0);

/// The file below the folder beside the project; loud where it is not there.
fn beside(path: &str) -> Option<Vec<u8>> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared")
        .join(path);
    let found = fs::read(&path).ok();
    if found.is_none() {
        eprintln!("SKIPPED, nothing was checked: no {}", path.display());
    }
    found
}

fn lines(bytes: &[u8]) -> Vec<Value> {
    let lines = bytes.split(|byte| *byte == b'\n');
    let lines = lines.filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

fn tollmesh(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tollmesh"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = thread::scope(|scope| {
        // Answers come before the input has ended; nobody may wait for the other.
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{arguments:?}: {}", output.status);
    output.stdout
}

/// Right cases of all cases, by a name; and what is wrong with the others.
#[derive(Default)]
struct Score {
    by_name: BTreeMap<String, (u32, u32)>,
    wrong: Vec<String>,
}

impl Score {
    fn note(&mut self, name: &Value, id: &Value, wrong: &[String]) {
        let name = name.as_str().unwrap_or("?").to_owned();
        if !wrong.is_empty() {
            self.wrong
                .push(format!("{name} {id}: {}", wrong.join("; ")));
        }
        let (n_right, n_cases) = self.by_name.entry(name).or_default();
        *n_right += u32::from(wrong.is_empty());
        *n_cases += 1;
    }

    fn settle(self, what: &str) {
        for (name, (n_right, n_cases)) in &self.by_name {
            println!("{what} {name:32} {n_right:4} of {n_cases:4}");
        }
        assert!(!self.by_name.is_empty(), "{what}: no case at all");
        let wrong = self.wrong.join("\n");
        assert!(
            wrong.is_empty(),
            "{what}: {} wrong:\n{wrong}",
            self.wrong.len()
        );
    }
}

/// The fields of an answer that are not as expected.
#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn check(&mut self, name: &str, got: &Value, wanted: &Value) {
        let same = match (got, wanted) {
            (Value::Number(got), Value::Number(wanted)) => {
                decimal(&got.to_string()) == decimal(&wanted.to_string())
            }
            _ => got == wanted,
        };
        if !same {
            self.0.push(format!("{name}: got {got}, wanted {wanted}"));
        }
    }

    fn check_where_named(&mut self, name: &str, got: &Value, wanted: &Value) {
        if !wanted.is_null() {
            self.check(name, got, wanted);
        }
    }
}

fn decimal(text: &str) -> Decimal {
    let plain = text.parse();
    plain.or_else(|_| Decimal::from_scientific(text)).unwrap()
}

fn is_near(got: Decimal, wanted: Decimal) -> bool {
    (got - wanted).abs() <= wanted.abs() * RELATIVE_ERROR_MAX
}

fn wrong_fields(case: &Value, got: &Value) -> Vec<String> {
    let expected = &case["expected"];
    let mut differences = Differences::default();
    for name in ["id", "api", "provider", "stream"] {
        differences.check_where_named(name, &got[name], &case[name]);
    }
    for name in [
        "model",
        "finish_reason",
        "tool_calls",
        "complete",
        "billable",
    ] {
        differences.check(name, &got[name], &expected[name]);
    }
    for (theirs, ours) in TOTALS {
        differences.check(theirs, &got["usage"][ours], &expected[*theirs]);
    }
    for (theirs, ours) in TOTALS_WHERE_NAMED {
        let (got, wanted) = (&got["usage"][ours], &expected[*theirs]);
        differences.check_where_named(theirs, &as_number(got), &as_number(wanted));
    }
    let is_error = json!(expected["error"] == true);
    differences.check("error", &got["error"], &is_error);
    let is_present = json!(got["usage_source"] == "reported");
    differences.check("usage_present", &is_present, &expected["usage_present"]);
    let (tier, wanted) = (&got["service_tier"], &expected["service_tier"]);
    differences.check_where_named("service_tier", tier, wanted);
    compare_costs(got, expected, &mut differences);
    compare_extra(got, expected, &mut differences);
    differences.0
}

/// A count may be written as text.
fn as_number(count: &Value) -> Value {
    match count.as_str() {
        Some(text) => serde_json::from_str(text).unwrap(),
        None => count.clone(),
    }
}

fn compare_costs(got: &Value, expected: &Value, differences: &mut Differences) {
    let ticks = &expected["provider_cost_usd_ticks"];
    let wanted = match &expected["provider_cost_usd"] {
        Value::Null if ticks.is_number() => decimal(&ticks.to_string()) / TICKS_PER_USD,
        Value::Number(usd) => decimal(&usd.to_string()),
        _ => return,
    };
    let usd = got["provider_cost_usd"].as_str().map(decimal);
    if !usd.is_some_and(|usd| is_near(usd, wanted)) {
        let told = format!("provider_cost_usd: got {usd:?}, wanted {wanted}");
        differences.0.push(told);
    }
}

fn compare_extra(got: &Value, expected: &Value, differences: &mut Differences) {
    let Some(wanted) = expected["extra_usage"].as_array() else {
        return;
    };
    let n_got = got["extra_usage"].as_array().map(Vec::len);
    differences.check("extra_usage", &json!(n_got), &json!(wanted.len()));
    for (i, fields) in wanted.iter().enumerate() {
        let extra = &got["extra_usage"][i];
        for (name, wanted) in fields.as_object().into_iter().flatten() {
            let total = TOTALS.iter().find(|(theirs, _)| theirs == name);
            let got = match (name.as_str(), total) {
                ("type", _) => &extra["kind"],
                (_, Some((_, ours))) => &extra["usage"][ours],
                _ => &extra[name],
            };
            differences.check(&format!("extra_usage[{i}].{name}"), got, wanted);
        }
    }
}

#[test]
fn every_unambiguous_recording_is_extracted_right() {
    let Some(exchanges) = beside("corpus/exchanges.jsonl") else {
        return;
    };
    let whole = tollmesh(&["extract"], &exchanges);
    for chunk in ["1", "7"] {
        let cut = tollmesh(&["extract", "--chunk", chunk], &exchanges);
        assert!(cut == whole, "pieces of {chunk} bytes make a difference");
    }
    let (cases, answers) = (lines(&exchanges), lines(&whole));
    assert_eq!(cases.len(), answers.len());
    let mut score = Score::default();
    for (case, answer) in cases.iter().zip(&answers) {
        let is_ambiguous = !case["ambiguous"].is_null() || !case["expected"]["ambiguous"].is_null();
        if !is_ambiguous {
            score.note(&case["api"], &case["id"], &wrong_fields(case, answer));
        }
    }
    score.settle("extract");
}

#[test]
fn every_decided_cost_is_met() {
    let Some(costs) = beside("pricing/cost_cases.jsonl") else {
        return;
    };
    let (cases, answers) = (lines(&costs), lines(&tollmesh(&["price"], &costs)));
    assert_eq!(cases.len(), answers.len());
    let mut score = Score::default();
    for (case, answer) in cases.iter().zip(&answers) {
        if !case["expected_usd"].is_null() || case["expected_source"] == "unpriced" {
            score.note(&case["provider"], &case["id"], &wrong_cost(case, answer));
        }
    }
    score.settle("price");
}

fn wrong_cost(case: &Value, answer: &Value) -> Vec<String> {
    let got = answer["cost_usd"].as_str().map(decimal);
    let wanted = case["expected_usd"].as_str().map(decimal);
    let is_right = match (got, wanted) {
        (Some(got), Some(wanted)) => is_near(got, wanted),
        (got, wanted) => got == wanted && answer["status"] == "unpriced",
    };
    let wrong = (!is_right).then(|| {
        let (model, status) = (&case["model"], &answer["status"]);
        format!("{model}: got {got:?} ({status}), wanted {wanted:?}")
    });
    wrong.into_iter().collect()
}
