//! Responses: the usage that is read does not depend on chunks, whatever the bytes are.

use tollmesh_usage::estimate::{Calibration, Call};
use tollmesh_usage::{RequestFacts, Scan, Target, Usage, UsageSource};

use super::Input;
use super::read::{CALLS, CONTENT_TYPES, scan, target};

/// Checks one input.
pub fn check(input: &[u8]) {
    let Some(input) = Input::new(input) else {
        return;
    };
    let choice = usize::from(input.choice);
    let content_type = CONTENT_TYPES[choice / CALLS.len() % CONTENT_TYPES.len()];
    let target = target(choice);
    let whole = scan(&target, content_type, None, [input.body].into_iter());
    assert_eq!(scan(&target, content_type, None, input.chunks()), whole);
    estimate(&target, whole.1);
}

/// Whatever was read can be learnt from and completed, and no estimate is absurd.
fn estimate(target: &Target, whole: Scan) {
    let request = RequestFacts {
        body_bytes: whole.relayed.body_bytes,
        ..RequestFacts::default()
    };
    let call = Call {
        api: target.api,
        request: &request,
        status: Some(200),
        has_ended: false,
    };
    let mut calibration = Calibration::default();
    calibration.learn(&whole, &call);
    let mut silent = Scan {
        usage: Usage::new(),
        usage_source: UsageSource::Absent,
        complete: Some(false),
        billable: true,
        ..whole
    };
    calibration.complete(&mut silent, &call);
    for (bucket, n_tokens) in silent.usage.tokens() {
        let name = bucket.name();
        assert!(n_tokens <= 4_000_000, "{n_tokens} tokens of {name}");
    }
}
