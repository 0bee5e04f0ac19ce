//! What an event charges to which budget; called within the transaction of its row.

use std::sync::Arc;

use rust_decimal::Decimal;
use serde_json::{Map, Value, json};
use tollmesh_budget::Limit;
use tollmesh_budget::lease::ReservationId;
use tollmesh_wire::{Applied, Event, Outcome, Subject};

use super::Shared;
use super::policies::{Budget, Policies, Span};
use super::state::admitted_ms;
use super::sync::counts_after_ms;
use super::table::percent;
use crate::clock;
use crate::ledger::Entry;
use crate::ledger::budgets::{Charge, Charger, Charges, Denial, Known, Measure, Spend, SpendKey};
use crate::ledger::totals::Occasion;

/// Windows that ended earlier are of no interest to anybody: milliseconds.
const PAST_MS_MAX: i64 = 35 * 86_400_000;
/// A call is let go ahead soon after it arrived; a reservation of another time is not its own.
const ADMISSION_MS_MAX: i64 = 3_600_000;
/// What is told of a call that a budget only watched.
const PASSIVE: &[&str] = &["warn", "header"];

/// Charges a ledger's events to budgets.
pub struct Bookkeeper {
    shared: Arc<Shared>,
}

impl Bookkeeper {
    pub(super) fn new(shared: Arc<Shared>) -> Bookkeeper {
        Bookkeeper { shared }
    }

    fn charge_call(&self, entry: &Entry, before: Option<&Entry>, charges: &mut Charges) {
        let policies = self.shared.policies.load();
        let subject = Subject::from(&entry.event);
        for budget in policies.concerning(&subject) {
            let limit = &budget.policy.limit;
            let amount = self.shared.amount(limit, entry);
            // What was counted stays counted: less than an estimate said gives nothing back.
            let counted = before.map_or(0, |before| self.shared.amount(limit, before));
            let more = amount.saturating_sub(counted);
            if more <= 0 {
                continue;
            }
            let charge = self.charge(budget, &subject, &entry.event, more, 0);
            if let Some(charge) = &charge
                && !budget.per.is_empty()
                && charge.at.key == budget.others
            {
                self.shared
                    .metrics
                    .budget_other_keys_requests_total
                    .with_label_values(&[&budget.policy.name])
                    .inc();
            }
            charges.charges.extend(charge);
        }
    }

    fn note_denials(&self, event: &Event, charges: &mut Charges) {
        let policies = self.shared.policies.load();
        let subject = Subject::from(event);
        for applied in &event.applied {
            let budget = policies.named(&applied.budget);
            if let Some(budget) = budget
                && applied.reason.is_some()
                && !applied.observed
            {
                let charge = self.charge(budget, &subject, event, 0, 1);
                charges.charges.extend(charge);
                self.shared
                    .metrics
                    .budget_denied_requests_total
                    .with_label_values(&[&applied.budget])
                    .inc();
            }
            if !PASSIVE.contains(&&*applied.action) {
                let denial = self.denial(event, applied, budget, &subject);
                charges.denials.push(denial);
            }
        }
    }

    /// The account that the call is counted in, with the window of its admission.
    fn charge(
        &self,
        budget: &Arc<Budget>,
        subject: &Subject<'_>,
        event: &Event,
        amount: i128,
        denied: u64,
    ) -> Option<Charge> {
        let cell = budget.cell_at(admission_ms(event))?;
        let end_ms = budget.counts_until(cell);
        if end_ms + PAST_MS_MAX < clock::now().as_unix_ms() {
            return None;
        }
        Some(Charge {
            at: self.place(budget, subject, cell),
            end_ms,
            amount,
            denied,
        })
    }

    fn place(&self, budget: &Arc<Budget>, subject: &Subject<'_>, cell: Span) -> SpendKey {
        let key = budget.key_of(subject);
        self.shared.state().place(budget, key, cell).0
    }

