//! The budgets of the file as calls are judged by them.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use rust_decimal::Decimal;
use serde_json::json;
use sha2::{Digest, Sha256};
use tollmesh_budget::{Action, Enforce, Limit, Policy, Window};
use tollmesh_wire::matching::MODEL;
use tollmesh_wire::{Match, ModelNames, Subject};

use crate::ledger::HOUR_MS;

/// Hexadecimal digits by which two versions of one budget are told apart.
const DIGEST_CHARS: usize = 8;
/// Sub-windows of a rolling window: what is spent leaves the window in steps of one part in so many.
const ROLLING_CELLS: i64 = 96;

/// Stands for what a model is in the digest of a budget that asks for one: all its names, where once
/// it was the one that the budget has. Tables that learn another name of it change no digest: nodes
/// that share a limit may have different tables while they are replaced.
const MODELS_BY_NAMES: &str = "models by all names";

/// Facts that the mesh or the provider says, as a budget's `match` and `per` may name them; any other
/// name there is a tag's.
pub const FACTS: &[&str] = &[
    "provider",
    "model",
    "namespace",
    "workload",
    "service_account",
    "principal",
    "pod",
    "node",
    "cluster",
];

/// A stretch of time, in milliseconds since 1970: from `start` on, before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first instant.
    pub start: i64,
    /// The first instant after it.
    pub end: i64,
}

/// One budget of the file, with what is reckoned once.
#[derive(Debug)]
pub struct Budget {
    /// Its name, and a digest of what its spend means: of whom, in what unit, in which windows.
    /// Spend under one id is comparable; a budget that counts otherwise starts afresh, from rows.
    pub id: Arc<str>,
    /// What the file says.
    pub policy: Policy,
    /// The calls that it concerns.
    pub matches: Match,
    /// Keys whose every value has the limit for itself.
    pub per: Vec<String>,
    /// The ledger's name of the account that keys without an own one share.
    pub others: Arc<str>,
    /// The least spend that has reached each tier, in the store's units.
    pub tier_units: Vec<u64>,
    /// What may be spent and held at most, in the store's units.
    pub hard_units: u64,
    /// Calls that its lowest `deny` tier spares.
    pub spared: Match,
    /// The window that was asked for last: nearly all calls are of the present one.
    latest: Mutex<Option<Span>>,
}

/// All budgets of the file, in its order.
#[derive(Debug, Default)]
pub struct Policies {
    /// The budgets.
    pub all: Vec<Arc<Budget>>,
    /// Budgets that ask for a value of that fact, by the value: a call is then held against those
    /// few that may concern it.
    by_fact: HashMap<String, HashMap<String, Vec<usize>>>,
    /// Budgets that ask for nothing, or for a model alone.
    of_all: Vec<usize>,
    by_id: HashMap<Arc<str>, usize>,
    /// Names of the models that any of them asks for.
    pub models: Arc<ModelNames>,
}

// === impl Budget ===

impl Budget {
    /// Reckons what a policy means.
    pub fn new(policy: Policy) -> Budget {
        let deny = policy.tiers.iter().find(|tier| tier.action == Action::Deny);
        let spared = deny.map(|tier| tier.except.clone()).unwrap_or_default();
        let shares = policy.tiers.iter().map(|tier| tier.at);
        Budget {
            id: id(&policy).into(),
            matches: Match::new(policy.matches.clone()).knowing(&policy.models),
            per: policy.per.iter().cloned().collect(),
            others: super::state::others(policy.per.len()),
            tier_units: shares.map(|at| policy.limit.units_up(at)).collect(),
            hard_units: policy.limit.units(policy.hard_share()),
            spared: Match::new(spared).knowing(&policy.models),
            latest: Mutex::new(None),
            policy,
        }
    }

    /// Whether calls have to be reserved.
    pub fn is_strict(&self) -> bool {
        self.policy.enforce == Enforce::Strict
    }

    /// Whether that call passes the limit unasked.
    pub fn spares(&self, subject: &Subject<'_>) -> bool {
        !self.spared.is_empty() && self.spared.matches(subject)
    }

