//! Every fixture is read right, however its body is cut and whether or not it is compressed.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use brotli::enc::BrotliEncoderParams;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::{Value, json};
use tollmesh_usage::{
    Detection, RequestFacts, ResponseHead, Scan, Target, Usage, UsageScanner, detect,
};

struct Fixture {
    name: String,
    target: Target,
    head: ResponseHead,
    body: Vec<u8>,
    expected: Value,
}

impl Fixture {
    fn read(path: &Path) -> Fixture {
        let name = path.display().to_string();
        let text = fs::read_to_string(path).expect(&name);
        let case: Value = serde_json::from_str(&text).expect(&name);
        let text = |key: &str| case[key].as_str().expect(key).to_owned();
        let detected = detect(&text("host"), &text("path"), &text("method"));
        let Detection::Metered(target) = detected else {
            panic!("{name}: {detected:?}");
        };
        assert_eq!(target.api.name(), text("api"), "{name}");
        let status = case["status"].as_u64().expect("a status");
        let mut headers = vec![("content-type".to_owned(), text("content_type"))];
        for (header, value) in case["headers"].as_object().into_iter().flatten() {
            let value = value.as_str().expect("a header").to_owned();
            headers.push((header.clone(), value));
        }
        Fixture {
            target,
            head: ResponseHead {
                status: u16::try_from(status).expect("a status"),
                headers,
            },
            body: fs::read(path.with_file_name(text("response"))).expect(&name),
            expected: case["expected"].clone(),
            name,
        }
    }

    fn scan(&self, encoding: Option<&str>, pieces: &[&[u8]]) -> Scan {
        let mut head = self.head.clone();
        let header = encoding.map(|e| ("content-encoding".to_owned(), e.to_owned()));
        head.headers.extend(header);
        let mut scanner = UsageScanner::new(&self.target, &RequestFacts::default(), &head);
        pieces.iter().for_each(|piece| scanner.push(piece));
        scanner.finish()
    }

    fn scan_by(&self, encoding: Option<&str>, body: &[u8], n_chunk: usize) -> Scan {
        let pieces: Vec<&[u8]> = body.chunks(n_chunk).collect();
        self.scan(encoding, &pieces)
    }
}

fn fixtures() -> Vec<Fixture> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus");
    let mut fixtures = Vec::new();
    for api in fs::read_dir(root).expect("tests/corpus") {
        let api = api.expect("an entry").path();
        if !api.is_dir() {
            continue;
        }
        for file in fs::read_dir(api).expect("an API's folder") {
            let path = file.expect("an entry").path();
            if path.to_string_lossy().ends_with(".case.json") {
                fixtures.push(Fixture::read(&path));
            }
        }
    }
    assert!(fixtures.len() >= 30, "only {} fixtures", fixtures.len());
    fixtures
}

/// A scan as the fixtures write it.
fn as_json(scan: &Scan, expected: &Value) -> Value {
    let mut json = json!({
        "model": scan.model,
        "usage": scan.usage,
        "usage_source": scan.usage_source.name(),
        "finish_reason": scan.finish_reason,
        "tool_calls": scan.tool_calls,
        "billable": scan.billable,
        "complete": scan.complete,
    });
    let mut set = |name: &str, is_told: bool, value: Value| {
        if is_told || expected.get(name).is_some() {
            json[name] = value;
        }
    };
    let tier = json!(scan.service_tier);
    set("service_tier", scan.service_tier.is_some(), tier);
    let cost = json!(scan.provider_cost_usd);
    set("provider_cost_usd", scan.provider_cost_usd.is_some(), cost);
    set("is_error", scan.is_error, json!(scan.is_error));
    set(
        "billed_usage",
        scan.billed_usage.is_some(),
        json!(scan.billed_usage),
    );
    let trouble = scan.trouble.map(|trouble| trouble.name());
    set("trouble", trouble.is_some(), json!(trouble));
    let context = &scan.pricing_context;
    set("pricing_context", !context.is_empty(), json!(context));
    let extra: Vec<Value> = scan
        .extra_usage
        .iter()
        .map(|e| json!({"kind": e.kind, "model": e.model, "usage": e.usage}))
        .collect();
    set("extra_usage", !extra.is_empty(), json!(extra));
    json
}

#[test]
fn every_fixture_is_read_right() {
    for fixture in fixtures() {
        let scan = fixture.scan(None, &[&fixture.body]);
        let got = as_json(&scan, &fixture.expected);
        assert_eq!(got, fixture.expected, "{}", fixture.name);
        let usage: Usage = serde_json::from_value(got["usage"].clone()).expect("usage");
        assert_eq!(usage, scan.usage);
    }
}

#[test]
fn cuts_change_nothing() {
    for fixture in fixtures() {
        let whole = fixture.scan(None, &[&fixture.body]);
        for n_chunk in [1, 2, 7, 64, 1000] {
            let cut = fixture.scan_by(None, &fixture.body, n_chunk);
            assert_eq!(cut, whole, "{} by {n_chunk}", fixture.name);
        }
        for at in 0..=fixture.body.len() {
            let (head, tail) = fixture.body.split_at(at);
            let cut = fixture.scan(None, &[head, tail]);
            assert_eq!(cut, whole, "{} cut at {at}", fixture.name);
        }
    }
}

#[test]
fn compression_changes_nothing() {
    for fixture in fixtures() {
        let whole = fixture.scan(None, &[&fixture.body]);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(&fixture.body).expect("gzip");
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(&fixture.body).expect("zlib");
        let zstd = compress_to_vec(&fixture.body[..], CompressionLevel::Fastest);
        let mut br = Vec::new();
        let parameters = BrotliEncoderParams {
            quality: 5,
            ..BrotliEncoderParams::default()
        };
        brotli::BrotliCompress(&mut &fixture.body[..], &mut br, &parameters).expect("br");
        for (encoding, body) in [
            ("gzip", gzip.finish().expect("gzip")),
            ("deflate", zlib.finish().expect("zlib")),
            ("br", br),
            ("zstd", zstd),
        ] {
            for n_chunk in [1, 7, body.len()] {
                let mut scan = fixture.scan_by(Some(encoding), &body, n_chunk);
                assert_eq!(scan.relayed.body_bytes, body.len() as u64);
                scan.relayed.body_bytes = whole.relayed.body_bytes;
                assert_eq!(scan, whole, "{} {encoding} by {n_chunk}", fixture.name);
            }
        }
    }
}

/// What is cut off never leaves half a usage object behind.
#[test]
fn cut_bodies_tell_whole_usage_or_none() {
    for fixture in fixtures() {
        let whole = fixture.scan(None, &[&fixture.body]);
        // Perplexity's chunks each say how much it has been so far.
        let states_usage_once = fixture.target.api.name().starts_with("openai.")
            && fixture.target.provider != "perplexity"
            && whole.usage.units().next().is_none();
        for length in 0..fixture.body.len() {
            let scan = fixture.scan(None, &[&fixture.body[..length]]);
            let is_whole = scan.usage == whole.usage;
            let (name, complete) = (&fixture.name, scan.complete);
            assert!(complete != Some(true) || is_whole, "{name} at {length}");
            if states_usage_once {
                assert!(
                    scan.usage.is_empty() || is_whole,
                    "{name} at {length}: {scan:?}"
                );
            }
        }
    }
}
