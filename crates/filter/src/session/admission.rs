//! What budgets do to a call: judged by the table, reserved where a limit is strict.
//!
//! What the table refuses is refused while the request's headers are at hand: later costs a
//! connection to the provider. What hangs on the model, and what has to be reserved, is decided when
//! the request's body is whole, whose end is withheld until then, so that the provider never has a
//! complete request before the decision.

use std::collections::BTreeMap;
use std::rc::Rc;

use tollmesh_usage::RequestFacts;
use tollmesh_wire::decision::{Action, Allowance, TierEntry, Unavailable};
use tollmesh_wire::{
    Applied, Decision, Denied, ReservationRequest, Source, Subject, Timestamp, VERSION,
};

use super::call::Call;
use super::{Effects, Site, refusal};
use crate::counters::Counter;
use crate::decisions::{Budget, Table};
use crate::shared::{pace, spend};

/// When asking again may help while the aggregator is away, seconds: about as long as one takes to
/// be started again.
const UNAVAILABLE_RETRY_SECONDS: u64 = 5;
/// When asking again may help where calls are throttled, seconds.
const THROTTLED_RETRY_SECONDS: u64 = 1;

/// What budgets do to one call that they concern, or may concern.
pub(super) struct Budgeted {
    table: Rc<Table>,
    source: Source,
    /// Places of the budgets that cannot be judged before the model is known.
    undecided: Vec<usize>,
    /// Places of the strict budgets that the call has to be reserved with.
    strict: Vec<usize>,
    caps: Vec<Cap>,
    downgrades: Vec<Downgrade>,
    are_edits_told: bool,
    applied: Vec<Applied>,
    notices: Vec<String>,
    counts: Vec<(Counter, u64)>,
    gate: Gate,
    /// The body's length, where the request's headers said it.
    length: Option<u64>,
    /// Whether the body can be edited at all.
    pub may_edit: bool,
    /// The model that was put into the path.
    pub path_put: Option<String>,
    reservation_id: Option<String>,
}

/// Whether the end of the body may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    /// Nothing has to be decided.
    Open,
    /// The whole body has to be seen first.
    Shut,
    /// The aggregator was asked.
    Asked,
    /// It was decided; with whether a reservation may stand.
    Passed { was_asked: bool },
}

/// An edit that a budget wants.
struct Edit<What> {
    /// The budget's place.
    place: usize,
    /// The share of the limit at which it is made.
    at: String,
    what: What,
}

/// Output tokens.
type Cap = Edit<u64>;
type Downgrade = Edit<Replacement>;

struct Replacement {
    from: String,
    to: String,
}

/// What was decided.
pub(super) enum Verdict {
    Pass,
    Refuse(Denied),
    /// Ask the aggregator this; the end of the request waits.
    Ask(String),
}

/// Judges a call by its headers: what budgets do to it, where any concerns it, and whether they
/// refuse it.
pub(super) fn at_head(
    site: &Site,
    subject: &Subject<'_>,
    now: Timestamp,
) -> (Option<Box<Budgeted>>, Option<Denied>) {
    let Some(table) = site.decisions.table() else {
        return (None, site.refuses_unknown().then(unknown));
    };
    let mut budgeted = Budgeted::new(table, subject.source);
    let refused = budgeted.judge_known(site, subject, now);
    budgeted.find_downgrades(subject, now);
    budgeted.shut(subject);
    (budgeted.is_any().then(|| Box::new(budgeted)), refused)
}

/// The request is whole: what follows from that.
pub(super) fn at_end(site: &Site, call: &mut Call, now: Timestamp, effects: &mut Effects) {
    if let Some(mut budgeted) = call.budgeted.take() {
        if budgeted.gate == Gate::Shut {
            let verdict = budgeted.judge_whole(site, call, now);
            budgeted.carry_out(verdict, call, now, effects);
        }
        call.budgeted = Some(budgeted);
    }
}

