//! Guards in force: what one call, one trace or one session may not do, whatever budgets say.
//!
//! They are judged where calls are reserved, since the facts are there: the table tells filters to
//! ask for every call that a guard concerns. What belongs together is remembered in memory, for the
//! latest of it; a restart forgets.

mod fence;
mod seen;

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use tollmesh_budget::{Enforce, Guard};
use tollmesh_pricing::Book;
use tollmesh_wire::decision::{BudgetEntry, Enforcement, Unavailable};
use tollmesh_wire::{Denied, Event, Match, ModelNames, ReservationRequest, Subject};

use super::model_names;
use crate::alerts::{Alerts, GuardTripped};
use crate::ledger::Entry;
use crate::metrics::Metrics;
pub use fence::facts;
use fence::{Fence, Trip};
use seen::{Group, GroupKey, IDLE_MS, Seen};

/// Traces, sessions and the like that are remembered, over all guards: some 700 bytes each. Those
/// that were seen longest ago go first.
const GROUPS_MAX: usize = 10_000;

/// The guards of the file.
pub struct Guards {
    in_force: ArcSwap<Vec<Fence>>,
    seen: Mutex<Seen>,
    hasher: RandomState,
    metrics: Arc<Metrics>,
    alerts: OnceLock<Alerts>,
}

// === impl Guards ===

impl Guards {
    /// No guards yet.
    pub fn new(metrics: Arc<Metrics>) -> Guards {
        Guards {
            in_force: ArcSwap::default(),
            seen: Mutex::default(),
            hasher: RandomState::new(),
            metrics,
            alerts: OnceLock::new(),
        }
    }

    /// Puts these in force; the tables know the models that they ask for. What was seen under a
    /// name that stays is remembered.
    pub fn adopt(&self, guards: Vec<Guard>, book: &Book) {
        let asking = guards.iter().flat_map(|g| [&g.matches, &g.except]);
        let models = Arc::new(model_names::named(book, asking));
        let fences = guards.into_iter().map(|guard| Fence {
            matches: Match::new(guard.matches.clone()).knowing(&models),
            except: Match::new(guard.except.clone()).knowing(&models),
            models: Arc::clone(&models),
            guard,
        });
        self.in_force.store(Arc::new(fences.collect()));
    }

    /// Has other tables know the models that they ask for.
    pub fn rename(&self, book: &Book) {
        let guards = self.in_force.load();
        self.adopt(
            guards.iter().map(|fence| fence.guard.clone()).collect(),
            book,
        );
    }

    /// Names of the models that they ask for.
    pub fn models(&self) -> Arc<ModelNames> {
        let guards = self.in_force.load();
        guards
            .first()
            .map(|fence| Arc::clone(&fence.models))
            .unwrap_or_default()
    }

    /// Has these told of calls that are stopped.
    pub fn alert(&self, alerts: Alerts) {
        // Set once: nobody else begins.
        let _ = self.alerts.set(alerts);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.in_force.load().is_empty()
    }

    /// What filters are told: to ask for each call that a guard concerns, and to let it pass where
    /// nobody answers.
    pub fn entries(&self) -> Vec<BudgetEntry> {
        let fences = self.in_force.load();
        let entry = |fence: &Fence| BudgetEntry {
            budget: fence.guard.name.clone(),
            matches: fence.matches.clone(),
            enforce: Enforcement::Strict,
            on_unavailable: Unavailable::Open,
            ..BudgetEntry::default()
        };
        fences.iter().map(entry).collect()
    }

