//! What the aggregator tells the filter about budgets, and what the filter asks before a call leaves.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::event::Source;
use crate::matching::{Match, ModelNames, Subject};

/// The body of `GET /v1/decisions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionTable {
    /// The wire version.
    pub v: u32,
    /// Changes with every change of the table; another life of the aggregator begins elsewhere.
    pub version: u64,
    /// The budgets in force, in the order of their file.
    #[serde(default)]
    pub budgets: Vec<BudgetEntry>,
    /// Names by which price tables know the models that a `match` or an `except` in `budgets` names:
    /// they meet it, too ([`DecisionTable::name_models`]).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, Vec<String>>,
}

impl DecisionTable {
    /// Has every match know the other names of the model that it asks for, which leave `models`.
    pub fn name_models(&mut self) {
        let models = std::mem::take(&mut self.models).into_iter();
        let models: ModelNames = models.map(|(name, others)| (name, others.into())).collect();
        for budget in &mut self.budgets {
            let tiers = budget.tiers.iter_mut().map(|tier| &mut tier.except);
            for wanted in tiers.chain([&mut budget.matches]) {
                *wanted = std::mem::take(wanted).knowing(&models);
            }
        }
    }
}

/// What a filter does with the calls that one budget concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BudgetEntry {
    /// The budget's name.
    pub budget: String,
    /// The calls it concerns.
    #[serde(rename = "match")]
    pub matches: Match,
    /// Keys whose every value has the limit for itself, in the order of [`KeyState::key`]. A call
    /// without one of them has the empty text there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub per: Vec<String>,
    /// How hard the limit is.
    pub enforce: Enforcement,
    /// What happens at each tier, rising. `enforce = "strict"` denies by reservation whatever they
    /// say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<TierEntry>,
    /// The values that have reached a tier; the one empty key where nothing is `per`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reached: Vec<KeyState>,
    /// What is done while the aggregator cannot be asked.
    pub on_unavailable: Unavailable,
    /// The limit for people, as `200 USD`.
    pub limit: String,
    /// The window for people, as `day`.
    pub window: String,
    /// When the present window ends, and a proxy's [`Allowance`] is renewed; absent where it does
    /// not end at once (`rolling`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_ends: Option<Timestamp>,
}

/// How hard a limit is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforcement {
    /// What would have been done is counted, and nothing is done.
    #[default]
    Observe,
    /// The table decides.
    Cached,
    /// Each call is reserved before it leaves.
    Strict,
}

/// What happens at one tier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierEntry {
    /// The share of the limit for people, as `85%`.
    pub at: String,
    /// What happens.
    #[serde(flatten)]
    pub action: Action,
    /// Calls with all these values are spared; empty spares none.
    #[serde(default, skip_serializing_if = "Match::is_empty")]
    pub except: Match,
}

/// What happens to a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Action {
    /// Nothing; somebody is told.
    Warn,
    /// The app is told by a response header.
    Header,
    /// The most output tokens that it may ask for.
    CapOutput {
        /// Tokens.
        max_tokens: u64,
    },
    /// Cheaper models are asked for instead.
    Downgrade {
        /// Model asked for, to model to ask for.
        models: BTreeMap<String, String>,
    },
    /// Only so many calls pass this proxy.
    Throttle {
        /// Calls a second.
        requests_per_second: u32,
    },
    /// Refused unless critical (`priority = "critical"`).
    Shed,
    /// Refused.
    Deny,
    /// An action of a newer aggregator: nothing is done.
    #[serde(other)]
    Unknown,
}

impl Action {
    /// The word for it in `budgets.toml`.
    pub const fn name(&self) -> &'static str {
        match self {
            Action::Warn => "warn",
            Action::Header => "header",
            Action::CapOutput { .. } => "cap_output",
            Action::Downgrade { .. } => "downgrade",
            Action::Throttle { .. } => "throttle",
            Action::Shed => "shed",
            Action::Deny => "deny",
            Action::Unknown => "unknown",
        }
    }
}