/// The aggregator has answered, or could not be asked (`None`).
pub(super) fn answered(
    site: &Site,
    call: &mut Call,
    answer: Option<(u16, &[u8])>,
    now: Timestamp,
    effects: &mut Effects,
) {
    if let Some(mut budgeted) = call.budgeted.take() {
        if budgeted.gate == Gate::Asked {
            let verdict = budgeted.take_answer(site, call, answer, now);
            budgeted.gate = Gate::Passed { was_asked: true };
            effects.resumes = matches!(verdict, Verdict::Pass);
            budgeted.carry_out(verdict, call, now, effects);
        }
        call.budgeted = Some(budgeted);
    }
}

/// No table was ever received, and the operator wants no call then.
fn unknown() -> Denied {
    Denied {
        reason: "budget_unverifiable".to_owned(),
        retry_after_seconds: Some(UNAVAILABLE_RETRY_SECONDS),
        ..Denied::default()
    }
}

impl Budgeted {
    fn new(table: Rc<Table>, source: &Source) -> Budgeted {
        Budgeted {
            table,
            source: source.clone(),
            undecided: Vec::new(),
            strict: Vec::new(),
            caps: Vec::new(),
            downgrades: Vec::new(),
            are_edits_told: false,
            applied: Vec::new(),
            notices: Vec::new(),
            counts: Vec::new(),
            gate: Gate::Open,
            length: None,
            may_edit: true,
            path_put: None,
            reservation_id: None,
        }
    }

    // --- what the table says ---

    fn judge_known(
        &mut self,
        site: &Site,
        subject: &Subject<'_>,
        now: Timestamp,
    ) -> Option<Denied> {
        let table = Rc::clone(&self.table);
        for (place, budget) in table.budgets().iter().enumerate() {
            match budget.concerns(subject) {
                None => self.undecided.push(place),
                Some(false) => {}
                Some(true) => {
                    let refused = self.judge(site, place, budget, subject, now, false);
                    if refused.is_some() {
                        return refused;
                    }
                }
            }
        }
        None
    }

    /// Applies the tiers of a budget that concerns the call. `is_late`: the body is on its way.
    fn judge(
        &mut self,
        site: &Site,
        place: usize,
        budget: &Budget,
        subject: &Subject<'_>,
        now: Timestamp,
        is_late: bool,
    ) -> Option<Denied> {
        for tier in budget.tiers(subject, now) {
            let reason = match &tier.action {
                Action::Warn => {
                    self.apply(budget, "warn", None);
                    None
                }
                Action::Header => {
                    self.apply(budget, "header", None);
                    self.tell(budget, &tier.at, "do", "header");
                    None
                }
                Action::CapOutput { max_tokens } if !is_late => {
                    self.caps.push(Edit {
                        place,
                        at: tier.at.clone(),
                        what: *max_tokens,
                    });
                    None
                }
                Action::CapOutput { .. } => {
                    self.leave_unmade(budget, &tier.at, "cap_output");
                    None
                }
                Action::Throttle {
                    requests_per_second,
                } => {
                    let key = shared_key("throttle", budget, subject);
                    let now_ms = now.as_unix_ms();
                    let is_paced = pace(&*site.shared, &key, *requests_per_second, now_ms);
                    (!is_paced).then_some(("throttle", "throttled"))
                }
                Action::Shed => Some(("shed", "shed")),
                Action::Deny => Some(("deny", "budget_exceeded")),
                // Downgrades are looked up by each model that they are about.
                Action::Downgrade { .. } | Action::Unknown => None,
            };
            if let Some((action, reason)) = reason {
                self.apply(budget, action, Some(reason));
                if !budget.is_observed() {
                    return Some(denied(budget, reason, subject, now));
                }
            }
        }
        if budget.is_strict() && !budget.exempts(subject) {
            self.strict.push(place);
        }
        None
    }

