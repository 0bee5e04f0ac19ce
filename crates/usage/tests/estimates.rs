//! Measures the estimates of cut streams against what the same streams reported when whole.
//!
//! Every recorded stream that reports its usage, where recordings lie beside the project, is cut
//! at ten places. What is estimated then is held against the reported output in proportion to the
//! text that had been relayed: by its bytes, JSON escapes as written, calls' names and arguments
//! among them; reasoning only where no count tells it apart. Tokens are whole, and one that a cut
//! has begun to relay was generated: the proportion is rounded up. (What it would be unrounded is
//! printed beside it.) Where the report had come before the cut there is nothing to estimate, and
//! nothing is compared.
//!
//! An estimate that names something unseen says of itself that it is too low, and by an amount that
//! nobody knows. It is measured apart, and so that nothing hides there: every such cut is compared
//! and printed, by API too; the bounds are asserted of all estimates that name nothing unseen,
//! however little text they had; and no reasoning that was billed unseen may go unnamed.
//!
//! What the estimate knows of the model are the recording's other exchanges with it, as a worker
//! would have seen them: the stream itself is left out. The figures in `estimate/defaults.rs` were
//! fitted on the streams whose id begins with an even hexadecimal digit; the others are held out,
//! and the bounds are asserted of them alone and of all together.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tollmesh_usage::estimate::{Basis, Calibration, Call};
use tollmesh_usage::{
    Bucket, Detection, Family, RequestBody, RequestFacts, ResponseHead, Scan, Target, UsageScanner,
    UsageSource, detect, detect_as,
};

/// Where each stream is cut, in thousandths of its bytes.
const CUTS: [usize; 10] = [50, 150, 250, 350, 450, 550, 650, 750, 850, 950];

/// Eight tokens: cuts with less text are printed apart too.
const LITTLE_BYTES: u64 = 32;

/// The largest median of the relative error.
const MEDIAN_MAX: f64 = 0.25;

/// How far off, upwards or downwards, 95 of 100 estimates may be.
const RATIO_MAX: f64 = 2.0;

/// The share of all cuts, whatever their estimates name, that is within [`RATIO_MAX`]: what is
/// measured, with little room to grow worse.
const ALL_WITHIN_MIN: f64 = 0.92;

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
        let basis = cut.estimate_basis?;
        let is_summary = whole.thought_bytes > 0 && basis.unseen_reasoning;
        if now == 0 || ((whole.hides_reasoning || is_summary) && !is_told) {
            return None;
        }
        let n_tokens = self.whole.usage.get(Bucket::Output).unwrap_or(0);
        let share = n_tokens as f64 * now as f64 / all as f64;
        let truth = (n_tokens * now).div_ceil(all) as f64;
        let mut estimated = tokens(cut, Bucket::Output);
        if !is_split {
            estimated += tokens(cut, Bucket::Reasoning);
        }
        Some(Compared {
            n_bytes: now,
            share,
            truth,
            estimated,
            basis,
            is_reasoning_told: cut.usage.get(Bucket::Reasoning).is_some(),
        })
    }
}

/// One cut: the tokens of the text it relayed, by proportion, and those estimated.
struct Compared {
    n_bytes: u64,
    share: f64,
    /// The share in whole tokens.
    truth: f64,
    estimated: f64,
    basis: Basis,
    is_reasoning_told: bool,
}

impl Compared {
    fn names_unseen(&self) -> bool {
        self.basis.unseen_reasoning || self.basis.unseen_turns
    }
}

/// The larger over the smaller.
fn ratio_of(a: f64, b: f64) -> f64 {
    (a / b).max(b / a)
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
    /// The same against the share that is not rounded.
    unrounded: Vec<f64>,
    /// The difference.
    tokens: Vec<f64>,
}

impl Errors {
    fn add(&mut self, cut: &Compared) {
        let difference = (cut.estimated - cut.truth).abs();
        self.relative.push(difference / cut.truth);
        self.ratios.push(ratio_of(cut.estimated, cut.truth));
        self.unrounded.push(ratio_of(cut.estimated, cut.share));
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
            "{name:40} {:5}  {:6.2}  {:9.2}  {:9.2}  {:9.1} %  {:16.1} %",
            self.ratios.len(),
            self.median(),
            self.p95_ratio(),
            percentile(&self.unrounded, 95),
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

/// Every estimate.
const ALL: &str = "= all";

/// Estimates that claim to be whole.
const NOTHING: &str = "= naming nothing unseen";

/// Every estimate where there was some text, whatever it names; and those of them that are held out.
const ENOUGH: &str = "= 32 bytes and more";
const ENOUGH_HELD_OUT: &str = "= 32 bytes and more, held out";

/// Those of [`NOTHING`] of streams that no figure was fitted on.
const HELD_OUT: &str = "= naming nothing unseen, held out";

/// The groups to which a cut of this recording counts.
fn groups(recording: &Recording, cut: &Compared) -> Vec<String> {
    let api = recording.target.api.name();
    let family = family(&recording.model);
    let mut groups = vec![ALL.to_owned()];
    if cut.n_bytes >= LITTLE_BYTES {
        groups.push(ENOUGH.to_owned());
        if recording.is_held_out() {
            groups.push(ENOUGH_HELD_OUT.to_owned());
        }
    }
    if cut.names_unseen() {
        groups.push(match cut.basis.unseen_turns {
            true => "= naming turns unseen".to_owned(),
            false => "= naming reasoning unseen".to_owned(),
        });
        groups.push(format!("{api}, something unseen"));
        groups.push(format!("~ {family}, something unseen"));
        return groups;
    }
    groups.push(NOTHING.to_owned());
    groups.push(match recording.is_held_out() {
        true => HELD_OUT.to_owned(),
        false => format!("{NOTHING}, fitted on"),
    });
    groups.push(match cut.n_bytes < LITTLE_BYTES {
        true => format!("{NOTHING}, below {LITTLE_BYTES} bytes"),
        false => format!("{NOTHING}, {LITTLE_BYTES} bytes and more"),
    });
    groups.push(api.to_owned());
    groups.push(format!("~ {family}"));
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
    let mut silent = Vec::new();
    cut_all(&recordings, |recording, cut| {
        if recording.has_unseen_reasoning() && !cut.is_reasoning_told && !cut.names_unseen() {
            silent.push(recording.id.clone());
        }
        for group in groups(recording, cut) {
            errors.entry(group).or_default().add(cut);
        }
    });
    println!(
        "{:40}  cuts  median  p95 ratio  unrounded  within 2 x  ... or by {FEW_TOKENS} tokens",
        ""
    );
    for (group, errors) in &errors {
        errors.print(group);
    }
    assert!(
        silent.is_empty(),
        "reasoning unseen and unnamed: {silent:?}"
    );
    for group in [NOTHING, HELD_OUT, ENOUGH, ENOUGH_HELD_OUT] {
        let (median, ratio) = (errors[group].median(), errors[group].p95_ratio());
        assert!(median <= MEDIAN_MAX, "{group}: median error {median}");
        assert!(ratio <= RATIO_MAX, "{group}: 95th percentile {ratio}");
    }
    let all = &errors[ALL];
    assert!(all.median() <= MEDIAN_MAX, "{}", all.median());
    let within = all.within(RATIO_MAX, 0.0);
    assert!(within >= ALL_WITHIN_MIN, "{within} of all cuts");
}
