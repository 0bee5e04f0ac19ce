//! The shipped tables against reference costs that were worked out elsewhere.
//!
//! The reference file is no part of the project; where it is missing the test says so.

use std::collections::BTreeMap;
use std::path::Path;

use rust_decimal::Decimal;
use serde_json::Value;
use tollmesh_pricing::{Book, Case, Status};

/// Where the reference lies, seen from this package.
const CASES: &str = "../../../shared/pricing/cost_cases.jsonl";

/// Cost cases whose right answer is known are met in this share, in percent.
const SCORE_PERCENT_MIN: usize = 100;

/// `(right, all)` for one provider.
type Score = (usize, usize);

#[test]
fn reference_costs_are_met() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(CASES);
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!(
            "skipped: there are no reference costs at {}",
            path.display()
        );
        return;
    };
    let book = Book::load(Book::shipped()).unwrap();
    let mut scores: BTreeMap<String, Score> = BTreeMap::new();
    let mut wrong = Vec::new();
    for line in text.lines() {
        let reference: Value = serde_json::from_str(line).unwrap();
        let case: Case = serde_json::from_str(line).unwrap();
        let Some(verdict) = judge(&book, &reference, &case) else {
            continue;
        };
        let score = scores.entry(case.provider.clone()).or_default();
        score.1 += 1;
        match verdict {
            Ok(()) => score.0 += 1,
            Err(complaint) => wrong.push(complaint),
        }
    }
    for (provider, (right, all)) in &scores {
        println!("{provider:<12} {right:>3} of {all:>3}");
    }
    let (right, all) = scores
        .values()
        .fold((0, 0), |sum, score| (sum.0 + score.0, sum.1 + score.1));
    println!("all          {right:>3} of {all:>3}\n{}", wrong.join("\n"));
    assert!(all > 0, "the reference file holds no decided case");
    assert!(
        right * 100 >= all * SCORE_PERCENT_MIN,
        "{right} of {all} reference costs are met"
    );
}

/// `None` where the reference does not know the answer either.
fn judge(book: &Book, reference: &Value, case: &Case) -> Option<Result<(), String>> {
    let usage = case.disjoint().unwrap();
    let priced = book.price(&case.call(&usage, 0));
    let expected = reference["expected_usd"].as_str();
    let is_right = match expected {
        Some(usd) => priced
            .usd
            .is_some_and(|got| close(got, usd.parse().unwrap())),
        None if reference["expected_source"] == "unpriced" => priced.status == Status::Unpriced,
        None => return None,
    };
    let complaint = || {
        let (id, model) = (&reference["id"], case.model.as_deref().unwrap_or("-"));
        let got = priced.usd.map(|usd| usd.to_string());
        let got = got.as_deref().or(priced.unpriced_because);
        let row = priced.row.as_deref().unwrap_or("-");
        format!(
            "{id} {} {model}: {got:?}, not {expected:?} ({row})",
            case.provider
        )
    };
    Some(is_right.then_some(()).ok_or_else(complaint))
}

/// Equal to a billionth: the reference itself was partly worked out in floating point.
fn close(a: Decimal, b: Decimal) -> bool {
    (a - b).abs() * Decimal::from(1_000_000_000u64) <= b.abs()
}
