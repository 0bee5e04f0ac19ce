//! Guards in force: what one call, one trace or one session may not do, whatever budgets say.
//!
//! They are judged where calls are reserved, since the facts are there: the table tells filters to
//! ask for every call that a guard concerns. What belongs together is remembered in memory, for the
//! latest of it; a restart forgets.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use rust_decimal::Decimal;
use tollmesh_budget::estimate::{self, OUTPUT_TOKENS_DEFAULT};
use tollmesh_budget::guard::IDENTICAL_MS;
use tollmesh_budget::{Enforce, Facts, Guard, Pace};
use tollmesh_wire::decision::{BudgetEntry, Enforcement, Unavailable};
use tollmesh_wire::{Denied, Event, Match, ReservationRequest, Subject};

use crate::alerts::{Alerts, GuardTripped};
use crate::ledger::Entry;
use crate::metrics::Metrics;

/// Traces, sessions and the like that are remembered, over all guards: some 700 bytes each. Those
/// that were seen longest ago go first.
const GROUPS_MAX: usize = 10_000;
/// Bodies of one of them that are remembered.
const BODIES_MAX: usize = 16;
/// Events whose ids are remembered, so that what comes twice counts once.
const EVENTS_MAX: usize = 8_192;
/// Calls that were stopped whose facts are kept until their events come.
const STOPPED_MAX: usize = 4_096;
/// What was not seen for so long is over: milliseconds.
const IDLE_MS: i64 = 24 * 3_600_000;
/// Bytes of text that a token mostly takes, at least. A guard is a fence and no meter: what a budget
/// reserves goes by the byte.
const BYTES_PER_TOKEN: u64 = 4;

/// The guards of the file.
pub struct Guards {
    in_force: ArcSwap<Vec<Fence>>,
    seen: Mutex<Seen>,
    hasher: RandomState,
    metrics: Arc<Metrics>,
    alerts: OnceLock<Alerts>,
}

/// One guard, with what is reckoned once.
struct Fence {
    guard: Guard,
    matches: Match,
    except: Match,
}

/// What was seen of calls that belong together.
#[derive(Default)]
struct Seen {
    groups: HashMap<GroupKey, Group>,
    asked: Recent,
    charged: Recent,
    /// Events of calls that were stopped, with what was found and what is let pass.
    stopped: VecDeque<(String, String, String)>,
}

/// A guard's name, and the values of its `per`.
type GroupKey = (String, Vec<String>);

#[derive(Default)]
struct Group {
    last_ms: i64,
    pace: Pace,
    spent_pico: i128,
    /// Hash of a body, when it came first, and how often it came since.
    bodies: VecDeque<(u64, i64, u32)>,
}

/// The latest of many names.
#[derive(Default)]
struct Recent {
    order: VecDeque<Box<str>>,
    names: HashSet<Box<str>>,
}

/// What a guard found.
struct Trip {
    reason: &'static str,
    found: String,
    bound: String,
    retry_after_seconds: Option<u64>,
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

    /// Puts these in force. What was seen under a name that stays is remembered.
    pub fn adopt(&self, guards: Vec<Guard>) {
        let fences = guards.into_iter().map(|guard| Fence {
            matches: Match::new(guard.matches.clone()),
            except: Match::new(guard.except.clone()),
            guard,
        });
        self.in_force.store(Arc::new(fences.collect()));
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
    /// what it costs at most. Asking twice for one event counts once.
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
        let is_new = seen.asked.note(&request.event_id);
        for fence in &concerned {
            let key = fence.key(&subject, request.trace_id.as_deref());
            let group = key.as_ref().and_then(|key| seen.groups.get(key));
            let trip = fence
                .call(request, &worst_pico)
                .or_else(|| fence.group(group?, self.body(request), unix_ms));
            let Some(trip) = trip.filter(|_| is_new) else {
                continue;
            };
            let values = key.map(|(_, values)| values).unwrap_or_default();
            self.tell(fence, &trip, &values, unix_ms);
            if fence.acts() {
                seen.stop(&request.event_id, &trip);
                return Some(fence.denied(&trip));
            }
        }
        if is_new {
            for fence in concerned {
                if let Some(key) = fence.key(&subject, request.trace_id.as_deref()) {
                    let body = self.body(request);
                    let group = self.group(&mut seen, key, unix_ms);
                    group.pace.count(unix_ms);
                    group.note_body(body, unix_ms);
                }
            }
        }
        None
    }

