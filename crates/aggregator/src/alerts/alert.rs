//! What is told: one alert, as receivers of plain JSON get it.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tollmesh_budget::{Action, Enforce, Guard, Limit, Policy, Tier, WindowSpan};
use tollmesh_wire::Timestamp;

use crate::ledger::HOUR_MS;

/// The longest value of a key that is repeated in a text, in characters: headers claim it.
const VALUE_CHARS_MAX: usize = 100;

/// A tier of a budget that a key has reached.
#[derive(Clone, Debug)]
pub struct TierReached {
    /// The budget.
    pub budget: String,
    /// What calls must be for the budget to concern them.
    pub matches: BTreeMap<String, String>,
    /// The values of its `per` keys, by name; empty texts for calls without one.
    pub key: BTreeMap<String, String>,
    /// How hard the limit is.
    pub enforce: Enforce,
    /// The share at which the tier begins, as a fraction.
    pub tier_at: Decimal,
    /// What happens to calls there.
    pub action: Action,
    /// What is spent, in the limit's unit.
    pub spent: Decimal,
    /// The most that may be spent.
    pub limit: Limit,
    /// The kind of window, as `day`.
    pub window: String,
    /// The window itself; a rolling one's begin is not part of the alert's identity.
    pub span: WindowSpan,
    /// What will be spent at the window's end, going on like this.
    pub projected: Option<Decimal>,
    /// Names of receivers, `owner` and `all` among them.
    pub notify: Vec<String>,
}

/// Calls that a guard stops, or would stop.
#[derive(Clone, Debug)]
pub struct GuardTripped<'g> {
    /// The guard.
    pub guard: &'g Guard,
    /// The word for why.
    pub reason: &'static str,
    /// What was found, as `61 requests within a minute`.
    pub found: &'g str,
    /// What is let pass, as `60 requests a minute per trace_id`.
    pub bound: &'g str,
    /// The values of its `per` keys, by name.
    pub key: BTreeMap<String, String>,
    /// When, in milliseconds since 1970.
    pub unix_ms: i64,
}

/// An alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// The same for everybody who tells the same: by it receivers recognise what comes twice.
    pub id: String,
    /// `budget_tier`, or `guard`.
    pub kind: Kind,
    /// How bad it is.
    pub severity: Severity,
    /// One line for people.
    pub summary: String,
    /// When it was noticed.
    pub time: Timestamp,
    /// The budget or guard.
    pub budget: String,
    /// What calls must be for it to concern them.
    #[serde(rename = "match", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub matches: BTreeMap<String, String>,
    /// The values of its `per` keys.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub key: BTreeMap<String, String>,
    /// `observe`, `cached` or `strict`.
    pub enforce: String,
    /// The share of the limit that was reached, as `85%`; of a guard, the word for why.
    pub tier: String,
    /// What happens to calls now, as in `budgets.toml`.
    #[serde(rename = "do")]
    pub action: String,
    /// What is spent, as a decimal; of a guard, what it found in words.
    pub spent: String,
    /// The most that may be spent, as a decimal; of a guard, what it lets pass in words.
    pub limit: String,
    /// The unit of both: `USD`, `tokens` or `requests`; of a guard, nothing.
    pub unit: String,
    /// What will be spent at the window's end, going on like this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projected: Option<String>,
    /// The window.
    pub window: AlertWindow,
}

/// The window that an alert is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertWindow {
    /// As `day`.
    pub kind: String,
    /// The first instant.
    pub start: Timestamp,
    /// The first instant after it.
    pub end: Timestamp,
}

/// What an alert is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A budget has reached a tier.
    BudgetTier,
    /// A guard refuses calls.
    Guard,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Calls go on as ever.
    Info,
    /// Calls are changed or slowed down.
    Warning,
    /// Calls are refused, or the limit is spent.
    Critical,
}

// === impl TierReached ===

impl TierReached {
    /// That the tier at that position of a policy is reached by a key, given in the order of
    /// `per`.
    pub fn of(
        policy: &Policy,
        tier: &Tier,
        key: &[String],
        spent: Decimal,
        span: WindowSpan,
        projected: Option<Decimal>,
    ) -> TierReached {
        TierReached {
            budget: policy.name.clone(),
            matches: policy.matches.clone(),
            key: policy.per.iter().cloned().zip(key.to_vec()).collect(),
            enforce: policy.enforce,
            tier_at: tier.at,
            action: tier.action.clone(),
            spent,
            limit: policy.limit,
            window: policy.window.to_string(),
            span,
            projected,
            notify: tier.notify.clone(),
        }
    }

    /// The same for budget, key, window and tier, whoever notices it.
    pub fn id(&self) -> String {
        let start = match self.is_rolling() {
            // Its begin moves on: at most one alert for each span of its length.
            true => {
                let length = self.span.end.as_second() - self.span.start.as_second();
                self.span.end.as_second().div_euclid(length.max(1))
            }
            false => self.span.start.as_second(),
        };
        let limit = self.limit.to_string();
        identity(&[
            "budget_tier",
            &self.budget,
            &serde_json::to_string(&self.key).unwrap_or_default(),
            &self.window,
            &start.to_string(),
            &self.tier_at.normalize().to_string(),
            &limit,
        ])
    }

