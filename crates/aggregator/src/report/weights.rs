//! What tokens of a model cost in relation to each other, read from the price tables.
//!
//! Hourly sums know what calls cost, and not which tokens cost how much of it.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use tollmesh_pricing::{Book, Call};
use tollmesh_usage::{Bucket, Usage};
use tollmesh_wire::Timestamp;

use super::causes::Cell;

/// A dollar for a million tokens is a million pico-dollars for each.
const PICO_PER_TOKEN: u64 = 1_000_000;

/// A model in the ledger's words.
#[derive(Clone, Copy, Debug)]
pub struct Served<'a> {
    /// Who bills it.
    pub provider: &'a str,
    /// The model.
    pub model: Option<&'a str>,
    /// The service tier.
    pub tier: Option<&'a str>,
}

/// The price of a token of each bucket in pico-dollars, for a call with as many tokens as these
/// calls have in the mean; 0 where no row tells.
pub fn of(book: &Book, served: Served<'_>, at: Timestamp, cell: &Cell) -> [u64; Bucket::ALL.len()] {
    Bucket::ALL.map(|bucket| {
        let usage = mean_call(cell, bucket);
        let priced = book.price(&Call {
            provider: served.provider,
            model: served.model,
            model_requested: None,
            unix_ms: at.as_unix_ms(),
            service_tier: served.tier,
            usage: &usage,
            inputs: None,
            context: &BTreeMap::new(),
        });
        let line = priced.lines.iter().find(|line| line.what == bucket.name());
        line.and_then(|line| line.rate.checked_mul(line.times))
            .and_then(|rate| rate.checked_mul(Decimal::from(PICO_PER_TOKEN)))
            .and_then(|rate| rate.to_u64())
            .unwrap_or(0)
    })
}

/// A call with that bucket alone, since a row need not price the others; beside output stands the
/// input, since rows hold for so and so much of it.
fn mean_call(cell: &Cell, bucket: Bucket) -> Usage {
    let mean = |is_input: bool| {
        let each = Bucket::ALL.into_iter().zip(cell.tokens);
        let meant = each.filter(|(of, _)| super::causes::is_input(*of) == is_input);
        let sum: u128 = meant.map(|(_, n)| n).sum();
        u64::try_from(sum / u128::from(cell.requests.max(1))).unwrap_or(u64::MAX)
    };
    let input = mean(true).max(1);
    match super::causes::is_input(bucket) {
        true => Usage::new().with(bucket, input),
        false => Usage::new()
            .with(Bucket::Input, input)
            .with(bucket, mean(false).max(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_models_have_weights_and_others_none() {
        let book = Book::load(Book::shipped()).unwrap();
        let at = Timestamp::parse("2026-11-20T00:00:00Z").unwrap();
        let weights = |provider, model| {
            let served = Served {
                provider,
                model: Some(model),
                tier: None,
            };
            of(&book, served, at, &Cell::default())
        };
        let [input, cache_read, .., output, _, _, _] = weights("openai", "gpt-4o");
        assert!(0 < cache_read && cache_read < input && input < output);
        assert_eq!(weights("nobody", "gpt-4o"), [0; Bucket::ALL.len()]);
    }
}
