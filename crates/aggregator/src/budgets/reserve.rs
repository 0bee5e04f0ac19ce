//! Whether a call may go ahead: all budgets that concern it, all or none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tollmesh_budget::OnUnavailable;
use tollmesh_budget::estimate::{self, OUTPUT_TOKENS_DEFAULT};
use tollmesh_budget::lease::{Refusal, ReservationId};
use tollmesh_wire::{Decision, Denied, ReservationRequest, Subject, Timestamp};

use super::policies::{Budget, Span};
use super::state::{Hold, Refused, State};
use super::{Budgets, Shared, guards, worst};
use crate::clock;
use crate::ledger::budgets::SpendKey;

/// How long a call waits for the store's answer. Filters wait for ours, and apps for theirs.
const STORE_TIME_MAX: Duration = Duration::from_millis(100);
/// When a refused call may well be let go ahead, though its window is not over: others settle.
const RETRY_SECONDS: u64 = 1;
/// Calls in flight that may be reserved at a time: some 300 bytes each.
const RESERVATIONS_MAX: usize = 200_000;

/// What one budget is asked for a call.
struct Wanted {
    budget: Arc<Budget>,
    at: SpendKey,
    cell: Span,
    units: u64,
}

/// Why a call cannot go ahead at once.
struct Stopped {
    budget: Arc<Budget>,
    at: SpendKey,
    cell: Span,
    units: u64,
    why: Refusal,
}

/// When a call asks.
#[derive(Clone, Copy)]
struct Asked {
    /// When it came, on the clock of leases.
    since_ms: u64,
    now_ms: u64,
    last: Last,
}

/// The reports that are to ask for a call's part, or have: the account's number of reports by then.
type Awaited = BTreeMap<SpendKey, u64>;

/// What is done about an account that could not be asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// The store may answer in time.
    Wait,
    /// It did not.
    Unavailable,
}

impl Budgets {
    /// Decides on a call, and holds what it may cost. Asking twice for one event holds once.
    pub async fn reserve(&self, request: &ReservationRequest) -> Decision {
        let deadline = tokio::time::Instant::now() + STORE_TIME_MAX;
        let since_ms = clock::since_boot_ms();
        let shared = &self.0;
        if let Some(denied) = shared.guarded(request) {
            return Decision::Deny(denied);
        }
        let mut awaited = Awaited::new();
        loop {
            let replied = shared.replied.notified();
            tokio::pin!(replied);
            // Before the look: an answer that comes in between is not missed.
            replied.as_mut().enable();
            // A store that did not answer is asked again in the background; no call waits for it.
            let last = match shared.is_store_away() || tokio::time::Instant::now() >= deadline {
                true => Last::Unavailable,
                false => Last::Wait,
            };
            let asked = Asked {
                since_ms,
                now_ms: clock::since_boot_ms(),
                last,
            };
            if let Some(decision) = shared.decide(request, asked, &mut awaited) {
                return decision;
            }
            shared.wake.notify_one();
            // Answered or not: the next look decides.
            let _ = tokio::time::timeout_at(deadline, replied).await;
        }
    }

    /// Whether any call has to ask.
    pub fn reserves(&self) -> bool {
        self.0.policies.load().reserve() || !self.0.guards.is_empty()
    }
}

/// Of a call that no budget holds anything for.
const ALLOWED: Decision = Decision::Allow {
    reservation_id: None,
};

impl Shared {
    /// Why a guard stops the call, where one does.
    fn guarded(&self, request: &ReservationRequest) -> Option<Denied> {
        let unix_ms = clock::now().as_unix_ms();
        let worst = || {
            let bound = estimate::bound(&guards::facts(request), OUTPUT_TOKENS_DEFAULT);
            let rates = self.worst.rates(&self.prices, request, unix_ms);
            rates.worst(&bound, request.body_bytes)
        };
        self.guards.judge(request, worst, unix_ms)
    }

