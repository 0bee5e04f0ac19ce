//! The list of pydantic's genai-prices: providers with models, dollars for a million tokens.
//!
//! Read from <https://github.com/pydantic/genai-prices>, `prices/data.json` and its schema beside
//! it: `prices` is one object, or a list of them of which the last whose `constraint` holds counts;
//! a price is a number, or a `base` with `tiers` above some input.

use std::collections::BTreeMap;

use jiff::civil::Date;
use serde::Deserialize;
use serde_json::value::RawValue;
use tollmesh_usage::Bucket;

use super::{Feed, Listed};

/// Their name of a provider where ours is another.
const PROVIDERS: &[(&str, &str)] = &[
    ("aws", "aws-bedrock"),
    ("voyageai", "voyage"),
    ("x-ai", "xai"),
    ("zhipuai", "zai"),
];

/// Their name of a price, and the bucket.
const PRICES: &[(&str, Bucket)] = &[
    ("input_mtok", Bucket::Input),
    ("output_mtok", Bucket::Output),
    ("cache_read_mtok", Bucket::CacheRead),
    ("cache_write_mtok", Bucket::CacheWrite),
    ("input_audio_mtok", Bucket::AudioInput),
    ("cache_audio_read_mtok", Bucket::CacheReadAudio),
    ("output_audio_mtok", Bucket::AudioOutput),
];

#[derive(Deserialize)]
struct Provider<'a> {
    id: String,
    #[serde(borrow)]
    models: Vec<Model<'a>>,
}

#[derive(Deserialize)]
struct Model<'a> {
    id: String,
    #[serde(borrow)]
    prices: &'a RawValue,
}

#[derive(Deserialize)]
struct Conditional<'a> {
    #[serde(borrow)]
    constraint: Option<&'a RawValue>,
    #[serde(borrow)]
    prices: &'a RawValue,
}

#[derive(Deserialize)]
struct Since {
    #[serde(alias = "start")]
    start_date: String,
}

#[derive(Deserialize)]
struct Tiered<'a> {
    #[serde(borrow)]
    base: &'a RawValue,
    #[serde(borrow)]
    tiers: Vec<Tier<'a>>,
}

#[derive(Deserialize)]
struct Tier<'a> {
    start: u64,
    #[serde(borrow)]
    price: &'a RawValue,
}

pub fn read(text: &str, today: Date) -> Result<Feed, serde_json::Error> {
    let providers: Vec<Provider<'_>> = serde_json::from_str(text)?;
    let mut feed = Feed::default();
    for provider in providers {
        let renamed = PROVIDERS.iter().find(|(theirs, _)| *theirs == provider.id);
        let ours = renamed.map_or(&*provider.id, |(_, ours)| ours);
        for model in &provider.models {
            read_model(&mut feed, ours, model, today)?;
        }
    }
    Ok(feed)
}

fn read_model(
    feed: &mut Feed,
    provider: &str,
    model: &Model<'_>,
    today: Date,
) -> Result<(), serde_json::Error> {
    let mut listed = Listed {
        provider: provider.to_owned(),
        model: model.id.clone(),
        ..Listed::default()
    };
    let Some(prices) = holding(model.prices, today)? else {
        let why = "its prices hold at some hours or from a time of day on";
        feed.aside.by_hand(provider, &model.id, why);
        return Ok(());
    };
    let prices: BTreeMap<String, &RawValue> = serde_json::from_str(prices.get())?;
    for (key, price) in prices {
        match PRICES.iter().find(|(name, _)| *name == key) {
            None => feed.aside.key(&key),
            Some((_, bucket)) => {
                if !set(&mut listed, *bucket, price)? {
                    let why = format!("{key} = {price} is no price that can be kept");
                    feed.aside.by_hand(provider, &model.id, &why);
                }
            }
        }
    }
    listed.complete();
    feed.models.push(listed);
    Ok(())
}

/// The prices that hold today; `None` where they depend on more than the day.
fn holding(prices: &RawValue, today: Date) -> Result<Option<&RawValue>, serde_json::Error> {
    if !prices.get().starts_with('[') {
        return Ok(Some(prices));
    }
    // Days in this form are in order where their texts are; a time may stand behind them.
    let today = today.to_string();
    let mut holding = None;
    for conditional in serde_json::from_str::<Vec<Conditional<'_>>>(prices.get())? {
        let Some(constraint) = conditional.constraint else {
            holding = Some(conditional.prices);
            continue;
        };
        let Ok(since) = serde_json::from_str::<Since>(constraint.get()) else {
            return Ok(None);
        };
        if since.start_date.get(..today.len()) <= Some(&*today) {
            holding = Some(conditional.prices);
        }
    }
    Ok(holding)
}

/// Sets a price; says whether it could be read.
fn set(listed: &mut Listed, bucket: Bucket, price: &RawValue) -> Result<bool, serde_json::Error> {
    if !price.get().starts_with('{') {
        let rate = super::rate(price, 0);
        if let Some(rate) = rate {
            listed.set(("standard", None), bucket, rate);
        }
        return Ok(rate.is_some());
    }
    let tiered: Tiered<'_> = serde_json::from_str(price.get())?;
    let base = (None, super::rate(tiered.base, 0));
    let tiers = tiered.tiers.iter();
    let tiers = tiers.map(|tier| (Some(tier.start), super::rate(tier.price, 0)));
    for (above, rate) in std::iter::once(base).chain(tiers) {
        let Some(rate) = rate else { return Ok(false) };
        listed.set(("standard", above), bucket, rate);
    }
    Ok(true)
}
