//! What filters may do: the decision table, and answers to reservations.
//!
//! No budgets are configurable yet, so the table is empty and every reservation is allowed.

use std::time::Duration;

use hyper::StatusCode;
use tollmesh_wire::{Decision, DecisionTable, ReservationRequest, VERSION};

use crate::problem::Problem;

/// Proxies and middleboxes cut what is silent for longer.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// The version of the table that says nothing.
const TABLE_VERSION: u64 = 1;

/// A filter's question for a newer table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Poll {
    /// The version that it has; 0 for none.
    after: u64,
    /// How long it waits for a newer one.
    wait: Duration,
}

impl Poll {
    /// Reads `after=V&wait_ms=N`.
    pub fn parse(query: &str) -> Result<Poll, Problem> {
        let mut poll = Poll::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let number = || {
                value.parse::<u64>().map_err(|_| {
                    let detail = format!("{name} is {value:?}; expected a whole number");
                    Problem::new(StatusCode::BAD_REQUEST, detail)
                })
            };
            match name {
                "after" => poll.after = number()?,
                "wait_ms" => poll.wait = Duration::from_millis(number()?).min(WAIT_MAX),
                // A newer filter may say more.
                _ => {}
            }
        }
        Ok(poll)
    }

    /// Returns when there is something to answer. A version that is not ours is from another life
    /// of the aggregator and is answered at once.
    pub async fn wait(&self) {
        if self.after == TABLE_VERSION {
            tokio::time::sleep(self.wait).await;
        }
    }
}

/// The table in force.
pub fn table() -> DecisionTable {
    DecisionTable {
        v: VERSION,
        version: TABLE_VERSION,
        budgets: Vec::new(),
    }
}

/// The answer to a reservation.
pub fn reserve(body: &[u8]) -> Result<Decision, Problem> {
    let request: ReservationRequest = serde_json::from_slice(body).map_err(|error| {
        let detail = format!("not a reservation of wire version {VERSION}: {error}");
        Problem::new(StatusCode::BAD_REQUEST, detail)
    })?;
    if request.v != VERSION {
        let error = tollmesh_wire::WireError::Version {
            got: u64::from(request.v),
        };
        return Err(Problem::new(StatusCode::BAD_REQUEST, error.to_string()));
    }
    Ok(Decision::Allow {
        reservation_id: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls() {
        let poll = Poll::parse("after=1&wait_ms=250&newer=x").unwrap();
        assert_eq!(poll.after, 1);
        assert_eq!(poll.wait, Duration::from_millis(250));
        assert_eq!(Poll::parse("").unwrap(), Poll::default());
        assert_eq!(Poll::parse("wait_ms=9999999").unwrap().wait, WAIT_MAX);
        assert_eq!(
            Poll::parse("after=x").unwrap_err().detail,
            "after is \"x\"; expected a whole number"
        );
    }

    #[test]
    fn reservations() {
        let allowed = reserve(br#"{"v":1,"event_id":"e"}"#).unwrap();
        assert_eq!(
            serde_json::to_string(&allowed).unwrap(),
            r#"{"decision":"allow"}"#
        );
        let refused = reserve(br#"{"v":2,"event_id":"e"}"#).unwrap_err();
        assert!(refused.detail.contains("wire version 2"), "{refused:?}");
        assert_eq!(reserve(b"{").unwrap_err().status, 400);
    }
}
