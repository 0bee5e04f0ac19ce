//! What holds for every cost, over random usage of every shipped model.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use proptest::prelude::*;
use rust_decimal::Decimal;
use tollmesh_pricing::amount::{MONEY_DECIMALS_MAX, exact_product};
use tollmesh_pricing::{Book, Call, Priced, Status};
use tollmesh_usage::{Bucket, Quantity, Unit, Usage};

/// 2026-11-15T12:00:00Z.
const NOW_MS: i64 = 1_794_744_000_000;

const CASES: u32 = 1_000;

static BOOK: LazyLock<Book> = LazyLock::new(|| Book::load(Book::shipped()).unwrap());

fn price(provider: &str, model: &str, usage: &Usage) -> Priced {
    BOOK.price(&Call {
        provider,
        model: Some(model),
        model_requested: None,
        unix_ms: NOW_MS,
        service_tier: None,
        usage,
        inputs: None,
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
    fn factors_multiply_in_any_order(
        tokens in any::<u32>(),
        rate in 0..1_000_000_000u64,
        places in 0..=MONEY_DECIMALS_MAX,
        times in prop::collection::vec(1..=10_000u32, 0..3),
    ) {
        let rate = Decimal::from_i128_with_scale(i128::from(rate), places);
        let mut factors = vec![Decimal::from(tokens), rate];
        factors.extend(times.iter().map(|t| Decimal::new(i64::from(*t), 4)));
        let product = |factors: &[Decimal]| {
            let one = Some(Decimal::ONE);
            factors.iter().fold(one, |product, f| exact_product(product?, *f))
        };
        let forth = product(&factors);
        prop_assert!(forth.is_some());
        factors.reverse();
        prop_assert_eq!(forth, product(&factors));
        factors.rotate_left(1);
        prop_assert_eq!(forth, product(&factors));
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
            inputs: None,
            context: &BTreeMap::new(),
        });
        prop_assert_eq!(priced.usd.is_none(), priced.status == Status::Unpriced);
        prop_assert!(priced.usd.is_none_or(|usd| !usd.is_sign_negative()));
    }
}
