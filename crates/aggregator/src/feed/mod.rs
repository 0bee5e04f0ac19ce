//! Price lists that other projects publish, read into rows that can be compared with our tables.
//!
//! A list is never taken over: what it says becomes a proposal for people to review ([`propose`]).

mod genai_prices;
mod litellm;
mod patch;
mod propose;

use std::collections::{BTreeMap, BTreeSet};

use rust_decimal::Decimal;
use serde_json::value::RawValue;
use tollmesh_pricing::Rate;
use tollmesh_usage::Bucket;
use tollmesh_wire::Timestamp;

pub use propose::{Proposal, propose};

/// A published list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// `model_prices_and_context_window.json` of LiteLLM.
    Litellm,
    /// `prices/data.json` of pydantic's genai-prices.
    GenaiPrices,
}

/// What a list says.
#[derive(Debug, Default)]
pub struct Feed {
    /// Models under our provider's name, in the list's order.
    pub models: Vec<Listed>,
    /// What could not be read, each once.
    pub aside: Aside,
}

/// One model of a list.
#[derive(Debug, Default, PartialEq)]
pub struct Listed {
    /// Our name of the provider.
    pub provider: String,
    /// The provider's name of the model.
    pub model: String,
    /// Dollars for a million tokens, by tier and by the input that they hold above.
    pub rows: BTreeMap<Key, BTreeMap<usize, Rate>>,
}

/// Which calls a row is for: our tier, and the input that is less than theirs.
pub type Key = (&'static str, Option<u64>);

/// What a list has and a proposal has not.
#[derive(Debug, Default)]
pub struct Aside {
    /// Providers that no table of ours is for, with their number of models.
    pub providers: BTreeMap<String, usize>,
    /// Keys that no column of ours stands for, with the number of models that have them.
    pub keys: BTreeMap<String, usize>,
    /// Models that people have to look at, with the reason.
    pub by_hand: BTreeSet<String>,
}

impl Kind {
    /// Where the list is published.
    pub const fn url(self) -> &'static str {
        match self {
            Kind::Litellm => {
                "https://raw.githubusercontent.com/BerriAI/litellm/main/model_prices_and_context_window.json"
            }
            Kind::GenaiPrices => {
                "https://raw.githubusercontent.com/pydantic/genai-prices/main/prices/data.json"
            }
        }
    }

    /// Reads a list of that kind; of prices that have a beginning, those that hold by then.
    pub fn read(self, text: &str, now: Timestamp) -> Result<Feed, serde_json::Error> {
        match self {
            Kind::Litellm => litellm::read(text),
            Kind::GenaiPrices => genai_prices::read(text, propose::day(now)),
        }
    }
}

impl Listed {
    /// Sets a rate; nothing is said of what costs nothing, which a list writes for "not sold" too.
    fn set(&mut self, key: Key, bucket: Bucket, rate: Rate) {
        if !rate.is_zero() {
            let rates = self.rows.entry(key).or_default();
            rates.insert(bucket as usize, rate);
        }
    }

    /// A row above some input says only what differs: the rest is that of the row below it.
    fn complete(&mut self) {
        let tiers: BTreeSet<&str> = self.rows.keys().map(|(tier, _)| *tier).collect();
        for tier in tiers {
            let mut below: BTreeMap<usize, Rate> = BTreeMap::new();
            for (_, rates) in self.rows.iter_mut().filter(|((of, _), _)| *of == tier) {
                let mut whole = below.clone();
                whole.extend(rates.iter().map(|(bucket, rate)| (*bucket, *rate)));
                *rates = whole.clone();
                below = whole;
            }
        }
    }
}

impl Aside {
    fn key(&mut self, name: &str) {
        *self.keys.entry(name.to_owned()).or_default() += 1;
    }

    fn provider(&mut self, name: &str) {
        *self.providers.entry(name.to_owned()).or_default() += 1;
    }

    fn by_hand(&mut self, provider: &str, model: &str, why: &str) {
        self.by_hand.insert(format!("{provider} {model}: {why}"));
    }
}

/// The rate of a JSON number, from its own digits: `places` is by how many decimal places it is
/// moved up. `None` for what is no number, or has more digits than any price.
fn rate(number: &RawValue, places: u32) -> Option<Rate> {
    let text = number.get();
    let plain = text.parse::<Decimal>();
    let number = plain.or_else(|_| Decimal::from_scientific(text)).ok()?;
    let moved = number.checked_mul(Decimal::from(10_u64.pow(places)))?;
    Rate::parse(&moved.normalize().to_string()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_taken_by_their_digits() {
        for (text, places, wanted) in [
            ("2.5e-06", 6, Some("2.5")),
            ("1.25E-5", 6, Some("12.5")),
            ("0.00000015", 6, Some("0.15")),
            ("8.333333333e-08", 6, Some("0.08333333333")),
            // What binary fractions leave behind is no price.
            ("1.9999999999999998e-06", 6, None),
            ("3", 0, Some("3")),
            ("\"3\"", 0, None),
            ("-1e-6", 6, None),
        ] {
            let raw = RawValue::from_string(text.to_owned()).unwrap();
            let wanted = wanted.map(|text| Rate::parse(text).unwrap());
            assert_eq!(rate(&raw, places), wanted, "{text}");
        }
    }
}
