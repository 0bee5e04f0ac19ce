//! The decision table: what the aggregator has decided about each budget, as filters look it up.

pub mod poll;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use tollmesh_wire::decision::{Action, BudgetEntry, Enforcement, KeyState, TierEntry, Unavailable};
use tollmesh_wire::{DecisionTable, Subject, Timestamp, VERSION, WireError};

/// The key by which budgets ask for the model, which most requests name in their bodies only.
const MODEL: &str = "model";
/// The tag and its value that [`Action::Shed`] spares.
const PRIORITY: (&str, &str) = ("priority", "critical");

/// The table in force, if one was ever received.
#[derive(Debug, Default)]
pub struct Decisions {
    table: RefCell<Option<Rc<Table>>>,
}

/// One version of the table.
#[derive(Debug)]
pub struct Table {
    version: u64,
    budgets: Vec<Budget>,
}

/// One budget.
#[derive(Debug)]
pub struct Budget {
    entry: BudgetEntry,
    /// Its [`BudgetEntry::reached`], by key.
    reached: BTreeMap<Vec<String>, KeyState>,
}

impl Decisions {
    /// The table in force.
    pub fn table(&self) -> Option<Rc<Table>> {
        self.table.borrow().clone()
    }

    /// Whether there is a table with a budget in it, so that calls have to be judged.
    pub fn has_budgets(&self) -> bool {
        let table = self.table.borrow();
        table
            .as_ref()
            .is_some_and(|table| !table.budgets.is_empty())
    }

    /// The version of the table in force.
    pub fn version(&self) -> Option<u64> {
        self.table.borrow().as_ref().map(|table| table.version)
    }

    /// Puts another table in force.
    pub fn replace(&self, table: Table) {
        self.table.replace(Some(Rc::new(table)));
    }
}

impl Table {
    /// Reads the aggregator's answer.
    pub fn read(json: &[u8]) -> Result<Table, WireError> {
        let mut table: DecisionTable = serde_json::from_slice(json)?;
        if table.v != VERSION {
            return Err(WireError::Version {
                got: u64::from(table.v),
            });
        }
        table.name_models();
        Ok(Table {
            version: table.version,
            budgets: table.budgets.into_iter().map(Budget::new).collect(),
        })
    }

    /// Its version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Its budgets, in the order of their file.
    pub fn budgets(&self) -> &[Budget] {
        &self.budgets
    }

    /// Whether one of those budgets refuses what it cannot judge.
    pub fn closes(&self, places: &[usize]) -> bool {
        let mut budgets = places.iter().filter_map(|place| self.budgets.get(*place));
        budgets.any(|budget| budget.entry().on_unavailable == Unavailable::Closed)
    }
}

impl Budget {
    fn new(mut entry: BudgetEntry) -> Budget {
        let states = std::mem::take(&mut entry.reached).into_iter();
        let reached = states.map(|mut state| (std::mem::take(&mut state.key), state));
        Budget {
            reached: reached.collect(),
            entry,
        }
    }

    /// What the aggregator says of it, but for the keys that have reached a tier.
    pub fn entry(&self) -> &BudgetEntry {
        &self.entry
    }

    /// Whether it reserves.
    pub fn is_strict(&self) -> bool {
        self.entry.enforce == Enforcement::Strict
    }

    /// Whether what it does is only counted.
    pub fn is_observed(&self) -> bool {
        self.entry.enforce == Enforcement::Observe
    }

    /// Whether any key has reached a tier.
    pub fn is_reached(&self) -> bool {
        !self.reached.is_empty()
    }

    /// Whether it concerns that call; `None` where that, or what it does, hangs on the model, and
    /// the model is not known.
    pub fn concerns(&self, subject: &Subject<'_>) -> Option<bool> {
        let wanted = &self.entry.matches;
        if subject.model.is_some() || !self.hangs_on_model() {
            return Some(wanted.matches(subject));
        }
        match wanted.matches_but_for(MODEL, subject) {
            true => None,
            false => Some(false),
        }
    }

    fn hangs_on_model(&self) -> bool {
        self.entry.matches.asks_for(MODEL) || self.differs_by_model()
    }