    /// The decision; `None` where the store has to be asked first.
    fn decide(
        &self,
        request: &ReservationRequest,
        asked: Asked,
        awaited: &mut Awaited,
    ) -> Option<Decision> {
        let unix_ms = clock::now().as_unix_ms();
        let now_ms = asked.now_ms;
        if let Some(denied) = self.refused_by_cached(request, unix_ms) {
            return Some(Decision::Deny(denied));
        }
        let wanted = self.wanted(request, unix_ms, now_ms);
        if wanted.is_empty() {
            return Some(ALLOWED);
        }
        let mut state = self.state();
        if let Some(id) = state.reserved(&request.event_id) {
            return Some(allowed(id));
        }
        if state.has_ended(&request.event_id) {
            return Some(ALLOWED);
        }
        if state.n_reserved() >= RESERVATIONS_MAX {
            return wanted.first().map(|w| {
                Decision::Deny(Denied {
                    retry_after_seconds: Some(RETRY_SECONDS),
                    reset_at: Some(Timestamp::from_unix_ms(w.cell.end)),
                    ..denial(&w.budget, "budget_unverifiable")
                })
            });
        }
        let id = state.next_id(unix_ms);
        let mut holds = Vec::with_capacity(wanted.len());
        for wanted in &wanted {
            match take(&mut state, id, wanted, asked) {
                Ok(hold) => holds.push(hold),
                Err(why) => {
                    state.let_go(id, &holds, false);
                    let stopped = Stopped {
                        budget: Arc::clone(&wanted.budget),
                        at: wanted.at.clone(),
                        cell: wanted.cell,
                        units: wanted.units,
                        why,
                    };
                    return stopped.decision(&mut state, request, asked, awaited);
                }
            }
        }
        state.keep(id, &request.event_id, holds, now_ms);
        Some(allowed(id))
    }

    /// What each strict budget that concerns the call has to hold for it.
    fn wanted(&self, request: &ReservationRequest, unix_ms: i64, now_ms: u64) -> Vec<Wanted> {
        let policies = self.policies.load();
        let subject = Subject::from(request);
        let strict = policies
            .concerning(&subject)
            .filter(|budget| budget.is_strict() && !budget.spares(&subject));
        let facts = guards::facts(request);
        let mut wanted = Vec::new();
        for budget in strict {
            let Some(cell) = budget.cell_at(unix_ms) else {
                continue;
            };
            let limit = &budget.policy.limit;
            let bound = estimate::bound(&facts, budget.policy.estimate_output_tokens);
            let amount = worst::amount(limit, &bound, || {
                let rates = self.worst.rates(&self.prices, request, unix_ms);
                rates.worst(&bound, request.body_bytes)
            });
            let mut state = self.state();
            let key = budget.key_of(&subject);
            let at = state.open(budget, key, cell, now_ms).at.clone();
            if budget.cell_ms().is_some() {
                state.open_before(&at, now_ms);
            }
            wanted.push(Wanted {
                budget: Arc::clone(budget),
                at,
                cell,
                units: limit.units_of(amount),
            });
        }
        wanted
    }
}

/// Holds what the call may cost in one account, by its lease, or else by what the budget says of
/// calls that cannot be verified.
fn take(
    state: &mut State,
    id: ReservationId,
    wanted: &Wanted,
    asked: Asked,
) -> Result<Hold, Refusal> {
    let hold = |is_leased| Hold {
        at: wanted.at.clone(),
        units: wanted.units,
        is_leased,
    };
    let why = match state.hold(&wanted.at, id, wanted.units, asked.now_ms) {
        Ok(()) => return Ok(hold(true)),
        Err(why) => why,
    };
    let is_unverifiable = matches!(why, Refusal::Expired | Refusal::NeedsGrant);
    if !is_unverifiable || asked.waits(state, &wanted.at) || asked.is_answered(state, &wanted.at) {
        return Err(why);
    }
    let most = match wanted.budget.policy.on_unavailable {
        OnUnavailable::Closed => return Err(why),
        OnUnavailable::Open => u64::MAX,
        OnUnavailable::OpenCapped { allowance } => wanted.budget.units(allowance),
    };
    // A store that answers others, or answers late, is not away: the limit holds as far as it is known.
    if !state.is_away(&wanted.at) && state.is_over(&wanted.at, wanted.units) {
        return Err(Refusal::Exhausted);
    }
    // An allowance is for the window, whatever parts it has.
    let earlier = state.unleased_before(&wanted.at);
    let Some(account) = state.accounts.get_mut(&wanted.at) else {
        return Err(why);
    };
    let unleased = account.unleased.saturating_add(wanted.units);
    if earlier.saturating_add(unleased) > most {
        return Err(why);
    }
    account.unleased = unleased;
    account
        .holder
        .hold_uncovered(asked.now_ms, id, wanted.units);
    // The store may be back: this account is to hear of it, not only those that were asked.
    account.wait_for(0);
    Ok(hold(false))
}

impl Asked {
    /// Whether the store may yet answer for that account in time.
    fn waits(self, state: &State, at: &SpendKey) -> bool {
        let account = state.accounts.get(at);
        self.last == Last::Wait && !account.is_some_and(|account| account.is_failing(self.now_ms))
    }