    /// Of several budgets with a word on one model, the first counts; of several tiers the highest.
    fn find_downgrades(&mut self, subject: &Subject<'_>, now: Timestamp) {
        let table = Rc::clone(&self.table);
        let reached = table.budgets().iter().enumerate();
        for (place, budget) in reached.filter(|(_, budget)| budget.is_reached()) {
            let mut found = BTreeMap::new();
            for (from, _) in budget.entry().tiers.iter().flat_map(models_of) {
                let is_asked = subject.model.is_none_or(|model| model == from);
                let subject = with_model(subject, from);
                if !is_asked || budget.concerns(&subject) != Some(true) {
                    continue;
                }
                for tier in budget.tiers(&subject, now) {
                    let to = models_of(tier).find(|(model, _)| *model == from);
                    if let Some((_, to)) = to {
                        found.insert(from.to_owned(), (tier.at.clone(), to.to_owned()));
                    }
                }
            }
            let found = found.into_iter().map(|(from, (at, to))| Edit {
                place,
                at,
                what: Replacement { from, to },
            });
            self.downgrades.extend(found);
        }
    }

    /// Has the end of the body wait where something is to be decided there.
    fn shut(&mut self, subject: &Subject<'_>) {
        let budgets = self.table.budgets();
        let mut undecided = self
            .undecided
            .iter()
            .filter_map(|place| budgets.get(*place));
        let is_open = undecided.any(|budget| budget.is_strict() || budget.is_reached());
        let mut strict = budgets.iter().filter(|budget| budget.is_strict());
        let may_become_strict = !self.downgrades.is_empty()
            && strict.any(|budget| {
                let mut puts = self.downgrades.iter().map(|edit| edit.what.to.as_str());
                puts.any(|put| reserves(budget, &with_model(subject, put)))
            });
        if is_open || may_become_strict || !self.strict.is_empty() {
            self.gate = Gate::Shut;
        }
    }

    fn is_any(&self) -> bool {
        let has_edits = !self.caps.is_empty() || !self.downgrades.is_empty();
        self.gate != Gate::Open || has_edits || !self.applied.is_empty()
    }

    // --- edits ---

    /// The models to be replaced.
    pub fn models(&self) -> BTreeMap<String, String> {
        let mut models = BTreeMap::new();
        for Edit { what, .. } in self.made(&self.downgrades) {
            let to = || what.to.clone();
            models.entry(what.from.clone()).or_insert_with(to);
        }
        models
    }

    /// The most output tokens.
    pub fn cap(&self) -> Option<u64> {
        self.made(&self.caps).map(|cap| cap.what).min()
    }

    /// Those of budgets that do more than count.
    fn made<'e, What>(&'e self, edits: &'e [Edit<What>]) -> impl Iterator<Item = &'e Edit<What>> {
        let budgets = self.table.budgets();
        let budget = |edit: &&Edit<What>| budgets.get(edit.place);
        edits
            .iter()
            .filter(move |edit| budget(edit).is_some_and(|budget| !budget.is_observed()))
    }

    /// Tells what became of the edits, once that is known.
    pub fn tell_edits(&mut self, facts: &RequestFacts) {
        if std::mem::replace(&mut self.are_edits_told, true) {
            return;
        }
        self.tell_downgrades(facts);
        self.tell_caps(facts);
    }

    fn tell_downgrades(&mut self, facts: &RequestFacts) {
        let table = Rc::clone(&self.table);
        let is_put = facts.model_put.is_some() || self.path_put.is_some();
        let mut has_one = false;
        for Edit { place, at, what } in std::mem::take(&mut self.downgrades) {
            let budget = table.budgets().get(place);
            let Some(budget) = budget.filter(|_| facts.model.as_ref() == Some(&what.from)) else {
                continue;
            };
            // Of those that do more than count, the first is the one that was made.
            if budget.is_observed() || !std::mem::replace(&mut has_one, true) {
                self.tell_edit(budget, &at, "downgrade", is_put);
            }
        }
    }

    fn tell_caps(&mut self, facts: &RequestFacts) {
        let table = Rc::clone(&self.table);
        let cap = self.cap();
        for Edit { place, at, what } in std::mem::take(&mut self.caps) {
            let is_above = facts.max_output_tokens.is_none_or(|asked| asked > what);
            let Some(budget) = table.budgets().get(place).filter(|_| is_above) else {
                continue;
            };
            let is_put = facts.cap_put.is_some();
            // Where it could have been put and was not, the API has no such limit.
            if budget.is_observed() || cap == Some(what) && (is_put || !self.may_edit) {
                self.tell_edit(budget, &at, "cap_output", is_put);
            }
        }
    }

