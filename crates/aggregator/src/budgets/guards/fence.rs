//! One guard, held against a call and against what the call belongs to.

use std::sync::Arc;

use rust_decimal::Decimal;
use tollmesh_budget::estimate::{self, OUTPUT_TOKENS_DEFAULT};
use tollmesh_budget::guard::IDENTICAL_MS;
use tollmesh_budget::{Enforce, Facts, Guard};
use tollmesh_wire::{Denied, Match, ModelNames, ReservationRequest, Subject};

use super::seen::{Group, GroupKey, IDLE_MS};

/// Bytes of text that a token mostly takes, at least. A guard is a fence and no meter: what a budget
/// reserves goes by the byte.
const BYTES_PER_TOKEN: u64 = 4;

/// One guard, with what is reckoned once.
pub(super) struct Fence {
    pub(super) guard: Guard,
    pub(super) matches: Match,
    pub(super) except: Match,
    /// Names of the models that any guard asks for.
    pub(super) models: Arc<ModelNames>,
}

/// What a guard found.
pub(super) struct Trip {
    pub(super) reason: &'static str,
    pub(super) found: String,
    pub(super) bound: String,
    pub(super) retry_after_seconds: Option<u64>,
}

// === impl Fence ===

impl Fence {
    pub(super) fn concerns(&self, subject: &Subject<'_>) -> bool {
        let is_spared = !self.except.is_empty() && self.except.matches(subject);
        self.matches.matches(subject) && !is_spared
    }

    pub(super) fn acts(&self) -> bool {
        self.guard.refuses && self.guard.enforce != Enforce::Observe
    }

    /// What the call belongs to; `None` where nothing is bound beyond a call, or it lacks a value.
    pub(super) fn key(&self, subject: &Subject<'_>, trace_id: Option<&str>) -> Option<GroupKey> {
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
    pub(super) fn call(
        &self,
        request: &ReservationRequest,
        worst_pico: &impl Fn() -> i128,
    ) -> Option<Trip> {
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
    pub(super) fn group(&self, group: &Group, body: Option<u64>, unix_ms: i64) -> Option<Trip> {
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

    pub(super) fn denied(&self, trip: &Trip) -> Denied {
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