    /// Whether the store is there, and has said what it can give to a report that knew of the call.
    fn is_answered(self, state: &State, at: &SpendKey) -> bool {
        let account = state.accounts.get(at).filter(|_| !state.is_store_silent);
        account.is_some_and(|account| account.is_answered_since(self.since_ms, self.now_ms))
    }
}

impl Stopped {
    /// The denial; `None` where the call waits for the store.
    fn decision(
        self,
        state: &mut State,
        request: &ReservationRequest,
        asked: Asked,
        awaited: &mut Awaited,
    ) -> Option<Decision> {
        let budget = &self.budget;
        let now_ms = asked.now_ms;
        let is_answered = asked.is_answered(state, &self.at);
        let may_wait = asked.waits(state, &self.at);
        let is_open = matches!(self.why, Refusal::NeedsGrant | Refusal::Expired);
        if is_open && let Some(account) = state.accounts.get_mut(&self.at) {
            // Woken by the answer to another, it is not to ask twice.
            let report = awaited.get(&self.at);
            if !report.is_some_and(|report| account.is_asking(*report)) {
                account.wait_for(self.units);
                awaited.insert(self.at.clone(), account.n_reports());
            }
            // Where the store has just given nothing, waiting would only make more calls wait.
            if may_wait && !account.is_starved(now_ms) {
                return None;
            }
        }
        let denied = |reason| Denied {
            reset_at: Some(self.resets_at(state)),
            is_short: self.is_short(state),
            ..denial(budget, reason)
        };
        let denied = match self.why {
            Refusal::Rebuilding { until_ms } => Denied {
                retry_after_seconds: Some(until_ms.saturating_sub(now_ms).div_ceil(1_000).max(1)),
                ..denied("budget_rebuilding")
            },
            Refusal::Exhausted => Denied {
                retry_after_seconds: self.may_fit_soon(state).then_some(RETRY_SECONDS),
                ..denied("budget_exceeded")
            },
            Refusal::NeedsGrant | Refusal::Expired if !is_answered => Denied {
                retry_after_seconds: Some(RETRY_SECONDS),
                ..denied("budget_unverifiable")
            },
            // The store answers, and what it can give now is too little for this call.
            Refusal::NeedsGrant | Refusal::Expired => Denied {
                retry_after_seconds: Some(RETRY_SECONDS),
                ..denied("budget_exceeded")
            },
        };
        if let Some(account) = state.accounts.get_mut(&self.at) {
            // Others may have given back what they kept: the next call finds out.
            account.touch();
        }
        if let Some(account) = state.accounts.get(&self.at) {
            let refused = Refused {
                asked: self.units,
                spent: state.spent(account),
                held: account.holder.held(),
                at: self.at,
            };
            state.refuse(&request.event_id, refused);
        }
        Some(Decision::Deny(denied))
    }
}

impl Stopped {
    /// Whether something is left, if too little for the call.
    fn is_short(&self, state: &State) -> bool {
        let account = state.accounts.get(&self.at);
        account.is_none_or(|account| state.spent(account) < self.budget.hard_units)
    }

    /// Whether there is room for the call once others have settled: only what they hold is in its
    /// way.
    fn may_fit_soon(&self, state: &State) -> bool {
        let account = state.accounts.get(&self.at);
        let spent = account.map_or(0, |account| state.spent(account));
        spent.saturating_add(self.units) <= self.budget.hard_units
    }

    /// When what is spent by now is in the call's way no more.
    fn resets_at(&self, state: &State) -> Timestamp {
        let account = state.accounts.get(&self.at);
        let end = Timestamp::from_unix_ms(self.cell.end);
        account.map_or(end, |account| state.fits_at(account, self.units))
    }
}

fn allowed(id: ReservationId) -> Decision {
    Decision::Allow {
        reservation_id: Some(id.to_string()),
    }
}

