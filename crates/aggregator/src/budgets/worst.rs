//! What a call may cost at most, before it is sent, and what one without a price is charged.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use rust_decimal::Decimal;
use tollmesh_budget::{Bound, Limit};
use tollmesh_pricing::{Call, Dearest};
use tollmesh_usage::{Bucket, Unit, Usage};
use tollmesh_wire::{Event, ReservationRequest};

use crate::prices::{Prices, Tables};

/// Buckets that text sent may be billed in.
const TEXT: &[Bucket] = &[
    Bucket::Input,
    Bucket::CacheRead,
    Bucket::CacheWrite,
    Bucket::CacheWrite1h,
];
/// Buckets that media sent may be billed in.
const MEDIA: &[Bucket] = &[
    Bucket::Input,
    Bucket::CacheRead,
    Bucket::CacheWrite,
    Bucket::CacheWrite1h,
    Bucket::AudioInput,
    Bucket::CacheReadAudio,
    Bucket::ImageInput,
];
/// Buckets that an answer may be billed in.
const OUTPUT: &[Bucket] = &[
    Bucket::Output,
    Bucket::Reasoning,
    Bucket::AudioOutput,
    Bucket::ImageOutput,
];
/// Bytes that a second of audio takes at least: 2 kbit/s is below every speech codec's rate.
const BYTES_PER_AUDIO_SECOND: u64 = 250;
/// Models whose rates are kept; calls name few.
const KEPT_MAX: usize = 2_048;
/// How long rates are kept: rows begin and end with a day, and nobody sees a minute's delay.
const KEPT_MS: i64 = 60_000;
/// From dollars for a million tokens to pico-dollars for one.
const PICO_PER_MILLIONTH: i64 = 1_000_000;
/// A quintillion dollars in pico-dollars: beyond every limit.
const AMOUNT_MAX: i128 = 1_000_000_000_000_000_000_000_000_000_000;
/// Pico-dollars in one dollar.
const PICO_PER_USD: i64 = 1_000_000_000_000;

/// The dearest rates of one kind of call, in pico-dollars, rounded up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rates {
    buckets: [u64; Bucket::ALL.len()],
    text: u64,
    media: u64,
    output: u64,
    units: Vec<(Unit, u64)>,
}

/// The dearest rates of calls as they come, kept for a moment.
#[derive(Debug, Default)]
pub struct Worst {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    version: Option<Arc<str>>,
    since_ms: i64,
    of_model: HashMap<Model, Option<Arc<Rates>>>,
    of_provider: HashMap<Option<String>, Arc<Rates>>,
}

/// What decides a call's rates.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Model {
    provider: String,
    model: Option<String>,
    service_tier: Option<String>,
    context: BTreeMap<String, String>,
}

// === impl Worst ===

impl Worst {
    /// The rates by which that call's worst case is reckoned: its model's, or, where no row is of
    /// it, the dearest of its provider, or, where nobody knows that, of anybody.
    pub fn rates(&self, prices: &Prices, request: &ReservationRequest, now_ms: i64) -> Arc<Rates> {
        let tables = prices.tables();
        let model = Model {
            provider: request.provider.clone(),
            model: request.model.clone(),
            service_tier: request.service_tier.clone(),
            context: request.pricing_context.clone(),
        };
        let mut kept = self.kept(&tables, now_ms);
        if let Some(rates) = kept.of_model.get(&model) {
            match rates {
                Some(rates) => return Arc::clone(rates),
                None => return kept.provider(&tables, Some(&model.provider), now_ms),
            }
        }
        let usage = Usage::new();
        let dearest = tables.book.dearest(&Call {
            provider: &model.provider,
            model: model.model.as_deref(),
            model_requested: None,
            unix_ms: now_ms,
            service_tier: model.service_tier.as_deref(),
            usage: &usage,
            inputs: None,
            context: &model.context,
        });
        let rates = dearest.map(|dearest| Arc::new(Rates::of(&dearest)));
        let own = rates.clone();
        let provider = Some(model.provider.clone());
        kept.of_model.insert(model, rates);
        own.unwrap_or_else(|| kept.provider(&tables, provider.as_deref(), now_ms))
    }

    /// The dearest rates that the provider charges anybody; of all providers, where none is named
    /// or it has none.
    pub fn ceiling(&self, prices: &Prices, provider: Option<&str>, now_ms: i64) -> Arc<Rates> {
        let tables = prices.tables();
        let mut kept = self.kept(&tables, now_ms);
        kept.provider(&tables, provider, now_ms)
    }

