//! What the aggregator tells the filter about budgets.

use serde::{Deserialize, Serialize};

use crate::matching::Match;

/// What a filter does with calls that a budget concerns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetEntry {
    /// The budget's name.
    pub budget: String,
    /// The calls it concerns.
    #[serde(rename = "match")]
    pub matches: Match,
    /// Whether each call must be reserved before it leaves.
    #[serde(default)]
    pub strict: bool,
}

/// The body of `GET /v1/decisions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionTable {
    /// The wire version.
    pub v: u32,
    /// Grows with every change.
    pub version: u64,
    /// The budgets in force.
    #[serde(default)]
    pub budgets: Vec<BudgetEntry>,
}

/// The body of `POST /v1/reservations`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservationRequest {
    /// The wire version.
    pub v: u32,
    /// The event that will settle the reservation.
    pub event_id: String,
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
    Deny {
        /// The budget that refuses it.
        budget: String,
        /// Why, a stable word.
        reason: String,
        /// When the budget's window resets.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reset_at: Option<crate::Timestamp>,
    },
}
