//! What filters ask about budgets, read and checked.

use std::time::Duration;

use hyper::StatusCode;
use tollmesh_wire::{ReservationRequest, VERSION};

use crate::problem::Problem;

/// Proxies and middleboxes cut what is silent for longer.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A filter's question for a newer table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Poll {
    /// The version that it has; 0 for none.
    pub after: u64,
    /// How long it waits for a newer one.
    pub wait: Duration,
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
}

/// Reads a question for a reservation.
pub fn reservation(body: &[u8]) -> Result<ReservationRequest, Problem> {
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
    if request.event_id.is_empty() {
        let detail = "event_id is missing; the event that settles the reservation has it";
        return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
    }
    Ok(request)
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
        let read = reservation(br#"{"v":1,"event_id":"e","body_bytes":7}"#).unwrap();
        assert_eq!((read.event_id.as_str(), read.body_bytes), ("e", 7));
        for (body, why) in [
            (&br#"{"v":2,"event_id":"e"}"#[..], "wire version 2"),
            (br#"{"v":1}"#, "event_id is missing"),
            (b"{", "not a reservation of wire version 1"),
        ] {
            let refused = reservation(body).unwrap_err();
            assert_eq!(refused.status, 400);
            assert!(refused.detail.contains(why), "{refused:?}");
        }
    }
}
