//! Measures the estimates of cut streams against what the same streams reported when whole.
//!
//! Every recorded stream that reports its usage, where recordings lie beside the project, is cut
//! at ten places. What is estimated then is held against the reported output in proportion to the
//! text that had been relayed. What the estimate knows of the model are the recording's other
//! exchanges with it, as a worker would have seen them: the stream itself is left out. The figures
//! in `estimate/defaults.rs` were fitted on the streams whose id begins with an even hexadecimal
//! digit; the others are held out, and the bounds are asserted of them alone and of all together.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tollmesh_usage::estimate::{Calibration, Call};
use tollmesh_usage::{
    Bucket, Detection, Family, RequestBody, RequestFacts, ResponseHead, Scan, Target, UsageScanner,
    UsageSource, detect, detect_as,
};

/// Where each stream is cut, in thousandths of its bytes.
const CUTS: [usize; 10] = [50, 150, 250, 350, 450, 550, 650, 750, 850, 950];

/// The least text, in bytes, of which a percentage says something: eight tokens. Cuts with less
/// are counted apart, and with the tokens by which they are off.
const COMPARED_BYTES_MIN: u64 = 32;

/// The largest median of the relative error.
const MEDIAN_MAX: f64 = 0.25;

/// How far off, upwards or downwards, 95 of 100 estimates may be.
const RATIO_MAX: f64 = 2.0;

/// The share of all cuts, however little text they have, that is within [`RATIO_MAX`] or off by no
/// more than [`FEW_TOKENS`]: what is measured, with little room to grow worse.
const ALL_WITHIN_MIN: f64 = 0.87;

/// A difference that costs nothing to speak of.
const FEW_TOKENS: f64 = 2.0;

/// An exchange, and what reading it whole gives.
struct Recording {
    id: String,
    model: String,
    target: Target,
    request: RequestFacts,
    head: ResponseHead,
    body: Vec<u8>,
    whole: Scan,
}

impl Recording {
    fn read(line: &str) -> Option<Recording> {
        let case: Value = serde_json::from_str(line).expect("a JSON line");
        let text = |key: &str| case[key].as_str().unwrap_or_default().to_owned();
        let (host, path, method) = (text("host"), text("path"), text("method"));
        let target = match detect(&host, &path, &method) {
            Detection::Metered(target) => target,
            Detection::NotOurs => [Family::OpenAi, Family::Ollama, Family::Gemini]
                .into_iter()
                .find_map(|family| detect_as(family, &text("provider"), &path, &method))?,
            Detection::Unreadable { .. } => return None,
        };
        let mut request = RequestBody::new(
            &target,
            case["request_content_type"].as_str(),
            Default::default(),
        );
        request.push(text("request_body").as_bytes());
        request.finish();
        let head = ResponseHead {
            status: u16::try_from(case["status"].as_u64()?).ok()?,
            headers: headers(&case["response_headers"]),
        };
        let body = STANDARD.decode(text("response_body_b64")).expect("base64");
        let request = request.facts().clone();
        Some(Recording::new(text("id"), target, request, head, body))
    }

    /// One of the project's own fixtures, whose requests are not kept.
    fn fixture(path: &Path) -> Recording {
        let id = path.display().to_string();
        let case = fs::read_to_string(path).expect(&id);
        let case: Value = serde_json::from_str(&case).expect(&id);
        let text = |key: &str| case[key].as_str().expect(key);
        let Detection::Metered(target) = detect(text("host"), text("path"), text("method")) else {
            panic!("{id} is not metered");
        };
        let request = RequestFacts {
            streams: true,
            body_bytes: 100,
            ..RequestFacts::default()
        };
        let head = ResponseHead {
            status: u16::try_from(case["status"].as_u64().expect(&id)).expect(&id),
            headers: vec![("content-type".to_owned(), text("content_type").to_owned())],
        };
        let body = fs::read(path.with_file_name(text("response"))).expect(&id);
        Recording::new(id, target, request, head, body)
    }

