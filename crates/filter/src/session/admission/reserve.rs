//! Reservations: what the aggregator is asked, and what holds where it does not answer.

use std::rc::Rc;

use tollmesh_usage::RequestFacts;
use tollmesh_wire::decision::{Allowance, Unavailable};
use tollmesh_wire::{Applied, Decision, Denied, ReservationRequest, Timestamp, VERSION};

use super::{Budgeted, UNAVAILABLE_RETRY_SECONDS, Verdict, named};
use crate::counters::Counter;
use crate::decisions::Budget;
use crate::session::Site;
use crate::session::call::Call;
use crate::shared::spend;

impl Budgeted {
    pub(super) fn question(&self, call: &Call) -> String {
        let facts = call.body.facts();
        let request = ReservationRequest {
            v: VERSION,
            event_id: call.event_id.clone(),
            request_id: call.request_id.clone(),
            trace_id: call.trace.as_ref().map(|trace| trace.trace_id.clone()),
            fingerprint: call.fingerprint.as_ref().and_then(|print| print.finish()),
            provider: call.target.provider.clone(),
            api: call.target.api.name().to_owned(),
            model: self
                .model_put(call)
                .or(facts.model.as_deref())
                .map(str::to_owned),
            service_tier: facts.service_tier.clone(),
            pricing_context: call.target.pricing_context.clone(),
            body_bytes: facts.body_bytes,
            media_bytes: facts.media_bytes,
            max_output_tokens: output_limit(facts),
            n_choices: facts.n_choices,
            has_tools: facts.has_tools,
            tags: call.tags.clone(),
            source: self.source.clone(),
        };
        serde_json::to_string(&request).unwrap_or_default()
    }

    pub(super) fn take_answer(
        &mut self,
        site: &Site,
        call: &Call,
        answer: Option<(u16, &[u8])>,
        now: Timestamp,
    ) -> Verdict {
        let decision = match answer {
            Some((200, json)) => serde_json::from_slice(json).ok(),
            _ => None,
        };
        match decision {
            Some(Decision::Allow { reservation_id }) => {
                self.reservation_id = reservation_id;
                let unknown = std::mem::take(&mut self.unknown);
                self.do_without(site, call, &unknown, now)
            }
            Some(Decision::Deny(denied)) => {
                self.applied.push(Applied {
                    budget: denied.budget.clone(),
                    action: "deny".to_owned(),
                    reason: Some(denied.reason.clone()),
                    observed: false,
                });
                Verdict::Refuse(denied)
            }
            None => {
                let mut places = std::mem::take(&mut self.strict);
                places.extend(std::mem::take(&mut self.unknown));
                places.sort_unstable();
                places.dedup();
                self.do_without(site, call, &places, now)
            }
        }
    }

    /// Nobody could be asked, or nothing is known to ask about: each budget's own word on that. At
    /// most once a call.
    pub(super) fn do_without(
        &mut self,
        site: &Site,
        call: &Call,
        places: &[usize],
        now: Timestamp,
    ) -> Verdict {
        if places.is_empty() {
            return Verdict::Pass;
        }
        self.counts.push((Counter::UnverifiedCalls, 1));
        let table = Rc::clone(&self.table);
        let budgets = places
            .iter()
            .filter_map(|place| table.budgets().get(*place));
        let mut budgets: Vec<&Budget> = budgets.collect();
        // Those that refuse first, so that no allowance is spent in vain.
        budgets.sort_by_key(|budget| match budget.entry().on_unavailable {
            Unavailable::Closed => 0,
            Unavailable::OpenCapped(_) => 1,
            Unavailable::Open => 2,
        });
        for budget in budgets {
            let (word, may_pass) = match budget.entry().on_unavailable {
                Unavailable::Closed => ("deny", false),
                Unavailable::Open => ("open", true),
                Unavailable::OpenCapped(allowance) => {
                    let key = allowance_key(budget, now);
                    let nano = worst_case(&allowance, call.body.facts());
                    let may_pass = spend(&*site.shared, &key, nano, allowance.nano);
                    (if may_pass { "open_capped" } else { "deny" }, may_pass)
                }
            };
            let reason = "budget_unverifiable";
            self.apply(budget, word, (!may_pass).then_some(reason));
            if !may_pass {
                return Verdict::Refuse(Denied {
                    retry_after_seconds: Some(UNAVAILABLE_RETRY_SECONDS),
                    ..named(budget, reason)
                });
            }
        }
        Verdict::Pass
    }
}

/// The key of what was let pass unasked, for all keys of a budget together: who calls must not be
/// able to make allowances by naming themselves anew. One a window; where the window is over and
/// the aggregator still away, one more; where windows do not end at once, one for the process.
fn allowance_key(budget: &Budget, now: Timestamp) -> String {
    let entry = budget.entry();
    let window = match entry.window_ends {
        Some(end) if now < end => end.as_unix_ms().to_string(),
        Some(end) => format!("after {}", end.as_unix_ms()),
        None => String::new(),
    };
    format!("tollmesh/allowance/{}\0{window}", entry.budget)
}

fn worst_case(allowance: &Allowance, facts: &RequestFacts) -> u64 {
    let n_output_tokens = output_limit(facts).unwrap_or(allowance.output_tokens);
    let n_output_tokens = n_output_tokens.saturating_mul(facts.n_choices.unwrap_or(1).max(1));
    let input = allowance
        .nano_per_input_byte
        .saturating_mul(facts.body_bytes);
    let output = allowance
        .nano_per_output_token
        .saturating_mul(n_output_tokens);
    let sum = allowance.nano_per_request.saturating_add(input);
    sum.saturating_add(output)
}

/// The output limit of the request as it left.
fn output_limit(facts: &RequestFacts) -> Option<u64> {
    match (facts.cap_put, facts.max_output_tokens) {
        (Some(cap), Some(asked)) => Some(asked.min(cap)),
        (cap, asked) => cap.or(asked),
    }
}