/// How far one key's spend has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyState {
    /// The values of [`BudgetEntry::per`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<String>,
    /// Position of the tier in [`BudgetEntry::tiers`].
    pub tier: usize,
    /// When the window ends, and all its tiers with it; of a rolling window, when the lowest tier
    /// that is reached could be left. The default instant is never.
    pub reset_at: Timestamp,
    /// When each tier that is reached could be left at the earliest, the lowest first, none later
    /// than the one before: those of a rolling window. Empty where all are at `reset_at`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tier_resets: Vec<Timestamp>,
}

impl KeyState {
    /// How many tiers are reached at that instant, as far as is known.
    pub fn n_reached(&self, now: Timestamp) -> usize {
        let tiers = 0..=self.tier;
        tiers.take_while(|tier| self.holds(*tier, now)).count()
    }

    /// When that tier could be left; the default instant for never.
    pub fn reset_of(&self, tier: usize) -> Timestamp {
        self.tier_resets.get(tier).copied().unwrap_or(self.reset_at)
    }

    fn holds(&self, tier: usize, now: Timestamp) -> bool {
        let reset_at = self.reset_of(tier);
        reset_at == Timestamp::default() || now < reset_at
    }
}

/// What a strict budget does while the aggregator cannot be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unavailable {
    /// Calls are refused.
    Closed,
    /// Calls pass.
    #[default]
    Open,
    /// Calls pass until this proxy has let pass what the allowance covers.
    OpenCapped(Allowance),
}

/// What one proxy may let pass unasked, with the ceilings by which a call's worst case is reckoned:
/// filters know no prices. Amounts are integers in units of 10^-9 of the budget's own unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Allowance {
    /// The allowance.
    pub nano: u64,
    /// Charged for a call, whatever it says.
    pub nano_per_request: u64,
    /// Charged for each byte of the request's body: no token is shorter.
    pub nano_per_input_byte: u64,
    /// Charged for each output token that the call may ask for.
    pub nano_per_output_token: u64,
    /// Output tokens where the call names no limit.
    pub output_tokens: u64,
}

/// The body of `POST /v1/reservations`: a call's worst case, in facts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReservationRequest {
    /// The wire version.
    pub v: u32,
    /// The event that will settle the reservation, whether or not it carries the reservation's id:
    /// the answer may have come too late for the call, or never. Asking twice for one event reserves
    /// once.
    pub event_id: String,
    /// `x-request-id`, for `explain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Trace id, for guards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Keyed hash of the body, for guards against loops.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Who serves and bills the call.
    pub provider: String,
    /// The API, as `openai.chat`.
    pub api: String,
    /// The model asked for, after a downgrade.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The service tier asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
    /// Facts that prices depend on.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pricing_context: BTreeMap<String, String>,
    /// Bytes of the request's body.
    pub body_bytes: u64,
    /// Of these, bytes of embedded media.
    pub media_bytes: u64,
    /// The most output tokens asked for, after a cap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
    /// Answers asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_choices: Option<u64>,
    /// Whether tools may be used, the provider's among them.
    pub has_tools: bool,
    /// What the headers claim.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// What the mesh knows.
    pub source: Source,
}

impl<'a> From<&'a ReservationRequest> for Subject<'a> {
    fn from(request: &'a ReservationRequest) -> Subject<'a> {
        Subject {
            provider: &request.provider,
            model: request.model.as_deref(),
            tags: &request.tags,
            source: &request.source,
        }
    }
}

/// The answer to a reservation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    /// The call may go ahead.
    Allow {
        /// What the settling event must carry; absent where no budget asks for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reservation_id: Option<String>,
    },
    /// The call may not.
    Deny(Denied),
}

