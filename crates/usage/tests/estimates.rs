//! Measures the estimates of cut streams against recorded ones, where they lie beside the project.
//!
//! Every recorded stream that reports its usage is cut at ten places. What is estimated then is
//! held against the reported output in proportion to the text that had been relayed. What the
//! estimate knows of the model are the recording's other exchanges with it, as a worker would
//! have seen them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

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

/// The least text that is compared: a truth of a few tokens has no percentages.
const COMPARED_BYTES_MIN: u64 = 32;

/// How far off, upwards or downwards, 95 of 100 estimates may be: what is measured, with little
/// room to grow worse.
const RATIO_MAX: f64 = 2.5;

/// The share of estimates that are off by no more than a factor of two.
const WITHIN_TWO_MIN: f64 = 0.89;

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
        let mut recording = Recording {
            id: text("id"),
            model: String::new(),
            request: request.facts().clone(),
            head: ResponseHead {
                status: u16::try_from(case["status"].as_u64()?).ok()?,
                headers: headers(&case["response_headers"]),
            },
            body: STANDARD.decode(text("response_body_b64")).expect("base64"),
            whole: Scan::default(),
            target,
        };
        recording.whole = recording.scan(recording.body.len());
        let asked = recording.request.model.clone();
        let model = asked.or(recording.whole.model.clone()).unwrap_or_default();
        recording.model = format!("{}/{model}", recording.target.provider);
        Some(recording)
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

    /// The tokens of the text that a cut stream relayed, by proportion; and those estimated.
    fn compare(&self, cut: &Scan) -> Option<(f64, f64)> {
        let (whole, seen) = (&self.whole.relayed, &cut.relayed);
        let tokens = |scan: &Scan, bucket| scan.usage.get(bucket).unwrap_or(0) as f64;
        let is_split =
            self.whole.usage.get(Bucket::Reasoning).is_some() || whole.thought_bytes == 0;
        let (all, now) = match is_split {
            true => (whole.spoken_bytes(), seen.spoken_bytes()),
            false => (whole.text_bytes(), seen.text_bytes()),
        };
        let is_told = self.whole.usage.get(Bucket::Reasoning).is_some();
        // How much of the output was thought unseen is not told: nothing to compare with.
        if now < COMPARED_BYTES_MIN || (whole.hides_reasoning && !is_told) {
            return None;
        }
        let truth = tokens(&self.whole, Bucket::Output) * now as f64 / all as f64;
        let mut estimated = tokens(cut, Bucket::Output);
        if !is_split {
            estimated += tokens(cut, Bucket::Reasoning);
        }
        Some((truth, estimated))
    }
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
}

impl Errors {
    fn add(&mut self, truth: f64, estimated: f64) {
        self.relative.push((estimated - truth).abs() / truth);
        self.ratios.push((estimated / truth).max(truth / estimated));
    }

    /// The share whose ratio is no more than that.
    fn within(&self, ratio: f64) -> f64 {
        let n_within = self.ratios.iter().filter(|r| **r <= ratio).count();
        n_within as f64 / self.ratios.len() as f64
    }

    /// Median and 95th percentile of the relative error, 95th percentile of the ratio.
    fn summary(&self) -> (f64, f64, f64) {
        let relative = &self.relative;
        (
            percentile(relative, 50),
            percentile(relative, 95),
            percentile(&self.ratios, 95),
        )
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

#[test]
fn cut_streams_are_estimated_close_to_what_was_relayed() {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus/exchanges.jsonl");
    let Ok(file) = File::open(&path) else {
        println!("SKIPPED: no recorded exchanges at {}", path.display());
        return;
    };
    let recordings: Vec<Recording> = BufReader::new(file)
        .lines()
        .filter_map(|line| Recording::read(&line.expect("a line")))
        .collect();
    let mut errors: BTreeMap<String, Errors> = BTreeMap::new();
    let (mut n_streams, mut n_cuts) = (0, 0);
    for (i, recording) in recordings.iter().enumerate() {
        if !recording.is_stream() {
            continue;
        }
        n_streams += 1;
        let calibration = taught_by_others(&recordings, i);
        for cut in CUTS {
            let mut scan = recording.scan(recording.body.len() * cut / 1000);
            let is_told = scan.relayed.is_report_final && scan.usage.output_total().is_some();
            calibration.complete(&mut scan, &recording.call());
            let is_estimated = scan.usage_source == UsageSource::Estimated
                && scan.estimate_basis.is_some()
                && scan.usage.get(Bucket::Output).is_some();
            assert!(is_told || is_estimated, "{} at {cut}", recording.id);
            n_cuts += 1;
            let Some((truth, estimated)) = recording.compare(&scan) else {
                continue;
            };
            let api = recording.target.api.name().to_owned();
            for group in [
                api,
                format!("~ {}", family(&recording.model)),
                "all".to_owned(),
            ] {
                errors.entry(group).or_default().add(truth, estimated);
            }
        }
    }
    println!("{n_streams} streams, {n_cuts} cuts; those with {COMPARED_BYTES_MIN} bytes of text:");
    println!("{:26}  cuts  median   p95  p95 ratio", "");
    for (group, errors) in &errors {
        let (median, p95, ratio) = errors.summary();
        let n = errors.relative.len();
        println!("{group:26} {n:5}  {median:6.2}  {p95:4.2}  {ratio:9.2}");
    }
    let (median, p95, ratio) = errors["all"].summary();
    assert!(median <= 0.25, "median error {median}");
    assert!(p95 <= 1.0, "95th percentile of the error {p95}");
    // The error of an estimate that is too low never exceeds 1: the ratio watches both sides.
    assert!(ratio <= RATIO_MAX, "95th percentile of the ratio {ratio}");
    let within_two = errors["all"].within(2.0);
    println!("{:.1} % are within a factor of two", within_two * 100.0);
    assert!(
        within_two >= WITHIN_TWO_MIN,
        "{within_two} within a factor of two"
    );
}
