//! Cost and usage as FOCUS rows: what finance tools read, whatever the provider.
//!
//! The columns are those of FOCUS 1.2 (<https://focus.finops.org/focus-specification/v1-2/>, read
//! 2026-11), with the two names of providers that 1.3 adds in place of `ProviderName` and
//! `PublisherName`. A row is what calls of one day have in common: model, kind of token, price,
//! tags and namespace. `BilledCost` adds up to what the ledger holds, to the pico-dollar.

mod charge;
mod names;

use std::collections::BTreeMap;
use std::io::Write;

use jiff::tz::TimeZone;
use tollmesh_wire::{Outcome, Timestamp};

use super::Store;
use super::day::{DAY_MS, Day};
use crate::ledger::query::{
    Column, Dimension, Filter, PAGE_ROWS_MAX, RequestRow, RequestsQuery, Sort, Span, SpendQuery,
    SpendRow,
};
use crate::rows;
use charge::{Charge, Sums};

/// Rows of one day that are held in memory; beyond, the question must be narrower.
const GROUPS_MAX: usize = 500_000;

/// An export: which calls.
#[derive(Clone, Debug, Default)]
pub struct Focus {
    /// The time looked at.
    pub span: Span,
    /// Conditions on calls.
    pub filters: Vec<Filter>,
    /// `BillingAccountId`; the provider's name where none is given.
    pub account: Option<String>,
}

/// What became of an export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Rows that were written.
    pub rows: u64,
    /// Calls without a price: FOCUS has no row for a cost that nobody knows.
    pub unpriced: u64,
    /// Calls that the ledger has in its sums and not as rows any more, by retention.
    pub forgotten: u64,
}

/// Why an export ended early.
#[derive(Debug, thiserror::Error)]
pub enum FocusError<E: std::error::Error + 'static> {
    /// The ledger did not answer.
    #[error(transparent)]
    Store(E),
    /// The rows cannot be written.
    #[error("rows cannot be written")]
    Write(#[from] csv::Error),
    /// One day has more rows than memory is given to.
    #[error("{day} has more than {max} rows; narrow it with --where, or with --from and --to")]
    TooManyRows {
        /// The day.
        day: String,
        /// The most that are held.
        max: usize,
    },
}

/// The columns, in the alphabetical order of the specification; those of ours come last.
const COLUMNS: [&str; 48] = [
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "HostProviderName",
    "InvoiceId",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingCurrency",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "RegionId",
    "RegionName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "ServiceProviderName",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "SubAccountType",
    "Tags",
    "x_CostStatus",
    "x_Requests",
    "x_ServiceTier",
    "x_UsageSource",
];

/// The period of a charge, and the month that it is billed in.
struct Period {
    from: String,
    until: String,
    month: String,
    next_month: String,
}

impl Focus {
    /// Writes the rows day by day, the first day first.
    pub fn export<S: Store>(
        &self,
        store: &S,
        out: impl Write,
    ) -> Result<Exported, FocusError<S::Error>> {
        let mut writer = csv::Writer::from_writer(out);
        writer.write_record(COLUMNS)?;
        let mut exported = Exported::default();
        let days = store.spend(&SpendQuery {
            by: Vec::new(),
            interval_ms: Some(DAY_MS),
            span: self.span,
            filters: self.filters.clone(),
        });
        for sums in days.map_err(FocusError::Store)? {
            self.export_day(store, &sums, &mut writer, &mut exported)?;
        }
        writer.flush().map_err(csv::Error::from)?;
        Ok(exported)
    }

    fn export_day<S: Store, W: Write>(
        &self,
        store: &S,
        day_sums: &SpendRow,
        writer: &mut csv::Writer<W>,
        exported: &mut Exported,
    ) -> Result<(), FocusError<S::Error>> {
        let day = Day::containing(day_sums.start.unwrap_or_default());
        let span = Span {
            from: self.span.from.max(Some(day.start())),
            to: Some(self.span.to.map_or(day.end(), |to| to.min(day.end()))),
        };
        let mut charges: BTreeMap<Charge, Sums> = BTreeMap::new();
        let mut n_calls = 0;
        let mut query = RequestsQuery {
            span,
            filters: self.filters.clone(),
            sort: Sort::Time,
            limit: PAGE_ROWS_MAX,
            cursor: None,
        };
        loop {
            let page = store.requests(&query).map_err(FocusError::Store)?;
            for row in page.items.iter().filter(|row| self.is_ours(row)) {
                n_calls += 1;
                exported.unpriced += u64::from(row.cost.total.is_none());
                charge::add(&mut charges, row);
            }
            if charges.len() > GROUPS_MAX {
                return Err(FocusError::TooManyRows {
                    day: day.to_string(),
                    max: GROUPS_MAX,
                });
            }
            query.cursor = page.next_cursor;
            if query.cursor.is_none() {
                break;
            }
            // The latest come first: what was read needs not be passed over again for each page.
            let last = page.items.last().map(|row| row.event.time.as_unix_ms());
            query.span.to = last.map(|last| Timestamp::from_unix_ms(last + 1));
        }
        exported.forgotten += day_sums.requests.saturating_sub(n_calls);
        let period = Period::of(span, day);
        for (charge, sums) in &charges {
            let cells = self.cells(charge, sums, &period);
            writer.write_record(cells.map(|cell| rows::harmless(&cell)))?;
            exported.rows += 1;
        }
        Ok(())
    }