    /// Why a call may not go ahead; `None` where it may, which is then counted. `worst_pico` says
    /// what it costs at most. Asking twice for one event counts once, and is answered alike.
    pub fn judge(
        &self,
        request: &ReservationRequest,
        worst_pico: impl Fn() -> i128,
        unix_ms: i64,
    ) -> Option<Denied> {
        let fences = self.in_force.load();
        if fences.is_empty() {
            return None;
        }
        let subject = Subject::from(request);
        let concerned: Vec<&Fence> = fences.iter().filter(|f| f.concerns(&subject)).collect();
        let mut seen = self.seen();
        if !seen.asked.note(&request.event_id) {
            let denied = &seen.stopped(&request.event_id)?.denied;
            let mut concerned = concerned.iter();
            let stands = concerned.any(|f| f.acts() && f.guard.name == denied.budget);
            return stands.then(|| denied.clone());
        }
        for fence in &concerned {
            let key = fence.key(&subject, request.trace_id.as_deref());
            let group = key.as_ref().and_then(|key| seen.groups.get(key));
            let trip = fence
                .call(request, &worst_pico)
                .or_else(|| fence.group(group?, self.body(request), unix_ms));
            let Some(trip) = trip else {
                continue;
            };
            let values = key.map(|(_, values)| values).unwrap_or_default();
            self.tell(fence, &trip, &values, unix_ms);
            if fence.acts() {
                let denied = fence.denied(&trip);
                seen.stop(&request.event_id, &trip, &denied);
                return Some(denied);
            }
        }
        for fence in concerned {
            if let Some(key) = fence.key(&subject, request.trace_id.as_deref()) {
                let body = self.body(request);
                let group = self.group(&mut seen, key, unix_ms);
                group.pace.count(unix_ms);
                group.note_body(body, unix_ms);
            }
        }
        None
    }

    /// What was found of a call that was stopped, and what is let pass.
    pub fn why(&self, event_id: &str) -> Option<(String, String)> {
        let seen = self.seen();
        let stopped = seen.stopped(event_id);
        stopped.map(|stopped| (stopped.found.clone(), stopped.bound.clone()))
    }

    /// Counts what a call cost, as it is charged to budgets. What comes twice counts once.
    pub fn settle(&self, entry: &Entry, pico: i128, unix_ms: i64) {
        let fences = self.in_force.load();
        let event: &Event = &entry.event;
        let subject = Subject::from(event);
        let concerned = fences
            .iter()
            .filter(|f| f.guard.bounds.usd.is_some() && f.concerns(&subject));
        let keys: Vec<GroupKey> = concerned
            .filter_map(|fence| fence.key(&subject, event.trace_id.as_deref()))
            .collect();
        if keys.is_empty() {
            return;
        }
        let mut seen = self.seen();
        if !seen.charged.note(&event.event_id) {
            return;
        }
        for key in keys {
            self.group(&mut seen, key, unix_ms).spent_pico += pico;
        }
    }

