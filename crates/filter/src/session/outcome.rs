//! The verdict on how a call ended.

use tollmesh_usage::Scan;
use tollmesh_wire::Outcome;

use super::Ending;

/// `DC`: the client went away
/// (<https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage>;
/// the bit is `DownstreamConnectionTermination` of Envoy's `CoreResponseFlag`).
const DOWNSTREAM_CONNECTION_TERMINATION: u64 = 1 << 14;
/// `DR`: the client reset its HTTP/2 stream (`DownstreamRemoteReset`).
const DOWNSTREAM_REMOTE_RESET: u64 = 1 << 28;

/// How a call ended that was answered. `ended` says whether the proxy saw the response's end.
pub(super) fn outcome(status: Option<u16>, ended: bool, scan: &Scan) -> Outcome {
    if status.is_none_or(|status| status >= 400) || scan.is_error {
        return Outcome::Error;
    }
    // A stream that has said its last word is whole, also where the client did not wait for the
    // connection's end; a stream that has not is cut, also where its connection ended well.
    match (scan.complete, ended) {
        (Some(true), _) | (None, true) => Outcome::Success,
        (Some(false), _) | (None, false) => Outcome::Aborted,
    }
}

/// How a call ended that nobody answered.
pub(super) fn unanswered_outcome(ending: &Ending<'_>) -> Outcome {
    const GONE: u64 = DOWNSTREAM_CONNECTION_TERMINATION | DOWNSTREAM_REMOTE_RESET;
    match ending.response_flags & GONE {
        0 => Outcome::Error,
        _ => Outcome::Aborted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_then_the_bodys_word_then_the_connections() {
        let scan = |complete, is_error| Scan {
            complete,
            is_error,
            ..Scan::default()
        };
        for (status, ended, complete, is_error, expected) in [
            (Some(200), true, Some(true), false, Outcome::Success),
            (Some(200), false, Some(true), false, Outcome::Success),
            (Some(200), true, None, false, Outcome::Success),
            (Some(200), false, None, false, Outcome::Aborted),
            (Some(200), true, Some(false), false, Outcome::Aborted),
            (Some(200), true, Some(true), true, Outcome::Error),
            (Some(429), true, None, true, Outcome::Error),
            (Some(503), false, None, false, Outcome::Error),
            (None, false, None, false, Outcome::Error),
        ] {
            let got = outcome(status, ended, &scan(complete, is_error));
            assert_eq!(got, expected, "{status:?} {ended} {complete:?} {is_error}");
        }
    }

    #[test]
    fn without_an_answer_the_flags_decide() {
        let ending = |response_flags| Ending {
            response_flags,
            ..Ending::default()
        };
        assert_eq!(unanswered_outcome(&ending(1 << 14)), Outcome::Aborted);
        assert_eq!(unanswered_outcome(&ending(1 << 28)), Outcome::Aborted);
        assert_eq!(unanswered_outcome(&ending(4)), Outcome::Error);
    }
}