    /// Whether what it does to calls that it concerns hangs on their model, too.
    pub fn differs_by_model(&self) -> bool {
        let entry = &self.entry;
        let mut excepts = entry.tiers.iter().map(|tier| &tier.except);
        entry.per.iter().any(|key| key == MODEL) || excepts.any(|except| except.asks_for(MODEL))
    }

    /// The values of the budget's `per` in that call; an absent one is empty.
    pub fn key(&self, subject: &Subject<'_>) -> Vec<String> {
        let names = self.entry.per.iter();
        let values = names.map(|name| subject.value(name).unwrap_or_default().to_owned());
        values.collect()
    }

    /// How far the spend of that call's key has come; `None` where it has reached no tier, or its
    /// window is over.
    pub fn state(&self, subject: &Subject<'_>, now: Timestamp) -> Option<&KeyState> {
        if self.reached.is_empty() {
            return None;
        }
        let state = self.reached.get(&self.key(subject))?;
        (state.n_reached(now) > 0).then_some(state)
    }

    /// When the call's key could leave that tier; `None` where it is not in it, or for ever.
    pub fn reset_of(
        &self,
        tier: &TierEntry,
        subject: &Subject<'_>,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let state = self.state(subject, now)?;
        let place = self.entry.tiers.iter().position(|own| own == tier)?;
        let reset_at = state.reset_of(place);
        (reset_at != Timestamp::default()).then_some(reset_at)
    }

    /// The tiers that hold for that call, rising: those reached that do not spare it.
    pub fn tiers<'b>(
        &'b self,
        subject: &'b Subject<'b>,
        now: Timestamp,
    ) -> impl Iterator<Item = &'b TierEntry> + 'b {
        let state = self.state(subject, now);
        let n_reached = state.map_or(0, |state| state.n_reached(now));
        let reached = self.entry.tiers.iter().take(n_reached);
        reached.filter(|tier| !spares(tier, subject))
    }

    /// The tiers that hold for that call, were it of the model whose spend has come furthest.
    pub fn tiers_of_any_model<'b>(
        &'b self,
        subject: &'b Subject<'b>,
        now: Timestamp,
    ) -> impl Iterator<Item = &'b TierEntry> + 'b {
        let (own, names) = (self.key(subject), &self.entry.per);
        let is_own = move |key: &[String]| {
            let mut parts = names.iter().zip(key).zip(&own);
            key.len() == own.len() && parts.all(|((name, a), b)| name == MODEL || a == b)
        };
        let states = self.reached.iter().filter(move |(key, _)| is_own(key));
        let n_reached = states.map(|(_, state)| state.n_reached(now)).max();
        let reached = self.entry.tiers.iter().take(n_reached.unwrap_or(0));
        reached.filter(|tier| !spares(tier, subject))
    }

    /// Whether the tier that makes the limit hard spares that call, so that it passes without a
    /// reservation. A `shed` tier spares from shedding alone: who is critical keeps the limit, too.
    pub fn exempts(&self, subject: &Subject<'_>) -> bool {
        let mut tiers = self.entry.tiers.iter();
        let denies = tiers.find(|tier| tier.action == Action::Deny);
        denies.is_some_and(|tier| spares(tier, subject))
    }
}