fn denial(budget: &Budget, reason: &str) -> Denied {
    Denied {
        budget: budget.policy.name.clone(),
        reason: reason.to_owned(),
        is_short: false,
        reset_at: None,
        retry_after_seconds: None,
        limit: budget.policy.limit.to_string(),
        window: budget.policy.window.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use tollmesh_budget::lease::{Cell, Marker, Reply};

    use super::super::policies::Policies;
    use super::*;
    use crate::config::budgets::parse;

    /// A call that asks then of a store that is away.
    fn unavailable(now_ms: u64) -> Asked {
        Asked {
            since_ms: now_ms,
            now_ms,
            last: Last::Unavailable,
        }
    }

    const NOON_MS: i64 = 1_800_000_000_000;

    /// A node, and the account that its only budget has, which the store has answered at 1 s.
    fn answered(on_unavailable: &str) -> (State, Wanted) {
        let text = format!(
            "[[budget]]\nname = \"b\"\nlimit = \"1000 requests\"\nwindow = \"day\"\n\
             enforce = \"strict\"\non_unavailable = \"{on_unavailable}\""
        );
        let policies = Policies::new(parse("budgets.toml", &text).unwrap());
        let budget = Arc::clone(&policies.all[0]);
        let mut state = State::default();
        state.policies = Arc::new(policies);
        let cell = budget.cell_at(NOON_MS).unwrap();
        let account = state.open(&budget, Vec::new(), cell, 1_000);
        account.charge(None, 1, 0);
        account.wait_for(10);
        let terms = account.terms(1_000);
        let report = account.report(1_000, 1, false);
        let store_ms = NOON_MS.unsigned_abs();
        let mut marker = Marker::OLD;
        let reply = Cell::default().sync(&mut marker, store_ms, "n", &report, &terms);
        let grant = account.take(&reply, 1_000).unwrap();
        account.persisted(grant.granted);
        account.answered();
        let at = account.at.clone();
        let wanted = Wanted {
            budget,
            at,
            cell,
            units: 1,
        };
        (state, wanted)
    }

    /// What a call is told that asks for so much.
    fn told(state: &mut State, wanted: &Wanted, units: u64, asked: Asked) -> String {
        let wanted = Wanted {
            budget: Arc::clone(&wanted.budget),
            at: wanted.at.clone(),
            cell: wanted.cell,
            units,
        };
        let id = state.next_id(NOON_MS);
        let why = match take(state, id, &wanted, asked) {
            Ok(hold) if hold.is_leased => return "leased".to_owned(),
            Ok(_) => return "unleased".to_owned(),
            Err(why) => why,
        };
        let stopped = Stopped {
            budget: wanted.budget,
            at: wanted.at,
            cell: wanted.cell,
            units,
            why,
        };
        let request = ReservationRequest::default();
        match stopped.decision(state, &request, asked, &mut Awaited::new()) {
            None => "waits".to_owned(),
            Some(Decision::Deny(denied)) => denied.reason,
            Some(other) => format!("{other:?}"),
        }
    }

    #[test]
    fn a_quiet_account_has_its_policy_when_the_store_is_away() {
        for (policy, expected) in [("open", "unleased"), ("closed", "budget_unverifiable")] {
            let (mut state, wanted) = answered(policy);
            let wait = |now_ms| Asked {
                last: Last::Wait,
                ..unavailable(now_ms)
            };
            assert_eq!(told(&mut state, &wanted, 1, wait(1_500)), "leased");
            assert_eq!(told(&mut state, &wanted, 90, wait(1_500)), "waits");
            // The store answers others, and has said nothing to a report that knew of this call.
            let late = Asked {
                since_ms: 1_500,
                ..unavailable(1_600)
            };
            assert_eq!(told(&mut state, &wanted, 90, late), expected);
            // What it says now is of a report from before.
            for (reported_ms, expected) in [(1_490, expected), (1_550, "budget_exceeded")] {
                let account = state.accounts.get_mut(&wanted.at).unwrap();
                account.report(reported_ms, reported_ms, false);
                account.answered();
                assert_eq!(told(&mut state, &wanted, 90, late), expected);
            }
            // Another account's report failed; this one's lease holds, then it has ended.
            state.is_store_silent = true;
            assert_eq!(told(&mut state, &wanted, 90, late), expected);
            let quiet = unavailable(150_000);
            assert_eq!(told(&mut state, &wanted, 1, quiet), expected);
            // It is asked in the next beat whether the store is back.
            assert!(state.accounts[&wanted.at].is_waited_for());
        }
    }

    #[test]
    fn a_store_that_gave_too_little_has_answered_those_that_come_then() {
        let (mut state, wanted) = answered("open");
        let account = state.accounts.get_mut(&wanted.at).unwrap();
        account.wait_for(90);
        let report = account.report(2_000, 2, false);
        let reply = Reply {
            seq: 2,
            granted: 20,
            allocated: 20,
            limit: 1_000,
            lease_ms: 10_000,
            ..Reply::default()
        };
        assert!(report.committed + report.need > reply.granted);
        account.take(&reply, 2_000);
        account.answered();
        let asked = |now_ms| Asked {
            since_ms: 2_100,
            ..unavailable(now_ms)
        };
        assert_eq!(
            told(&mut state, &wanted, 90, asked(2_200)),
            "budget_exceeded"
        );
        // The lease has ended since.
        assert_eq!(told(&mut state, &wanted, 90, asked(12_000)), "unleased");
        // An operator has raised the limit since; the answer to an earlier report comes late.
        let account = state.accounts.get_mut(&wanted.at).unwrap();
        account.change_limit(&wanted.budget, 2_150);
        for is_late in [false, true] {
            assert_eq!(
                told(&mut state, &wanted, 90, asked(2_200)),
                "unleased",
                "{is_late}"
            );
            state
                .accounts
                .get_mut(&wanted.at)
                .unwrap()
                .take(&reply, 2_140);
        }
    }

    #[test]
    fn a_budget_is_short_until_it_is_spent() {
        let (mut state, wanted) = answered("closed");
        let stopped = |why| Stopped {
            budget: Arc::clone(&wanted.budget),
            at: wanted.at.clone(),
            cell: wanted.cell,
            units: 200,
            why,
        };
        for (charged, is_short) in [(899, true), (99, true), (1, false)] {
            let account = state.accounts.get_mut(&wanted.at).unwrap();
            account.charge(None, charged, 0);
            let stopped = stopped(Refusal::Exhausted);
            let request = ReservationRequest::default();
            let asked = unavailable(1_500);
            let decision = stopped.decision(&mut state, &request, asked, &mut Awaited::new());
            let Some(Decision::Deny(denied)) = decision else {
                panic!("{decision:?}");
            };
            assert_eq!(denied.reason, "budget_exceeded");
            assert_eq!(denied.is_short, is_short, "{charged}");
        }
    }

    /// Each reply wakes all that wait, whomever it answers.
    #[test]
    fn a_call_that_looks_again_asks_for_no_more() {
        let (mut state, wanted) = answered("closed");
        let asked = |now_ms| Asked {
            since_ms: 1_500,
            last: Last::Wait,
            ..unavailable(now_ms)
        };
        let mut awaited = Awaited::new();
        let mut look = |state: &mut State, now_ms| {
            let stopped = Stopped {
                budget: Arc::clone(&wanted.budget),
                at: wanted.at.clone(),
                cell: wanted.cell,
                units: 90,
                why: Refusal::NeedsGrant,
            };
            let request = ReservationRequest::default();
            let decision = stopped.decision(state, &request, asked(now_ms), &mut awaited);
            assert!(decision.is_none(), "{decision:?}");
        };
        // The first report's answer was too little.
        for now_ms in [1_500, 1_560] {
            for _ in 0..3 {
                look(&mut state, now_ms);
            }
            let account = state.accounts.get_mut(&wanted.at).unwrap();
            assert_eq!(account.report(now_ms, now_ms, false).need, 90);
            account.set_out();
            // It is on its way.
            look(&mut state, now_ms + 10);
            let account = state.accounts.get_mut(&wanted.at).unwrap();
            assert!(!account.is_waited_for());
            account.land();
        }
    }

    #[test]
    fn no_call_waits_for_a_shard_that_has_just_not_answered() {
        let (mut state, wanted) = answered("open");
        let asked = Asked {
            last: Last::Wait,
            ..unavailable(2_000)
        };
        assert_eq!(told(&mut state, &wanted, 90, asked), "waits");
        let account = state.accounts.get_mut(&wanted.at).unwrap();
        account.unanswered();
        account.pause(2_000);
        assert_eq!(told(&mut state, &wanted, 90, asked), "unleased");
    }

    #[test]
    fn an_allowance_is_for_the_whole_window() {
        const QUARTER_MS: i64 = 900_000;
        let text = "[[budget]]\nname = \"b\"\nlimit = \"900 requests\"\n\
                    window = \"rolling 24h\"\nenforce = \"strict\"\n\
                    on_unavailable = \"open_capped\"\noffline_allowance = \"10 requests\"";
        let policies = Policies::new(parse("budgets.toml", text).unwrap());
        let budget = Arc::clone(&policies.all[0]);
        let mut state = State::default();
        state.policies = Arc::new(policies);
        let mut passes = |n_parts: i64| {
            let unix_ms = NOON_MS + n_parts * QUARTER_MS;
            let cell = budget.cell_at(unix_ms).unwrap();
            let wanted = Wanted {
                budget: Arc::clone(&budget),
                at: state.open(&budget, Vec::new(), cell, 1).at.clone(),
                cell,
                units: 4,
            };
            let id = state.next_id(unix_ms);
            take(&mut state, id, &wanted, unavailable(1)).is_ok()
        };
        let passed = [0, 1, 2, 50, 95, 96, 97].map(&mut passes);
        assert_eq!(passed, [true, true, false, false, false, true, true]);
    }
}
