//! What the filter counts about itself, shown by Envoy as `wasmcustom.tollmesh_filter_*`.

use std::cell::Cell;

use tollmesh_usage::Trouble;

/// Something that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Events put into the queue.
    EventsQueued,
    /// Events that the aggregator has acknowledged.
    EventsSent,
    /// Batches sent once more because no acknowledgement came.
    BatchesResent,
    /// Events lost because the queue was full, or because the filter was unloaded.
    EventsDropped,
    /// Events of long connections that had to leave the access log's record.
    EventsUnrecorded,
    /// Events that the aggregator will never take.
    EventsRejected,
    /// Calls to a provider that cannot be read.
    UnmeteredProviderCalls,
    /// Calls refused.
    DeniedRequests,
    /// Tags that were not text or too many, and tag values that were cut.
    TagsRefused,
    /// Tags for which a request claims something else than the mesh knows of its caller.
    TagConflicts,
    /// Calls without a tag that is required.
    UntaggedRequests,
    /// What budgets that only observe would have done.
    BudgetActionsObserved,
    /// Edits that a budget wanted and that could not be made, so that the app was told instead.
    BudgetEditsUnmade,
    /// Reservations asked for.
    ReservationsAsked,
    /// Calls of strict budgets about which the aggregator could not be asked.
    UnverifiedCalls,
    /// Questions for the decision table that were not answered.
    DecisionPollsFailed,
    /// Answers that said without being believed that their call was counted elsewhere.
    RelayClaimsRefused,
    /// Usage events that we asked for and could not cut out of the answer.
    UsageEventsLeft,
    /// Plugin configurations that could not be used; such a filter meters nothing.
    BadConfigurations,
    /// Calls to the host that it refused, and states that cannot be.
    Faults,
    /// Scans that are less than whole, by kind.
    Trouble(Trouble),
}

const PLAIN: [Counter; 20] = [
    Counter::EventsQueued,
    Counter::EventsSent,
    Counter::BatchesResent,
    Counter::EventsDropped,
    Counter::EventsUnrecorded,
    Counter::EventsRejected,
    Counter::UnmeteredProviderCalls,
    Counter::DeniedRequests,
    Counter::TagsRefused,
    Counter::TagConflicts,
    Counter::UntaggedRequests,
    Counter::BudgetActionsObserved,
    Counter::BudgetEditsUnmade,
    Counter::ReservationsAsked,
    Counter::UnverifiedCalls,
    Counter::DecisionPollsFailed,
    Counter::RelayClaimsRefused,
    Counter::UsageEventsLeft,
    Counter::BadConfigurations,
    Counter::Faults,
];

impl Counter {
    /// Every counter.
    pub fn all() -> impl Iterator<Item = Counter> {
        PLAIN
            .into_iter()
            .chain(Trouble::ALL.into_iter().map(Counter::Trouble))
    }

    /// The metric's name.
    pub fn name(self) -> String {
        let thing = match self {
            Counter::EventsQueued => "events_queued",
            Counter::EventsSent => "events_sent",
            Counter::BatchesResent => "batches_resent",
            Counter::EventsDropped => "events_dropped",
            Counter::EventsUnrecorded => "events_unrecorded",
            Counter::EventsRejected => "events_rejected",
            Counter::UnmeteredProviderCalls => "unmetered_provider_calls",
            Counter::DeniedRequests => "denied_requests",
            Counter::TagsRefused => "tags_refused",
            Counter::TagConflicts => "tag_conflicts",
            Counter::UntaggedRequests => "untagged_requests",
            Counter::BudgetActionsObserved => "budget_actions_observed",
            Counter::BudgetEditsUnmade => "budget_edits_unmade",
            Counter::ReservationsAsked => "reservations_asked",
            Counter::UnverifiedCalls => "unverified_calls",
            Counter::DecisionPollsFailed => "decision_polls_failed",
            Counter::RelayClaimsRefused => "relay_claims_refused",
            Counter::UsageEventsLeft => "usage_events_left",
            Counter::BadConfigurations => "bad_configurations",
            Counter::Faults => "faults",
            Counter::Trouble(kind) => {
                return format!("tollmesh_filter_trouble_{}_total", kind.name());
            }
        };
        format!("tollmesh_filter_{thing}_total")
    }
}

/// The counts of one worker since it last told them to the host: telling is a host call, so it is
/// done on the tick and not in a request's way.
#[derive(Debug)]
pub struct Counters {
    counts: Vec<(Counter, Cell<u64>)>,
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            counts: Counter::all().map(|c| (c, Cell::new(0))).collect(),
        }
    }
}

impl Counters {
    /// Counts one.
    pub fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts that many.
    pub fn add(&self, counter: Counter, n: u64) {
        if let Some((_, count)) = self.counts.iter().find(|(c, _)| *c == counter) {
            count.set(count.get().saturating_add(n));
        }
    }

    /// What was counted since the last time, by place in [`Counter::all`]; zeros are left out.
    pub fn drain(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let counts = self.counts.iter().enumerate();
        counts
            .map(|(i, (_, count))| (i, count.take()))
            .filter(|(_, n)| *n > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_told_once() {
        let counters = Counters::default();
        counters.count(Counter::EventsQueued);
        counters.add(Counter::Trouble(Trouble::Truncated), 2);
        let told: Vec<_> = counters.drain().collect();
        let trouble = PLAIN.len();
        assert_eq!(told, [(0, 1), (trouble, 2)]);
        assert_eq!(counters.drain().count(), 0);
    }

    #[test]
    fn names_are_those_of_the_documentation() {
        let documented = include_str!("../../../envoy/README.md");
        let mut names = std::collections::BTreeSet::new();
        for counter in Counter::all() {
            let name = counter.name();
            let listed = match counter {
                Counter::Trouble(kind) => {
                    documented.contains("tollmesh_filter_trouble_<kind>_total")
                        && documented.contains(&format!("`{}`", kind.name()))
                }
                _ => documented.contains(&format!("`{name}`")),
            };
            assert!(listed, "{name} is not in envoy/README.md");
            assert!(names.insert(name));
        }
    }
}