    fn tell_edit(&mut self, budget: &Budget, at: &str, action: &str, is_made: bool) {
        match is_made || budget.is_observed() {
            true => {
                self.apply(budget, action, None);
                self.tell(budget, at, "do", action);
            }
            false => self.leave_unmade(budget, at, action),
        }
    }

    /// What should have been edited and cannot be: the app is told instead.
    fn leave_unmade(&mut self, budget: &Budget, at: &str, action: &str) {
        if !budget.is_observed() {
            self.counts.push((Counter::BudgetEditsUnmade, 1));
        }
        self.apply(budget, "header", None);
        self.tell(budget, at, "advice", action);
    }

    // --- the whole request ---

    /// Whether this many bytes are the whole body: the end of a body whose length was told comes
    /// after its last bytes, which must not pass before it is decided.
    pub fn is_whole_at(&self, n_bytes: u64) -> bool {
        self.gate == Gate::Shut && self.length.is_some_and(|length| n_bytes >= length)
    }

    /// Takes the length of the body to come.
    pub fn expect(&mut self, length: Option<u64>) {
        self.length = length;
    }

    /// Whether the end of the body is to be decided about, and has not come.
    pub fn awaits_end(&self) -> bool {
        self.gate == Gate::Shut
    }

    /// Whether the end of the request waits for the aggregator.
    pub fn holds(&self) -> bool {
        self.gate == Gate::Asked
    }

    /// Whether all of the request's body was seen and judged.
    pub fn is_past_end(&self) -> bool {
        matches!(self.gate, Gate::Asked | Gate::Passed { .. })
    }

    /// Whether a reservation may stand that the call's event has to settle.
    pub fn may_be_reserved(&self) -> bool {
        matches!(self.gate, Gate::Asked | Gate::Passed { was_asked: true })
    }

    fn judge_whole(&mut self, site: &Site, call: &Call, now: Timestamp) -> Verdict {
        let table = Rc::clone(&self.table);
        let source = self.source.clone();
        let subject = call.subject(&source, call.body.facts().model.as_deref());
        for place in std::mem::take(&mut self.undecided) {
            let Some(budget) = table.budgets().get(place) else {
                continue;
            };
            let concerns = budget.concerns(&subject);
            if concerns.unwrap_or_else(|| budget.entry().matches.matches(&subject)) {
                let refused = self.judge(site, place, budget, &subject, now, true);
                if let Some(denied) = refused {
                    return Verdict::Refuse(denied);
                }
            }
        }
        self.add_strict_by_put(call);
        match self.strict.is_empty() {
            true => Verdict::Pass,
            false => Verdict::Ask(self.question(call)),
        }
    }

    /// Strict budgets that concern the call by the model that we put, and not by the app's own.
    fn add_strict_by_put(&mut self, call: &Call) {
        let Some(put) = self.model_put(call) else {
            return;
        };
        let subject = call.subject(&self.source, Some(put));
        let budgets = self.table.budgets().iter().enumerate();
        let reserving = budgets.filter(|(_, budget)| reserves(budget, &subject));
        let places: Vec<usize> = reserving.map(|(place, _)| place).collect();
        let new = places.into_iter().filter(|at| !self.strict.contains(at));
        let new: Vec<usize> = new.collect();
        self.strict.extend(new);
    }

    /// The model that we put in the place of the app's.
    pub fn model_put<'c>(&'c self, call: &'c Call) -> Option<&'c str> {
        let put = call.body.facts().model_put.as_ref();
        put.or(self.path_put.as_ref()).map(String::as_str)
    }

    fn question(&self, call: &Call) -> String {
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

    fn take_answer(
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
                Verdict::Pass
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
            None => self.do_without(site, call, now),
        }
    }