fn spares(tier: &TierEntry, subject: &Subject<'_>) -> bool {
    let (tag, value) = PRIORITY;
    let is_critical = subject.tags.get(tag).is_some_and(|said| said == value);
    let is_excepted = !tier.except.is_empty() && tier.except.matches(subject);
    is_excepted || tier.action == Action::Shed && is_critical
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollmesh_wire::Source;

    const TABLE: &str = r#"{"v":1,"version":7,"budgets":[
        {"budget":"eng","match":{"team":"a"},"per":["user"],"enforce":"cached",
         "tiers":[{"at":"60%","do":"warn"},{"at":"80%","do":"shed"},
                  {"at":"100%","do":"deny","except":{"environment":"production"}}],
         "reached":[{"key":["ann"],"tier":2,"reset_at":"2026-11-23T00:00:00Z"},
                    {"key":["eve"],"tier":2,"reset_at":"2026-11-24T00:00:00Z","tier_resets":[
                        "2026-11-24T00:00:00Z","2026-11-23T06:00:00Z","2026-11-22T23:00:00Z"]},
                    {"key":[""],"tier":0}]},
        {"budget":"big","match":{"model":"gpt-5","team":"a"},"enforce":"strict"}],
        "models":{"gpt-5":["gpt-5-chat-latest"]}}"#;

    fn tags(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        owned.collect()
    }

    fn subject<'a>(
        tags: &'a BTreeMap<String, String>,
        source: &'a Source,
        model: Option<&'a str>,
    ) -> Subject<'a> {
        Subject {
            provider: "openai",
            model,
            tags,
            source,
        }
    }

    #[test]
    fn tiers_hold_for_their_key_until_the_window_ends() {
        let table = Table::read(TABLE.as_bytes()).expect("is a table");
        let source = Source::default();
        let before = Timestamp::from_unix_ms(1_795_320_000_000);
        let after = Timestamp::parse("2026-11-23T00:00:00Z").expect("is a time");
        for (pairs, now, expected) in [
            (&[("user", "ann")][..], before, &["60%", "80%", "100%"][..]),
            (&[("user", "ann")], after, &[]),
            (&[("user", "eve")], before, &["60%", "80%", "100%"]),
            // Parts of a rolling window stop counting one after another.
            (&[("user", "eve")], after, &["60%", "80%"]),
            (&[("user", "bob")], before, &[]),
            (&[], after, &["60%"]),
            (
                &[("user", "ann"), ("priority", "critical")],
                before,
                &["60%", "100%"],
            ),
            (
                &[("user", "ann"), ("environment", "production")],
                before,
                &["60%", "80%"],
            ),
        ] {
            let tags = tags(pairs);
            let subject = subject(&tags, &source, None);
            let tiers = table.budgets()[0].tiers(&subject, now);
            let shares: Vec<&str> = tiers.map(|tier| tier.at.as_str()).collect();
            assert_eq!(shares, expected, "{pairs:?}");
        }
    }

    #[test]
    fn a_budget_on_a_model_waits_for_it() {
        let table = Table::read(TABLE.as_bytes()).expect("is a table");
        let source = Source::default();
        for (team, model, expected) in [
            ("a", None, None),
            ("a", Some("gpt-5"), Some(true)),
            ("a", Some("GPT-5"), Some(true)),
            ("a", Some("gpt-5-2025-08-07"), Some(true)),
            ("a", Some("gpt-5-chat-latest"), Some(true)),
            ("a", Some("gpt-5-mini"), Some(false)),
            ("a", Some("gpt-4o"), Some(false)),
            ("b", None, Some(false)),
        ] {
            let tags = tags(&[("team", team)]);
            let subject = subject(&tags, &source, model);
            assert_eq!(
                table.budgets()[1].concerns(&subject),
                expected,
                "{team} {model:?}"
            );
        }
    }

    #[test]
    fn who_is_spared_needs_no_reservation() {
        let table = Table::read(TABLE.as_bytes()).expect("is a table");
        let source = Source::default();
        for (pairs, expected) in [
            (&[][..], false),
            (&[("priority", "critical")], false),
            (&[("environment", "production")], true),
        ] {
            let tags = tags(pairs);
            let subject = subject(&tags, &source, None);
            assert_eq!(table.budgets()[0].exempts(&subject), expected, "{pairs:?}");
            assert!(!table.budgets()[1].exempts(&subject));
        }
    }

    #[test]
    fn another_version_of_the_wire_is_no_table() {
        for json in ["", "[]", r#"{"version":1}"#, r#"{"v":2,"version":1}"#] {
            assert!(Table::read(json.as_bytes()).is_err(), "{json}");
        }
        let decisions = Decisions::default();
        assert!(!decisions.has_budgets() && decisions.version().is_none());
        decisions.replace(Table::read(br#"{"v":1,"version":3}"#).expect("is a table"));
        assert!(!decisions.has_budgets());
        assert_eq!(decisions.version(), Some(3));
    }
}
