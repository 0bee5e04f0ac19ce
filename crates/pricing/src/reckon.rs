//! One call's cost, line by line.

use std::borrow::Cow;

use rust_decimal::Decimal;
use tollmesh_usage::{Quantity, Unit};

use crate::amount::{PER_MILLION_SCALE, Rate, exact_product, exact_sum};
use crate::condition::lower;
use crate::cost::{Call, Inputs, Line, Priced, Reason, Status, Usd};
use crate::provider::{Entry, Provider};
use crate::row::{Row, STANDARD};
use crate::table::{self, Wanted};

/// The fact that names the region of the provider that served a call.
const REGION: &str = "region";

/// Decimal places of a [`Quantity`].
const QUANTITY_SCALE: u32 = 3;

/// Prices a call, and names the model that it is for; the error says why nothing does.
pub(crate) fn price<'p>(
    provider: Option<&'p Provider>,
    call: &Call<'_>,
) -> Result<(Priced, &'p str), Reason> {
    let provider = provider.ok_or(Reason::UnknownProvider)?;
    if call.usage.is_empty() {
        return Err(Reason::NoUsage);
    }
    let entry = entry(provider, call)?;
    let tier = tier(provider, call)?;
    let region = call.context.get(REGION).map(|region| lower(region));
    let wanted = Wanted {
        tier: &tier,
        unix_ms: call.unix_ms,
        input_total: match call.inputs {
            Some(inputs) => inputs.taken,
            None => call.usage.input_total().unwrap_or(0),
        },
        region: region.as_deref(),
    };
    let row = table::find(&entry.model.rows, wanted).ok_or(Reason::NoRow)?;
    let may_be_of = |input_total| {
        let own = Wanted {
            input_total,
            ..wanted
        };
        table::find(&entry.model.rows, own).is_some_and(|other| std::ptr::eq(row, other))
    };
    let has_one_row = |inputs: Inputs| may_be_of(inputs.min) && may_be_of(inputs.max);
    let lists_elsewhere = region
        .as_deref()
        .is_some_and(|r| provider.lists_elsewhere(r));
    let mut bill = Bill {
        is_assumed: is_routed(provider, call)
            || !call.inputs.is_none_or(has_one_row)
            || (lists_elsewhere && !row.is_regional())
            || table::stands_in(&entry.model.rows, wanted, row),
        ..Bill::default()
    };
    let by_units = row.either && counts_its_units(row, call);
    if !by_units {
        bill.add_tokens(row, times(entry, call)?, call)?;
        bill.is_assumed |= row.either;
    }
    bill.add_units(provider, entry, row, call)?;
    Ok((bill.total(row)?, &entry.model.id))
}

/// The dearest rate of each class among the rows in force, for all that was used.
pub(crate) fn ceiling(providers: &[Provider], call: &Call<'_>) -> Usd {
    let in_force: Vec<&Row> = providers
        .iter()
        .flat_map(Provider::all_models)
        .flat_map(|model| &model.rows)
        .filter(|row| row.from_ms <= call.unix_ms && call.unix_ms < row.until_ms)
        .collect();
    let dearest = |bucket| {
        let rates = in_force.iter().filter_map(|row| row.charge(bucket));
        rates.map(|(rate, _)| rate.as_decimal()).max()
    };
    let mut sum = Decimal::ZERO;
    for (bucket, tokens) in call.usage.tokens().filter(|(_, tokens)| *tokens > 0) {
        let rate = Rate::of(dearest(bucket).unwrap_or(Decimal::ZERO));
        let usd = rate.charge(Decimal::from(tokens), Decimal::ONE, PER_MILLION_SCALE);
        let Some(more) = usd.and_then(|usd| exact_sum(sum, usd)) else {
            return Usd::MAX;
        };
        sum = more;
    }
    sum
}

