//! The table's judgement of a call: by its headers, and once its body is whole.

use std::collections::BTreeSet;
use std::rc::Rc;

use tollmesh_wire::decision::{Action, TierEntry};
use tollmesh_wire::matching::replacement;
use tollmesh_wire::{Denied, Subject, Timestamp};

use super::edits::{Downgrades, Edit, models_of};
use super::{Budgeted, Gate, Verdict, named};
use crate::decisions::{Budget, Table};
use crate::session::Site;
use crate::session::call::Call;
use crate::shared::pace;

/// When asking again may help where calls are throttled, seconds.
const THROTTLED_RETRY_SECONDS: u64 = 1;

/// What is judged.
struct Case<'a> {
    site: &'a Site,
    subject: &'a Subject<'a>,
    now: Timestamp,
    /// Whether nothing in the body can be changed: it is on its way already, or not of that kind.
    is_fixed: bool,
}

impl Case<'_> {
    /// Whether the call keeps to the pace of its key, by the count of this proxy.
    fn keeps_pace(&self, budget: &Budget, per_second: u32) -> bool {
        let key = budget.key(self.subject).join("\0");
        let key = format!("tollmesh/throttle/{}\0{key}", budget.entry().budget);
        pace(&*self.site.shared, &key, per_second, self.now.as_unix_ms())
    }
}

impl Budgeted {
    pub(super) fn judge_known(
        &mut self,
        site: &Site,
        subject: &Subject<'_>,
        now: Timestamp,
    ) -> Option<Denied> {
        let table = Rc::clone(&self.table);
        let case = Case {
            site,
            subject,
            now,
            is_fixed: self.is_unmeasured,
        };
        for (place, budget) in table.budgets().iter().enumerate() {
            match budget.concerns(subject) {
                None => self.undecided.push(place),
                Some(false) => {}
                Some(true) => {
                    let refused = self.judge(place, budget, &case);
                    if refused.is_some() {
                        return refused;
                    }
                }
            }
        }
        None
    }

    /// Applies a budget that concerns the call; its refusal, if it refuses.
    fn judge(&mut self, place: usize, budget: &Budget, case: &Case<'_>) -> Option<Denied> {
        for tier in budget.tiers(case.subject, case.now) {
            let Some(reason) = self.apply_tier(place, budget, tier, case) else {
                continue;
            };
            self.apply(budget, tier.action.name(), Some(reason));
            if !budget.is_observed() {
                return Some(denied(budget, tier, reason, case));
            }
        }
        if budget.is_strict() && !self.is_unmeasured && !budget.exempts(case.subject) {
            self.strict.push(place);
        }
        None
    }