    fn group<'s>(&self, seen: &'s mut Seen, key: GroupKey, unix_ms: i64) -> &'s mut Group {
        if seen.groups.len() >= GROUPS_MAX && !seen.groups.contains_key(&key) {
            let n_before = seen.groups.len();
            seen.make_room();
            let n_forgotten = n_before - seen.groups.len();
            self.metrics
                .guard_forgotten_total
                .inc_by(n_forgotten as u64);
        }
        let group = seen.groups.entry(key).or_default();
        if unix_ms.saturating_sub(group.last_ms) > IDLE_MS {
            *group = Group::default();
        }
        group.last_ms = group.last_ms.max(unix_ms);
        group
    }

    /// A short hash of a body's fingerprint.
    fn body(&self, request: &ReservationRequest) -> Option<u64> {
        let print = request.fingerprint.as_ref()?;
        Some(self.hasher.hash_one(print))
    }

    fn tell(&self, fence: &Fence, trip: &Trip, values: &[String], unix_ms: i64) {
        let guard = &fence.guard;
        let action = match (fence.acts(), guard.enforce) {
            (true, _) => "deny",
            (false, Enforce::Observe) => "observe",
            (false, _) => "warn",
        };
        self.metrics
            .guard_trips_total
            .with_label_values(&[guard.name.as_str(), trip.reason, action])
            .inc();
        if let Some(alerts) = self.alerts.get() {
            alerts.guard_tripped(&GuardTripped {
                guard,
                reason: trip.reason,
                found: &trip.found,
                bound: &trip.bound,
                key: guard.per.iter().cloned().zip(values.to_vec()).collect(),
                unix_ms,
            });
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // What it holds is whole after each statement, whoever panicked.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tollmesh_budget::guard::IDENTICAL_MS;

    use super::seen::EVENTS_MAX;
    use super::*;
    use crate::config::budgets::parse_all;

    const NOON: i64 = 1_800_000_000_000;

    fn guards(text: &str) -> Guards {
        let guards = Guards::new(Arc::new(Metrics::new().unwrap()));
        guards.adopt(
            parse_all("budgets.toml", text).unwrap().guards,
            &Book::default(),
        );
        guards
    }

    fn guard(more: &str) -> Guards {
        guards(&format!(
            "[[guard]]\nname = \"g\"\nenforce = \"strict\"\n{more}\n"
        ))
    }

    fn call(id: &str) -> ReservationRequest {
        ReservationRequest {
            v: 1,
            event_id: id.into(),
            trace_id: Some("t1".into()),
            provider: "openai".into(),
            body_bytes: 400,
            ..ReservationRequest::default()
        }
    }

    /// The reason of the denial, or `pass`.
    fn judge(guards: &Guards, request: &ReservationRequest, at_ms: i64) -> String {
        let denied = guards.judge(request, || 1_500_000_000_000, NOON + at_ms);
        denied.map_or_else(|| "pass".to_owned(), |denied| denied.reason)
    }

    fn entry(id: &str, trace: &str) -> Entry {
        let event = Event {
            event_id: id.into(),
            trace_id: Some(trace.into()),
            provider: "openai".into(),
            ..Event::default()
        };
        Entry {
            event,
            cost: crate::ledger::CostRecord::free("v".into()),
        }
    }

    #[test]
    fn a_call_alone() {
        let guards = guard("max_input_tokens = 100\nmax_request_cost = \"1.5 USD\"");
        assert_eq!(judge(&guards, &call("a"), 0), "pass");
        let large = ReservationRequest {
            body_bytes: 401,
            ..call("b")
        };
        assert_eq!(judge(&guards, &large, 0), "guard_input");
        let media = ReservationRequest {
            body_bytes: 300,
            media_bytes: 200,
            ..call("c")
        };
        assert_eq!(judge(&guards, &media, 0), "guard_input");
        let dear = guard("max_request_cost = \"1.4 USD\"");
        let denied = dear.judge(&call("d"), || 1_500_000_000_000, NOON).unwrap();
        assert_eq!(
            (
                denied.budget.as_str(),
                denied.reason.as_str(),
                denied.limit.as_str()
            ),
            ("g", "guard_cost", "1.4 USD a call")
        );
    }

    #[test]
    fn a_trace_that_runs_too_fast() {
        let guards = guard("per = [\"trace_id\"]\nmax_requests_per_minute = 3");
        for n in 0..3 {
            assert_eq!(judge(&guards, &call(&format!("a{n}")), n * 1_000), "pass");
        }
        let denied = guards.judge(&call("b"), || 0, NOON + 3_000).unwrap();
        assert_eq!(
            (denied.reason.as_str(), denied.retry_after_seconds),
            ("guard_rate", Some(62))
        );
        // Asked twice, and of another trace, and without any.
        assert_eq!(judge(&guards, &call("a0"), 3_000), "pass");
        let other = ReservationRequest {
            trace_id: Some("t2".into()),
            ..call("c")
        };
        assert_eq!(judge(&guards, &other, 3_000), "pass");
        let none = ReservationRequest {
            trace_id: None,
            ..call("d")
        };
        assert_eq!(judge(&guards, &none, 3_000), "pass");
        assert_eq!(judge(&guards, &call("e"), 66_000), "pass");
    }

    #[test]
    fn a_call_that_is_asked_for_twice_is_answered_alike() {
        let guards = guard("max_input_tokens = 99");
        let first = guards.judge(&call("a"), || 0, NOON).unwrap();
        for n in 1..3 {
            assert_eq!(
                guards.judge(&call("a"), || 0, NOON + n),
                Some(first.clone())
            );
        }
        let trips = &guards.metrics.guard_trips_total;
        let n_trips = trips.with_label_values(&["g", "guard_input", "deny"]).get();
        assert_eq!(n_trips, 1, "it is stopped once");
        // What nobody forbids any more is let go ahead.
        let text = "[[guard]]\nname = \"g\"\nenforce = \"observe\"\nmax_input_tokens = 99";
        guards.adopt(
            parse_all("budgets.toml", text).unwrap().guards,
            &Book::default(),
        );
        assert_eq!(judge(&guards, &call("a"), 3), "pass");
    }

    #[test]
    fn a_trace_that_has_cost_enough() {
        let guards = guard("per = [\"trace_id\"]\nmax_cost = \"2 USD\"");
        assert_eq!(judge(&guards, &call("a"), 0), "pass");
        guards.settle(&entry("a", "t1"), 1_999_999_999_999, NOON);
        assert_eq!(judge(&guards, &call("b"), 0), "pass");
        guards.settle(&entry("b", "t1"), 1, NOON);
        guards.settle(&entry("c", "t2"), 5_000_000_000_000, NOON);
        assert_eq!(judge(&guards, &call("d"), 0), "guard_cost");
        // What is sent again is charged once.
        let guards = guard("per = [\"trace_id\"]\nmax_cost = \"2 USD\"");
        guards.settle(&entry("a", "t1"), 1_000_000_000_000, NOON);
        guards.settle(&entry("a", "t1"), 1_000_000_000_000, NOON);
        assert_eq!(judge(&guards, &call("b"), 0), "pass");
        // A day later it is another one.
        guards.settle(&entry("b", "t1"), 1_000_000_000_000, NOON);
        assert_eq!(judge(&guards, &call("c"), 0), "guard_cost");
        assert_eq!(judge(&guards, &call("d"), IDLE_MS + 1), "pass");
    }

    #[test]
    fn a_loop_of_identical_requests() {
        let guards = guard("per = [\"trace_id\"]\nmax_identical_requests = 2");
        let same = |id: &str, print: &str| ReservationRequest {
            fingerprint: Some(print.into()),
            ..call(id)
        };
        assert_eq!(judge(&guards, &same("a", "x"), 0), "pass");
        assert_eq!(judge(&guards, &same("b", "y"), 1_000), "pass");
        assert_eq!(judge(&guards, &same("c", "x"), 2_000), "pass");
        let denied = guards.judge(&same("d", "x"), || 0, NOON + 3_000).unwrap();
        assert_eq!(
            (denied.reason.as_str(), denied.retry_after_seconds),
            ("guard_loop", Some(597))
        );
        assert_eq!(judge(&guards, &same("e", "y"), 4_000), "pass");
        assert_eq!(judge(&guards, &call("f"), 4_000), "pass");
        assert_eq!(judge(&guards, &same("g", "x"), IDENTICAL_MS), "pass");
    }

    #[test]
    fn what_observes_warns_or_spares_lets_pass() {
        for more in [
            "max_input_tokens = 1\nenforce = \"observe\"",
            "max_input_tokens = 1\nenforce = \"strict\"\ndo = \"warn\"",
            "max_input_tokens = 1\nenforce = \"strict\"\nexcept = { provider = \"openai\" }",
            "max_input_tokens = 1\nenforce = \"strict\"\nmatch = { provider = \"anthropic\" }",
        ] {
            let guards = guards(&format!("[[guard]]\nname = \"g\"\n{more}\n"));
            assert_eq!(judge(&guards, &call("a"), 0), "pass", "{more}");
            assert_eq!(guards.entries().len(), 1);
        }
    }

    #[test]
    fn memory_is_bound_and_the_latest_is_kept() {
        let guards = guard("per = [\"trace_id\"]\nmax_requests_per_minute = 2");
        for n in 0..GROUPS_MAX as i64 + 5 {
            let request = ReservationRequest {
                trace_id: Some(format!("t{n}")),
                ..call(&format!("e{n}"))
            };
            assert_eq!(judge(&guards, &request, n), "pass");
        }
        let n_groups = guards.seen().groups.len();
        assert!(
            n_groups <= GROUPS_MAX && n_groups > GROUPS_MAX / 2,
            "{n_groups}"
        );
        assert!(guards.seen().asked.order.len() <= EVENTS_MAX);
        let forgotten = guards.metrics.guard_forgotten_total.get() as usize;
        assert_eq!(forgotten, GROUPS_MAX + 5 - n_groups);
        let latest = ReservationRequest {
            trace_id: Some(format!("t{}", GROUPS_MAX + 4)),
            ..call("x")
        };
        assert_eq!(judge(&guards, &latest, 20_000), "pass");
        let again = ReservationRequest {
            event_id: "y".into(),
            ..latest
        };
        assert_eq!(judge(&guards, &again, 20_001), "guard_rate");
    }
}