    fn new(
        id: String,
        target: Target,
        request: RequestFacts,
        head: ResponseHead,
        body: Vec<u8>,
    ) -> Recording {
        let mut recording = Recording {
            id,
            model: String::new(),
            request,
            head,
            body,
            whole: Scan::default(),
            target,
        };
        recording.whole = recording.scan(recording.body.len());
        let asked = recording.request.model.clone();
        let model = asked.or(recording.whole.model.clone()).unwrap_or_default();
        recording.model = format!("{}/{model}", recording.target.provider);
        recording
    }

    fn scan(&self, n_bytes: usize) -> Scan {
        let mut scanner = UsageScanner::new(&self.target, &self.request, &self.head);
        scanner.push(&self.body[..n_bytes]);
        scanner.finish()
    }

    /// Whether it is a stream whose usage was reported, so that cutting it leaves a question.
    fn is_stream(&self) -> bool {
        let content_type = self.head.header("content-type").unwrap_or_default();
        let has_kind = ["event-stream", "eventstream", "ndjson"]
            .iter()
            .any(|kind| content_type.contains(kind));
        has_kind
            && self.head.status == 200
            && self.whole.billable
            && !self.whole.is_error
            && self.whole.usage_source == UsageSource::Reported
    }

    fn call(&self) -> Call<'_> {
        Call {
            api: self.target.api,
            request: &self.request,
            status: Some(self.head.status),
            has_ended: false,
        }
    }

    /// Whether the figures were fitted without it.
    fn is_held_out(&self) -> bool {
        let digit = self.id.chars().next().and_then(|c| c.to_digit(16));
        digit.expect("a hexadecimal id") % 2 == 1
    }

    /// Whether the model reasoned and nothing, or not all of it, was relayed: what the report says
    /// of that is rounded, and the rest of the output has what the rounding left.
    fn has_unseen_reasoning(&self) -> bool {
        let relayed = &self.whole.relayed;
        let is_hidden = relayed.hides_reasoning || relayed.thought_bytes == 0;
        is_hidden && self.whole.usage.get(Bucket::Reasoning).unwrap_or(0) > 0
    }

    /// Whether its own report tells of tools that the router ran between the model's turns: their
    /// output is billed and never relayed
    /// (<https://openrouter.ai/docs/guides/features/server-tools>, `server_tool_use_details`).
    fn has_unseen_turns(&self) -> bool {
        let name = b"\"server_tool_use_details\":{";
        self.body.windows(name.len()).any(|window| window == name)
    }

    /// What a cut relayed and what was estimated of it; `None` where nothing was relayed, or where
    /// the report does not tell relayed output from reasoning that was not.
    fn compare(&self, cut: &Scan) -> Option<Compared> {
        let (whole, seen) = (&self.whole.relayed, &cut.relayed);
        let tokens = |scan: &Scan, bucket| scan.usage.get(bucket).unwrap_or(0) as f64;
        let is_split =
            self.whole.usage.get(Bucket::Reasoning).is_some() || whole.thought_bytes == 0;
        let (all, now) = match is_split {
            true => (whole.spoken_bytes(), seen.spoken_bytes()),
            false => (whole.text_bytes(), seen.text_bytes()),
        };
        let is_told = self.whole.usage.get(Bucket::Reasoning).is_some();
        let is_summary = whole.thought_bytes > 0
            && cut
                .estimate_basis
                .is_some_and(|basis| basis.unseen_reasoning);
        if now == 0 || ((whole.hides_reasoning || is_summary) && !is_told) {
            return None;
        }
        let truth = tokens(&self.whole, Bucket::Output) * now as f64 / all as f64;
        let mut estimated = tokens(cut, Bucket::Output);
        if !is_split {
            estimated += tokens(cut, Bucket::Reasoning);
        }
        Some(Compared {
            n_bytes: now,
            truth,
            estimated,
        })
    }
}

/// One cut: the tokens of the text it relayed, by proportion, and those estimated.
struct Compared {
    n_bytes: u64,
    truth: f64,
    estimated: f64,
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

/// How far estimates were off.
#[derive(Default)]
struct Errors {
    /// Difference over truth.
    relative: Vec<f64>,
    /// The larger over the smaller.
    ratios: Vec<f64>,
    /// The difference.
    tokens: Vec<f64>,
}

impl Errors {
    fn add(&mut self, cut: &Compared) {
        let difference = (cut.estimated - cut.truth).abs();
        self.relative.push(difference / cut.truth);
        let ratio = cut.estimated / cut.truth;
        self.ratios.push(ratio.max(1.0 / ratio));
        self.tokens.push(difference);
    }