    /// Nobody could be asked: each strict budget's own word on that.
    fn do_without(&mut self, site: &Site, call: &Call, now: Timestamp) -> Verdict {
        self.counts.push((Counter::UnverifiedCalls, 1));
        let table = Rc::clone(&self.table);
        let strict = std::mem::take(&mut self.strict);
        let budgets = strict
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

    fn carry_out(
        &mut self,
        verdict: Verdict,
        call: &mut Call,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        effects.counts.append(&mut self.counts);
        match verdict {
            Verdict::Ask(question) => {
                self.gate = Gate::Asked;
                effects.counts.push((Counter::ReservationsAsked, 1));
                effects.asks = Some(question);
            }
            verdict => {
                if self.gate == Gate::Shut {
                    self.gate = Gate::Passed { was_asked: false };
                }
                if let Verdict::Refuse(denied) = verdict {
                    refuse(call, &denied, now, effects);
                }
            }
        }
    }

    // --- what is told ---

    /// The value of the header that tells the app, where there is something to tell, and counts.
    pub fn notice(&mut self, call: &Call, counts: &mut Vec<(Counter, u64)>) -> Option<String> {
        self.tell_edits(call.body.facts());
        counts.append(&mut self.counts);
        let notice = self.notices.join(", ");
        self.notices.clear();
        (!notice.is_empty()).then_some(notice)
    }

    /// What the call's event says: what was done to it, and the reservation that it settles.
    pub fn account(self) -> (Vec<Applied>, Option<String>) {
        (self.applied, self.reservation_id)
    }

    /// What is to be counted.
    pub fn take_counts(&mut self) -> Vec<(Counter, u64)> {
        std::mem::take(&mut self.counts)
    }

    fn apply(&mut self, budget: &Budget, action: &str, reason: Option<&str>) {
        if budget.is_observed() {
            self.counts.push((Counter::BudgetActionsObserved, 1));
        }
        self.applied.push(Applied {
            budget: budget.entry().budget.clone(),
            action: action.to_owned(),
            reason: reason.map(str::to_owned),
            observed: budget.is_observed(),
        });
    }

    fn tell(&mut self, budget: &Budget, at: &str, how: &str, action: &str) {
        if !budget.is_observed() {
            let notice = refusal::notice(budget.entry(), at, how, action);
            self.notices.push(notice);
        }
    }
}

/// Answers in the provider's place.
pub(super) fn refuse(call: &mut Call, denied: &Denied, now: Timestamp, effects: &mut Effects) {
    let denial = refusal::over_budget(call.target.api, denied, &call.event_id, now);
    call.status = Some(denial.status);
    effects.counts.push((Counter::DeniedRequests, 1));
    effects.denial = Some(denial);
}

fn with_model<'a>(subject: &Subject<'a>, model: &'a str) -> Subject<'a> {
    Subject {
        model: Some(model),
        ..*subject
    }
}

/// Whether that call has to be reserved with that budget.
fn reserves(budget: &Budget, subject: &Subject<'_>) -> bool {
    budget.is_strict() && budget.concerns(subject) == Some(true) && !budget.exempts(subject)
}

fn models_of(tier: &TierEntry) -> impl Iterator<Item = (&str, &str)> {
    let models = match &tier.action {
        Action::Downgrade { models } => Some(models),
        _ => None,
    };
    let pairs = models.into_iter().flatten();
    pairs.map(|(from, to)| (from.as_str(), to.as_str()))
}

fn named(budget: &Budget, reason: &str) -> Denied {
    let entry = budget.entry();
    Denied {
        budget: entry.budget.clone(),
        reason: reason.to_owned(),
        limit: entry.limit.clone(),
        window: entry.window.clone(),
        ..Denied::default()
    }
}

fn denied(budget: &Budget, reason: &str, subject: &Subject<'_>, now: Timestamp) -> Denied {
    let reset_at = budget.state(subject, now).map(|state| state.reset_at);
    let is_throttled = reason == "throttled";
    Denied {
        reset_at: reset_at.filter(|at| *at != Timestamp::default()),
        retry_after_seconds: is_throttled.then_some(THROTTLED_RETRY_SECONDS),
        ..named(budget, reason)
    }
}

/// The key of what is counted for one key of a budget.
fn shared_key(thing: &str, budget: &Budget, subject: &Subject<'_>) -> String {
    let key = budget.key(subject).join("\0");
    format!("tollmesh/{thing}/{}\0{key}", budget.entry().budget)
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
