//! Temporary limits: set by an operator, for a while, with a reason, on every node.
//!
//! An override is written into this node's ledger before it holds, and told to all others through
//! the store that they share. What a node learns it keeps in its own ledger too, and tells a store
//! that has lost it, so that neither a restart nor an emptied store ends an override early. They
//! end by themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use tollmesh_budget::{Limit, Policy};
use tollmesh_wire::Timestamp;

use super::{Budgets, Shared};
use crate::clock;
use crate::ledger::budgets::Step;
use crate::ledger::overrides::Override;
use crate::ledger::{AppendError, QueryError};

/// How often what has ended is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the store is asked what other nodes were told; some thousand nodes ask one store.
const ASK_EVERY_MS: u64 = 10_000;
/// The longest that an override holds: what is needed for longer belongs into the file.
const LENGTH_MS_MAX: i64 = 31 * 86_400_000;
/// The longest reason or name, in characters.
const TEXT_CHARS_MAX: usize = 500;

/// What this node knows of overrides.
#[derive(Debug, Default)]
pub struct Overrides {
    by_id: BTreeMap<String, Override>,
    /// The budgets as the file has them.
    file: Vec<Policy>,
    /// The overrides that hold now.
    in_force: Vec<String>,
}

/// What an operator asks for.
#[derive(Clone, Debug)]
pub struct WantedOverride {
    /// The budget's name.
    pub budget: String,
    /// The limit.
    pub limit: Limit,
    /// Until when.
    pub until: Timestamp,
    /// Why.
    pub reason: String,
    /// Who asks.
    pub by: String,
}

/// Why a limit is not overridden.
#[derive(Debug, thiserror::Error)]
pub enum OverrideError {
    /// There is no such budget.
    #[error("no budget {name:?}; GET /api/v1/budgets lists those in force")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The limit is in another unit.
    #[error("budget {name:?} is in {unit}; give the limit in the same unit")]
    Unit {
        /// The budget.
        name: String,
        /// The budget's unit.
        unit: &'static str,
    },
    /// It would end at once, or hold for too long.
    #[error("until must be later than now, by at most 31 days; change the file for longer")]
    Until,
    /// Nobody would know who set it, and why.
    #[error("{what} must be 1 to {TEXT_CHARS_MAX} characters, without control characters")]
    Text {
        /// The field.
        what: &'static str,
    },
    /// Nothing holds that could be ended.
    #[error("no override of {name:?} holds")]
    None {
        /// The budget.
        name: String,
    },
    /// It cannot be written down.
    #[error("the ledger cannot be written; try again")]
    Ledger(#[from] AppendError),
}

impl Budgets {
    /// Takes over what the ledger says of overrides, before budgets are put in force.
    pub(super) async fn load_overrides(&self) -> Result<(), QueryError> {
        let Some(ledger) = self.0.ledger.get() else {
            return Ok(());
        };
        let reader = ledger.reader().clone();
        if let Ok(found) = tokio::task::spawn_blocking(move || reader.overrides()).await {
            let mut overrides = self.0.overrides();
            for one in found? {
                overrides.by_id.insert(one.id.clone(), one);
            }
        }
        Ok(())
    }

    /// Sets a limit for a while, on the record. It holds when this answers, on this node; others
    /// hear of it within seconds.
    pub async fn override_limit(&self, wanted: WantedOverride) -> Result<Override, OverrideError> {
        let now = clock::now();
        let made = self.0.overrides().make(wanted, now)?;
        self.keep_override(made.clone()).await?;
        let Override {
            budget,
            limit,
            until,
            reason,
            by,
            ..
        } = &made;
        tracing::warn!(budget, limit, %until, reason, by, "a budget's limit is overridden");
        self.put_overrides_in_force().await?;
        self.share_overrides().await;
        Ok(made)
    }