    /// Applies one tier; the reason, where it refuses the call.
    fn apply_tier(
        &mut self,
        place: usize,
        budget: &Budget,
        tier: &TierEntry,
        case: &Case<'_>,
    ) -> Option<&'static str> {
        let name = tier.action.name();
        match &tier.action {
            Action::Shed => return Some("shed"),
            Action::Deny => return Some("budget_exceeded"),
            Action::Throttle {
                requests_per_second,
            } => {
                let is_paced = case.keeps_pace(budget, *requests_per_second);
                return (!is_paced).then_some("throttled");
            }
            Action::Warn => self.apply(budget, name, None),
            Action::Header => {
                self.apply(budget, name, None);
                self.tell(budget, &tier.at, "do", name);
            }
            Action::CapOutput { .. } if case.is_fixed => {
                self.leave_unmade(budget, &tier.at, name);
            }
            Action::CapOutput { max_tokens } => self.caps.push(Edit {
                place,
                at: tier.at.clone(),
                what: *max_tokens,
            }),
            // Downgrades are looked up by each model that they are about.
            Action::Downgrade { .. } | Action::Unknown => {}
        }
        None
    }

    /// Finds whether any model that the call may ask for would be replaced.
    pub(super) fn find_downgrades(&mut self, subject: &Subject<'_>, now: Timestamp) {
        if self.is_unmeasured {
            return;
        }
        self.puts = puts(&self.table, subject, now);
        if !self.puts.is_empty() {
            self.downgrades = Some(Rc::new(Downgrades::new(&self.table, subject, now)));
        }
    }

    /// Has the end of the body wait where something is to be decided there.
    pub(super) fn shut(&mut self, subject: &Subject<'_>) {
        let budgets = self.table.budgets();
        let mut undecided = self
            .undecided
            .iter()
            .filter_map(|place| budgets.get(*place));
        let is_open = undecided.any(|budget| budget.is_strict() || budget.is_reached());
        let mut strict = budgets.iter().filter(|budget| budget.is_strict());
        let may_become_strict = strict.any(|budget| {
            let mut puts = self.puts.iter();
            puts.any(|put| reserves(budget, &with_model(subject, put)))
        });
        if is_open || may_become_strict || !self.strict.is_empty() {
            self.gate = Gate::Shut;
        }
    }

    pub(super) fn judge_whole(&mut self, site: &Site, call: &Call, now: Timestamp) -> Verdict {
        let table = Rc::clone(&self.table);
        let source = self.source.clone();
        let subject = call.subject(&source, call.body.facts().model.as_deref());
        let case = Case {
            site,
            subject: &subject,
            now,
            is_fixed: true,
        };
        let is_unsure = call.body.is_unsure();
        let mut unknown = Vec::new();
        for place in std::mem::take(&mut self.undecided) {
            let Some(budget) = table.budgets().get(place) else {
                continue;
            };
            let concerns = budget.concerns(&subject);
            let is_concerned = concerns.unwrap_or_else(|| budget.entry().matches.matches(&subject));
            if is_concerned {
                let refused = self.judge(place, budget, &case);
                if let Some(denied) = refused {
                    return Verdict::Refuse(denied);
                }
            }
            // Of a model that is not known for sure, any other may be meant.
            let is_other = !is_concerned || budget.differs_by_model();
            if is_unsure && is_other && may_refuse(budget, &case) {
                unknown.push(place);
            }
        }
        self.add_strict_by_put(call);
        if self.strict.is_empty() || table.closes(&unknown) {
            let verdict = self.do_without(site, call, &unknown, now);
            if matches!(verdict, Verdict::Refuse(_)) || self.strict.is_empty() {
                return verdict;
            }
        }
        // What the aggregator refuses anyway takes nothing of an allowance.
        self.unknown = unknown;
        Verdict::Ask(self.question(call))
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

/// Whether that budget may refuse a call like this, of whatever model: it reserves, or has reached a
/// tier that refuses.
fn may_refuse(budget: &Budget, case: &Case<'_>) -> bool {
    let subject = Subject {
        model: None,
        ..*case.subject
    };
    let mut tiers = budget.tiers_of_any_model(&subject, case.now);
    let is_spent = tiers.any(|tier| matches!(tier.action, Action::Shed | Action::Deny));
    let reserves = budget.is_strict() && !budget.exempts(&subject);
    !budget.is_observed() && (is_spent || reserves)
}

/// All models that budgets may ask for in the place of the call's.
fn puts(table: &Table, subject: &Subject<'_>, now: Timestamp) -> BTreeSet<String> {
    let mut puts = BTreeSet::new();
    for budget in table.budgets().iter().filter(|budget| budget.is_reached()) {
        let tiers: Vec<&TierEntry> = match budget.concerns(subject) {
            Some(false) => continue,
            Some(true) => budget.tiers(subject, now).collect(),
            // Which hold is known when the model is.
            None => budget.entry().tiers.iter().collect(),
        };
        for models in tiers.into_iter().filter_map(models_of) {
            match subject.model {
                Some(asked) => puts.extend(replacement(models, asked).map(str::to_owned)),
                None => puts.extend(models.values().cloned()),
            }
        }
    }
    puts
}

fn denied(budget: &Budget, tier: &TierEntry, reason: &str, case: &Case<'_>) -> Denied {
    let is_throttled = reason == "throttled";
    Denied {
        reset_at: budget.reset_of(tier, case.subject, case.now),
        retry_after_seconds: is_throttled.then_some(THROTTLED_RETRY_SECONDS),
        ..named(budget, reason)
    }
}
