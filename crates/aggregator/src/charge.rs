//! What one event costs: its own usage and the usage nested in it, each at its own rates.

use std::collections::BTreeMap;
use std::sync::Arc;

use rust_decimal::Decimal;
use tollmesh_pricing::cost::Reason;
use tollmesh_pricing::{Book, Call, Priced, Status};
use tollmesh_usage::Usage;
use tollmesh_wire::event::{Event, ExtraUsage, Kind, Outcome};

use crate::ledger::CostRecord;

/// The facts that a cost depends on.
#[derive(Clone, Copy, Debug)]
pub struct Bill<'a> {
    /// Who bills the call.
    pub provider: &'a str,
    /// The model that served.
    pub model: Option<&'a str>,
    /// The model asked for.
    pub model_requested: Option<&'a str>,
    /// When, in milliseconds since 1970.
    pub unix_ms: i64,
    /// The service tier, in the provider's word.
    pub service_tier: Option<&'a str>,
    /// The counts that are charged.
    pub usage: &'a Usage,
    /// Usage charged apart.
    pub extra_usage: &'a [ExtraUsage],
    /// Facts that prices depend on.
    pub context: &'a BTreeMap<String, String>,
    /// Whether it is charged at all.
    pub is_billable: bool,
}

impl<'a> From<&'a Event> for Bill<'a> {
    /// What the provider charges is priced where it differs from what it processed; calls that
    /// we refused or that a nearer filter counts are no charge of ours. A retrieval is free, but
    /// the usage that it shows is that of a call which was not: the price is for that call's row.
    fn from(event: &'a Event) -> Bill<'a> {
        let is_ours = !matches!(event.outcome, Outcome::Denied | Outcome::Relayed);
        let is_charged = event.billable || event.kind == Kind::LateUsage;
        Bill {
            provider: &event.provider,
            model: event.model.as_deref(),
            model_requested: event.model_requested.as_deref(),
            unix_ms: event.time.as_unix_ms(),
            service_tier: event.service_tier.as_deref(),
            usage: event.billed_usage.as_ref().unwrap_or(&event.usage),
            extra_usage: &event.extra_usage,
            context: &event.pricing_context,
            is_billable: is_charged && is_ours,
        }
    }
}

impl<'a> Bill<'a> {
    /// What it comes to under these tables, whose version it records.
    pub fn price(&self, book: &Book, version: Arc<str>) -> CostRecord {
        if !self.is_billable {
            return CostRecord::free(version);
        }
        let own = match (self.usage.is_empty(), self.extra_usage.is_empty()) {
            (true, true) => return CostRecord::unpriced(version, Reason::NoUsage.name()),
            (true, false) => nothing_of_its_own(),
            (false, _) => book.price(&self.call()),
        };
        let extra = self.extra_usage.iter();
        let extra = extra
            .map(|extra| book.price(&self.call_of(extra)))
            .collect();
        CostRecord::of(own, extra, Arc::clone(&version))
            .unwrap_or_else(|_| CostRecord::unpriced(version, Reason::Overflow.name()))
    }

    fn call(&self) -> Call<'a> {
        Call {
            provider: self.provider,
            model: self.model,
            model_requested: self.model_requested,
            unix_ms: self.unix_ms,
            service_tier: self.service_tier,
            usage: self.usage,
            context: self.context,
        }
    }

    /// The call that this nested usage would be if it stood alone.
    fn call_of(&self, extra: &'a ExtraUsage) -> Call<'a> {
        let own = Call {
            usage: &extra.usage,
            ..self.call()
        };
        match extra.model.as_deref() {
            Some(model) => Call {
                model: Some(model),
                model_requested: None,
                ..own
            },
            None => own,
        }
    }
}

/// The cost of a call whose whole usage is nested.
fn nothing_of_its_own() -> Priced {
    Priced {
        status: Status::Exact,
        usd: Some(Decimal::ZERO),
        net: Some(Decimal::ZERO),
        net_by: None,
        lines: Vec::new(),
        row: None,
        unpriced_because: None,
    }
}