    /// The facts for whoever asks why.
    fn denial(
        &self,
        event: &Event,
        applied: &Applied,
        budget: Option<&Arc<Budget>>,
        subject: &Subject<'_>,
    ) -> Denial {
        let mut body = json!({
            "do": applied.action,
            "reason": applied.reason,
            "observed": applied.observed,
            "provider": event.provider,
            "model": event.model.as_ref().or(event.model_requested.as_ref()),
        });
        let cell = budget.and_then(|b| Some((b, b.cell_at(admission_ms(event))?)));
        if let (Some((budget, cell)), Some(body)) = (cell, body.as_object_mut()) {
            let state = self.shared.state();
            let key = budget.key_of(subject);
            let (at, key) = state.place(budget, key, cell);
            let account = state.accounts.get(&at);
            let refused = state.refused(&event.event_id);
            let refused = refused.filter(|refused| refused.at == at);
            let spent = account.map_or(0, |account| state.spent(account));
            let held = account.map_or(0, |account| account.holder.held());
            let text = |units| budget.amount_of(units).to_string();
            let tier = budget.tier_of(refused.map_or(spent, |r| r.spent));
            let tier = tier.and_then(|n| budget.policy.tiers.get(n));
            let names = budget.per.iter().cloned();
            let key: Map<String, Value> = names.zip(key.into_iter().map(Value::from)).collect();
            body.insert("key".into(), key.into());
            body.insert("tier".into(), tier.map(|tier| percent(tier.at)).into());
            body.insert("unit".into(), budget.policy.limit.unit().into());
            body.insert(
                "limit".into(),
                budget.policy.limit.amount().to_string().into(),
            );
            body.insert("window".into(), budget.policy.window.to_string().into());
            body.insert("start_ms".into(), cell.start.into());
            body.insert("end_ms".into(), cell.end.into());
            body.insert(
                "spent".into(),
                text(refused.map_or(spent, |r| r.spent)).into(),
            );
            body.insert(
                "reserved".into(),
                text(refused.map_or(held, |r| r.held)).into(),
            );
            body.insert("asked".into(), refused.map(|r| text(r.asked)).into());
        }
        if let (None, Some(body)) = (budget, body.as_object_mut())
            && let Some((found, bound)) = self.shared.guards.why(&event.event_id)
        {
            body.insert("found".into(), found.into());
            body.insert("limit".into(), bound.into());
        }
        Denial {
            time_ms: event.time.as_unix_ms(),
            event_id: event.event_id.clone(),
            request_id: event.request_id.clone(),
            budget: applied.budget.clone(),
            body: body.to_string(),
        }
    }
}

impl Charger for Bookkeeper {
    fn charge(&mut self, entry: &Entry, occasion: Occasion<'_>, charges: &mut Charges) {
        let before = match occasion {
            Occasion::New => None,
            Occasion::Completed(before) => Some(before),
            // It was charged a ceiling when it came.
            Occasion::NewlyPriced => return,
        };
        if before.is_none() && !entry.event.applied.is_empty() {
            self.note_denials(&entry.event, charges);
        }
        // A call that never left costs nothing; one that a nearer filter counts is charged there.
        if !matches!(entry.event.outcome, Outcome::Denied | Outcome::Relayed) {
            self.charge_call(entry, before, charges);
            if before.is_none() && !self.shared.guards.is_empty() {
                let pico = self.shared.amount(&Limit::Usd(Decimal::ONE), entry);
                let unix_ms = clock::now().as_unix_ms();
                self.shared.guards.settle(entry, pico, unix_ms);
            }
        }
    }

    fn committed(&mut self, charges: Charges) {
        if charges.settled.is_empty() {
            return;
        }
        let mut state = self.shared.state();
        state.commit(&charges, clock::since_boot_ms());
        let is_news = state.is_table_old;
        drop(state);
        if is_news {
            self.shared.wake.notify_one();
        }
    }

    fn known(&mut self) -> Known {
        self.shared.state().known(counts_after_ms())
    }

    fn past(&mut self, budget: &str, entry: &Entry) -> i128 {
        let limit = |policies: &Policies| Some(policies.of_id(budget)?.policy.limit);
        let pending = self.shared.pending().as_deref().and_then(limit);
        let limit = pending.or_else(|| limit(&self.shared.policies.load()));
        limit.map_or(0, |limit| self.shared.amount(&limit, entry))
    }

    fn counts_after_ms(&self) -> i64 {
        counts_after_ms()
    }

    fn opened(&mut self, spends: Vec<Spend>) {
        self.shared.state().load(spends);
    }

    fn adopted(&mut self) {
        self.shared.put_in_force();
    }
}

/// What a ledger's account counts for a limit of that unit.
pub fn measure(limit: &Limit) -> Measure {
    match limit {
        Limit::Usd(_) => Measure::Cost,
        Limit::Tokens(_) => Measure::Tokens,
        Limit::Requests(_) => Measure::Requests,
    }
}

/// When the call was let go ahead: by its reservation, or else when it arrived.
fn admission_ms(event: &Event) -> i64 {
    let arrived = event.time.as_unix_ms();
    let id = event.reservation_id.as_deref();
    let id: Option<ReservationId> = id.and_then(|id| id.parse().ok());
    let admitted = id.map(admitted_ms);
    let own = admitted.filter(|ms| (arrived..arrived + ADMISSION_MS_MAX).contains(ms));
    own.unwrap_or(arrived)
}
