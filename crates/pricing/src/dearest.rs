//! The most that a call can cost before anybody knows what it uses.

use rust_decimal::Decimal;
use tollmesh_usage::{Bucket, Unit};

use crate::amount::exact_product;
use crate::cost::{Call, Usd};
use crate::provider::{Entry, Provider};
use crate::reckon;
use crate::row::{Row, STANDARD};

/// The tier that a provider may choose by itself where a call names none: OpenAI's `auto` is what
/// the project is set to (<https://platform.openai.com/docs/api-reference/chat/create>,
/// `service_tier`).
const CHOSEN_BY_PROVIDER: &str = "priority";
/// The word that leaves the choice to the provider.
const AUTO: &str = "auto";

/// The dearest rates among the rows that may come to price a call of one model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dearest {
    /// US dollars for a million tokens, by bucket, factors included; nothing where no row has one.
    pub rates: [Usd; Bucket::ALL.len()],
    /// US dollars for one unit.
    pub units: Vec<(Unit, Usd)>,
}

impl Dearest {
    /// The dearest of these buckets' rates.
    pub fn of(&self, buckets: &[Bucket]) -> Usd {
        let rates = buckets.iter().filter_map(|b| self.rates.get(*b as usize));
        rates.copied().max().unwrap_or_default()
    }

    /// The rate of that unit; nothing where it is not charged.
    pub fn unit(&self, unit: Unit) -> Usd {
        let own = self.units.iter().find(|(u, _)| *u == unit);
        own.map_or(Usd::ZERO, |(_, rate)| *rate)
    }

    pub(crate) fn raise(&mut self, bucket: Bucket, rate: Usd) {
        if let Some(slot) = self.rates.get_mut(bucket as usize) {
            *slot = rate.max(*slot);
        }
    }

    fn raise_unit(&mut self, unit: Unit, rate: Usd) {
        match self.units.iter_mut().find(|(u, _)| *u == unit) {
            Some((_, slot)) => *slot = rate.max(*slot),
            None => self.units.push((unit, rate)),
        }
    }

    fn add(&mut self, row: &Row, times: Decimal) {
        for bucket in Bucket::ALL {
            if let Some((rate, _)) = row.charge(bucket) {
                let rate = rate.as_decimal();
                self.raise(bucket, exact_product(rate, times).unwrap_or(Usd::MAX));
            }
        }
        for (unit, rate) in &row.units {
            self.raise_unit(*unit, rate.as_decimal());
        }
    }
}

/// The dearest rates for calls of that model: of long context and of any region and hour, at the
/// tier that is named and the standard one, which a provider may fall back to. Where none is named,
/// a tier that the provider may choose counts too; where the word is unknown, all do.
pub(crate) fn dearest(provider: &Provider, call: &Call<'_>) -> Option<Dearest> {
    let entry = reckon::entry(provider, call).ok()?;
    let tier = reckon::tier(provider, call).ok();
    let is_auto = call
        .service_tier
        .is_none_or(|t| t.eq_ignore_ascii_case(AUTO));
    let may_price = |row: &&Row| {
        let own = tier.as_deref().is_none_or(|tier| tier == row.tier);
        let is_in_force = row.from_ms <= call.unix_ms && call.unix_ms < row.until_ms;
        is_in_force && (own || row.tier == STANDARD || (is_auto && row.tier == CHOSEN_BY_PROVIDER))
    };
    let times = times(entry, call);
    let mut dearest = Dearest::default();
    let mut is_priced = false;
    for row in entry.model.rows.iter().filter(may_price) {
        dearest.add(row, times);
        is_priced = true;
    }
    for fee in entry.fees.iter().filter(|f| f.span.holds(call.unix_ms)) {
        if let Some(unit) = fee.unit {
            dearest.raise_unit(unit, fee.each.as_decimal());
        }
    }
    is_priced.then_some(dearest)
}

/// The dearest rates that these providers charge anybody at that instant.
pub(crate) fn ceiling(providers: &[Provider], unix_ms: i64) -> Dearest {
    let mut dearest = Dearest::default();
    let models = providers.iter().flat_map(Provider::all_models);
    for row in models.flat_map(|model| &model.rows) {
        if row.from_ms <= unix_ms && unix_ms < row.until_ms {
            dearest.add(row, Decimal::ONE);
        }
    }
    dearest
}

/// The product of the factors that hold, without those that make a call cheaper.
fn times(entry: &Entry, call: &Call<'_>) -> Decimal {
    let holding = entry.modifiers.iter();
    let holding = holding.filter(|m| m.span.holds(call.unix_ms) && m.when.holds(call.context));
    let dearer = holding.map(|m| m.times.max(Decimal::ONE));
    dearer.fold(Decimal::ONE, |product, times| {
        exact_product(product, times).unwrap_or(product)
    })
}