    fn median(&self) -> f64 {
        percentile(&self.relative, 50)
    }

    fn p95_ratio(&self) -> f64 {
        percentile(&self.ratios, 95)
    }

    /// The share that is within the ratio, or off by no more than so many tokens.
    fn within(&self, ratio: f64, n_tokens: f64) -> f64 {
        let pairs = self.ratios.iter().zip(&self.tokens);
        let n_within = pairs.filter(|(r, n)| **r <= ratio || **n <= n_tokens);
        n_within.count() as f64 / self.ratios.len() as f64
    }

    fn print(&self, name: &str) {
        println!(
            "{name:31} {:5}  {:6.2}  {:9.2}  {:9.1} %  {:16.1} %",
            self.ratios.len(),
            self.median(),
            self.p95_ratio(),
            self.within(RATIO_MAX, 0.0) * 100.0,
            self.within(RATIO_MAX, FEW_TOKENS) * 100.0,
        );
    }
}

fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) * percent / 100]
}

/// `openai/gpt-4o-2024-08-06` and `openrouter/openai/gpt-4o` are both `gpt`.
fn family(model: &str) -> String {
    let name = model.rsplit('/').next().unwrap_or(model).to_lowercase();
    let known = [
        "claude", "gpt", "gemini", "nova", "llama", "mistral", "deepseek", "grok", "qwen",
    ];
    let found = known.iter().find(|family| name.contains(*family));
    found.map_or_else(|| "other".to_owned(), |family| (*family).to_owned())
}

/// What a worker that had seen the model's other exchanges would know of it.
fn taught_by_others(recordings: &[Recording], i: usize) -> Calibration {
    let mut calibration = Calibration::default();
    for (j, other) in recordings.iter().enumerate() {
        if j != i && other.model == recordings[i].model {
            calibration.learn(&other.whole, &other.call());
        }
    }
    calibration
}

/// The groups to which a cut of this recording counts.
fn groups(recording: &Recording, cut: &Compared) -> Vec<String> {
    let mut groups = vec![match cut.n_bytes >= COMPARED_BYTES_MIN {
        true => "= 32 bytes and more".to_owned(),
        false => "= less text".to_owned(),
    }];
    groups.push("= all".to_owned());
    if !recording.has_unseen_reasoning() {
        groups.push("= all without unseen reasoning".to_owned());
    }
    if cut.n_bytes < COMPARED_BYTES_MIN {
        return groups;
    }
    groups.push(match recording.is_held_out() {
        true => "= .. held out".to_owned(),
        false => "= .. fitted on".to_owned(),
    });
    groups.push(match recording.has_unseen_turns() {
        true => "= .. with unseen turns".to_owned(),
        false => "= .. without unseen turns".to_owned(),
    });
    groups.push(recording.target.api.name().to_owned());
    groups.push(format!("~ {}", family(&recording.model)));
    groups
}

fn recordings() -> Option<Vec<Recording>> {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus/exchanges.jsonl");
    let Ok(file) = File::open(&path) else {
        println!("SKIPPED: no recorded exchanges at {}", path.display());
        return None;
    };
    let lines = BufReader::new(file).lines();
    Some(
        lines
            .filter_map(|line| Recording::read(&line.expect("a line")))
            .collect(),
    )
}