    /// What is kept, emptied where it may be out of date.
    fn kept(&self, tables: &Tables, now_ms: i64) -> std::sync::MutexGuard<'_, Kept> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let is_other = kept.version.as_ref() != Some(&tables.version);
        let is_old = now_ms.saturating_sub(kept.since_ms).abs() > KEPT_MS;
        if is_other || is_old || kept.of_model.len() + kept.of_provider.len() >= KEPT_MAX {
            *kept = Kept {
                version: Some(Arc::clone(&tables.version)),
                since_ms: now_ms,
                ..Kept::default()
            };
        }
        kept
    }
}

impl Kept {
    fn provider(&mut self, tables: &Tables, name: Option<&str>, now_ms: i64) -> Arc<Rates> {
        let key = name.map(str::to_owned);
        let rates = self.of_provider.entry(key);
        let rates =
            rates.or_insert_with(|| Arc::new(Rates::of(&tables.book.dearest_of(name, now_ms))));
        Arc::clone(rates)
    }
}

// === impl Rates ===

impl Rates {
    fn of(dearest: &Dearest) -> Rates {
        let per_token = |usd| pico(usd, PICO_PER_MILLIONTH);
        Rates {
            buckets: dearest.rates.map(per_token),
            text: per_token(dearest.of(TEXT)),
            media: per_token(dearest.of(MEDIA)),
            output: per_token(dearest.of(OUTPUT)),
            units: dearest
                .units
                .iter()
                .map(|(unit, usd)| (*unit, pico(*usd, PICO_PER_USD)))
                .collect(),
        }
    }

    /// What a call within that bound costs at most, in pico-dollars.
    pub fn worst(&self, bound: &Bound, body_bytes: u64) -> i128 {
        let tokens = product(self.text, bound.text_tokens)
            + product(self.media, bound.media_tokens)
            + product(self.output, bound.output_tokens);
        let units = self.units.iter().map(|(unit, rate)| {
            let n = match unit {
                Unit::Requests | Unit::SearchUnits => 1,
                Unit::Images => bound.choices,
                Unit::Characters => body_bytes,
                Unit::AudioSeconds => body_bytes / BYTES_PER_AUDIO_SECOND,
                // What a provider's tools do is not known before; see `envoy/README.md`.
                _ => 0,
            };
            product(*rate, n)
        });
        tokens + units.sum::<i128>()
    }

    /// What these counts cost at most, in pico-dollars.
    pub fn of_usage(&self, usage: &Usage) -> i128 {
        let tokens = usage.tokens().map(|(bucket, n)| {
            let rate = self.buckets.get(bucket as usize).copied().unwrap_or(0);
            product(rate, n)
        });
        tokens.sum()
    }

    /// The dearest rate of a token that is sent, in pico-dollars.
    pub fn per_input_token(&self) -> u64 {
        self.media.max(self.text)
    }

    /// The dearest rate of a token that is answered, in pico-dollars.
    pub fn per_output_token(&self) -> u64 {
        self.output
    }

    /// The dearest fee of a call itself, in pico-dollars.
    pub fn per_request(&self) -> u64 {
        let fee = self.units.iter().find(|(unit, _)| *unit == Unit::Requests);
        fee.map_or(0, |(_, rate)| *rate)
    }
}

/// What a call that no row prices is charged: its counts at the dearest rates.
pub fn unpriced(worst: &Worst, prices: &Prices, event: &Event) -> i128 {
    let now_ms = event.time.as_unix_ms();
    let rates = worst.ceiling(prices, Some(&event.provider), now_ms);
    let own = event.billed_usage.as_ref().unwrap_or(&event.usage);
    let extra = event.extra_usage.iter().map(|extra| &extra.usage);
    extra.chain([own]).map(|usage| rates.of_usage(usage)).sum()
}

/// What a call may use of a budget in that unit, as the ledger counts: pico-dollars, tokens,
/// requests.
pub fn amount(limit: &Limit, bound: &Bound, worst_pico: impl FnOnce() -> i128) -> i128 {
    match limit {
        Limit::Usd(_) => worst_pico(),
        Limit::Requests(_) => 1,
        Limit::Tokens(_) => {
            let input = i128::from(bound.text_tokens) + i128::from(bound.media_tokens);
            input + i128::from(bound.output_tokens)
        }
    }
}

/// The product, or more than any limit where it does not fit: some of them still add up.
fn product(rate: u64, n: u64) -> i128 {
    let product = i128::from(rate).saturating_mul(i128::from(n));
    product.min(AMOUNT_MAX)
}

/// Dollars times that, rounded up.
fn pico(usd: Decimal, times: i64) -> u64 {
    let pico = usd.checked_mul(Decimal::from(times));
    pico.map_or(u64::MAX, |pico| {
        u64::try_from(pico.ceil()).unwrap_or(u64::MAX)
    })
}
