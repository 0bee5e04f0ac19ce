//! What a provider has served, kept by request id, and whether the ledger says the same.
//!
//! The oracle of every test of faults: it counts tokens and dollars by itself, to the pico-dollar,
//! from the provider's price page, and asks the aggregator only for what it is compared with.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rust_decimal::Decimal;

use crate::client::{Answer, Client};
use crate::dialect::Dialect;
use crate::exchange::Exchange;
use crate::fact;
use crate::ledger::Row;
use crate::mesh::Mesh;
use crate::usage::{Usage, usage};

/// The model of every call.
pub const MODEL: &str = "claude-sonnet-4-5";

/// What it costs, in micro-dollars a token: 3 dollars a million tokens read, 15 a million written.
/// <https://platform.claude.com/docs/en/about-claude/pricing>, "Base Input Tokens" and "Output Tokens".
const INPUT_MICRO_USD: u64 = 3;
const OUTPUT_MICRO_USD: u64 = 15;

/// Calls that were made, with what each used.
#[derive(Debug, Default)]
pub struct Books {
    calls: Mutex<Vec<(Answer, Usage)>>,
}

/// The n-th call: each one uses something else, so that one row cannot pass for another.
pub fn nth(n: u64) -> (Exchange, Usage) {
    let used = usage(MODEL).input(100 + n).output(1 + n % 50);
    let exchange = if n.is_multiple_of(2) {
        Dialect::Anthropic.plain(&used)
    } else {
        Dialect::Anthropic.streamed(&used)
    };
    (exchange, used)
}

/// What the provider charges for it, in dollars.
pub fn cost(used: &Usage) -> Decimal {
    let micro_usd = used.of("input") * INPUT_MICRO_USD + used.of("output") * OUTPUT_MICRO_USD;
    Decimal::new(micro_usd.cast_signed(), 6)
}

impl Books {
    /// Makes the next calls, and asserts that the app gets each answer whole.
    #[track_caller]
    pub fn call(&self, mesh: &Mesh, n_calls: usize) {
        let client = mesh.client("red");
        for _ in 0..n_calls {
            self.call_from(&client);
        }
    }

    /// The same for one call of that app.
    #[track_caller]
    pub fn call_from(&self, client: &Client) {
        let (exchange, used) = nth(self.len() as u64);
        let answer = client.call(&exchange);
        answer.is_what_was_sent(&exchange);
        self.enter(answer, used);
    }

    /// Takes a call that was made elsewhere.
    pub fn enter(&self, answer: Answer, used: Usage) {
        self.calls().push((answer, used));
    }

    /// How many calls were made.
    pub fn len(&self) -> usize {
        self.calls().len()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As [`Books::are_restored_in`], and asserts that the filter dropped nothing.
    #[track_caller]
    pub fn are_kept_by(&self, mesh: &Mesh) {
        self.are_restored_in(mesh);
        assert_eq!(mesh.counted("events_dropped"), 0, "the filter dropped some");
    }

    /// Waits until the ledger has each call once and nothing else, and asserts that tokens and cost
    /// of every row are the provider's, and that the sums are theirs.
    #[track_caller]
    pub fn are_restored_in(&self, mesh: &Mesh) {
        let calls = self.calls();
        fact::grows_to("rows in the ledger", calls.len() as u64, || {
            let spend = mesh.ledger().spend();
            spend.map(|(n, _)| n).map_err(|error| format!("{error:#}"))
        });
        let answers: Vec<&Answer> = calls.iter().map(|(answer, _)| answer).collect();
        let rows = mesh.ledger().rows_of(&answers);
        for ((_, used), row) in calls.iter().zip(&rows) {
            is_right(row, used);
        }
        let n_rows = mesh.ledger().rows().expect("the ledger answers").len();
        assert_eq!(n_rows, calls.len(), "rows beside those of the calls");
        let sum = calls
            .iter()
            .fold(Decimal::ZERO, |sum, (_, used)| sum + cost(used));
        sums_are(mesh, (calls.len() as u64, sum));
    }

    /// Asserts that every row which the ledger has is one of these calls, once, with its tokens and
    /// cost, and that the sums are those of the rows. How many of the calls are missing.
    #[track_caller]
    pub fn contain_what_is_kept_by(&self, mesh: &Mesh) -> usize {
        let n_missing = self.n_missing_beside(mesh, 0);
        let rows = mesh.ledger().rows().expect("the ledger answers");
        let costs = rows
            .iter()
            .filter_map(|row| row.text("cost_usd")?.parse::<Decimal>().ok());
        let sum = costs.fold(Decimal::ZERO, |sum, usd| sum + usd);
        sums_are(mesh, (rows.len() as u64, sum));
        n_missing
    }

    /// As [`Books::contain_what_is_kept_by`], where the ledger has `n_others` rows of other calls.
    #[track_caller]
    pub fn n_missing_beside(&self, mesh: &Mesh, n_others: usize) -> usize {
        let calls = self.calls();
        let mut by_id = mesh.ledger().by_request_id().expect("the ledger answers");
        let mut n_missing = 0;
        for (answer, used) in calls.iter() {
            match by_id.remove(&answer.request_id).as_deref() {
                None => n_missing += 1,
                Some([row]) => is_right(row, used),
                Some(rows) => panic!("{} rows for one call", rows.len()),
            }
        }
        assert_eq!(by_id.len(), n_others, "rows of other calls");
        n_missing
    }

    fn calls(&self) -> MutexGuard<'_, Vec<(Answer, Usage)>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[track_caller]
fn is_right(row: &Row, used: &Usage) {
    let differences = row.differences(used);
    assert!(differences.is_empty(), "{differences:?}: {}", row.0);
    let charged = row.text("cost_usd").and_then(|usd| usd.parse().ok());
    assert_eq!(charged, Some(cost(used)), "{}", row.0);
}

/// Asserts what `/api/v1/spend` sums up to: calls and dollars.
#[track_caller]
fn sums_are(mesh: &Mesh, want: (u64, Decimal)) {
    let spend = mesh.ledger().spend().expect("the ledger answers");
    assert_eq!(spend, want, "calls and dollars of /api/v1/spend");
}
