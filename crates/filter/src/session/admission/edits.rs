//! What budgets change in a request: the model asked for, the most output tokens.

use std::collections::BTreeMap;
use std::rc::Rc;

use tollmesh_usage::{Replacer, RequestFacts};
use tollmesh_wire::decision::{Action, TierEntry};
use tollmesh_wire::matching::replacement;
use tollmesh_wire::{Source, Subject, Timestamp};

use super::Budgeted;
use crate::counters::Counter;
use crate::decisions::{Budget, Table};
use crate::session::call::Call;

/// An edit that a budget wants.
pub struct Edit<What> {
    /// The budget's place.
    pub place: usize,
    /// The share of the limit at which it is made.
    pub at: String,
    pub what: What,
}

/// Output tokens.
pub type Cap = Edit<u64>;
/// The model to ask for in the place of the app's.
type Downgrade = Edit<String>;

/// What budgets ask for in the place of whichever model the call turns out to ask for.
pub struct Downgrades {
    table: Rc<Table>,
    provider: String,
    tags: BTreeMap<String, String>,
    source: Source,
    now: Timestamp,
}

impl Downgrades {
    pub(super) fn new(table: &Rc<Table>, subject: &Subject<'_>, now: Timestamp) -> Downgrades {
        Downgrades {
            table: Rc::clone(table),
            provider: subject.provider.to_owned(),
            tags: subject.tags.clone(),
            source: subject.source.clone(),
            now,
        }
    }

    /// Of several budgets with a word on that model, the first counts; of several tiers the highest.
    fn of(&self, model: &str) -> Vec<Downgrade> {
        let subject = Subject {
            provider: &self.provider,
            model: Some(model),
            tags: &self.tags,
            source: &self.source,
        };
        let budgets = self.table.budgets().iter().enumerate();
        let concerned = budgets.filter(|(_, budget)| budget.concerns(&subject) == Some(true));
        let edits = concerned.filter_map(|(place, budget)| {
            let tiers = budget.tiers(&subject, self.now);
            let puts = tiers.filter_map(|tier| Some((tier, replacement(models_of(tier)?, model)?)));
            puts.last().map(|(tier, put)| Edit {
                place,
                at: tier.at.clone(),
                what: put.to_owned(),
            })
        });
        edits.collect()
    }

    /// The model to be put in the place of that one, by a budget that does more than count.
    fn put_for(&self, model: &str) -> Option<String> {
        let edits = self.of(model);
        let first = made(&self.table, &edits).next();
        first.map(|edit| edit.what.clone())
    }
}

/// Those of budgets that do more than count.
fn made<'e, What>(
    table: &'e Table,
    edits: &'e [Edit<What>],
) -> impl Iterator<Item = &'e Edit<What>> {
    let budget = |edit: &&Edit<What>| table.budgets().get(edit.place);
    edits
        .iter()
        .filter(move |edit| budget(edit).is_some_and(|budget| !budget.is_observed()))
}

/// The models that the tier replaces, where it does.
pub(super) fn models_of(tier: &TierEntry) -> Option<&BTreeMap<String, String>> {
    match &tier.action {
        Action::Downgrade { models } => Some(models),
        _ => None,
    }
}

impl Budgeted {
    /// Says which model is to be put in the place of one, where any may be.
    pub fn replacer(&self) -> Option<Replacer> {
        let downgrades = Rc::clone(self.downgrades.as_ref()?);
        Some(Replacer::new(move |asked| downgrades.put_for(asked)))
    }

    /// The model to be put in the place of that one.
    pub fn put_for(&self, asked: &str) -> Option<String> {
        self.downgrades.as_ref()?.put_for(asked)
    }

    /// The most output tokens.
    pub fn cap(&self) -> Option<u64> {
        made(&self.table, &self.caps).map(|cap| cap.what).min()
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
        let (downgrades, asked) = (self.downgrades.as_ref(), facts.model.as_deref());
        let edits = downgrades.zip(asked).map(|(own, asked)| own.of(asked));
        for Edit { place, at, .. } in edits.into_iter().flatten() {
            let Some(budget) = table.budgets().get(place) else {
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
            let is_told = is_put || !self.may_edit || facts.is_cap_unsure;
            if budget.is_observed() || cap == Some(what) && is_told {
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
    pub(super) fn leave_unmade(&mut self, budget: &Budget, at: &str, action: &str) {
        if !budget.is_observed() {
            self.counts.push((Counter::BudgetEditsUnmade, 1));
        }
        self.apply(budget, "header", None);
        self.tell(budget, at, "advice", action);
    }

    /// The model that we put in the place of the app's.
    pub fn model_put<'c>(&'c self, call: &'c Call) -> Option<&'c str> {
        let put = call.body.facts().model_put.as_ref();
        put.or(self.path_put.as_ref()).map(String::as_str)
    }
}