    /// Ends what overrides a budget's limit, on the record.
    pub async fn end_overrides(
        &self,
        budget: &str,
        by: &str,
    ) -> Result<Vec<Override>, OverrideError> {
        check_text("by", by)?;
        let now = clock::now();
        let ended = self.0.overrides().end(budget, by, now);
        if ended.is_empty() {
            return Err(OverrideError::None {
                name: budget.to_owned(),
            });
        }
        for one in &ended {
            self.keep_override(one.clone()).await?;
        }
        tracing::warn!(budget, by, "a budget's limit is the file's again");
        self.put_overrides_in_force().await?;
        self.share_overrides().await;
        Ok(ended)
    }

    /// All overrides that this node knows of, the latest first.
    pub fn overrides(&self) -> Vec<Override> {
        let overrides = self.0.overrides();
        let mut all: Vec<Override> = overrides.by_id.values().cloned().collect();
        all.sort_by(|a, b| (b.from, &b.id).cmp(&(a.from, &a.id)));
        all
    }

    /// Ends what is over, and hears what other nodes were told. Never returns.
    pub async fn keep_overrides(self) {
        let mut asked_ms = 0;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now_ms = clock::since_boot_ms();
            if now_ms.saturating_sub(asked_ms) >= ASK_EVERY_MS {
                asked_ms = now_ms;
                self.hear_overrides().await;
            }
            if self.0.overrides().is_out_of_date(clock::now())
                && let Err(error) = self.put_overrides_in_force().await
            {
                tracing::error!(%error, "an override cannot be put in force, or ended, yet");
            }
        }
    }

    /// Puts the file's budgets in force, with the limits that override theirs.
    pub(super) async fn put_overrides_in_force(&self) -> Result<(), AppendError> {
        let _turn = self.0.adopting.lock().await;
        let policies = self.0.overrides().effective(clock::now());
        self.put(policies).await
    }

    /// Hears what other nodes were told; tells the store what it has lost.
    async fn hear_overrides(&self) {
        let Some(store) = self.0.store.get().filter(|store| store.is_shared()) else {
            return;
        };
        // A store that does not answer is told of elsewhere.
        let Ok(notice) = store.notice().await else {
            return;
        };
        let heard: Vec<Override> = notice
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default();
        let (learnt, is_lacking) = self.0.overrides().merge(heard, clock::now());
        for one in learnt {
            tracing::warn!(
                budget = one.budget,
                limit = one.limit,
                by = one.by,
                reason = one.reason,
                "another node was told of an override"
            );
            if let Err(error) = self.keep_override(one).await {
                tracing::error!(%error, "an override cannot be noted; it holds until a restart");
            }
        }
        if is_lacking {
            self.share_overrides().await;
        }
    }

    async fn share_overrides(&self) {
        let Some(store) = self.0.store.get() else {
            return;
        };
        let shared = self.0.overrides().shared(clock::now());
        let Ok(text) = serde_json::to_string(&shared) else {
            return;
        };
        if let Err(error) = store.put_notice(&text).await {
            tracing::warn!(%error, "other nodes hear of overrides when the store answers again");
        }
    }

    async fn keep_override(&self, one: Override) -> Result<(), AppendError> {
        match self.0.ledger.get() {
            Some(ledger) => ledger.budgets(Step::Override(Box::new(one))).await,
            None => Ok(()),
        }
    }

    /// Notes the budgets of a new file.
    pub(super) fn note_file(&self, policies: Vec<Policy>) {
        self.0.overrides().file = policies;
    }
}

