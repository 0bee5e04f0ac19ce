//! What budgets change in a request: the model asked for, the most output tokens.

use std::collections::BTreeMap;
use std::rc::Rc;

use tollmesh_usage::RequestFacts;

use super::Budgeted;
use crate::counters::Counter;
use crate::decisions::Budget;
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
pub type Downgrade = Edit<Replacement>;

/// A model, and the one to ask for in its place.
pub struct Replacement {
    pub from: String,
    pub to: String,
}

impl Budgeted {
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