    fn is_rolling(&self) -> bool {
        self.window.starts_with("rolling")
    }

    /// When nobody needs to remember any more that this was told, in milliseconds since 1970.
    pub fn forgotten_after_ms(&self) -> i64 {
        let length = self.span.end.as_millisecond() - self.span.start.as_millisecond();
        match self.is_rolling() {
            true => self.span.end.as_millisecond() + length,
            false => self.span.end.as_millisecond(),
        }
    }

    /// The alert that tells it.
    pub fn alert(&self, now: Timestamp) -> Alert {
        let unit = match self.limit {
            Limit::Usd(_) => "USD",
            Limit::Tokens(_) => "tokens",
            Limit::Requests(_) => "requests",
        };
        Alert {
            id: self.id(),
            kind: Kind::BudgetTier,
            severity: severity(&self.action, self.enforce, self.tier_at),
            summary: self.summary(unit),
            time: now,
            budget: self.budget.clone(),
            matches: self.matches.clone(),
            key: self.key.clone(),
            enforce: enforce_word(self.enforce).to_owned(),
            tier: percent(self.tier_at),
            action: self.action.name().to_owned(),
            spent: amount(self.spent),
            limit: amount(self.limit.amount()),
            unit: unit.to_owned(),
            projected: self.projected.map(amount),
            window: AlertWindow {
                kind: self.window.clone(),
                start: wire(self.span.start),
                end: wire(self.span.end),
            },
        }
    }

    fn summary(&self, unit: &str) -> String {
        let key = match self.key.is_empty() {
            true => String::new(),
            false => format!(" ({})", key_text(&self.key)),
        };
        let does = match (&self.action, self.enforce) {
            (Action::Warn, _) => "",
            (_, Enforce::Observe) => "; enforce = \"observe\", so calls go on",
            (Action::Header, _) => "; apps are told by a header",
            (Action::CapOutput { .. }, _) => "; answers are cut shorter",
            (Action::Downgrade { .. }, _) => "; cheaper models are used",
            (Action::Throttle { .. }, _) => "; calls are slowed down",
            (Action::Shed, _) => "; only critical calls pass",
            (Action::Deny, _) => "; calls are refused",
        };
        format!(
            "Budget {}{key} has reached {} of its limit: {} of {} {unit} per {} spent{does}",
            self.budget,
            percent(self.tier_at),
            amount(self.spent),
            amount(self.limit.amount()),
            self.window,
        )
    }
}

/// Guards tell the same again after an hour.
const TOLD_AGAIN_MS: i64 = HOUR_MS;

impl GuardTripped<'_> {
    /// The same for guard, key, reason and hour, whoever notices it.
    pub fn id(&self) -> String {
        identity(&[
            "guard",
            &self.guard.name,
            &serde_json::to_string(&self.key).unwrap_or_default(),
            self.reason,
            &self.unix_ms.div_euclid(TOLD_AGAIN_MS).to_string(),
        ])
    }

    /// When nobody needs to remember any more that this was told, in milliseconds since 1970.
    pub fn forgotten_after_ms(&self) -> i64 {
        (self.unix_ms.div_euclid(TOLD_AGAIN_MS) + 1) * TOLD_AGAIN_MS
    }

    /// The alert that tells it.
    pub fn alert(&self) -> Alert {
        let guard = self.guard;
        let refuses = guard.refuses && guard.enforce != Enforce::Observe;
        let key = match self.key.is_empty() {
            true => String::new(),
            false => format!(" ({})", key_text(&self.key)),
        };
        let does = match (refuses, guard.enforce) {
            (true, _) => "; calls are refused",
            (false, Enforce::Observe) => "; enforce = \"observe\", so calls go on",
            (false, _) => "",
        };
        let GuardTripped { found, bound, .. } = self;
        let end_ms = self.forgotten_after_ms();
        Alert {
            id: self.id(),
            kind: Kind::Guard,
            severity: match refuses {
                true => Severity::Critical,
                false => Severity::Warning,
            },
            summary: format!(
                "Guard {}{key} found {found}, over {bound}{does}",
                guard.name
            ),
            time: Timestamp::from_unix_ms(self.unix_ms),
            budget: guard.name.clone(),
            matches: guard.matches.clone(),
            key: self.key.clone(),
            enforce: enforce_word(guard.enforce).to_owned(),
            tier: self.reason.to_owned(),
            action: if guard.refuses { "deny" } else { "warn" }.to_owned(),
            spent: (*found).to_owned(),
            limit: (*bound).to_owned(),
            unit: String::new(),
            projected: None,
            window: AlertWindow {
                kind: "hour".to_owned(),
                start: Timestamp::from_unix_ms(end_ms - HOUR_MS),
                end: Timestamp::from_unix_ms(end_ms),
            },
        }
    }
}

/// `user = ann, team = red`, as far as there is room.
pub fn key_text(key: &BTreeMap<String, String>) -> String {
    let pairs = key.iter().map(|(name, value)| match value.is_empty() {
        true => format!("{name} = (none)"),
        false => format!("{name} = {}", shortened(value, VALUE_CHARS_MAX)),
    });
    pairs.collect::<Vec<_>>().join(", ")
}

