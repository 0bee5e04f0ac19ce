//! What is known of a call, and the event that it becomes.

use std::collections::BTreeMap;

use tollmesh_usage::{RequestBody, Scan, Target, UsageSource, estimate};
use tollmesh_wire::event::Kind;
use tollmesh_wire::{Event, ExtraUsage, Outcome, Source, Subject, Timestamp};

use super::admission::Budgeted;
use super::outcome::{outcome, unanswered_outcome};
use super::{Answer, Ending, Site};
use crate::config::Counted;
use crate::fingerprint::Fingerprint;
use crate::source::source;
use crate::trace::Trace;

/// A call that will give an event: all that its request's headers said, since they cannot be read
/// later.
pub(super) struct Call {
    pub event_id: String,
    pub started: Timestamp,
    pub target: Target,
    pub counted: Counted,
    pub host: String,
    pub request_id: Option<String>,
    pub trace: Option<Trace>,
    pub tags: BTreeMap<String, String>,
    /// Required tags that are not among them.
    pub missing_tags: Vec<String>,
    pub body: RequestBody,
    /// What budgets do to it; absent where none may concern it.
    pub budgeted: Option<Box<Budgeted>>,
    /// Absent where the operator wants none.
    pub fingerprint: Option<Fingerprint>,
    pub status: Option<u16>,
    pub is_stream: bool,
    /// Whether a WebSocket was asked for.
    pub is_websocket: bool,
}

impl Call {
    /// The event of a call that nobody answered.
    pub fn unanswered(self, site: &Site, ending: Ending<'_>, now: Timestamp) -> Event {
        let outcome = unanswered_outcome(&ending);
        // What went upstream and was cut may well be charged; what failed there is not, nor what we
        // held back.
        let is_sent = ending.attempts > 0 && !self.is_held();
        let billable = self.target.billable && outcome == Outcome::Aborted && is_sent;
        let mut scan = Scan {
            billable,
            ..Scan::default()
        };
        self.complete(site, &mut scan, false);
        let mut event = self.event(site, &ending, now);
        event.outcome = outcome;
        tell(&mut event, scan);
        event
    }

    /// The event of a call that is counted elsewhere.
    pub fn relayed(self, site: &Site, ending: Ending<'_>, now: Timestamp) -> Event {
        let mut event = self.event(site, &ending, now);
        event.outcome = Outcome::Relayed;
        event
    }

    /// The event of a call that we refused.
    pub fn denied(self, site: &Site, ending: Ending<'_>, now: Timestamp) -> Event {
        let mut event = self.event(site, &ending, now);
        event.outcome = Outcome::Denied;
        event
    }