    /// What was found of a call that was stopped, and what is let pass.
    pub fn why(&self, event_id: &str) -> Option<(String, String)> {
        let seen = self.seen();
        let mut latest = seen.stopped.iter().rev();
        let stopped = latest.find(|(id, ..)| id == event_id);
        stopped.map(|(_, found, bound)| (found.clone(), bound.clone()))
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

// === impl Fence ===

impl Fence {
    fn concerns(&self, subject: &Subject<'_>) -> bool {
        let is_spared = !self.except.is_empty() && self.except.matches(subject);
        self.matches.matches(subject) && !is_spared
    }

    fn acts(&self) -> bool {
        self.guard.refuses && self.guard.enforce != Enforce::Observe
    }

    /// What the call belongs to; `None` where nothing is bound beyond a call, or it lacks a value.
    fn key(&self, subject: &Subject<'_>, trace_id: Option<&str>) -> Option<GroupKey> {
        if !self.guard.bounds.look_beyond_a_call() {
            return None;
        }
        let value = |name: &String| match name.as_str() {
            "trace_id" => trace_id,
            name => subject.value(name),
        };
        let values = self.guard.per.iter().map(value);
        let values: Option<Vec<String>> = values
            .map(|value| value.filter(|v| !v.is_empty()).map(str::to_owned))
            .collect();
        Some((self.guard.name.clone(), values?))
    }

    /// What is wrong with the call itself.
    fn call(&self, request: &ReservationRequest, worst_pico: &impl Fn() -> i128) -> Option<Trip> {
        let bounds = &self.guard.bounds;
        let tokens = input_tokens(request);
        if let Some(bound) = bounds.input_tokens.filter(|bound| tokens > *bound) {
            return Some(Trip {
                reason: "guard_input",
                found: format!("about {tokens} input tokens"),
                bound: format!("{bound} input tokens a call"),
                retry_after_seconds: None,
            });
        }
        let bound = bounds.request_usd?;
        let worst = usd(worst_pico());
        (worst > bound).then(|| Trip {
            reason: "guard_cost",
            found: format!("up to {} USD", worst.round_dp(6).normalize()),
            bound: format!("{bound} USD a call"),
            retry_after_seconds: None,
        })
    }

    /// What is wrong with what it belongs to.
    fn group(&self, group: &Group, body: Option<u64>, unix_ms: i64) -> Option<Trip> {
        if unix_ms.saturating_sub(group.last_ms) > IDLE_MS {
            return None;
        }
        let bounds = &self.guard.bounds;
        let together = self
            .guard
            .per
            .iter()
            .cloned()
            .collect::<Vec<_>>()
            .join(", ");
        let spent = usd(group.spent_pico);
        if let Some(bound) = bounds.usd.filter(|bound| spent >= *bound) {
            return Some(Trip {
                reason: "guard_cost",
                found: format!("{} USD", spent.round_dp(6).normalize()),
                bound: format!("{bound} USD per {together}"),
                retry_after_seconds: None,
            });
        }
        let pace = group.pace.per_minute(unix_ms);
        if let Some(bound) = bounds.requests_per_minute.filter(|bound| pace >= *bound) {
            return Some(Trip {
                reason: "guard_rate",
                found: format!("{pace} requests within a minute"),
                bound: format!("{bound} requests a minute per {together}"),
                retry_after_seconds: Some(group.pace.seconds_until_below(bound, unix_ms)),
            });
        }
        let bound = bounds.identical_requests?;
        let (since_ms, n) = group.identical(body?, unix_ms)?;
        (n >= bound).then(|| {
            let left_ms = since_ms + IDENTICAL_MS - unix_ms;
            Trip {
                reason: "guard_loop",
                found: format!("{n} identical requests"),
                bound: format!("{bound} identical requests per {together}"),
                retry_after_seconds: Some(left_ms.max(0).unsigned_abs().div_ceil(1_000).max(1)),
            }
        })
    }

    fn denied(&self, trip: &Trip) -> Denied {
        Denied {
            budget: self.guard.name.clone(),
            reason: trip.reason.to_owned(),
            retry_after_seconds: trip.retry_after_seconds,
            limit: trip.bound.clone(),
            ..Denied::default()
        }
    }
}

/// What a call mostly sends, as far as its size tells.
fn input_tokens(request: &ReservationRequest) -> u64 {
    let facts = facts(request);
    let bound = estimate::bound(&facts, OUTPUT_TOKENS_DEFAULT);
    let text_bytes = request.body_bytes.saturating_sub(request.media_bytes);
    text_bytes.div_ceil(BYTES_PER_TOKEN) + bound.media_tokens
}

/// A call as far as it is known before it is sent.
pub fn facts(request: &ReservationRequest) -> Facts {
    Facts {
        body_bytes: request.body_bytes,
        media_bytes: request.media_bytes,
        max_output_tokens: request.max_output_tokens,
        choices: request.n_choices,
    }
}

fn usd(pico: i128) -> Decimal {
    Decimal::try_from_i128_with_scale(pico, crate::money::PicoUsd::PLACES).unwrap_or(Decimal::MAX)
}

// === impl Group ===

impl Group {
    /// When that body came first, and how often since.
    fn identical(&self, body: u64, unix_ms: i64) -> Option<(i64, u32)> {
        let known = self.bodies.iter().find(|(known, ..)| *known == body);
        let known = known.filter(|(_, since_ms, _)| unix_ms - since_ms < IDENTICAL_MS);
        known.map(|(_, since_ms, n)| (*since_ms, *n))
    }

    fn note_body(&mut self, body: Option<u64>, unix_ms: i64) {
        let Some(body) = body else { return };
        let before = self.identical(body, unix_ms);
        self.bodies.retain(|(known, ..)| *known != body);
        if self.bodies.len() >= BODIES_MAX {
            self.bodies.pop_front();
        }
        let (since_ms, n) = before.unwrap_or((unix_ms, 0));
        self.bodies.push_back((body, since_ms, n.saturating_add(1)));
    }
}

// === impl Seen ===

impl Seen {
    /// Keeps why a call was stopped until its event comes.
    fn stop(&mut self, event_id: &str, trip: &Trip) {
        if self.stopped.len() >= STOPPED_MAX {
            self.stopped.pop_front();
        }
        let (found, bound) = (trip.found.clone(), trip.bound.clone());
        self.stopped.push_back((event_id.to_owned(), found, bound));
    }

    /// Forgets the quarter that was seen longest ago.
    fn make_room(&mut self) {
        let mut times: Vec<i64> = self.groups.values().map(|group| group.last_ms).collect();
        let quarter = times.len() / 4;
        let (_, oldest_kept, _) = times.select_nth_unstable(quarter);
        let oldest_kept = *oldest_kept;
        let mut to_forget = quarter.max(1);
        self.groups.retain(|_, group| {
            let goes = group.last_ms <= oldest_kept && to_forget > 0;
            to_forget -= usize::from(goes);
            !goes
        });
    }
}

impl Recent {
    /// Whether the name is a new one; it is remembered.
    fn note(&mut self, name: &str) -> bool {
        if self.names.contains(name) {
            return false;
        }
        if self.order.len() >= EVENTS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.names.remove(&oldest);
        }
        self.order.push_back(name.into());
        self.names.insert(name.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::budgets::parse_all;

    const NOON: i64 = 1_800_000_000_000;

    fn guards(text: &str) -> Guards {
        let guards = Guards::new(Arc::new(Metrics::new().unwrap()));
        guards.adopt(parse_all("budgets.toml", text).unwrap().guards);
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
