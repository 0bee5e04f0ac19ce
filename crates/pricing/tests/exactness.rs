//! Costs against an oracle in rational numbers, over random usage of every shipped model.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use num_bigint::BigInt;
use num_rational::BigRational;
use proptest::prelude::*;
use rust_decimal::Decimal;
use tollmesh_pricing::{Book, Call, Priced, Status};
use tollmesh_usage::{Bucket, Quantity, Unit, Usage};

/// 2026-11-15T12:00:00Z.
const NOW_MS: i64 = 1_794_744_000_000;

/// Usages a test case holds: many small cases shrink well, few large ones run fast.
const USAGES_PER_CASE: usize = 100;
const CASES: u32 = 1_000;

static BOOK: LazyLock<Book> = LazyLock::new(|| Book::load(Book::shipped()).unwrap());

fn rational(decimal: Decimal) -> BigRational {
    let scale = BigInt::from(10u8).pow(decimal.scale());
    BigRational::new(BigInt::from(decimal.mantissa()), scale)
}

/// A cost of quotients may differ in its last digits; all others may not.
fn tolerance(is_quotient: bool) -> BigRational {
    let places = if is_quotient { 20 } else { 60 };
    BigRational::new(BigInt::from(1), BigInt::from(10u8).pow(places))
}

fn price(provider: &str, model: &str, usage: &Usage) -> Priced {
    BOOK.price(&Call {
        provider,
        model: Some(model),
        model_requested: None,
        unix_ms: NOW_MS,
        service_tier: None,
        usage,
        context: &BTreeMap::new(),
    })
}

fn any_usage() -> impl Strategy<Value = Usage> {
    let tokens = prop_oneof![
        Just(None),
        (0..1_000u64).prop_map(Some),
        (0..10_000_000u64).prop_map(Some)
    ];
    let buckets = prop::collection::vec(tokens, Bucket::ALL.len());
    (buckets, prop::option::of(0..1_000_000u64)).prop_map(|(tokens, searches)| {
        let mut usage = Usage::new();
        for (bucket, tokens) in Bucket::ALL.into_iter().zip(tokens) {
            usage.set(bucket, tokens);
        }
        if let Some(thousandths) = searches {
            usage.set_unit(Unit::WebSearches, Quantity::thousandths(thousandths));
        }
        usage
    })
}

fn any_model() -> impl Strategy<Value = (&'static str, &'static str)> {
    let plain = |id: &str| !id.contains(['*', '?', '#']);
    let models: Vec<_> = BOOK
        .models()
        .filter(|(provider, model)| plain(&model.id) && BOOK.model(provider, &model.id).is_some())
        .map(|(provider, model)| (provider, model.id.as_str()))
        .collect();
    prop::sample::select(models)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn costs_are_the_oracles(
        (provider, model) in any_model(),
        usages in prop::collection::vec(any_usage(), USAGES_PER_CASE),
    ) {
        for usage in usages {
            let priced = price(provider, model, &usage);
            let Some(usd) = priced.usd else {
                prop_assert_eq!(priced.status, Status::Unpriced);
                prop_assert!(priced.unpriced_because.is_some() && priced.lines.is_empty());
                continue;
            };
            prop_assert!(!usd.is_sign_negative());
            let model = BOOK.model(provider, model).unwrap();
            let row = model.rows.iter().find(|r| Some(&r.id) == priced.row.as_ref()).unwrap();
            let mut sum = BigRational::from_integer(0.into());
            let mut has_quotient = false;
            for line in &priced.lines {
                prop_assert!(!line.usd.is_sign_negative());
                let bucket = Bucket::parse(line.what);
                let tokens = bucket.and_then(|b| usage.get(b));
                let per = if bucket.is_some() { 1_000_000 } else { 1 };
                if let Some(tokens) = tokens {
                    prop_assert_eq!(line.amount, Decimal::from(tokens));
                }
                if let Some(own) = bucket.and_then(|b| row.rate(b)) {
                    prop_assert_eq!(own.as_decimal(), line.rate);
                    prop_assert!(!line.assumed);
                }
                // A quotient shows itself by filling its digits.
                let is_quotient = line.rate.scale() > 12;
                has_quotient |= is_quotient;
                let exact = rational(line.amount) * rational(line.rate) * rational(line.times)
                    / BigRational::from_integer(per.into());
                let off = rational(line.usd) - &exact;
                prop_assert!(off < tolerance(is_quotient) && -off < tolerance(is_quotient));
                sum += rational(line.usd);
            }
            let charged = usage.tokens().filter(|(_, tokens)| *tokens > 0).count();
            let lines = priced.lines.iter().filter(|l| Bucket::parse(l.what).is_some()).count();
            prop_assert_eq!(charged, lines, "every class that was used has its line");
            let off = rational(usd) - sum;
            prop_assert!(off < tolerance(has_quotient) && -off < tolerance(has_quotient));
        }
    }

    #[test]
    fn costs_add_up_over_buckets((provider, model) in any_model(), usage in any_usage()) {
        let whole = price(provider, model, &usage);
        let Some(usd) = whole.usd else { return Ok(()) };
        // Parts of a usage may sit on another context row, so they are compared line by line.
        let alone: Vec<Priced> = usage
            .tokens()
            .map(|(bucket, tokens)| price(provider, model, &Usage::new().with(bucket, tokens)))
            .collect();
        if alone.iter().any(|p| p.row.is_some() && p.row != whole.row) {
            return Ok(());
        }
        let fees = whole.lines.iter().filter(|l| Bucket::parse(l.what).is_none());
        let mut sum: Decimal = fees.map(|l| l.usd).sum();
        for part in alone {
            let tokens = part.lines.iter().filter(|l| Bucket::parse(l.what).is_some());
            sum += tokens.map(|l| l.usd).sum::<Decimal>();
        }
        prop_assert!((sum - usd).abs() < Decimal::new(1, 20));
    }

    #[test]
    fn any_count_is_priced_or_refused(
        (provider, model) in any_model(),
        tokens in prop::collection::vec(any::<u64>(), Bucket::ALL.len()),
        units in any::<u64>(),
        unix_ms in any::<i64>(),
    ) {
        let mut usage = Usage::new();
        for (bucket, tokens) in Bucket::ALL.into_iter().zip(tokens) {
            usage.set(bucket, tokens);
        }
        usage.set_unit(Unit::WebSearches, Quantity::thousandths(units));
        let priced = BOOK.price(&Call {
            provider,
            model: Some(model),
            model_requested: None,
            unix_ms,
            service_tier: None,
            usage: &usage,
            context: &BTreeMap::new(),
        });
        prop_assert_eq!(priced.usd.is_none(), priced.status == Status::Unpriced);
        prop_assert!(priced.usd.is_none_or(|usd| !usd.is_sign_negative()));
    }
}