pub(crate) fn entry<'p>(provider: &'p Provider, call: &Call<'_>) -> Result<&'p Entry, Reason> {
    let name = charged_name(Some(provider), call).ok_or(Reason::NoModel)?;
    provider.find(name).ok_or(Reason::UnknownModel)
}

/// The name of the call's models that its price goes by: that of the model that served, or of the
/// one that was asked for where the provider bills that one or nobody said which served.
fn charged_name<'c>(provider: Option<&Provider>, call: &Call<'c>) -> Option<&'c str> {
    let [served, requested] = told_names(call);
    let routes = |name: &str| provider.is_some_and(|p| p.routes(name));
    let asked = requested.filter(|name| served.is_none() || !routes(name));
    match provider.is_some_and(|p| p.bills_requested) {
        true => asked.or(served),
        false => served.or(requested),
    }
}

/// The names that the call gives to the model it is charged for: the one that its price goes by,
/// and the other where the tables know both as one model.
pub(crate) fn charged_names<'c>(provider: Option<&Provider>, call: &Call<'c>) -> Vec<&'c str> {
    let charged = charged_name(provider, call);
    let find = |name: &str| provider.and_then(|p| p.find(name));
    let entry = charged.and_then(find);
    let is_charged = |name: &&'c str| {
        let is_entry = |e: &Entry| find(name).is_some_and(|other| std::ptr::eq(e, other));
        Some(*name) == charged || entry.is_some_and(is_entry)
    };
    let told = told_names(call).into_iter().flatten();
    told.filter(is_charged).collect()
}

/// The model that served and the one that was asked for, where they are told.
fn told_names<'c>(call: &Call<'c>) -> [Option<&'c str>; 2] {
    [call.model, call.model_requested].map(|name| name.filter(|name| !name.is_empty()))
}

/// Whether the provider chose the model, for which it may charge by itself.
fn is_routed(provider: &Provider, call: &Call<'_>) -> bool {
    let requested = call.model_requested;
    provider.bills_requested && requested.is_some_and(|name| provider.routes(name))
}

/// Our word for the tier that served: the provider's word for it, and what other facts say.
pub(crate) fn tier<'p>(provider: &'p Provider, call: &Call<'_>) -> Result<Cow<'p, str>, Reason> {
    let facts = provider.tier_facts.iter();
    let facts = facts.filter_map(|fact| call.context.get(fact).map(String::as_str));
    let mut tier = Cow::Borrowed(STANDARD);
    let words = call.service_tier.into_iter().chain(facts);
    for word in words.filter(|word| !word.is_empty()) {
        let ours = provider.tiers.ours(&lower(word));
        let ours = ours.ok_or(Reason::UnknownTier)?;
        if ours == STANDARD || ours == tier {
            continue;
        }
        // Two that are not standard are a tier of their own, which a row may name.
        tier = match tier.as_ref() {
            STANDARD => Cow::Borrowed(ours),
            first => Cow::Owned(format!("{first}+{ours}")),
        };
    }
    Ok(tier)
}

/// Whether the call counts something that the row charges by the piece.
fn counts_its_units(row: &Row, call: &Call<'_>) -> bool {
    units(call).any(|(unit, _)| row.unit_rate(unit).is_some())
}

fn times(entry: &Entry, call: &Call<'_>) -> Result<Decimal, Reason> {
    let holding = entry
        .modifiers
        .iter()
        .filter(|m| m.span.holds(call.unix_ms) && m.when.holds(call.context));
    holding
        .map(|m| m.times)
        .try_fold(Decimal::ONE, |product, times| {
            exact_product(product, times).ok_or(Reason::Overflow)
        })
}

/// The lines so far.
#[derive(Default)]
struct Bill {
    lines: Vec<Line>,
    is_assumed: bool,
}