    /// The position of the highest tier that spend has reached.
    pub fn tier_of(&self, units: u64) -> Option<usize> {
        self.tier_units.iter().rposition(|floor| units >= *floor)
    }

    /// The values of its keys.
    pub fn key_of(&self, subject: &Subject<'_>) -> Vec<String> {
        let values = self.per.iter().map(|name| subject.value(name));
        values.map(|v| v.unwrap_or_default().to_owned()).collect()
    }

    /// The cell that spend of that instant is counted in: the window, or a part of a rolling one.
    pub fn cell_at(&self, unix_ms: i64) -> Option<Span> {
        if let Some(length) = self.cell_ms() {
            let start = unix_ms.div_euclid(length) * length;
            let end = start + length;
            return Some(Span { start, end });
        }
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(span) = latest.filter(|span| span.holds(unix_ms)) {
            return Some(span);
        }
        let at = jiff::Timestamp::from_millisecond(unix_ms).ok()?;
        let window = self.policy.window.containing(at, &self.policy.zone)?;
        let span = Span {
            start: window.start.as_millisecond(),
            end: window.end.as_millisecond(),
        };
        *latest = Some(span);
        Some(span)
    }

    /// The window that spend of that instant is held against the limit in.
    pub fn window_at(&self, unix_ms: i64) -> Option<Span> {
        let cell = self.cell_at(unix_ms)?;
        let earlier = self
            .cell_ms()
            .map_or(0, |length| length * (ROLLING_CELLS - 1));
        Some(Span {
            start: cell.start - earlier,
            ..cell
        })
    }

    /// The length of a rolling window's parts; `None` for a calendar's window, which is whole.
    pub fn cell_ms(&self) -> Option<i64> {
        match self.policy.window {
            Window::Rolling { hours } => Some(i64::from(hours) * HOUR_MS / ROLLING_CELLS),
            _ => None,
        }
    }

    /// The first instants of the cells that count together with that one, itself left out.
    pub fn cells_before(&self, cell_start: i64) -> impl Iterator<Item = i64> + use<> {
        let length = self.cell_ms();
        let earlier = length.map_or(0, |_| ROLLING_CELLS - 1);
        (1..=earlier).map(move |n| cell_start - n * length.unwrap_or(0))
    }

    /// Until when spend of a cell counts.
    pub fn counts_until(&self, cell: Span) -> i64 {
        match self.rolling_ms() {
            None => cell.end,
            Some(counts) => cell.start + counts,
        }
    }

    /// How long spend counts from its cell's first instant, in milliseconds; `None` for a calendar's
    /// window, which ends.
    pub fn rolling_ms(&self) -> Option<i64> {
        self.cell_ms().map(|length| length * ROLLING_CELLS)
    }

    /// A plain number of the limit's unit in the store's units, rounded down.
    pub fn units(&self, amount: Decimal) -> u64 {
        match self.policy.limit {
            Limit::Usd(_) => Limit::Usd(amount).units(Decimal::ONE),
            Limit::Tokens(_) | Limit::Requests(_) => {
                u64::try_from(amount.floor()).unwrap_or(u64::MAX)
            }
        }
    }

    /// Spend as a plain number of the limit's unit.
    pub fn amount_of(&self, units: u64) -> Decimal {
        self.policy.limit.amount_of(units)
    }
}

impl Span {
    /// Whether the instant is in it.
    pub fn holds(self, unix_ms: i64) -> bool {
        self.start <= unix_ms && unix_ms < self.end
    }
}

/// `checkout-daily~3f2a90b1`.
fn id(policy: &Policy) -> String {
    let zone = policy.zone.iana_name().unwrap_or("UTC");
    let mut meaning = vec![
        json!(policy.matches),
        json!(policy.per),
        json!(policy.limit.unit()),
        json!(policy.window.to_string()),
        json!(zone),
    ];
    if policy.matches.contains_key(MODEL) {
        meaning.push(json!(MODELS_BY_NAMES));
    }
    let meaning = serde_json::Value::from(meaning);
    let digest = format!("{:x}", Sha256::digest(meaning.to_string()));
    let digest = digest.get(..DIGEST_CHARS).unwrap_or_default();
    format!("{}~{digest}", policy.name)
}