impl Shared {
    fn overrides(&self) -> std::sync::MutexGuard<'_, Overrides> {
        // What it holds is whole after each statement, whoever panicked.
        self.overrides
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Overrides {
    fn make(&mut self, wanted: WantedOverride, now: Timestamp) -> Result<Override, OverrideError> {
        let name = || wanted.budget.clone();
        let policy = self.file.iter().find(|p| p.name == wanted.budget);
        let policy = policy.ok_or_else(|| OverrideError::Unknown { name: name() })?;
        let unit = policy.limit.unit();
        if unit != wanted.limit.unit() {
            return Err(OverrideError::Unit { name: name(), unit });
        }
        let length_ms = wanted.until.as_unix_ms() - now.as_unix_ms();
        if !(1..=LENGTH_MS_MAX).contains(&length_ms) {
            return Err(OverrideError::Until);
        }
        check_text("reason", &wanted.reason)?;
        check_text("by", &wanted.by)?;
        let place = format!("{}/{}", now.as_unix_ms(), wanted.budget);
        let made = Override {
            id: crate::alerts::identity(&[&place, &wanted.by, &wanted.limit.to_string()]),
            budget: wanted.budget,
            limit: wanted.limit.to_string(),
            from: now,
            until: wanted.until,
            reason: wanted.reason,
            by: wanted.by,
            ended: None,
            ended_by: None,
        };
        self.by_id.insert(made.id.clone(), made.clone());
        Ok(made)
    }

    fn end(&mut self, budget: &str, by: &str, now: Timestamp) -> Vec<Override> {
        let held = self.by_id.values_mut();
        let held = held.filter(|one| one.budget == budget && one.holds(now));
        held.map(|one| {
            one.ended = Some(now);
            one.ended_by = Some(by.to_owned());
            one.clone()
        })
        .collect()
    }

    /// The file's budgets with the limits that hold now, the last one set where there are several.
    fn effective(&mut self, now: Timestamp) -> Vec<Policy> {
        self.in_force = self.holding(now);
        let mut policies = self.file.clone();
        for policy in &mut policies {
            let own = self.by_id.values();
            let own = own.filter(|one| one.budget == policy.name && one.holds(now));
            let last = own.max_by_key(|one| (one.from, one.id.clone()));
            let limit = last.and_then(|one| one.limit.parse::<Limit>().ok());
            if let Some(limit) = limit.filter(|limit| limit.unit() == policy.limit.unit()) {
                policy.limit = limit;
            }
        }
        policies
    }

    /// Whether others hold than those in force.
    fn is_out_of_date(&self, now: Timestamp) -> bool {
        self.in_force != self.holding(now)
    }

    fn holding(&self, now: Timestamp) -> Vec<String> {
        let holding = self.by_id.values().filter(|one| one.holds(now));
        holding.map(|one| one.id.clone()).collect()
    }

    /// What other nodes need to hear of: what is not over, and what was ended before its time.
    fn shared(&self, now: Timestamp) -> Vec<Override> {
        let open = self.by_id.values().filter(|one| now < one.until);
        open.cloned().collect()
    }

    /// Takes over what was heard. Answers what was new in it, and whether it lacks what is known
    /// here.
    fn merge(&mut self, heard: Vec<Override>, now: Timestamp) -> (Vec<Override>, bool) {
        let mut learnt = Vec::new();
        let mut is_lacking = false;
        let heard: BTreeMap<String, Override> =
            heard.into_iter().map(|one| (one.id.clone(), one)).collect();
        for own in self.shared(now) {
            let known = heard.get(&own.id);
            is_lacking |= known.is_none_or(|known| own.ended.is_some() && known.ended.is_none());
        }
        for (id, one) in heard {
            let own = self.by_id.get(&id);
            if own.is_none_or(|own| own.ended.is_none() && one.ended.is_some()) {
                self.by_id.insert(id, one.clone());
                learnt.push(one);
            }
        }
        (learnt, is_lacking)
    }
}

fn check_text(what: &'static str, text: &str) -> Result<(), OverrideError> {
    let n = text.chars().count();
    let is_plain = !text.contains(char::is_control) && !text.trim().is_empty();
    match (1..=TEXT_CHARS_MAX).contains(&n) && is_plain {
        true => Ok(()),
        false => Err(OverrideError::Text { what }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::budgets;

    fn node() -> Overrides {
        let text = "[[budget]]\nname = \"eng\"\nlimit = \"10 USD\"\nwindow = \"day\"\n\
                    [[budget]]\nname = \"ops\"\nlimit = \"10 requests\"\nwindow = \"day\"\n";
        Overrides {
            file: budgets::parse("budgets.toml", text).unwrap(),
            ..Overrides::default()
        }
    }

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_unix_ms(1_800_000_000_000 + ms)
    }

    fn wanted(limit: &str, until: i64) -> WantedOverride {
        WantedOverride {
            budget: "eng".into(),
            limit: limit.parse().unwrap(),
            until: at(until),
            reason: "the launch".into(),
            by: "ann".into(),
        }
    }

    fn limit(node: &mut Overrides, now: i64) -> String {
        node.effective(at(now))[0].limit.to_string()
    }

    #[test]
    fn an_override_holds_for_its_time() {
        let mut node = node();
        node.make(wanted("30 USD", 1_000), at(0)).unwrap();
        assert!(node.is_out_of_date(at(0)));
        assert_eq!(limit(&mut node, 0), "30 USD");
        assert!(!node.is_out_of_date(at(999)) && node.is_out_of_date(at(1_000)));
        assert_eq!(limit(&mut node, 1_000), "10 USD");
        // The last one set holds; ending ends all.
        node.make(wanted("40 USD", 9_000), at(2_000)).unwrap();
        node.make(wanted("20 USD", 5_000), at(3_000)).unwrap();
        assert_eq!(limit(&mut node, 4_000), "20 USD");
        assert_eq!(limit(&mut node, 5_000), "40 USD");
        assert_eq!(node.end("eng", "bob", at(6_000)).len(), 1);
        assert_eq!(limit(&mut node, 6_000), "10 USD");
        assert_eq!(node.by_id.len(), 3);
    }

    #[test]
    fn what_cannot_be_asked_for() {
        let told = |wanted| node().make(wanted, at(0)).unwrap_err().to_string();
        let unknown = WantedOverride {
            budget: "e".into(),
            ..wanted("1 USD", 1)
        };
        let hidden = WantedOverride {
            by: "ann\u{1b}[2K".into(),
            ..wanted("1 USD", 1)
        };
        let nameless = WantedOverride {
            by: " ".into(),
            ..wanted("1 USD", 1)
        };
        for (wanted, why) in [
            (
                unknown,
                "no budget \"e\"; GET /api/v1/budgets lists those in force",
            ),
            (
                wanted("5 tokens", 1),
                "budget \"eng\" is in USD; give the limit in the same unit",
            ),
            (
                wanted("5 USD", 0),
                "until must be later than now, by at most 31 days; change the file for longer",
            ),
            (
                wanted("5 USD", LENGTH_MS_MAX + 1),
                "until must be later than now, by at most 31 days; change the file for longer",
            ),
            (
                nameless,
                "by must be 1 to 500 characters, without control characters",
            ),
            (
                hidden,
                "by must be 1 to 500 characters, without control characters",
            ),
        ] {
            assert_eq!(told(wanted), why);
        }
    }

    #[test]
    fn nodes_agree_through_a_store_that_forgets() {
        let (mut one, mut other) = (node(), node());
        one.make(wanted("30 USD", 1_000), at(0)).unwrap();
        // An empty store lacks it; another node learns of it.
        assert_eq!(one.merge(Vec::new(), at(1)), (Vec::new(), true));
        let shared = one.shared(at(1));
        assert_eq!(other.merge(shared.clone(), at(2)).0, shared);
        assert_eq!(other.merge(shared.clone(), at(2)), (Vec::new(), false));
        assert_eq!(limit(&mut other, 3), "30 USD");
        // Ended there, and heard here, whatever the store says in between.
        other.end("eng", "bob", at(4));
        assert_eq!(other.merge(shared, at(5)), (Vec::new(), true));
        let (learnt, is_lacking) = one.merge(other.shared(at(6)), at(6));
        assert_eq!((learnt.len(), is_lacking), (1, false));
        assert_eq!(limit(&mut one, 7), "10 USD");
        // What is over is told to nobody.
        assert_eq!(one.shared(at(1_000)), []);
    }
}