/// Cuts every stream; what is comparable is given on. Each cut has an event with an estimate, or
/// one whose report had come. Answers how many streams there were.
fn cut_all(recordings: &[Recording], mut give: impl FnMut(&Recording, &Compared)) -> usize {
    let (mut n_streams, mut n_cuts, mut n_compared) = (0, 0, 0);
    for (i, recording) in recordings.iter().enumerate() {
        if !recording.is_stream() {
            continue;
        }
        n_streams += 1;
        let calibration = taught_by_others(recordings, i);
        for cut in CUTS {
            let mut scan = recording.scan(recording.body.len() * cut / 1000);
            let is_told = scan.relayed.is_report_final && scan.usage.output_total().is_some();
            calibration.complete(&mut scan, &recording.call());
            let is_estimated = scan.usage_source == UsageSource::Estimated
                && scan.estimate_basis.is_some()
                && scan.usage.get(Bucket::Output).is_some();
            n_cuts += 1;
            if !scan.billable {
                // Only the end of an assistant's run tells that it is charged.
                continue;
            }
            assert!(is_told || is_estimated, "{} at {cut}", recording.id);
            if let Some(compared) = recording.compare(&scan) {
                n_compared += 1;
                give(recording, &compared);
            }
        }
    }
    println!("{n_streams} streams, {n_cuts} cuts, {n_compared} of them comparable");
    n_streams
}

/// The fixtures' counts are made up, so that only the estimates' being there can be asserted of
/// them; `estimate/tests.rs` compares some with counts that providers reported.
#[test]
fn every_cut_of_a_fixture_has_an_estimate() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus");
    let mut fixtures = Vec::new();
    for api in fs::read_dir(root).expect("tests/corpus") {
        let Ok(files) = fs::read_dir(api.expect("an entry").path()) else {
            continue;
        };
        for file in files {
            let path = file.expect("an entry").path();
            if path.to_string_lossy().ends_with(".case.json") {
                fixtures.push(Recording::fixture(&path));
            }
        }
    }
    let n_streams = cut_all(&fixtures, |recording, cut| {
        assert!(cut.estimated > 0.0, "{}", recording.id);
    });
    assert!(n_streams >= 10, "only {n_streams} streams");
}

#[test]
fn a_reason_to_end_does_not_make_an_earlier_report_the_last() {
    let event = r#"data: {"candidates":[{"content":{"parts":[{"text":"four words of text"}]}"#;
    let usage = r#""usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":"#;
    let begun = format!("{event}}}],{usage}4}}}}\n\n");
    let end = r#"data: {"candidates":[{"content":{"parts":[{"text":""}]},"finishReason":"STOP"}],"#;
    let path = "/v1beta/models/gemini-a:streamGenerateContent";
    let host = "generativelanguage.googleapis.com";
    let Detection::Metered(target) = detect(host, path, "POST") else {
        panic!("not metered");
    };
    for (body, is_final) in [
        (begun.clone(), false),
        (format!("{begun}{end}"), false),
        (format!("{begun}{end}{usage}12}}}}\n\n"), true),
    ] {
        let head = ResponseHead {
            status: 200,
            headers: vec![("content-type".to_owned(), "text/event-stream".to_owned())],
        };
        let mut scanner = UsageScanner::new(&target, &RequestFacts::default(), &head);
        scanner.push(body.as_bytes());
        let relayed = scanner.finish().relayed;
        assert_eq!(relayed.is_report_final, is_final, "{body}");
    }
}

#[test]
fn cut_streams_are_estimated_close_to_what_was_relayed() {
    let Some(recordings) = recordings() else {
        return;
    };
    let mut errors: BTreeMap<String, Errors> = BTreeMap::new();
    cut_all(&recordings, |recording, cut| {
        for group in groups(recording, cut) {
            errors.entry(group).or_default().add(cut);
        }
    });
    println!(
        "{:31}  cuts  median  p95 ratio  within 2 x  ... or by {FEW_TOKENS} tokens",
        ""
    );
    for (group, errors) in &errors {
        errors.print(group);
    }
    for group in ["= .. held out", "= 32 bytes and more"] {
        let (median, ratio) = (errors[group].median(), errors[group].p95_ratio());
        assert!(median <= MEDIAN_MAX, "{group}: median error {median}");
        assert!(ratio <= RATIO_MAX, "{group}: 95th percentile {ratio}");
    }
    let all = &errors["= all"];
    assert!(all.median() <= MEDIAN_MAX, "{}", all.median());
    let within = all.within(RATIO_MAX, FEW_TOKENS);
    assert!(within >= ALL_WITHIN_MIN, "{within} of all cuts");
}
