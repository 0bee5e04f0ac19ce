//! What a FOCUS row is of, and how calls are added to it.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use tollmesh_usage::Bucket;

use super::names::titled;
use crate::ledger::CostLine;
use crate::ledger::query::RequestRow;
use crate::money::{PicoSum, PicoUsd};
use crate::report::share;

/// Tokens that a rate is for.
const TOKENS_PER_RATE: Decimal = Decimal::from_parts(1_000_000, 0, 0, false, 0);

/// Amounts are compared in units of a thousandth of a pico-dollar.
const SCALE_OF_SHARES: u32 = 15;

/// Digits after the point of a contracted price, which is a quotient.
const CONTRACTED_PLACES: u32 = 12;

/// What charges of a day have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Charge {
    pub provider: String,
    pub model: String,
    pub tier: Option<String>,
    pub region: Option<String>,
    pub namespace: Option<String>,
    /// The tags as one JSON object.
    pub tags: String,
    /// The price row, as `file:model:row`, without folders.
    pub row: String,
    /// The bucket's or unit's name.
    pub what: String,
    /// US dollars for a million tokens, or for one unit.
    pub unit_price: Decimal,
    /// Whether the operator's own terms make the cost differ from the list.
    pub is_contracted: bool,
    pub cost_status: &'static str,
    pub usage_source: String,
}

/// The sums of a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sums {
    pub requests: u64,
    /// Tokens, or units.
    amount: Decimal,
    /// US dollars by the public list.
    list: Decimal,
    /// What is charged, in pico-dollars.
    billed: i128,
}

/// A row's amounts as text.
pub struct Costs {
    pub billed: String,
    pub list: String,
    pub contracted: String,
    pub contracted_price: String,
    pub consumed: String,
    pub priced: String,
}

/// Adds the lines of a call to the rows that they belong to; what it is charged is spread over
/// them without remainder.
pub fn add(charges: &mut BTreeMap<Charge, Sums>, row: &RequestRow) {
    let Some(total) = row.cost.total else {
        return;
    };
    let mut lines = row.cost.lines.clone();
    if lines.iter().all(|line| line.usd.is_zero()) && total != PicoUsd::ZERO {
        lines.push(whole_call(total));
    }
    let mut left = i128::from(total.as_pico());
    let mut shares_left: u128 = lines.iter().map(share_of).sum();
    for line in &lines {
        let part = share::of(left, share_of(line), shares_left);
        left -= part;
        shares_left -= share_of(line);
        let sums = charges.entry(Charge::of(row, line)).or_default();
        sums.requests += 1;
        sums.amount += line.amount;
        sums.list += line.usd;
        sums.billed += part;
    }
}

fn share_of(line: &CostLine) -> u128 {
    let scaled = line.usd.round_dp(SCALE_OF_SHARES);
    let scaled = scaled.checked_mul(Decimal::from(10_u64.pow(SCALE_OF_SHARES)));
    scaled.and_then(|share| share.to_u128()).unwrap_or(0)
}

/// The line of a call that is charged as a whole.
fn whole_call(total: PicoUsd) -> CostLine {
    CostLine {
        what: "requests".into(),
        amount: Decimal::ONE,
        rate: total.to_usd(),
        times: Decimal::ONE,
        usd: total.to_usd(),
        assumed: false,
        extra: None,
        row: None,
    }
}

/// The price row without the folders that its file is in, which differ from node to node.
fn file_and_row(price_row: &str) -> &str {
    let file = price_row.split(':').next().unwrap_or_default();
    let folders = file.rfind('/').map_or(0, |slash| slash + 1);
    price_row.get(folders..).unwrap_or(price_row)
}

impl Charge {
    fn of(row: &RequestRow, line: &CostLine) -> Charge {
        let event = &row.event;
        let extra = line
            .extra
            .and_then(|i| event.extra_usage.get(usize::try_from(i).ok()?));
        let own = event.model.as_deref().or(event.model_requested.as_deref());
        let model = extra.and_then(|extra| extra.model.as_deref()).or(own);
        let price_row = line.row.as_deref().or(row.cost.row.as_deref());
        let context = |name: &str| event.pricing_context.get(name).cloned();
        Charge {
            provider: event.provider.clone(),
            model: model.unwrap_or_default().to_owned(),
            tier: event.service_tier.clone(),
            region: [
                "region",
                "vertex_location",
                "inference_geo",
                "data_residency",
            ]
            .into_iter()
            .find_map(context),
            namespace: event.source.namespace.clone(),
            tags: serde_json::to_string(&event.tags).unwrap_or_default(),
            row: file_and_row(price_row.unwrap_or_default()).to_owned(),
            what: line.what.to_string(),
            unit_price: line
                .rate
                .checked_mul(line.times)
                .unwrap_or(line.rate)
                .normalize(),
            is_contracted: row.cost.list.is_some(),
            cost_status: row.cost.status.name(),
            usage_source: event.usage_source.clone(),
        }
    }

    /// The model, or else what the price row calls it.
    pub fn resource(&self) -> &str {
        match self.model.as_str() {
            "" => &self.provider,
            model => model,
        }
    }

    fn is_of_tokens(&self) -> bool {
        Bucket::ALL.iter().any(|bucket| bucket.name() == self.what)
    }

    /// The kind of token or unit in words.
    pub fn meter(&self) -> String {
        match self.is_of_tokens() {
            true => format!("{} Tokens", titled(&self.what)),
            false => titled(&self.what),
        }
    }

    /// What is counted.
    pub fn consumed_unit(&self) -> String {
        match self.what.as_str() {
            _ if self.is_of_tokens() => "Tokens".to_owned(),
            "audio_seconds" | "video_seconds" => "Seconds".to_owned(),
            unit => titled(unit),
        }
    }

    /// What a price is for.
    pub fn pricing_unit(&self) -> String {
        match self.is_of_tokens() {
            true => "1000000 Tokens".to_owned(),
            false => self.consumed_unit(),
        }
    }

    /// The product: model and kind of token, whatever the terms.
    pub fn sku(&self) -> String {
        let parts: Vec<&str> = self.row.split(':').collect();
        let product = match parts.as_slice() {
            [_, model, ..] => model,
            _ => self.resource(),
        };
        format!("{}/{product}/{}", self.provider, self.what)
    }

    /// The price: the row of the price table, and the kind of token.
    pub fn sku_price(&self) -> String {
        match self.row.as_str() {
            "" => self.sku(),
            row => format!("{row}/{}", self.what),
        }
    }
}

impl Sums {
    /// The row's amounts. The list's is the exact product of quantity and price.
    pub fn costs(&self, charge: &Charge) -> Costs {
        let text = |amount: Decimal| amount.normalize().to_string();
        let priced = match charge.is_of_tokens() {
            true => self.amount / TOKENS_PER_RATE,
            false => self.amount,
        };
        let billed = PicoSum::from_pico(self.billed).to_string();
        let (contracted, price) = match charge.is_contracted {
            false => (text(self.list), charge.unit_price),
            true => {
                let usd = Decimal::try_from_i128_with_scale(self.billed, PicoUsd::PLACES);
                let price = usd.ok().and_then(|usd| usd.checked_div(priced));
                let price = price.unwrap_or(charge.unit_price);
                (billed.clone(), price.round_dp(CONTRACTED_PLACES))
            }
        };
        Costs {
            billed,
            list: text(self.list),
            contracted,
            contracted_price: text(price),
            consumed: text(self.amount),
            priced: text(priced),
        }
    }
}