impl Bill {
    fn add_tokens(&mut self, row: &Row, times: Decimal, call: &Call<'_>) -> Result<(), Reason> {
        for (bucket, tokens) in call.usage.tokens().filter(|(_, tokens)| *tokens > 0) {
            let (rate, assumed) = row.charge(bucket).ok_or(Reason::NoRate)?;
            let amount = Decimal::from(tokens);
            let usd = rate.charge(amount, times, PER_MILLION_SCALE);
            self.is_assumed |= assumed;
            self.lines.push(Line {
                what: bucket.name(),
                amount,
                rate: rate.as_decimal(),
                times,
                usd: usd.ok_or(Reason::Overflow)?,
                assumed,
            });
        }
        Ok(())
    }

    fn add_units(
        &mut self,
        provider: &Provider,
        entry: &Entry,
        row: &Row,
        call: &Call<'_>,
    ) -> Result<(), Reason> {
        if let Some(rate) = uncounted_prompt(entry, row, call) {
            self.add_unit(Unit::GroundedPrompts, Quantity::whole(1), rate)?;
        }
        for (unit, quantity) in units(call) {
            match unit_rate(unit, entry, row, call) {
                Some(rate) => self.add_unit(unit, quantity, rate)?,
                // A call is a request whether or not anybody counts it.
                None if unit == Unit::Requests => {}
                None if call.usage.has_no_tokens() => return Err(Reason::NoRate),
                None => self.is_assumed |= provider.charged_units.contains(&unit),
            }
        }
        Ok(())
    }

    fn add_unit(&mut self, unit: Unit, quantity: Quantity, rate: Rate) -> Result<(), Reason> {
        let thousandths = i128::from(quantity.as_thousandths());
        let amount = Decimal::from_i128_with_scale(thousandths, QUANTITY_SCALE).normalize();
        let usd = rate.charge(amount, Decimal::ONE, 0);
        self.lines.push(Line {
            what: unit.name(),
            amount,
            rate: rate.as_decimal(),
            times: Decimal::ONE,
            usd: usd.ok_or(Reason::Overflow)?,
            assumed: false,
        });
        Ok(())
    }

    fn total(self, row: &Row) -> Result<Priced, Reason> {
        let sum = |sum, line: &Line| exact_sum(sum, line.usd);
        let usd = self.lines.iter().try_fold(Decimal::ZERO, sum);
        let usd = usd.ok_or(Reason::Overflow)?.normalize();
        Ok(Priced {
            status: match self.is_assumed {
                true => Status::Assumed,
                false => Status::Exact,
            },
            usd: Some(usd),
            net: Some(usd),
            net_by: None,
            lines: self.lines,
            row: Some(row.id.clone()),
            unpriced_because: None,
        })
    }
}

/// The units that were used, and the request itself.
fn units<'c>(call: &'c Call<'_>) -> impl Iterator<Item = (Unit, Quantity)> + 'c {
    let used = call.usage.units().filter(|(_, q)| q.as_thousandths() > 0);
    let counts_requests = call.usage.unit(Unit::Requests).is_some();
    let request = (Unit::Requests, Quantity::whole(1));
    used.chain((!counts_requests).then_some(request))
}

/// What a provider that charges searches by the prompt charges for one that nobody counted: a call
/// that searched had one.
fn uncounted_prompt(entry: &Entry, row: &Row, call: &Call<'_>) -> Option<Rate> {
    let counts = |unit| call.usage.unit(unit).is_some();
    if counts(Unit::GroundedPrompts) || !units(call).any(|(u, _)| u == Unit::WebSearches) {
        return None;
    }
    unit_rate(Unit::GroundedPrompts, entry, row, call).filter(|rate| !rate.is_zero())
}

fn unit_rate(unit: Unit, entry: &Entry, row: &Row, call: &Call<'_>) -> Option<Rate> {
    let fee = || {
        let mut fees = entry.fees.iter();
        fees.find(|f| {
            f.unit == Some(unit) && f.span.holds(call.unix_ms) && f.when.holds(call.context)
        })
    };
    row.unit_rate(unit).or_else(|| fee().map(|f| f.each))
}
