//! The script with one of its rules broken.

use tollmesh_aggregator::budgets::store::redis::Script;
use tollmesh_budget::lease::Fault;

const SHIPPED: &str = include_str!("../../src/budgets/store/redis/sync.lua");

/// The script with that rule broken.
pub fn script(fault: Fault) -> Script {
    let (rule, broken) = match fault {
        Fault::NoSeqCheck => ("if seq > q0 then", "if true then"),
        Fault::DeltaForMax => ("c = max(c0, committed)", "c = c0 + committed"),
        Fault::NoRoomCap => ("minus(may, others + kept + held_back())", "limit"),
        Fault::NoRebuildHold => (
            "if now >= max(wait, marker_wait) then\n    local may = now < since + hold and \
             floor(limit / young_share) or limit",
            "if true then\n    local may = limit",
        ),
        Fault::NoFloor => (
            "if lost[5] >= lost[4] then return 0 end",
            "if true then return 0 end",
        ),
        Fault::NoClaimMerge => ("min(claim, target)", "min(claim, g0, target)"),
        Fault::NoVersionCheck => ("elseif forgot then", "elseif false then"),
        Fault::ReturnsTwice => ("lost[2] = minus(lost[2], returned)", ""),
        Fault::RecordWithoutRoom => ("min(claim, target)", "min(max(claim, g0), target)"),
    };
    let n_found = SHIPPED.matches(rule).count();
    assert_eq!(
        n_found, 1,
        "the script has the rule of {fault:?} {n_found} times"
    );
    Script::new(SHIPPED.replace(rule, broken))
}