/// The first characters of a text, with a mark where some are missing.
pub fn shortened(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => text.to_owned(),
        Some(_) => {
            let kept: String = text.chars().take(chars_max.saturating_sub(1)).collect();
            kept + "…"
        }
    }
}

/// An identity of these parts that no other parts have, short enough for every receiver.
pub fn identity(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    digest.iter().take(16).map(|b| format!("{b:02x}")).collect()
}

/// `0.85` as `85%`.
pub fn percent(share: Decimal) -> String {
    let percent = share.checked_mul(Decimal::ONE_HUNDRED).unwrap_or(share);
    format!("{}%", percent.normalize())
}

/// An amount as people read it: rounded to a millionth, which is what budgets count in.
pub fn amount(amount: Decimal) -> String {
    amount.round_dp(6).normalize().to_string()
}

fn severity(action: &Action, enforce: Enforce, at: Decimal) -> Severity {
    let refuses = matches!(action, Action::Deny | Action::Shed) && enforce != Enforce::Observe;
    let changes = !matches!(action, Action::Warn | Action::Header);
    match (refuses || at >= Decimal::ONE, changes) {
        (true, _) => Severity::Critical,
        (false, true) => Severity::Warning,
        (false, false) => Severity::Info,
    }
}

fn enforce_word(enforce: Enforce) -> &'static str {
    match enforce {
        Enforce::Observe => "observe",
        Enforce::Cached => "cached",
        Enforce::Strict => "strict",
    }
}

fn wire(at: jiff::Timestamp) -> Timestamp {
    Timestamp::from_unix_ms(at.as_millisecond())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// 85 % of a daily budget of Ann's, of 200 USD.
    pub fn reached() -> TierReached {
        TierReached {
            budget: "checkout-daily".into(),
            matches: BTreeMap::from([("team".into(), "checkout".into())]),
            key: BTreeMap::from([("user".into(), "ann <!channel> [x](http://evil)".into())]),
            enforce: Enforce::Strict,
            tier_at: "0.85".parse().unwrap(),
            action: Action::Downgrade {
                models: BTreeMap::new(),
            },
            spent: "170.0234567891".parse().unwrap(),
            limit: "200 USD".parse().unwrap(),
            window: "day".into(),
            span: WindowSpan {
                start: "2026-11-22T00:00:00Z".parse().unwrap(),
                end: "2026-11-23T00:00:00Z".parse().unwrap(),
            },
            projected: Some("310".parse().unwrap()),
            notify: vec!["eng".into()],
        }
    }

    #[test]
    fn an_id_is_that_of_budget_key_window_and_tier() {
        let first = reached();
        let same = TierReached {
            spent: "171".parse().unwrap(),
            projected: None,
            notify: Vec::new(),
            ..first.clone()
        };
        assert_eq!(first.id(), same.id());
        let tomorrow = WindowSpan {
            start: "2026-11-23T00:00:00Z".parse().unwrap(),
            end: "2026-11-24T00:00:00Z".parse().unwrap(),
        };
        let others = [
            TierReached {
                budget: "search-daily".into(),
                ..first.clone()
            },
            TierReached {
                key: BTreeMap::new(),
                ..first.clone()
            },
            TierReached {
                tier_at: Decimal::ONE,
                ..first.clone()
            },
            TierReached {
                span: tomorrow,
                ..first.clone()
            },
            TierReached {
                limit: "300 USD".parse().unwrap(),
                ..first.clone()
            },
        ];
        for other in others {
            assert_ne!(first.id(), other.id(), "{other:?}");
        }
    }

    #[test]
    fn a_rolling_window_moves_on_without_a_new_alert() {
        let at = |end: &str| {
            let end: jiff::Timestamp = end.parse().unwrap();
            let rolling = TierReached {
                window: "rolling 24h".into(),
                span: WindowSpan {
                    start: end - jiff::SignedDuration::from_hours(24),
                    end,
                },
                ..reached()
            };
            rolling.id()
        };
        assert_eq!(at("2026-11-22T04:00:00Z"), at("2026-11-22T19:30:00Z"));
        assert_ne!(at("2026-11-22T04:00:00Z"), at("2026-11-23T04:00:00Z"));
    }

    #[test]
    fn the_summary_says_what_happens() {
        let alert = reached().alert(Timestamp::from_unix_ms(0));
        assert_eq!(
            alert.summary,
            "Budget checkout-daily (user = ann <!channel> [x](http://evil)) has reached 85% of its \
             limit: 170.023457 of 200 USD per day spent; cheaper models are used"
        );
        assert_eq!(alert.severity, Severity::Warning);
        let observed = TierReached {
            enforce: Enforce::Observe,
            action: Action::Deny,
            key: BTreeMap::new(),
            ..reached()
        };
        let alert = observed.alert(Timestamp::from_unix_ms(0));
        assert!(alert.summary.ends_with("\"observe\", so calls go on"));
        assert_eq!(alert.severity, Severity::Warning);
    }
}