    /// Whether a question for sums would count the call: not one that a nearer filter counts, unless
    /// outcomes are asked for.
    fn is_ours(&self, row: &RequestRow) -> bool {
        let outcome = Dimension::Column(Column::Outcome);
        row.event.outcome != Outcome::Relayed
            || self
                .filters
                .iter()
                .any(|filter| filter.dimension == outcome)
    }

    fn cells(&self, charge: &Charge, sums: &Sums, period: &Period) -> [String; COLUMNS.len()] {
        let Period {
            from,
            until,
            month,
            next_month,
        } = period;
        let provider = names::provider(&charge.provider);
        let account = self.account.as_deref().unwrap_or(&charge.provider);
        let meter = charge.meter();
        let costs = sums.costs(charge);
        let region = charge.region.as_deref().unwrap_or_default();
        let namespace = charge.namespace.as_deref().unwrap_or_default();
        let cell = |column: &str| -> String {
            match column {
                "BilledCost" | "EffectiveCost" => costs.billed.clone(),
                "BillingAccountId" => account.to_owned(),
                "BillingCurrency" | "PricingCurrency" => "USD".to_owned(),
                "BillingPeriodEnd" => next_month.clone(),
                "BillingPeriodStart" => month.clone(),
                "ChargeCategory" => "Usage".to_owned(),
                "ChargeDescription" => format!("{}: {meter}", charge.resource()),
                "ChargeFrequency" => "Usage-Based".to_owned(),
                "ChargePeriodEnd" => until.clone(),
                "ChargePeriodStart" => from.clone(),
                "ConsumedQuantity" => costs.consumed.clone(),
                "ConsumedUnit" => charge.consumed_unit(),
                "ContractedCost" => costs.contracted.clone(),
                "ContractedUnitPrice" => costs.contracted_price.clone(),
                "ListCost" => costs.list.clone(),
                "ListUnitPrice" => charge.unit_price.normalize().to_string(),
                "PricingCategory" => "Standard".to_owned(),
                "PricingQuantity" => costs.priced.clone(),
                "PricingUnit" => charge.pricing_unit(),
                "HostProviderName"
                | "InvoiceIssuerName"
                | "ProviderName"
                | "PublisherName"
                | "ServiceProviderName" => provider.to_owned(),
                "RegionId" | "RegionName" => region.to_owned(),
                "ResourceId" => format!("{}/{}", charge.provider, charge.resource()),
                "ResourceName" => charge.resource().to_owned(),
                "ResourceType" => "Model".to_owned(),
                "ServiceCategory" => "AI and Machine Learning".to_owned(),
                "ServiceName" => format!("{provider} API"),
                "ServiceSubcategory" => "Generative AI".to_owned(),
                "SkuId" => charge.sku(),
                "SkuMeter" => meter.clone(),
                "SkuPriceId" => charge.sku_price(),
                "SubAccountId" | "SubAccountName" => namespace.to_owned(),
                "SubAccountType" if !namespace.is_empty() => "Namespace".to_owned(),
                "Tags" => charge.tags.clone(),
                "x_CostStatus" => charge.cost_status.to_owned(),
                "x_Requests" => sums.requests.to_string(),
                "x_ServiceTier" => charge.tier.clone().unwrap_or_default(),
                "x_UsageSource" => charge.usage_source.clone(),
                // Null: nobody but the provider knows it.
                _ => String::new(),
            }
        };
        COLUMNS.map(cell)
    }
}

impl Period {
    fn of(span: Span, day: Day) -> Period {
        let at = |at: Option<Timestamp>| seconds(at.unwrap_or(day.start()));
        let (month, next_month) = month_around(day.start());
        Period {
            from: at(span.from),
            until: at(span.to),
            month: seconds(month),
            next_month: seconds(next_month),
        }
    }
}

/// The first instants of the month that the instant falls in, and of the next.
fn month_around(at: Timestamp) -> (Timestamp, Timestamp) {
    let months = || {
        let at = jiff::Timestamp::from_millisecond(at.as_unix_ms()).ok()?;
        let first = at.to_zoned(TimeZone::UTC).date().first_of_month();
        let next = first.checked_add(jiff::Span::new().months(1)).ok()?;
        let start = |date: jiff::civil::Date| {
            let start = date.to_zoned(TimeZone::UTC).ok()?.timestamp();
            Some(Timestamp::from_unix_ms(start.as_millisecond()))
        };
        start(first).zip(start(next))
    };
    months().unwrap_or((at, at))
}

/// An instant in whole seconds, as the specification writes them.
fn seconds(at: Timestamp) -> String {
    let text = at.to_string();
    format!("{}Z", text.get(..19).unwrap_or_default())
}