    /// What a budget can ask about it, as a call of that model.
    pub fn subject<'a>(&'a self, source: &'a Source, model: Option<&'a str>) -> Subject<'a> {
        Subject {
            provider: &self.target.provider,
            model,
            tags: &self.tags,
            source,
        }
    }

    /// Whether the end of its request is withheld.
    pub fn is_held(&self) -> bool {
        let budgeted = self.budgeted.as_ref();
        budgeted.is_some_and(|budgeted| budgeted.holds() || budgeted.awaits_end())
    }

    /// Whether all of its request was seen and judged.
    pub fn is_past_end(&self) -> bool {
        self.budgeted
            .as_ref()
            .is_some_and(|budgeted| budgeted.is_past_end())
    }

    /// The model that we asked for in the place of the app's.
    fn model_put(&self) -> Option<&str> {
        match &self.budgeted {
            Some(budgeted) => budgeted.model_put(self),
            None => None,
        }
    }

    /// Estimates what the provider did not report; learns from what it did.
    fn complete(&self, site: &Site, scan: &mut Scan, has_ended: bool) {
        let facts = self.body.facts();
        // An answer that does not say which model it is from is from the one that we put.
        if scan.model.is_none() && scan.billable {
            scan.model = self.model_put().map(str::to_owned);
        }
        let asked = facts.model.as_deref().or(self.target.path_model.as_deref());
        let model = self.model_put().or(asked).or(scan.model.as_deref());
        let model = model.unwrap_or_default().to_owned();
        let call = estimate::Call {
            api: self.target.api,
            request: facts,
            status: self.status,
            has_ended,
        };
        site.calibrations
            .settle(&self.target.provider, &model, scan, &call);
    }

    /// What every event of this call says; no usage, and nothing to charge.
    pub(super) fn event(self, site: &Site, ending: &Ending<'_>, now: Timestamp) -> Event {
        let model_put = self.model_put().map(str::to_owned);
        let facts = self.body.facts();
        let account = self.budgeted.map(|budgeted| budgeted.account());
        let (applied, reservation_id) = account.unwrap_or_default();
        let (trace_id, span_id) = self.trace.map(|t| (t.trace_id, t.span_id)).unzip();
        Event {
            event_id: self.event_id,
            kind: if self.target.is_retrieval {
                Kind::LateUsage
            } else {
                Kind::Call
            },
            request_id: self.request_id,
            fingerprint: self.fingerprint.and_then(|print| print.finish()),
            trace_id,
            span_id,
            time: self.started,
            duration_ms: elapsed_ms(self.started, now),
            provider: self.target.provider,
            api: self.target.api.name().to_owned(),
            host: self.host,
            model_requested: facts.model.clone().or(self.target.path_model),
            model_put,
            stream: facts.streams || self.is_stream,
            usage_source: UsageSource::Absent.name().to_owned(),
            service_tier: facts.service_tier.clone(),
            pricing_context: self.target.pricing_context,
            status: self.status,
            response_flags: ending.response_flags,
            attempts: ending.attempts,
            tags: self.tags,
            missing_tags: self.missing_tags,
            applied,
            reservation_id,
            source: source(&site.source, ending.principal),
            ..Event::default()
        }
    }
}

impl Answer {
    /// The event of a call that was answered, wholly or in part.
    pub fn finished(self, site: &Site, ending: Ending<'_>, now: Timestamp) -> Event {
        let mut scan = self.scanner.finish();
        if self.call.model_put().is_none() {
            scan.settle_model(&self.call.target, self.call.body.facts());
        }
        let outcome = outcome(self.call.status, self.ended, &scan);
        self.call.complete(site, &mut scan, self.ended);
        let mut event = self.call.event(site, &ending, now);
        event.outcome = outcome;
        event.ttft_ms = self.ttft_ms;
        event.stream |= scan.is_stream;
        tell(&mut event, scan);
        event
    }
}

/// What a scan says, in an event.
pub(super) fn tell(event: &mut Event, scan: Scan) {
    event.model = scan.model;
    event.response_id = scan.response_id;
    event.usage = scan.usage;
    event.billed_usage = scan.billed_usage;
    event.usage_source = scan.usage_source.name().to_owned();
    event.estimate_basis = scan.estimate_basis.map(|basis| basis.to_string());
    event.billable = scan.billable;
    event.extra_usage = scan
        .extra_usage
        .into_iter()
        .map(|extra| ExtraUsage {
            kind: extra.kind,
            model: extra.model,
            usage: extra.usage,
        })
        .collect();
    event.provider_cost_usd = scan.provider_cost_usd;
    if scan.service_tier.is_some() {
        event.service_tier = scan.service_tier;
    }
    event.pricing_context.extend(scan.pricing_context);
    event.finish_reason = scan.finish_reason;
    event.tool_calls = scan.tool_calls;
    event.trouble = scan.trouble.map(|kind| kind.name().to_owned());
}

/// Milliseconds from one instant to another; a clock that was set back makes them 0.
pub(super) fn elapsed_ms(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.as_unix_ms() - from.as_unix_ms()).unwrap_or(0)
}