/// Why a call is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Denied {
    /// The budget or guard that refuses it.
    pub budget: String,
    /// Why, a stable word: `budget_exceeded`, `budget_rebuilding`, `budget_unverifiable`,
    /// `throttled`, `shed`, or a guard's.
    pub reason: String,
    /// Whether the limit is not spent yet, and what is left of it is less than this call may need.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_short: bool,
    /// When the budget's window resets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset_at: Option<Timestamp>,
    /// Seconds after which asking again may help; reckoned from `reset_at` where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
    /// The limit for people, as `200 USD`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub limit: String,
    /// The window for people, as `day`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub window: String,
}

/// What a budget did to a call, in the call's event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Applied {
    /// The budget.
    pub budget: String,
    /// The action, as in `budgets.toml`.
    #[serde(rename = "do")]
    pub action: String,
    /// The reason of a denial; else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether it was only counted (`enforce = "observe"`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub observed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_by_older_and_newer_filters() {
        let json = r#"{"v":1,"version":7,"budgets":[{"budget":"eng","match":{"team":"a"},
            "per":["user"],"enforce":"strict","newer":1,
            "tiers":[{"at":"60%","do":"warn"},
                     {"at":"85%","do":"downgrade","models":{"gpt-4o":"gpt-4o-mini"}},
                     {"at":"90%","do":"teleport","to":"x"},
                     {"at":"100%","do":"deny","except":{"priority":"critical"}}],
            "reached":[{"key":["ann"],"tier":1,"reset_at":"2026-11-23T00:00:00Z"}],
            "on_unavailable":{"open_capped":{"nano":5}},"limit":"1 USD","window":"day"}]}"#;
        let table: DecisionTable = serde_json::from_str(json).unwrap();
        let budget = &table.budgets[0];
        assert_eq!(budget.enforce, Enforcement::Strict);
        assert_eq!(budget.tiers[2].action, Action::Unknown);
        assert!(!budget.tiers[3].except.is_empty());
        let again = serde_json::to_string(&table).unwrap();
        assert_eq!(
            serde_json::from_str::<DecisionTable>(&again).unwrap(),
            table
        );
        let bare: BudgetEntry = serde_json::from_str(r#"{"budget":"b","match":{}}"#).unwrap();
        assert_eq!(bare.on_unavailable, Unavailable::Open);
    }

    #[test]
    fn tiers_are_left_together_or_one_after_another() {
        let at = |second: i64| Timestamp::from_unix_ms(1_800_000_000_000 + second * 1_000);
        let never = Timestamp::default();
        for (reset_at, tier_resets, now, expected) in [
            (at(9), vec![], at(8), 3),
            (at(9), vec![], at(9), 0),
            (never, vec![], at(9), 3),
            (at(9), vec![at(9), at(5), at(2)], at(1), 3),
            (at(9), vec![at(9), at(5), at(2)], at(2), 2),
            (at(9), vec![at(9), at(5), at(2)], at(8), 1),
            (at(9), vec![at(9), at(5), at(2)], at(9), 0),
            (never, vec![never, at(5), at(5)], at(6), 1),
        ] {
            let state = KeyState {
                tier: 2,
                reset_at,
                tier_resets,
                ..KeyState::default()
            };
            assert_eq!(state.n_reached(now), expected, "{state:?} {now}");
        }
    }

    #[test]
    fn answers() {
        for (json, answer) in [
            (
                r#"{"decision":"allow"}"#,
                Decision::Allow {
                    reservation_id: None,
                },
            ),
            (
                r#"{"decision":"deny","budget":"b","reason":"budget_exceeded"}"#,
                Decision::Deny(Denied {
                    budget: "b".into(),
                    reason: "budget_exceeded".into(),
                    ..Denied::default()
                }),
            ),
        ] {
            assert_eq!(serde_json::to_string(&answer).unwrap(), json);
            assert_eq!(serde_json::from_str::<Decision>(json).unwrap(), answer);
        }
    }
}
