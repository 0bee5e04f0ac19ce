//! The comparison of a ledger row with what a recorded exchange really carried.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::ledger::Row;
use crate::recorded::{Recorded, is_retrieval};

/// Row field and expected field; `null` (not reported) and `0` (reported zero) differ.
const FIELDS: [(&str, &str); 10] = [
    ("input_tokens", "input_tokens"),
    ("cache_read_tokens", "cache_read_tokens"),
    ("cache_write_tokens", "cache_write_tokens"),
    ("cache_write_1h_tokens", "cache_write_1h_tokens"),
    ("output_tokens", "output_tokens"),
    ("reasoning_tokens", "reasoning_tokens"),
    ("audio_input_tokens", "input_audio_tokens"),
    ("audio_output_tokens", "output_audio_tokens"),
    ("finish_reason", "finish_reason"),
    ("tool_calls", "tool_calls"),
];

/// Where `row` differs from what `case` expects, in words; empty where it does not.
pub fn differences(case: &Recorded, row: &Row) -> Vec<String> {
    let mut differences = Vec::new();
    let mut compare = |field: &str, got: &Value, want: &Value| {
        if got != want {
            differences.push(format!("{field} {got} instead of {want}"));
        }
    };
    compare("model", model(case, row), &case.expected["model"]);
    // A run that was started is completed by a later look at it, which may be recorded as well.
    let is_completed = is_retrieval(&case.api) && row.0["usage_source"] == "reported";
    if is_completed && case.expected["usage_present"] == false {
        return differences;
    }
    // A recording says what the provider reported; where that is nothing, the filter estimates.
    let is_estimated =
        case.expected["usage_present"] == false && row.0["usage_source"] == "estimated";
    for (field, expected) in FIELDS {
        if !(is_estimated && field.ends_with("_tokens")) {
            compare(field, &row.0[field], &expectation(case, expected));
        }
    }
    differences
}

/// What is expected of a field. Some providers number their reasons to finish; a row keeps words.
fn expectation(case: &Recorded, field: &str) -> Value {
    match &case.expected[field] {
        Value::Number(reason) if field == "finish_reason" => Value::String(reason.to_string()),
        value => value.clone(),
    }
}

/// The model that served. Several answers never name it (embeddings, images, models in the path):
/// there the ledger's word is the model that was asked for, as long as one is expected at all.
fn model<'a>(case: &Recorded, row: &'a Row) -> &'a Value {
    match &row.0["model"] {
        Value::Null if !case.expected["model"].is_null() => &row.0["model_requested"],
        model => model,
    }
}

/// How many cases of each API were right.
#[derive(Clone, Debug, Default)]
pub struct Score {
    by_api: BTreeMap<String, Tally>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    n_cases: usize,
    n_right: usize,
    /// Ambiguous ones that differ; they are no gate.
    n_ambiguous: usize,
}

impl Score {
    /// Counts one case.
    pub fn count(&mut self, case: &Recorded, is_right: bool) {
        let tally = self.by_api.entry(case.api.clone()).or_default();
        if is_right || case.ambiguous.is_empty() {
            tally.n_cases += 1;
            tally.n_right += usize::from(is_right);
        } else {
            tally.n_ambiguous += 1;
        }
    }

    /// Whether every unambiguous case was right, and there was one.
    pub fn is_full(&self) -> bool {
        let all = self.total();
        all.n_cases > 0 && all.n_right == all.n_cases
    }

    fn total(&self) -> Tally {
        let mut all = Tally::default();
        for tally in self.by_api.values() {
            all.n_cases += tally.n_cases;
            all.n_right += tally.n_right;
            all.n_ambiguous += tally.n_ambiguous;
        }
        all
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, tally: Tally| {
            let Tally {
                n_cases,
                n_right,
                n_ambiguous,
            } = tally;
            let share = 100.0 * n_right as f64 / n_cases.max(1) as f64;
            writeln!(
                f,
                "{name:<30} {n_cases:>6} {n_right:>6} {share:>7.1} % {n_ambiguous:>10}"
            )
        };
        for (api, tally) in &self.by_api {
            line(api, *tally)?;
        }
        line("all", self.total())
    }
}

/// The heading over a printed [`Score`].
pub const HEADING: &str = "api                             cases  right     share  ambiguous";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn case(expected: Value, ambiguous: &[&str]) -> Recorded {
        let case = json!({
            "id": "a", "provider": "openai", "api": "openai.chat", "method": "POST",
            "host": "api.openai.com", "path": "/v1/chat/completions", "status": 200,
            "response_body_b64": "", "expected": expected, "ambiguous": ambiguous
        });
        serde_json::from_value(case).expect("is a case")
    }

    #[test]
    fn not_reported_is_not_zero() {
        let case = case(
            json!({ "model": "m", "input_tokens": 3, "cache_read_tokens": null }),
            &[],
        );
        let right = Row(json!({ "model": "m", "input_tokens": 3 }));
        assert_eq!(differences(&case, &right), Vec::<String>::new());
        let zero = Row(json!({ "model": "m", "input_tokens": 3, "cache_read_tokens": 0 }));
        assert_eq!(
            differences(&case, &zero),
            ["cache_read_tokens 0 instead of null"]
        );
    }

    #[test]
    fn an_ambiguous_case_is_no_gate() {
        let mut score = Score::default();
        assert!(!score.is_full(), "nothing was scored");
        score.count(&case(json!({}), &[]), true);
        score.count(&case(json!({}), &["unclear"]), false);
        assert!(score.is_full());
        score.count(&case(json!({}), &[]), false);
        assert!(!score.is_full());
    }
}
