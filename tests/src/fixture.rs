//! The project's own fixtures: provider answers in `tests/corpus`, each with what it carries.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::artifacts;
use crate::exchange::{Exchange, Payload};
use crate::ledger::Row;

/// One fixture.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// `<api>/<name>`
    pub name: String,
    /// The API: `openai.chat`, …
    pub api: String,
    /// The exchange to play.
    pub exchange: Exchange,
    expected: Value,
}

/// Fields of a row that a fixture may speak about, under the same names.
const FIELDS: [&str; 7] = [
    "model",
    "usage_source",
    "finish_reason",
    "tool_calls",
    "service_tier",
    "billable",
    "trouble",
];

impl Fixture {
    /// Every fixture, by name.
    pub fn all() -> anyhow::Result<Vec<Fixture>> {
        let root = artifacts::root().join("tests/corpus");
        let mut fixtures = Vec::new();
        for api in fs::read_dir(&root).with_context(|| root.display().to_string())? {
            let api = api?.path();
            if !api.is_dir() {
                continue;
            }
            for file in fs::read_dir(&api)? {
                let file = file?.path();
                if file.to_string_lossy().ends_with(".case.json") {
                    let read = Fixture::read(&file);
                    fixtures.push(read.with_context(|| file.display().to_string())?);
                }
            }
        }
        ensure!(!fixtures.is_empty(), "{}: no fixtures", root.display());
        fixtures.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(fixtures)
    }

    fn read(file: &Path) -> anyhow::Result<Fixture> {
        let case: Value = serde_json::from_str(&fs::read_to_string(file)?)?;
        let text = |key: &str| case[key].as_str().with_context(|| format!("no {key}"));
        let body = fs::read(file.with_file_name(text("response")?))?;
        let mut exchange =
            Exchange::post(text("host")?, text("path")?, case["request"].to_string())
                .answered(text("content_type")?, body);
        for (name, value) in case["headers"].as_object().into_iter().flatten() {
            let value = value.as_str().with_context(|| format!("headers.{name}"))?;
            exchange = exchange.reply_header(name, value);
        }
        exchange.ask.method = text("method")?.to_string();
        if exchange.ask.method == "GET" {
            exchange.ask.body = Payload::default();
        }
        let status = case["status"].as_u64().context("no status")?;
        exchange.reply.status = u16::try_from(status)?;
        let stem = file.to_string_lossy();
        let stem = stem
            .trim_end_matches(".case.json")
            .rsplit('/')
            .next()
            .unwrap_or_default();
        let api = text("api")?.to_string();
        let expected = case["expected"].clone();
        Ok(Fixture {
            name: format!("{api}/{stem}"),
            api,
            exchange,
            expected,
        })
    }

    /// Where `row` differs from what the fixture carries, in words. `null` and zero differ.
    pub fn differences(&self, row: &Row) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |field: &str, got: &Value, want: &Value| {
            if got != want {
                differences.push(format!("{field} {got} instead of {want}"));
            }
        };
        // A fixture says what the provider reported; where that is nothing, or not all of it because
        // the answer was cut, the filter estimates.
        let is_partial = self.expected["usage_source"] == "absent"
            || self.expected["complete"] == false
            || self.expected["is_error"] == true;
        let is_estimated = is_partial && row.0["usage_source"] == "estimated";
        for field in FIELDS {
            match self.expected.get(field) {
                Some(_) if field == "usage_source" && is_estimated => {}
                // Some answers never name their model: a row has the one that was asked for then.
                Some(Value::Null) if field == "model" && !row.0["model"].is_null() => {
                    compare(field, &row.0["model"], &row.0["model_requested"]);
                }
                Some(want) => compare(field, &row.0[field], want),
                None => {}
            }
        }
        if !is_estimated {
            compare("usage", &row.0["buckets"], &self.expected["usage"]);
            return differences;
        }
        // An estimate adds to what was reported and changes none of it; output may have gone on.
        for (bucket, want) in self.expected["usage"].as_object().into_iter().flatten() {
            let got = &row.0["buckets"][bucket];
            if bucket != "output" {
                compare(bucket, got, want);
            } else if got.as_u64() < want.as_u64() {
                compare("output, at least", got, want);
            }
        }
        differences
    }
}
