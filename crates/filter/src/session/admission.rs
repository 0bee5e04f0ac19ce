//! What budgets do to a call: judged by the table, reserved where a limit is strict.
//!
//! What the table refuses is refused while the request's headers are at hand: later costs a
//! connection to the provider. What hangs on the model, and what has to be reserved, is decided when
//! the request's body is whole, whose end is withheld until then, so that the provider never has a
//! complete request before the decision.

mod edits;
mod judge;
mod reserve;

use std::collections::BTreeSet;
use std::rc::Rc;

use tollmesh_wire::{Applied, Denied, Source, Subject, Timestamp};

use self::edits::{Cap, Downgrades};
use super::call::Call;
use super::{Effects, Site, refusal};
use crate::counters::Counter;
use crate::decisions::{Budget, Table};

/// When asking again may help while the aggregator is away, seconds: about as long as one takes to
/// be started again.
const UNAVAILABLE_RETRY_SECONDS: u64 = 5;

/// What budgets do to one call that they concern, or may concern.
pub(super) struct Budgeted {
    table: Rc<Table>,
    source: Source,
    /// Whether the table alone judges: nothing is known of how much the call may cost, so that it
    /// cannot be reserved, nor would what caps and downgrades put into its body be understood there.
    is_unmeasured: bool,
    /// Places of the budgets that cannot be judged before the model is known.
    undecided: Vec<usize>,
    /// Places of the strict budgets that the call has to be reserved with.
    strict: Vec<usize>,
    /// Places of the budgets of which the body does not tell for sure whether they concern the call,
    /// or how.
    unknown: Vec<usize>,
    caps: Vec<Cap>,
    /// The models that budgets may put in the place of the call's, and which for which.
    puts: BTreeSet<String>,
    downgrades: Option<Rc<Downgrades>>,
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

/// What was decided.
pub(super) enum Verdict {
    Pass,
    Refuse(Denied),
    /// Ask the aggregator this; the end of the request waits.
    Ask(String),
}

/// Judges a call by its headers: what budgets do to it, where any concerns it, and whether they
/// refuse it. One that `is_charged_later` starts what costs, of a size that it does not say.
pub(super) fn at_head(
    site: &Site,
    subject: &Subject<'_>,
    is_charged_later: bool,
    now: Timestamp,
) -> (Option<Box<Budgeted>>, Option<Denied>) {
    let Some(table) = site.decisions.table() else {
        return (None, site.refuses_unknown().then(unknown));
    };
    let mut budgeted = Budgeted::new(table, subject.source, is_charged_later);
    let refused = budgeted.judge_known(site, subject, now);
    budgeted.find_downgrades(subject, now);
    budgeted.shut(subject);
    (budgeted.is_any().then(|| Box::new(budgeted)), refused)
}

/// Judges a call of which only the headers can be read: what is to be counted, and whether it is
/// refused.
pub(super) fn unread(
    site: &Site,
    subject: &Subject<'_>,
    now: Timestamp,
) -> (Vec<(Counter, u64)>, Option<Denied>) {
    let Some(table) = site.decisions.table() else {
        return (Vec::new(), site.refuses_unknown().then(unknown));
    };
    let mut budgeted = Budgeted::new(table, subject.source, true);
    let refused = budgeted.judge_known(site, subject, now);
    (budgeted.take_counts(), refused)
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
    fn new(table: Rc<Table>, source: &Source, is_unmeasured: bool) -> Budgeted {
        Budgeted {
            table,
            source: source.clone(),
            is_unmeasured,
            undecided: Vec::new(),
            strict: Vec::new(),
            unknown: Vec::new(),
            caps: Vec::new(),
            puts: BTreeSet::new(),
            downgrades: None,
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

    fn is_any(&self) -> bool {
        let has_edits = !self.caps.is_empty() || self.downgrades.is_some();
        self.gate != Gate::Open || has_edits || !self.applied.is_empty()
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
    let denial = refusal::over_budget(call.target.api, denied, Some(&call.event_id), now);
    call.status = Some(denial.status);
    effects.counts.push((Counter::DeniedRequests, 1));
    effects.denial = Some(denial);
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