// === impl Policies ===

impl Policies {
    /// The tags that any of them names, each once.
    pub fn tags(&self) -> BTreeSet<String> {
        let named = self.all.iter().flat_map(|budget| {
            let policy = &budget.policy;
            let spared = policy.tiers.iter().flat_map(|tier| tier.except.keys());
            policy.matches.keys().chain(spared).chain(&budget.per)
        });
        let tags = named.filter(|name| !FACTS.contains(&name.as_str()));
        tags.cloned().collect()
    }

    /// The budgets that these policies make.
    pub fn new(policies: Vec<Policy>) -> Policies {
        let mut made = Policies::default();
        for (n, policy) in policies.into_iter().enumerate() {
            // Of a model's names there are several: they are no way to find a budget by.
            match policy.matches.iter().find(|(fact, _)| *fact != MODEL) {
                Some((fact, value)) => made
                    .by_fact
                    .entry(fact.clone())
                    .or_default()
                    .entry(value.clone())
                    .or_default()
                    .push(n),
                None => made.of_all.push(n),
            }
            made.models = Arc::clone(&policy.models);
            let budget = Arc::new(Budget::new(policy));
            made.by_id.insert(Arc::clone(&budget.id), n);
            made.all.push(budget);
        }
        made
    }

    /// The budgets that concern that call.
    pub fn concerning<'p>(
        &'p self,
        subject: &'p Subject<'p>,
    ) -> impl Iterator<Item = &'p Arc<Budget>> {
        let of_fact = |(fact, by_value): (&String, &'p HashMap<String, Vec<usize>>)| {
            by_value.get(subject.value(fact)?)
        };
        let some = self.by_fact.iter().filter_map(of_fact).flatten();
        let may_concern = self.of_all.iter().chain(some);
        let budgets = may_concern.filter_map(|n| self.all.get(*n));
        budgets.filter(|budget| budget.matches.matches(subject))
    }

    /// The position of the budget of that id.
    pub fn place_of(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    /// The budget of that id.
    pub fn of_id(&self, id: &str) -> Option<&Arc<Budget>> {
        self.place_of(id).and_then(|n| self.all.get(n))
    }

    /// The budget of that name.
    pub fn named(&self, name: &str) -> Option<&Arc<Budget>> {
        self.all.iter().find(|budget| budget.policy.name == name)
    }

    /// Whether any call has to be reserved.
    pub fn reserve(&self) -> bool {
        self.all.iter().any(|budget| budget.is_strict())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tollmesh_wire::Source;

    use super::*;
    use crate::config::budgets::parse;

    #[test]
    fn tags_are_named_once_and_facts_are_none() {
        let budget = |n: usize, team: &str| {
            format!(
                "[[budget]]\nname = \"b{n}\"\nlimit = \"1 USD\"\nwindow = \"day\"\n\
                 match = {{ team = \"{team}\", namespace = \"prod\" }}\n\
                 per = [\"user\", \"model\"]\n\
                 tiers = [{{ at = \"100%\", do = \"deny\", except = {{ role = \"ops\" }} }}]\n"
            )
        };
        let text: String = (0..40).map(|n| budget(n, &format!("t{n}"))).collect();
        let policies = Policies::new(parse("budgets.toml", &text).unwrap());
        let tags = policies.tags();
        assert_eq!(tags.iter().collect::<Vec<_>>(), ["role", "team", "user"]);
    }

    #[test]
    fn no_tag_stands_for_a_fact() {
        let tags = FACTS
            .iter()
            .map(|name| ((*name).to_owned(), "t".to_owned()));
        let tags: BTreeMap<String, String> = tags.collect();
        let subject = Subject {
            provider: "acme",
            model: None,
            tags: &tags,
            source: &Source::default(),
        };
        for name in FACTS {
            assert_ne!(subject.value(name), Some("t"), "{name}");
        }
    }
}
