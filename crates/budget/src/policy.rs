//! What an operator asks of one budget, checked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use rust_decimal::Decimal;

use crate::limit::Limit;
use crate::window::Window;

/// How hard a limit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Enforce {
    /// Counts what it would have done, and does nothing.
    #[default]
    Observe,
    /// Acts on the last decision that filters know; concurrent calls can pass a spent limit.
    Cached,
    /// Reserves the worst case before a call leaves; the limit holds.
    Strict,
}

/// What a strict budget does while no lease can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnavailable {
    /// Refuses calls.
    Closed,
    /// Lets calls pass.
    Open,
    /// Lets calls pass until each node has spent so much.
    OpenCapped {
        /// A node's allowance, in the limit's unit.
        allowance: Decimal,
    },
}

/// What happens to calls once a tier is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing; somebody is told.
    Warn,
    /// The app is told by a response header.
    Header,
    /// The output limit is lowered.
    CapOutput {
        /// Tokens.
        max_tokens: u64,
    },
    /// Cheaper models are asked for instead.
    Downgrade {
        /// Model asked for, to model to ask for.
        models: BTreeMap<String, String>,
    },
    /// Only so many calls pass.
    Throttle {
        /// Calls a second.
        requests_per_second: u32,
    },
    /// What is not critical is refused.
    Shed,
    /// Calls are refused.
    Deny,
}

/// A share of the limit, and what happens there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// The share of the limit at which it begins, as a fraction: 0.85 for 85 %.
    pub at: Decimal,
    /// What happens.
    pub action: Action,
    /// Calls with all these tags are spared.
    pub except: BTreeMap<String, String>,
    /// Receivers that are told, by name.
    pub notify: Vec<String>,
}

/// One budget.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Its name, unique.
    pub name: String,
    /// What a call must be for the budget to concern it.
    pub matches: BTreeMap<String, String>,
    /// Keys whose every value has the limit for itself.
    pub per: BTreeSet<String>,
    /// The most that may be spent in a window.
    pub limit: Limit,
    /// The window.
    pub window: Window,
    /// The zone on whose clock windows begin.
    pub zone: TimeZone,
    /// How hard the limit is.
    pub enforce: Enforce,
    /// What happens while no lease can be had.
    pub on_unavailable: OnUnavailable,
    /// Rising shares of the limit.
    pub tiers: Vec<Tier>,
    /// The longest that a call may take: what is reserved for it stays reserved for so long where
    /// nobody says how it ended.
    pub max_stream: Duration,
    /// Output tokens that are reserved for an answer whose call names no limit.
    pub estimate_output_tokens: u64,
    /// Other names of the models that `matches` and the tiers' `except` ask for, as far as they are
    /// known.
    pub models: Arc<ModelNames>,
}

/// Other names of models, as patterns, by the name that a match asks for.
pub type ModelNames = BTreeMap<String, Arc<[String]>>;

/// Longer answers are rare; a reservation that nobody settles costs room for that long.
pub const MAX_STREAM_DEFAULT: Duration = Duration::from_secs(3600);

/// Why a policy cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Tiers must rise, or an action would never be reached.
    #[error("tiers[{index}].at: {at} is not above the tier before it; list tiers in rising order")]
    TiersOutOfOrder {
        /// Position of the tier.
        index: usize,
        /// Its share.
        at: Decimal,
    },
    /// A share of nothing, or less.
    #[error("tiers[{index}].at: {at} is not above 0; write a share of the limit such as \"85%\"")]
    TierNotPositive {
        /// Position of the tier.
        index: usize,
        /// Its share.
        at: Decimal,
    },
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
        }
    }
}

impl Policy {
    /// Whether its tiers rise from above nothing.
    pub fn check(&self) -> Result<(), PolicyError> {
        let mut before = Decimal::ZERO;
        for (index, tier) in self.tiers.iter().enumerate() {
            if tier.at <= Decimal::ZERO {
                return Err(PolicyError::TierNotPositive { index, at: tier.at });
            }
            if tier.at <= before {
                return Err(PolicyError::TiersOutOfOrder { index, at: tier.at });
            }
            before = tier.at;
        }
        Ok(())
    }

    /// Where a strict budget refuses calls: the share of its lowest `deny` tier, else the whole.
    pub fn hard_share(&self) -> Decimal {
        let deny = self.tiers.iter().find(|tier| tier.action == Action::Deny);
        deny.map_or(Decimal::ONE, |tier| tier.at)
    }

    /// The highest tier that `spent`, in the limit's unit, has reached, with its position.
    pub fn tier_at(&self, spent: Decimal) -> Option<(usize, &Tier)> {
        let limit = self.limit.amount();
        self.tiers.iter().enumerate().rev().find(|(_, tier)| {
            limit
                .checked_mul(tier.at)
                .is_some_and(|floor| spent >= floor)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(shares: &[&str]) -> Policy {
        let tier = |at: &&str| Tier {
            at: at.parse().unwrap(),
            action: Action::Warn,
            except: BTreeMap::new(),
            notify: Vec::new(),
        };
        Policy {
            name: "checkout-daily".into(),
            matches: BTreeMap::new(),
            per: BTreeSet::new(),
            limit: "200 USD".parse().unwrap(),
            window: Window::Day,
            zone: TimeZone::UTC,
            enforce: Enforce::Observe,
            on_unavailable: OnUnavailable::Open,
            tiers: shares.iter().map(tier).collect(),
            max_stream: MAX_STREAM_DEFAULT,
            estimate_output_tokens: 4_096,
            models: Arc::default(),
        }
    }

    #[test]
    fn a_tier_begins_at_its_share() {
        let policy = policy(&["0.60", "0.85", "1"]);
        for (spent, tier) in [
            ("119.99", None),
            ("120", Some(0)),
            ("169.999", Some(0)),
            ("170", Some(1)),
            ("900", Some(2)),
        ] {
            let reached = policy
                .tier_at(spent.parse().unwrap())
                .map(|(index, _)| index);
            assert_eq!(reached, tier, "{spent}");
        }
    }

    #[test]
    fn tiers_that_do_not_rise_are_refused() {
        assert_eq!(policy(&["0.6", "0.85"]).check(), Ok(()));
        for (shares, why) in [
            (
                ["0.85", "0.6"],
                "tiers[1].at: 0.6 is not above the tier before it; list tiers in rising order",
            ),
            (
                ["0", "1"],
                r#"tiers[0].at: 0 is not above 0; write a share of the limit such as "85%""#,
            ),
        ] {
            assert_eq!(
                policy(&shares).check().map_err(|e| e.to_string()),
                Err(why.to_owned())
            );
        }
    }
}
